//! A hostile server of a cluster: a message that is understood can be sent on as it is; a stream ends in an error or at
//! its end, whichever side it is for; a state file that is read is written the same.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::sync::Arc;
use runzeo::internal::net::stream::Stream;
use runzeo::internal::replication::cluster::link::{Outgoing, Receiving};
use runzeo::internal::replication::cluster::message::{
    Ack, Follow, Hello, Message, News, Probe, Standing, put,
};
use runzeo::internal::replication::cluster::options::Role;
use runzeo::internal::replication::cluster::receive::{Received, TransactionStream};
use runzeo::internal::replication::cluster::state::{ClusterState, Timelines};
use runzeo::storage::TransactionMeta;

/// Shorter messages cannot have more timelines than are kept.
const ALL_KEPT: usize = 30_000;

pub fn run(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        check(&message, data);
    }
    if let Some(state) = std::str::from_utf8(data).ok().and_then(|text| ClusterState::parse(text).ok()) {
        assert_eq!(ClusterState::parse(&state.text()), Ok(state));
    }
    let mut replica = TransactionStream { receiving: Receiving::new(stream_of(data), true), blobs: None };
    while let Ok(Some(received)) = replica.next_received() {
        if let Received::Transaction(staged) = received {
            assert!(staged.tid() > Tid::ZERO);
        }
    }
    let mut primary = Receiving::new(stream_of(data), false);
    while let Ok(Some(_)) = primary.next_short() {}
}

/// What a peer has sent that has closed its side. What does not fit into the buffer is cut off.
fn stream_of(data: &[u8]) -> Arc<Stream> {
    let (client, mut server) = UnixStream::pair().expect("two sockets");
    server.set_nonblocking(true).expect("a socket");
    _ = server.write(data);
    server.shutdown(Shutdown::Write).expect("a socket");
    Arc::new(stream(client))
}

fn stream(socket: UnixStream) -> Stream {
    Stream::new(OwnedFd::from(socket).into(), false, None, None).expect("a socket")
}

fn check(message: &Message<'_>, frame: &[u8]) {
    let mut out = Vec::new();
    put(message, &mut out);
    assert_eq!(Message::parse(&out).as_ref(), Ok(message));
    assert!(out == frame || frame.len() > ALL_KEPT, "other bytes for {message:?}");
}

fn standing() -> Standing {
    let state = ClusterState::parse(STATE).expect("a state");
    Standing { name: "north".into(), cluster: state.cluster, timelines: state.timelines, role: Role::Primary }
}

const STATE: &str = "runzeo replication 1\ncluster 0123456789abcdef0123456789abcdef\nrole replica\nfollow [::1]:8110\n\
                     timeline 0123456789abcdef0123456789abcdef 0 1700000000 north of the river\n\
                     timeline 0123456789abcdef0123456789abcde0 1 1700000001 south\nunmarked\nend\n";

/// What a primary sends, or a replica.
fn sent(messages: &[Message<'_>], compress: bool) -> Vec<u8> {
    let (client, mut server) = UnixStream::pair().expect("two sockets");
    let mut out = Outgoing::new(Arc::new(stream(client)), compress);
    for message in messages {
        match message {
            Message::End { .. } => out.put_end(),
            message => out.put(message),
        }
        .expect("short");
    }
    out.flush().expect("short");
    drop(out);
    let mut bytes = Vec::new();
    server.read_to_end(&mut bytes).expect("a socket");
    bytes
}

pub fn seeds() -> Vec<Vec<u8>> {
    let probe = Probe { tid: Tid(9), status: b'p', digest: [3; 16] };
    let follow = Follow {
        storage: "1".into(),
        last: Some(probe.clone()),
        has_blobs: true,
        follows_replicas: true,
        compress: true,
    };
    let hello = |follow| {
        let (timelines, role) = (Timelines::default(), Role::Replica);
        Message::Hello(Hello { name: "south".into(), cluster: None, timelines, role, follow })
    };
    let (common, low, high) = (Tid(1), Tid(1), Tid(9));
    let record = |data, data_txn| Message::Record { oid: Oid(7), tid: Tid(2), data_txn, data };
    let news = News { written: Tid(2), published: Tid(2), bytes: 3, transactions: 1, time: 5 };
    let meta =
        || TransactionMeta { user: b"user".to_vec(), description: b"why".to_vec(), extension: Vec::new() };
    let transaction = |tid| Message::Transaction {
        tid: Tid(tid),
        after: Tid(tid.saturating_sub(1)),
        status: b' ',
        meta: meta(),
    };
    let led = [
        Message::News(news),
        transaction(2),
        record(Some(&[1; 600]), None),
        record(None, Some(Tid(1))),
        Message::End { checksum: 0 },
        transaction(3),
        record(Some(b"state"), Some(Tid(2))),
        Message::Blob { oid: Oid(7), len: 5 },
        Message::BlobBytes(b"bytes"),
        Message::End { checksum: 0 },
        Message::News(news),
    ];
    let mut seeds = vec![
        STATE.into(),
        sent(&led, false),
        sent(&led, true),
        sent(&[hello(None)], false),
        sent(
            &[
                hello(Some(follow)),
                Message::Probes(vec![probe; 3]),
                Message::Ack(Ack { received: Tid(3), synced: Tid(2), published: Tid(1) }),
            ],
            false,
        ),
        sent(
            &[
                Message::Comparison { low, high },
                Message::Start { common, awaited: None, standing: standing() },
            ],
            false,
        ),
    ];
    let frames = led.into_iter().chain([Message::Standing(standing()), Message::Refusal("why".into())]);
    seeds.extend(frames.map(|message| {
        let mut frame = Vec::new();
        put(&message, &mut frame);
        frame
    }));
    seeds
}
