//! Messages of every generation: decoding never panics, and each decoded message can be answered with the same id.

use runzeo::auth::PyException;
use runzeo::ids::Tid;
use runzeo::internal::wire::protocol::{Generation, Greeting, GreetingAnswer, negotiate};
use runzeo::internal::wire::reply::LoadShape;
use runzeo::internal::wire::request::Request;

pub fn run(data: &[u8]) {
    let Some((&choice, payload)) = data.split_first() else { return };
    let wire = super::wire_of(choice);
    if let Ok(GreetingAnswer::Speaks { generation, .. }) = negotiate(Greeting::new(false), payload) {
        assert_eq!(Generation::parse(generation.name().as_bytes()), Some(generation));
    }
    let Ok(call) = wire.decode(payload) else { return };
    let mut out = Vec::new();
    wire.none_reply(call.id, &mut out);
    wire.tid_reply(call.id, Tid::ZERO, &mut out);
    let headroom = wire.load_headroom(call.id);
    let start = out.len();
    out.resize(start + headroom + 5, 1);
    wire.load_reply(LoadShape::Before, call.id, Tid::ZERO, None, &mut out, start, start + headroom);
    wire.error_reply(call.id, &PyException::builtin("ValueError", "no"), &mut out);
    match &call.request {
        Request::Malformed { exception, .. } => wire.error_reply(call.id, exception, &mut out),
        Request::Other { args, .. } => {
            args.iter().for_each(|arg| wire.reply(call.id, arg, &mut out));
        }
        Request::UndoInfo { specification, .. } => wire.reply(call.id, specification, &mut out),
        _ => {}
    }
    let len = payload.len();
    assert!(out.len() < 100 * len + 10_000, "{} bytes for a message of {len}", out.len());
}

pub fn seeds() -> Vec<Vec<u8>> {
    super::recorded_payloads().iter().map(|payload| super::with_choice(payload)).collect()
}
