//! Inputs to begin with: scripts of calls for each kind of client, and messages of real clients.

use super::{END, RAW, READ_ONLY, WITH_PASSWORD};

/// A call that has a reply.
fn call(method: &str, args: &[u8]) -> Vec<u8> {
    message(b"(K\x07I00\nU", method, args)
}

/// A call without a reply.
fn tell(method: &str, args: &[u8]) -> Vec<u8> {
    message(b"(K\x00I01\nU", method, args)
}

fn message(head: &[u8], method: &str, args: &[u8]) -> Vec<u8> {
    let len = u8::try_from(method.len()).unwrap_or(0);
    [head, &[len][..], method.as_bytes(), b"(", args, b"tt."].concat()
}

/// The calls of one connection each, as pickles.
fn scripts() -> Vec<Vec<Vec<u8>>> {
    let (oid, none) = (b"U\x08\0\0\0\0\0\0\0\x01", b"U\x08\0\0\0\0\0\0\0\0");
    let record = b"U\x1ccBTrees.Length\nLength\n.K\x01....";
    let store = tell("storea", &[&oid[..], none, record, b"K\x05"].concat());
    let (vote, finish) = (call("vote", b"K\x05"), call("tpc_finish", b"K\x05"));
    let latest = b"U\x08\x7f\xff\xff\xff\xff\xff\xff\xff";
    vec![
        vec![store.clone(), vote.clone(), finish.clone(), call("loadBefore", &[&oid[..], latest].concat())],
        vec![store.clone(), vote.clone(), call("tpc_abort", b"K\x05")],
        vec![
            tell("storeBlobStart", b""),
            tell("storeBlobChunk", b"U\x03abc"),
            tell(
                "storeBlobEnd",
                &[&oid[..], none, b"U\x17cZODB.blob\nBlob\nq\x01.N.", b"K\x05"].concat(),
            ),
            vote.clone(),
            finish.clone(),
            call("sendBlob", &[&oid[..], latest].concat()),
        ],
        vec![tell(
            "storeBlobShared",
            &[&oid[..], none, b"U\x17cZODB.blob\nBlob\nq\x01.N.U\x05x.tmpK\x05"].concat(),
        )],
        vec![tell("undoa", b"U\x0cAAAAAAAAAAE=K\x05"), vote.clone()],
        vec![call("undoLog", b"K\x00K\x14"), call("undoInfo", b"K\x00K\x14}U\tuser_nameU\x01us")],
        vec![call(
            "undoInfo",
            b"K\x00J\xec\xff\xff\xff}U\x0bdescription(iZopeUndo.Prefix\nPrefix\n}(U\x04path]U\x01aaU\x06lengthK\x01ubs",
        )],
        vec![
            call("iterator_start", b"NN"),
            call("iterator_next", b"K\x00"),
            call("iterator_record_start", &[b"K\x00", &latest[..]].concat()),
            call("iterator_record_next", b"K\x01"),
            call("iterator_gc", b"(K\x00K\x01l"),
        ],
        vec![call("getInvalidations", none), call("lastTransaction", b""), call("get_info", b"")],
        vec![call("pack", b"G\x41\xd0\0\0\0\0\0\0I01\n"), call("history", &[&oid[..], b"K\x05"].concat())],
        vec![
            tell("restorea", &[&oid[..], none, record, b"NK\x05"].concat()),
            tell("checkCurrentSerialInTransaction", &[&oid[..], none, b"K\x05"].concat()),
            tell("deleteObject", &[&oid[..], none, b"K\x05"].concat()),
            vote,
            finish,
        ],
        vec![call("new_oids", b"K\x05"), call("record_iternext", b"N"), call("server_status", b"")],
        vec![call("zeoVerify", &[&oid[..], none, b"N"].concat()), call("endZeoVerify", b"")],
        vec![call("set_client_label", b"U\x03foo"), call("ping", b""), call("unknown", b"")],
        vec![call("register", b"U\x011I00\n"), call("getAuthProtocol", b"")],
        vec![call("auth_get_challenge", b""), call("auth_response", b"(U\x03fooU\x01cU\x01rt")],
    ]
}

/// Calls of a client that speaks MessagePack.
const MSGPACK: [&[u8]; 3] = [
    b"\x94\x02\xc2\xafserver_status\x90",
    b"\x94\x92\xc4\x08\0\0\0\0\0\0\0\x01\xc4\x08\x7f\xff\xff\xff\xff\xff\xff\xff\xc2\xaaloadBefore\x92\xc4\x08\0\0\0\0\0\0\0\x01\xc4\x08\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x94\x00\xc3\xa6storea\x94\xc4\x08\0\0\0\0\0\0\0\x01\xc4\x08\0\0\0\0\0\0\0\0\xc4\x06N.N...\x05",
];

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (number, script) in scripts().iter().enumerate() {
        let script = script.join(END);
        for (who, stage) in [(0, 4), (2, 4), (2 | WITH_PASSWORD, 4), (5, 3), (0, 1), (READ_ONLY, 4)] {
            // Not all combinations: the mutations make the others.
            if number < 6 || (number + usize::from(who)).is_multiple_of(3) {
                seeds.push([&[who, stage][..], &script].concat());
            }
        }
    }
    seeds.push([&[RAW, 0][..], b"\0\0\0\x02Z5\0\0\0\x04ruok"].concat());
    seeds.push([&[RAW, 0][..], b"\0\0\0\x04ruok"].concat());
    seeds
        .extend(MSGPACK.map(|payload| [&[1, 4][..], payload, END, b"\x94\x03\xc2\xa4vote\x91\x05"].concat()));
    // Messages of real clients.
    let mut recorded = crate::targets::recorded_payloads();
    recorded.retain(|payload| payload.len() < 400);
    seeds.extend(recorded.chunks(4).map(|payloads| [&[2, 4][..], &payloads.join(END)].concat()));
    seeds
}
