//! A cache whose calls come on standard input, for tests of ZEO that take it for their own (`compat-tests/cache`).
//!
//! Each line is a call, a list in JSON, and is answered by a line: the result, or `{"error": text}`. Ids are numbers,
//! data is hexadecimal.

use std::io::{self, BufRead, Write};
use std::path::Path;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::cache::{Cache, CacheOptions};
use serde_json::{Value, json};

fn main() -> io::Result<()> {
    let mut cache: Option<Cache> = None;
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let call: Vec<Value> = serde_json::from_str(&line?)?;
        let answer = match (call.first().and_then(Value::as_str), &cache) {
            (Some("open"), _) => {
                let options = CacheOptions::new(call[1].as_str().map(Path::new), number(&call, 2));
                match Cache::open(options) {
                    Ok(opened) => {
                        cache = Some(opened);
                        Value::Null
                    }
                    Err(error) => json!({ "error": error.to_string() }),
                }
            }
            (Some(method), Some(cache)) => answer(cache, method, &call),
            _ => json!({ "error": "no call" }),
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn number(call: &[Value], at: usize) -> u64 {
    call.get(at).and_then(Value::as_u64).unwrap_or(0)
}

fn tid(number: u64) -> Option<Tid> {
    (number != 0).then_some(Tid(number))
}

fn answer(cache: &Cache, method: &str, call: &[Value]) -> Value {
    let oid = Oid(number(call, 1));
    match method {
        "store" => {
            let hexed = call.get(4).and_then(Value::as_str).unwrap_or_default();
            let byte = |at: usize| u8::from_str_radix(&hexed[at..at + 2], 16).unwrap_or(0);
            let data: Vec<u8> = (0..hexed.len()).step_by(2).map(byte).collect();
            cache.store(oid, Tid(number(call, 2)), tid(number(call, 3)), &data);
        }
        "load_before" => {
            let mut out = Vec::new();
            let Some(found) = cache.load_before(oid, Tid(number(call, 2)), &mut out) else {
                return Value::Null;
            };
            let data: String = out[found.data].iter().map(|byte| format!("{byte:02x}")).collect();
            return json!([found.start.0, found.end.map_or(0, |end| end.0), data]);
        }
        "invalidate" => cache.invalidate(oid, tid(number(call, 2))),
        "set_last_tid" => {
            if let Err(error) = cache.set_last_tid(Tid(number(call, 1))) {
                return json!({ "error": error.to_string() });
            }
        }
        "last_tid" => return json!(cache.last_tid().map_or(0, |tid| tid.0)),
        "contents" => {
            let contents = cache.contents().into_iter();
            return contents
                .map(|(oid, start, end)| json!([oid.0, start.0, end.map_or(0, |end| end.0)]))
                .collect();
        }
        "count" => return json!(cache.count()),
        "clear" => cache.clear(),
        "close" => cache.close(),
        _ => return json!({ "error": format!("no call {method}") }),
    }
    Value::Null
}
