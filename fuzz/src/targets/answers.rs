//! Messages of servers of every generation: decoding never panics, and takes memory in proportion to the message.

use runzeo::ids::{Oid, Tid};
use runzeo::internal::wire::answers::{FromServer, ServerPush};
use runzeo::internal::wire::push::Push;
use runzeo::internal::wire::request::MsgId;

pub fn run(data: &[u8]) {
    let Some((&choice, payload)) = data.split_first() else { return };
    let wire = super::wire_of(choice);
    let mut out = Vec::new();
    match wire.from_server(payload) {
        Ok(FromServer::Reply { id, answer }) => {
            let id = MsgId::Int(id);
            if let Ok(Some(loaded)) = answer.loaded() {
                assert!(loaded.data.len() < payload.len());
            }
            if let Ok(bytes) = answer.bytes() {
                assert!(bytes.len() < payload.len());
            }
            _ = (answer.done(), answer.int(), answer.tid(), answer.vote(), answer.oids());
            _ = (answer.history(), answer.undo_log());
            _ = (answer.iterated_transaction(), answer.iterated_record(), answer.iterated_object());
            if let Ok(Some((tid, oids))) = answer.invalidations() {
                assert!(8 * oids.len() <= payload.len());
                wire.invalidations_reply(id, tid, &oids, &mut out);
            }
            if let Ok(value) = answer.value() {
                wire.reply(id, &value, &mut out);
            }
            if let Ok(Some(exception)) = answer.raised() {
                wire.error_reply(id, &exception, &mut out);
                _ = exception.to_string();
            }
        }
        Ok(FromServer::Push(ServerPush::Invalidate { tid, oids })) => {
            assert!(8 * oids.len() <= payload.len());
            wire.push(&Push::Invalidate { tid, oids: &oids }, &mut out);
            // What was sent again is read again.
            assert!(matches!(
                wire.from_server(&out[4..]),
                Ok(FromServer::Push(ServerPush::Invalidate { .. }))
            ));
        }
        _ => {}
    }
    let len = payload.len();
    assert!(out.len() < 100 * len + 10_000, "{} bytes for a message of {len}", out.len());
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> =
        super::recorded_payloads().iter().map(|payload| super::with_choice(payload)).collect();
    for choice in 0..32 {
        let wire = super::wire_of(choice);
        let oids: Vec<Oid> = (1..6).map(Oid).collect();
        let mut out = Vec::new();
        for push in [
            Push::Invalidate { tid: Tid(7), oids: &oids },
            Push::InvalidateVerify { oid: Oid(5) },
            Push::BlobStart { oid: Oid(5), serial: Tid(7) },
            Push::Serialnos(vec![(Oid(5), Tid(7).into())]),
        ] {
            out.clear();
            wire.push(&push, &mut out);
            seeds.push([&[choice][..], &out[4..]].concat());
        }
        out.clear();
        wire.invalidations_reply(MsgId::Int(7), Tid(7), &oids, &mut out);
        seeds.push([&[choice][..], &out[4..]].concat());
    }
    seeds
}
