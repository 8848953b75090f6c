//! A hostile primary of ZRS: a message that is understood can be sent on, and says the same; a stream ends in an error
//! or at its end, and takes memory in proportion to what was sent.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use md5::{Digest, Md5};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::replication::zrs::message::{Message, RecordHead, Transaction, put_commit};
use runzeo::internal::replication::zrs::transactions;
use runzeo::storage::TransactionMeta;

pub fn run(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        check(&message);
    }
    let (client, mut server) = UnixStream::pair().expect("two sockets");
    server.set_nonblocking(true).expect("a socket");
    // What does not fit into the buffer is cut off. Then the primary closes its side.
    _ = server.write(data);
    server.shutdown(Shutdown::Write).expect("a socket");
    let mut len = 0;
    transactions(client.into(), &mut |staged| {
        assert!(staged.tid.is_some());
        len += staged.ops().len();
    });
    assert!(len <= data.len());
}

fn check(message: &Message) {
    let mut out = Vec::new();
    let is_plain = match message {
        Message::Transaction(transaction) => transaction.put(&mut out).is_ok(),
        Message::Record(record) => {
            record.put(&mut out);
            true
        }
        Message::Commit { checksum } => {
            put_commit(checksum, &mut out);
            true
        }
    };
    let again = Message::parse(&out).expect("what is written is understood");
    match (message, again) {
        // Extensions are pickled anew, and instances left out.
        (Message::Transaction(sent), Message::Transaction(mut again)) => {
            assert!(is_plain || again.meta.extension.is_empty());
            again.meta.extension.clone_from(&sent.meta.extension);
            assert_eq!(*sent, again);
        }
        (sent, again) => assert_eq!(*sent, again),
    }
}

/// The frames of transactions with one record each.
fn stream(records: &[&[u8]], blocks: Option<u64>) -> Vec<u8> {
    let (mut out, mut sum) = (Vec::new(), Md5::new_with_prefix([0; 8]));
    let mut frame = |payload: &[u8], out: &mut Vec<u8>| {
        out.extend_from_slice(&u32::try_from(payload.len()).expect("short").to_be_bytes());
        out.extend_from_slice(payload);
        sum.update(payload);
        sum.clone().finalize()
    };
    for (number, data) in (1..).zip(records) {
        let meta = TransactionMeta {
            user: b"user".to_vec(),
            description: b"why".to_vec(),
            extension: b"}q\x01U\x01aK\x01s.".to_vec(),
        };
        let (mut head, mut record, mut commit) = (Vec::new(), Vec::new(), Vec::new());
        Transaction { tid: Tid(number), status: b' ', meta }.put(&mut head).expect("plain");
        frame(&head, &mut out);
        RecordHead { oid: Oid(7), tid: Tid(number), data_txn: Some(Tid(1)), blocks }.put(&mut record);
        frame(&record, &mut out);
        let checksum = frame(data, &mut out);
        put_commit(&checksum, &mut commit);
        frame(&commit, &mut out);
    }
    out
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        stream(&[b"one", b"", b"three"], None),
        stream(&[b"cZODB.blob\nBlob\n.N."], Some(0)),
        b"(U\x01T(U\x08\0\0\0\0\0\0\0\x07U\x01 U\x04userU\x00}U\x01aK\x01stt.".to_vec(),
        b"(U\x01B(U\x08\0\0\0\0\0\0\0\x01U\x08\0\0\0\0\0\0\0\x02U\0NL0L\ntt.".to_vec(),
        b"(X\x01\0\0\0C(c_codecs\nencode\n(X\x02\0\0\0\xc3\xbfX\x06\0\0\0latin1tRtt.".to_vec(),
    ];
    seeds.push(
        seeds
            .first()
            .map(|first| first.get(..first.len() / 2).unwrap_or_default().to_vec())
            .unwrap_or_default(),
    );
    seeds
}
