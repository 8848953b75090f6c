//! Messages of every generation: decoding never panics, and each decoded message can be answered with the same id.

use runzeo::auth::PyException;
use runzeo::ids::Tid;
use runzeo::internal::wire::protocol::{
    Dialect, Encoding, Generation, Greeting, GreetingAnswer, Wire, negotiate,
};
use runzeo::internal::wire::reply::LoadShape;
use runzeo::internal::wire::request::Request;

const GENERATIONS: [&str; 10] = ["Z5", "Z4", "Z3101", "Z310", "Z309", "Z308", "Z303", "Z201", "Z200", "M5"];

pub fn run(data: &[u8]) {
    let Some((&choice, payload)) = data.split_first() else { return };
    let name = GENERATIONS[usize::from(choice & 0x0f) % GENERATIONS.len()];
    let encoding = match (name, choice & 0x10) {
        ("M5", _) => Encoding::Msgpack,
        (_, 0) => Encoding::Pickle(Dialect::Python3),
        _ => Encoding::Pickle(Dialect::Python2),
    };
    let generation = Generation::parse(name.as_bytes()).unwrap_or(Generation::Z5);
    let wire = Wire { generation, encoding };
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
    let payloads = super::recorded_payloads();
    let with_choice = |payload: &Vec<u8>| {
        let choice = match payload.as_slice() {
            [0x80, ..] => 0,
            [b'(', ..] => 0x12,
            _ => 9,
        };
        [&[choice][..], payload].concat()
    };
    payloads.iter().map(with_choice).collect()
}
