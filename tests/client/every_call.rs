//! Every call to a server of every generation, ours and Python's: what it answers, sends and raises is understood.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::cancel::Cancel;
use runzeo::internal::client::dial::{DialOptions, dial};
use runzeo::internal::client::link::{EndCause, Link, LinkOptions, Receiver, start};
use runzeo::internal::exceptions::meaning::{ConflictFacts, Meaning};
use runzeo::internal::wire::answers::{Answer, AnswerError, Serialno, ServerPush};
use runzeo::internal::wire::availability::Method;
use runzeo::internal::wire::calls::{BLOB_CHUNK_LEN, Call};
use runzeo::internal::wire::protocol::UndoCall;
use runzeo::internal::wire::value::Value;

use crate::servers::with_each_that_has_blobs;

/// A record that no class merges.
const FIRST: &[u8] = b"(cpersistent.mapping\nPersistentMapping\nq\x01Nt.}q\x02U\x04dataq\x03}q\x04s.";
const SECOND: &[u8] =
    b"(cpersistent.mapping\nPersistentMapping\nq\x01Nt.}q\x02U\x04dataq\x03}q\x04U\x01nK\x01ss.";
const BLOB: &[u8] = b"(cZODB.blob\nBlob\nq\x01Nt.N.";
const TXN: i64 = 0x7f00_1234_5678;
const LATEST: Tid = Tid(0x7fff_ffff_ffff_ffff);

/// What the server sent without a call.
#[derive(Default)]
struct Pushes {
    seen: Mutex<Vec<String>>,
    conflicts: Mutex<Vec<Meaning>>,
    blob: Mutex<Vec<u8>>,
}

impl Receiver for Pushes {
    fn push(&self, _link: &Link, push: ServerPush<'_>) {
        let note = match &push {
            ServerPush::Info(info) => {
                assert!(info.get("size").is_some(), "{info:?}");
                return;
            }
            ServerPush::BlobChunk { chunk, .. } => {
                self.blob.lock().unwrap().extend_from_slice(chunk);
                "chunk".to_string()
            }
            ServerPush::Serialnos(list) => {
                for (_, serialno) in list {
                    if let Serialno::Raised(exception) = serialno {
                        self.conflicts.lock().unwrap().push(Meaning::of(exception));
                    }
                }
                format!("serialnos of {}", list.len())
            }
            other => format!("{other:?}"),
        };
        self.seen.lock().unwrap().push(note);
    }

    fn ended(&self, _link: &Link, cause: &EndCause) {
        self.seen.lock().unwrap().push(format!("ended: {cause}"));
    }
}

struct Client {
    name: String,
    link: Link,
    pushes: Arc<Pushes>,
}

impl Client {
    /// Calls; what the server raises is the error.
    fn ask<T: Send + 'static>(
        &self,
        call: Call<'_>,
        read: fn(&Answer<'_>) -> Result<T, AnswerError>,
    ) -> Result<T, Meaning> {
        let limit = Some(Duration::from_secs(60));
        let result = self.link.call(&call, limit, move |answer| read(&answer));
        match result.unwrap_or_else(|error| panic!("{}: {call:?}: {error}: {:?}", self.name, self.seen())) {
            Ok(result) => Ok(result),
            Err(AnswerError::Raised(exception)) => match Meaning::of(&exception) {
                Meaning::Other => panic!("{}: {call:?}: {exception}", self.name),
                meaning => Err(meaning),
            },
            Err(AnswerError::Broken(error)) => panic!("{}: {call:?}: {error}", self.name),
        }
    }

    fn get<T: Send + 'static>(&self, call: Call<'_>, read: fn(&Answer<'_>) -> Result<T, AnswerError>) -> T {
        self.ask(call, read).unwrap_or_else(|meaning| panic!("{}: {call:?}: {meaning:?}", self.name))
    }

    /// Makes a call whose result does not matter, with or without a reply.
    fn tell(&self, call: Call<'_>) {
        match call.method(self.link.wire()) {
            Some(method) if self.link.wire().is_one_way(method) => self.link.send(&call),
            _ => self.get(call, |answer| answer.done()),
        }
    }

    fn knows(&self, method: Method) -> bool {
        self.link.wire().knows(method)
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.pushes.seen.lock().unwrap())
    }

    fn begin_with(&self, tid: Option<Tid>) {
        self.tell(Call::TpcBegin {
            txn: TXN,
            user: b"user",
            description: "gr\u{fc}\u{df}e".as_bytes(),
            extension: &Value::dict([("key", Value::Int(70_000))]),
            tid,
            status: ' ',
        });
    }

    /// A transaction with these calls.
    fn commit(&self, calls: &[Call<'_>]) -> Tid {
        self.begin_with(None);
        calls.iter().for_each(|call| self.tell(*call));
        self.finish()
    }

    fn finish(&self) -> Tid {
        let voted = self.get(Call::Vote { txn: TXN }, |answer| answer.vote());
        assert_eq!(voted.conflicts, [], "{}", self.name);
        assert_eq!(*self.pushes.conflicts.lock().unwrap(), [], "{}", self.name);
        self.get(Call::TpcFinish { txn: TXN }, |answer| answer.tid())
    }

    fn load(&self, oid: Oid, before: Tid) -> Option<(Vec<u8>, Tid, Option<Tid>)> {
        self.get(Call::LoadBefore { oid, before }, |answer| {
            Ok(answer.loaded()?.map(|loaded| (loaded.data.to_vec(), loaded.serial, loaded.end)))
        })
    }
}

#[test]
fn every_call_to_every_server() {
    with_each_that_has_blobs(|name, server| {
        let dialled =
            dial(&server.address(), &DialOptions::default(), &Cancel::default()).expect("a connection");
        let pushes = Arc::new(Pushes::default());
        let link = start(dialled, Arc::clone(&pushes) as _, LinkOptions::default()).expect("threads");
        let client = Client { name: name.into(), link, pushes };
        let wire = client.link.wire();
        let last =
            client.get(Call::Register { storage: "1", read_only: false }, |answer| answer.optional_tid());
        assert_eq!(last.is_some(), wire.register_returns_tid(), "{name}");
        let info = client.get(Call::GetInfo, |answer| answer.value());
        assert!(info.get("supportsUndo").is_some() && info.get("name").is_some(), "{name}: {info:?}");
        client.get(Call::LastTransaction, |answer| answer.optional_tid());
        if client.knows(Method::SetClientLabel) {
            client.tell(Call::SetClientLabel { label: "test" });
        }
        let oids = client.get(Call::NewOids { count: 10 }, |answer| answer.oids());
        let a = Oid(0); // a pack wants a root
        let [b, c, d, ..] = oids[..] else { panic!("{name}: {oids:?}") };

        let (first, second) = revisions(&client, a, b);
        conflicts(&client, a, first, second);
        undo(&client, a, first, second);
        objects_and_transactions(&client, a, b);
        errors(&client, c);
        blob(&client, c);
        copies_and_deletions(&client, b, d);
        verification(&client, a, first);
        if client.knows(Method::ServerStatus) {
            let status = client.get(Call::ServerStatus, |answer| answer.value());
            assert!(status.get("commits").is_some(), "{name}: {status:?}");
        }
        if client.knows(Method::Ping) {
            client.tell(Call::Ping);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        client.tell(Call::Pack { time: now, wait: true });
        assert!(!client.link.has_ended(), "{name}: {:?}", client.seen());
    });
}

/// Two transactions that store `a`, the first one `b` too; loads of their revisions.
fn revisions(client: &Client, a: Oid, b: Oid) -> (Tid, Tid) {
    let name = &client.name;
    let store = |oid, serial, data| Call::Store { oid, serial, data, txn: TXN };
    let first = client.commit(&[store(a, Tid::ZERO, FIRST), store(b, Tid::ZERO, FIRST)]);
    let seen = client.seen();
    assert_eq!(
        seen.contains(&"serialnos of 2".into()),
        client.link.wire().sends_serialnos(),
        "{name}: {seen:?}"
    );
    let second = client.commit(&[store(a, first, SECOND)]);
    assert!(first < second);
    assert_eq!(client.load(a, LATEST), Some((SECOND.to_vec(), second, None)), "{name}");
    assert_eq!(client.load(a, second), Some((FIRST.to_vec(), first, Some(second))), "{name}");
    assert_eq!(client.load(a, first), None, "{name}");
    if client.knows(Method::LoadEx) {
        let load =
            |answer: &Answer<'_>| Ok(answer.loaded()?.map(|loaded| (loaded.data.to_vec(), loaded.serial)));
        assert_eq!(client.get(Call::LoadEx { oid: a }, load), Some((SECOND.to_vec(), second)), "{name}");
    }
    let bytes = |answer: &Answer<'_>| answer.bytes().map(<[u8]>::to_vec);
    assert_eq!(client.get(Call::LoadSerial { oid: a, serial: first }, bytes), FIRST, "{name}");
    assert_eq!(client.get(Call::GetTid { oid: a }, |answer| answer.tid()), second, "{name}");
    let history = client.get(Call::History { oid: a, count: 10 }, |answer| answer.history());
    let ids: Vec<_> = history.iter().map(|entry| entry.id.clone()).collect();
    assert_eq!(ids, [second.to_bytes(), first.to_bytes()], "{name}");
    let entry = &history[0];
    assert_eq!(
        (entry.user_name.as_slice(), entry.description.as_slice()),
        (&b"user"[..], "gr\u{fc}\u{df}e".as_bytes()),
        "{name}"
    );
    assert!(
        entry.rest.iter().any(|(key, value)| key.string() == Some(b"key") && *value == Value::Int(70_000))
    );
    // A server that leaves out new objects has no entry for the first transaction, and does not know what came since.
    let changed = client.get(Call::GetInvalidations { tid: first }, |answer| answer.invalidations());
    assert!(changed.is_none() || changed == Some((second, vec![a])), "{name}: {changed:?}");
    let none = client.get(Call::GetInvalidations { tid: second }, |answer| answer.invalidations());
    assert_eq!(none, Some((second, Vec::new())), "{name}");
    (first, second)
}

fn conflicts(client: &Client, a: Oid, first: Tid, second: Tid) {
    let name = &client.name;
    let facts = ConflictFacts { oid: Some(a), committed: Some(second), read: Some(first) };
    client.begin_with(None);
    client.tell(Call::Store { oid: a, serial: first, data: FIRST, txn: TXN });
    match client.ask(Call::Vote { txn: TXN }, |answer| answer.vote()) {
        Err(meaning) => assert_eq!(meaning, Meaning::Conflict(facts), "{name}"),
        Ok(_) => {
            let conflicts = std::mem::take(&mut *client.pushes.conflicts.lock().unwrap());
            assert_eq!(conflicts, [Meaning::Conflict(facts)], "{name}: {:?}", client.seen());
        }
    }
    client.tell(Call::TpcAbort { txn: TXN });
    if !client.knows(Method::CheckCurrentSerial) {
        return;
    }
    client.commit(&[Call::CheckCurrentSerial { oid: a, serial: second, txn: TXN }]);
    client.begin_with(None);
    client.tell(Call::CheckCurrentSerial { oid: a, serial: first, txn: TXN });
    match client.ask(Call::Vote { txn: TXN }, |answer| answer.vote()) {
        Err(meaning) => assert_eq!(meaning, Meaning::ReadConflict(facts), "{name}"),
        Ok(_) => {
            let conflicts = std::mem::take(&mut *client.pushes.conflicts.lock().unwrap());
            assert_eq!(conflicts, [Meaning::ReadConflict(facts)], "{name}: {:?}", client.seen());
        }
    }
    client.tell(Call::TpcAbort { txn: TXN });
}

fn undo(client: &Client, a: Oid, first: Tid, second: Tid) {
    let name = &client.name;
    let log = client.get(Call::UndoLog { first: 0, last: -20 }, |answer| answer.undo_log());
    let specification = Value::None;
    let info = Call::UndoInfo { first: 0, last: -20, specification: &specification };
    assert_eq!(client.get(info, |answer| answer.undo_log()).len(), log.len(), "{name}");
    // A check alone is a transaction too.
    let entry = log.iter().rfind(|entry| entry.time > 0.0 && entry.id == undo_id(second));
    let undone = &entry.unwrap_or_else(|| panic!("{name}: {log:?}")).id;
    client.begin_with(None);
    let call = Call::Undo { undone, txn: TXN };
    if client.link.wire().undo_call() == UndoCall::Answered {
        let (_, oids) = client.get(call, |answer| answer.invalidations()).expect("oids");
        assert_eq!(oids, [a], "{name}");
    } else {
        client.tell(call);
    }
    let third = client.finish();
    assert_eq!(client.load(a, LATEST), Some((FIRST.to_vec(), third, None)), "{name}");
    client.begin_with(None);
    // It cannot be undone again.
    if client.link.wire().undo_call() == UndoCall::Answered {
        let failed = client.ask(call, |answer| answer.invalidations()).unwrap_err();
        assert!(matches!(failed, Meaning::Undo(_)), "{name}: {failed:?}");
    } else {
        client.tell(call);
        let failed = match client.ask(Call::Vote { txn: TXN }, |answer| answer.vote()) {
            Err(meaning) => meaning,
            Ok(_) => client.pushes.conflicts.lock().unwrap().pop().expect("an error in serialnos"),
        };
        assert!(matches!(failed, Meaning::Undo(_)), "{name}: {failed:?}");
    }
    client.tell(Call::TpcAbort { txn: TXN });
    assert!(first < third);
}

/// A transaction's name in the undo log: base64 of its tid.
fn undo_id(tid: Tid) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u128::from(tid.0) << 8; // 72 bits, 12 digits
    let digit = |n: u32| DIGITS[(bits >> (66 - 6 * n)) as usize & 63];
    let mut id: Vec<u8> = (0..11).map(digit).collect();
    id.push(b'=');
    id
}

fn objects_and_transactions(client: &Client, a: Oid, b: Oid) {
    let name = &client.name;
    let mut next = None;
    let mut objects = Vec::new();
    loop {
        let object = client.get(Call::RecordIternext { next }, |answer| answer.iterated_object());
        assert!(!object.data.is_empty());
        objects.push(object.oid);
        next = object.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(objects, [a, b], "{name}");
    if !client.knows(Method::IteratorStart) {
        return;
    }
    let start = Call::IteratorStart { start: None, stop: None };
    let iterator = client.get(start, |answer| answer.int());
    let mut records = Vec::new();
    while let Some(transaction) =
        client.get(Call::IteratorNext { iterator }, |answer| answer.iterated_transaction())
    {
        assert_eq!((transaction.status, transaction.user.as_slice()), (b' ', &b"user"[..]), "{name}");
        assert_eq!(transaction.description, "gr\u{fc}\u{df}e".as_bytes(), "{name}");
        assert_eq!(transaction.extension.get("key"), Some(&Value::Int(70_000)), "{name}");
        let start = Call::IteratorRecordStart { iterator, tid: transaction.tid };
        let iterator = client.get(start, |answer| answer.int());
        while let Some(record) =
            client.get(Call::IteratorRecordNext { iterator }, |answer| answer.iterated_record())
        {
            assert_eq!(record.tid, transaction.tid, "{name}");
            records.push((record.oid, record.data.unwrap_or_default()));
        }
    }
    let expected = [(a, FIRST), (b, FIRST), (a, SECOND), (a, FIRST)];
    assert_eq!(records, expected.map(|(oid, data)| (oid, data.to_vec())), "{name}");
    let abandoned = client.get(start, |answer| answer.int());
    client.tell(Call::IteratorGc { iterators: &[abandoned] });
}

fn errors(client: &Client, unknown: Oid) {
    let name = &client.name;
    for call in [Call::GetTid { oid: unknown }, Call::LoadSerial { oid: unknown, serial: Tid(5) }] {
        let raised = client.ask(call, |answer| answer.done());
        assert_eq!(raised, Err(Meaning::NoSuchObject(unknown)), "{name}: {call:?}");
    }
    let raised = client.ask(Call::Vote { txn: TXN }, |answer| answer.done());
    assert_eq!(raised, Err(Meaning::WrongTransaction), "{name}");
}

fn blob(client: &Client, oid: Oid) {
    let name = &client.name;
    let content: Vec<u8> = (0..=255).cycle().take(2 * BLOB_CHUNK_LEN + 100).collect();
    let serial = Tid::ZERO;
    let mut calls = vec![Call::Store { oid, serial, data: BLOB, txn: TXN }, Call::StoreBlobStart];
    calls.extend(content.chunks(BLOB_CHUNK_LEN).map(|chunk| Call::StoreBlobChunk { chunk }));
    calls.push(Call::StoreBlobEnd { oid, serial, data: BLOB, txn: TXN });
    let serial = client.commit(&calls);
    client.seen();
    client.tell(Call::SendBlob { oid, serial });
    let read = std::mem::take(&mut *client.pushes.blob.lock().unwrap());
    assert!(read == content, "{name}: {} bytes of a blob of {}", read.len(), content.len());
    let seen = client.seen();
    let head = format!("BlobStart {{ oid: {oid:?}, serial: {serial:?} }}");
    assert_eq!((seen.first(), seen.last().map(|note| &note[..8])), (Some(&head), Some("BlobStop")), "{name}");
    let missing = client.ask(Call::SendBlob { oid, serial: Tid(5) }, |answer| answer.done());
    assert_eq!(missing, Err(Meaning::NoBlob { oid, serial: Tid(5) }), "{name}");
}

fn copies_and_deletions(client: &Client, b: Oid, d: Oid) {
    let name = &client.name;
    if !client.knows(Method::Restore) {
        return;
    }
    let last = client.get(Call::LastTransaction, |answer| answer.tid());
    let tid = Tid(last.0 + 0x1000);
    client.begin_with(Some(tid));
    client.tell(Call::Restore { oid: d, serial: tid, data: Some(SECOND), prev_txn: None, txn: TXN });
    assert_eq!(client.finish(), tid, "{name}");
    assert_eq!(client.load(d, LATEST), Some((SECOND.to_vec(), tid, None)), "{name}");
    let serial = client.get(Call::GetTid { oid: b }, |answer| answer.tid());
    let deleted = client.commit(&[Call::DeleteObject { oid: b, serial, txn: TXN }]);
    let gone = client.ask(Call::LoadSerial { oid: b, serial: deleted }, |answer| answer.done());
    assert_eq!(gone, Err(Meaning::NoSuchObject(b)), "{name}");
}

fn verification(client: &Client, a: Oid, stale: Tid) {
    if !client.knows(Method::Verify) {
        return;
    }
    let name = &client.name;
    client.seen();
    let current = client.get(Call::GetTid { oid: a }, |answer| answer.tid());
    client.tell(Call::Verify { oid: a, serial: current });
    client.tell(Call::Verify { oid: a, serial: stale });
    client.tell(Call::EndZeoVerify);
    client.get(Call::LastTransaction, |answer| answer.tid());
    let expected = [format!("InvalidateVerify {{ oid: {a:?} }}"), "EndVerify".into()];
    assert_eq!(client.seen(), expected, "{name}");
}
