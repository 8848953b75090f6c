//! Calls and messages, until `wire` has them.
#![allow(missing_docs)]

use crate::wire::call::Incoming;
use crate::wire::protocol::Wire;
use crate::wire::value::Value;

pub enum Call<'a> {
    Other { name: &'a str, args: &'a [Value] },
}

pub struct Answer<'a> {
    pub result: Result<Option<Value>, String>,
    pub payload: &'a [u8],
}

pub struct ServerPush<'a>(pub &'a [u8]);

pub enum FromServer<'a> {
    Reply { id: i64, answer: Answer<'a> },
    Push(ServerPush<'a>),
}

impl Wire {
    pub fn put_call(&self, id: i64, call: &Call<'_>, out: &mut Vec<u8>) {
        let Call::Other { name, args } = call;
        self.call(id, name, args, out);
    }

    pub fn from_server<'a>(&self, payload: &'a [u8]) -> Result<FromServer<'a>, String> {
        Ok(match self.incoming(payload)? {
            Incoming::Reply { id, result } => FromServer::Reply { id, answer: Answer { result, payload } },
            Incoming::Push => FromServer::Push(ServerPush(payload)),
        })
    }
}
