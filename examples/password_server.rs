//! A server with an authentication protocol of its own: who knows the password may connect.
//!
//! Takes the options of `runzeo`, and one protocol more:
//!
//! ```text
//! echo sesame > password
//! cargo run --example password_server -- -a 8100 -f Data.fs \
//!     --auth-protocol word --auth-database password
//! ```
//!
//! On the client's side a protocol is a Python module, as for Python's server (`ZEO.auth.register_module`, up to ZEO
//! 4). This one is for reading: the password travels in plain text, and messages are not signed. `digest` is better.

use std::process::ExitCode;
use std::sync::Arc;

use runzeo::auth::{Exchange, Kind, Protocol, PyException, Settings, Value, Verdict, arguments, string};
use runzeo::commands::Extensions;

/// The protocol, and one client's exchange with it.
#[derive(Clone)]
struct Word(String);

/// Called at the start. An error ends it, with the line of the configuration in front.
fn open(settings: &Settings) -> Result<Arc<dyn Protocol>, String> {
    let path = &settings.database;
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Arc::new(Word(text.trim().into())))
}

impl Protocol for Word {
    fn methods(&self) -> &[&str] {
        &["say_word"]
    }

    fn begin(&self) -> Box<dyn Exchange> {
        Box::new(self.clone())
    }
}

impl Exchange for Word {
    fn call(&mut self, method: &str, args: &[Value]) -> Result<Verdict, PyException> {
        let [word] = arguments(method, args)?;
        let user = "somebody".to_string();
        // A protocol that is in use compares in constant time.
        Ok(match string(method, word)? == self.0.as_bytes() {
            true => Verdict::Passed { user, reply: Value::Bool(true), session_key: None },
            false => Verdict::Failed { user, reply: Value::Bool(false) },
        })
    }
}

fn main() -> ExitCode {
    let mut extensions = Extensions::default();
    extensions.protocols.register(Kind {
        name: "word",
        open,
        hash: |_user, _realm, password| password.into(),
    });
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    runzeo::commands::runzeo::run_with(&extensions, "password_server", &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_lets_a_client_in() {
        let mut exchange = Word("sesame".into()).begin();
        let right = exchange.call("say_word", &[Value::text("sesame")]);
        assert!(matches!(right, Ok(Verdict::Passed { .. })));
        let wrong = exchange.call("say_word", &[Value::text("x")]);
        assert!(matches!(wrong, Ok(Verdict::Failed { .. })));
        assert!(exchange.call("say_word", &[]).is_err());
    }
}
