//! Calls that name a transaction which is not the open one.

use std::fmt::Arguments;

use crate::base::level::WARNING;
use crate::base::untrusted::UntrustedBytes;
use crate::exceptions;
use crate::server::client_log;
use crate::server::peer::Peer;
use crate::server::transaction::state::Transaction;
use crate::wire::exception::PyException;
use crate::wire::value::Value;

/// A call named a transaction that is not the open one.
#[must_use]
pub struct WrongTransaction {
    current: Option<Box<[u8]>>,
    id: Box<[u8]>,
}

/// Checks that `id` is the open transaction.
pub fn check_id(transaction: &Transaction, id: &[u8]) -> Result<(), WrongTransaction> {
    match transaction.id() {
        Some(current) if current == id => Ok(()),
        current => Err(WrongTransaction { current: current.map(Into::into), id: id.into() }),
    }
}

impl WrongTransaction {
    /// Logs it; the transaction must not be locked any more. Returns what vote and the stores raise.
    pub fn log(self, peer: &Peer, method: &str) -> PyException {
        let log = |message: Arguments<'_>| peer.log(&client_log::WRONG_STATE, WARNING, message);
        match &self.current {
            Some(current) => log(format_args!(
                "{method}({}) invalid; current transaction = {}",
                UntrustedBytes(&self.id),
                UntrustedBytes(current)
            )),
            None => log(format_args!("no current transaction: {method}()")),
        }
        let current = self.current.as_deref().map_or(Value::None, Value::bytes);
        exceptions::wrong_transaction(current, Value::bytes(&self.id))
    }
}
