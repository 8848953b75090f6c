//! All records through the protocol, one after the other, as for a copy.

use super::Setting;
use crate::client::{Client, Result};
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::wire::Value;
use std::time::Instant;

pub fn iterate(setting: &Setting<'_>, outcome: &mut Outcome) -> Result<()> {
    let mut client = Client::open(setting.target())?;
    let (started, meter) = (Instant::now(), Meter::start(setting.server.pid));
    let (mut bytes, mut records) = (0, 0u64);
    let iterator = call(&mut client, "iterator_start", &[Value::None, Value::None])?;
    'all: loop {
        let transaction = call(&mut client, "iterator_next", std::slice::from_ref(&iterator))?;
        let Some(tid) = transaction.items().first() else { break };
        let of_transaction = call(&mut client, "iterator_record_start", &[iterator.clone(), tid.clone()])?;
        loop {
            let record = call(&mut client, "iterator_record_next", std::slice::from_ref(&of_transaction))?;
            let Some(data) = record.items().get(2) else { break };
            bytes += data.as_bytes().map_or(0, <[u8]>::len);
            records += 1;
            if started.elapsed() > setting.measured {
                break 'all;
            }
        }
    }
    let usage = meter.read();
    outcome.set("mb_s", bytes as f64 / 1e6 / usage.elapsed);
    outcome.set("records_s", records as f64 / usage.elapsed);
    usage.report(outcome, records);
    Ok(())
}

fn call(client: &mut Client, method: &str, arguments: &[Value]) -> Result<Value> {
    let id = client.begin(method, arguments.len());
    for argument in arguments {
        match argument {
            Value::Int(number) => client.out.int(*number),
            Value::Bytes(bytes) => client.out.byte_string(bytes),
            _ => client.out.none(),
        }
    }
    client.out.end();
    client.flush()?;
    client.wait_ok(id, method)
}
