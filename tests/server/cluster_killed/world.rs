//! A cluster whose servers reach each other through proxies, and what its clients and its operator do. Servers that a
//! proxy kills are started again, beside.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::files::{Left, Txn};
use super::proxy::{Lines, Plan};
use crate::blob_messages::queue_blob;
use crate::support::client::{LATEST, RawClient, Speaks};
use crate::support::pickle::{Value, id, text};
use crate::support::process::{Server, free_address};
use crate::zeoadmin::zeoadmin;

const WAIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);
const STORAGE: &str = "<filestorage 1>\npath Data.fs\nblob-dir blobs\n</filestorage>";
/// The record of a blob in the tests.
const BLOB: &[u8] = b"cZODB.blob\nBlob\nq\x01.N.";

/// What a client stores in one transaction.
#[derive(Clone, Debug)]
pub enum Change {
    Records(Vec<(u64, Vec<u8>)>),
    /// An object that is not there yet.
    Blob(u64, Vec<u8>),
}

impl Change {
    /// An object that the transaction has, and the data of its record.
    fn record(&self) -> (u64, &[u8]) {
        match self {
            Change::Records(records) => (records[0].0, &records[0].1),
            Change::Blob(oid, _) => (*oid, BLOB),
        }
    }
}

/// See the module.
pub struct World {
    pub lines: Arc<Lines>,
    servers: Arc<Vec<Mutex<Option<Server>>>>,
    /// For clients.
    addresses: Vec<SocketAddr>,
    /// For other servers, without the proxies.
    listen: Vec<SocketAddr>,
    /// Keys of all `<replication>` sections.
    keys: String,
    /// What was answered: the server, the transaction and what is in it.
    pub answered: Vec<(usize, u64, Change)>,
    /// For people.
    what: String,
}

impl World {
    /// None of the servers runs yet. `revives`: a server that was killed is started again at once.
    pub fn new(count: usize, keys: &str, plan: Option<Plan>, revives: bool) -> World {
        let (killed, dead) = channel();
        let lines = Lines::new(plan, killed);
        let servers: Arc<Vec<_>> = Arc::new((0..count).map(|_| Mutex::new(None)).collect());
        let (beside, told) = (Arc::clone(&servers), Arc::clone(&lines));
        thread::spawn(move || revive(&beside, &told, &dead, revives));
        World {
            lines,
            servers,
            addresses: vec![SocketAddr::from(([0; 4], 0)); count],
            listen: (0..count).map(|_| free_address()).collect(),
            keys: keys.into(),
            answered: Vec::new(),
            what: format!("{plan:?}"),
        }
    }

    /// Starts a server for the first time. Server 0 is the primary.
    pub fn start(&mut self, no: usize) {
        let role = if no == 0 { "primary" } else { "replica" };
        let others = (0..self.listen.len()).filter(|other| *other != no);
        let peers: String =
            others.map(|to| format!("peer {}\n", self.lines.proxy(no, to, self.listen[to]))).collect();
        let section = format!(
            "{STORAGE}\n<replication>\nname n{no}\nrole {role}\nlisten {}\n{peers}{}\n</replication>",
            self.listen[no], self.keys
        );
        let server = Server::start_any("admin-socket admin", &section, |_| ());
        self.addresses[no] = server.address;
        let pid = server.pid();
        *self.servers[no].lock().unwrap() = Some(server);
        self.lines.runs(no, pid);
    }

    /// The number of servers.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// What is planned, for people.
    pub fn what(&self) -> &str {
        &self.what
    }

    fn server(&self, no: usize) -> MutexGuard<'_, Option<Server>> {
        self.servers[no].lock().unwrap()
    }

    /// Starts a server again that was killed, and is not revived.
    pub fn start_again(&self, no: usize) {
        let mut server = self.server(no);
        let server = server.as_mut().unwrap();
        server.start_again();
        self.lines.runs(no, server.pid());
    }

    pub fn kill(&self, no: usize) {
        self.server(no).as_mut().unwrap().kill();
    }

    pub fn directory(&self, no: usize) -> PathBuf {
        self.server(no).as_ref().unwrap().directory().into()
    }

    /// The lines of a server's log that are about more than its clients.
    pub fn talk(&self, no: usize) -> String {
        let log = self.server(no).as_ref().map_or(String::new(), Server::log);
        let is_about_more = |line: &&str| {
            [" ZEO.asyncio", ".admin ", "disconnected"].iter().all(|part| !line.contains(part))
                && line.len() > 10
        };
        log.lines().filter(is_about_more).collect::<Vec<_>>().join("\n")
    }

    pub fn count_in_log(&self, no: usize, line: &str) -> usize {
        self.server(no).as_ref().unwrap().count_in_log(line)
    }

    /// Tries until it succeeds.
    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + WAIT;
        while !done() {
            if Instant::now() > deadline {
                let talk: Vec<_> = (0..self.servers.len()).map(|no| self.talk(no)).collect();
                panic!("{}: not {what}:\n{}", self.what, talk.join("\n----------\n"));
            }
            thread::sleep(PAUSE);
        }
    }

    // -- the operator

    pub fn admin(&self, no: usize, arguments: &[&str]) -> Output {
        zeoadmin(self.server(no).as_ref().unwrap(), arguments)
    }

    /// 0: the primary; 10: a replica; 1: it does not run.
    pub fn role(&self, no: usize) -> i32 {
        self.admin(no, &["role"]).status.code().unwrap()
    }

    /// Each of the first servers has its role.
    pub fn wait_for_roles(&self, roles: &[i32]) {
        let mut wanted = roles.iter().enumerate().peekable();
        self.until(&format!("the roles {roles:?}"), || {
            while wanted.next_if(|(no, role)| self.role(*no) == **role).is_some() {}
            wanted.peek().is_none()
        });
    }

    /// Has the roles of two servers exchanged, as a patient operator does.
    pub fn exchange(&self, from: usize, to: usize) {
        self.until("exchanged", || {
            if self.role(from) == 0 {
                self.admin(from, &["demote"]);
            }
            let promoted =
                self.role(from) == 10 && self.admin(to, &["promote", "--wait", "20"]).status.success();
            promoted || self.role(to) == 0
        });
    }

    // -- clients

    fn connect(&self, no: usize) -> io::Result<RawClient> {
        let mut client = RawClient::connect(self.addresses[no], Speaks::Z5)?;
        let refused = |error| io::Error::other(format!("{error:?}"));
        client.call("register", vec![text("1"), Value::Bool(true)])?.map_err(refused)?;
        Ok(client)
    }

    /// The last transaction, if the server says it.
    pub fn try_last(&self, no: usize) -> Option<u64> {
        let mut client = self.connect(no).ok()?;
        Some(client.call("lastTransaction", vec![]).ok()?.ok()?.id())
    }

    /// All of them have the same last transaction, which is `tid` or later.
    pub fn wait_for_same(&self, tid: u64, servers: &[usize]) {
        self.until(&format!("the same at {servers:?} behind {tid:x}"), || {
            let lasts: Vec<_> = servers.iter().map(|no| self.try_last(*no)).collect();
            lasts[0] >= Some(tid) && lasts.iter().all(|last| *last == lasts[0])
        });
    }

    /// The last transaction that was answered.
    pub fn last_answered(&self) -> u64 {
        self.answered.last().map_or(0, |(_, tid, _)| *tid)
    }

    /// Stores a change at a primary, again and again until it is there. What was not answered may have been stored.
    pub fn store(&mut self, no: usize, change: Change) {
        let mut stored = None;
        self.until(&format!("stored at {no}"), || {
            let Ok(mut client) = RawClient::connect(self.addresses[no], Speaks::Z5) else { return false };
            match store_once(&mut client, &change) {
                Ok(tid) => stored = tid,
                Err(_) => return false,
            }
            true
        });
        self.answered.extend(stored.map(|tid| (no, tid, change)));
    }

    /// Stores a change at a server that may be killed in the middle.
    pub fn store_once(&mut self, no: usize, change: Change) {
        let client = RawClient::connect(self.addresses[no], Speaks::Z5);
        if let Ok(Some(tid)) = client.and_then(|mut client| store_once(&mut client, &change)) {
            self.answered.push((no, tid, change));
        }
    }

    // -- the end

    /// Stops all servers. What they have left.
    pub fn stop(&mut self) -> Vec<Left> {
        let mut left = Vec::new();
        for no in 0..self.servers.len() {
            let mut server = self.server(no);
            let server = server.as_mut().unwrap();
            assert!(server.stop().success(), "{}: {}", self.what, server.talk());
        }
        for no in 0..self.servers.len() {
            let server = self.server(no);
            let what = format!("{}, server {no}", self.what);
            left.push(Left::of(server.as_ref().unwrap().directory(), &what));
        }
        left
    }

    /// Both have the same transactions and blobs.
    pub fn check_same(&self, one: &Left, other: &Left) {
        let tids = |list: &[Txn]| list.iter().map(|txn| format!("{:x}", txn.tid)).collect::<Vec<_>>();
        assert_eq!(tids(&one.transactions), tids(&other.transactions), "{}", self.what);
        for (one, other) in one.transactions.iter().zip(&other.transactions) {
            assert!(one == other, "{}: transaction {:x} differs", self.what, one.tid);
        }
        assert!(one.blobs == other.blobs, "{}: the blobs differ", self.what);
    }

    /// What was answered by the servers `by` is there, with its blob.
    pub fn check_answered(&self, left: &Left, by: &[usize]) {
        for (_, tid, change) in self.answered.iter().filter(|(no, ..)| by.contains(no)) {
            match change {
                Change::Records(records) => {
                    let has = |(oid, data): &(u64, Vec<u8>)| left.has(*tid, *oid, data);
                    assert!(records.iter().all(has), "{}: {tid:x} is lost", self.what);
                }
                Change::Blob(oid, data) => {
                    assert!(left.has(*tid, *oid, BLOB), "{}: {tid:x} is lost", self.what);
                    assert!(left.blobs.get(&(*oid, *tid)) == Some(data), "{}: blob {oid} is lost", self.what);
                }
            }
        }
    }

    /// What was answered by a server whose transactions were taken back is kept there.
    pub fn check_kept(&self, left: &Left, by: usize, since: u64) {
        for (_, tid, change) in self.answered.iter().filter(|(no, tid, _)| *no == by && *tid > since) {
            let (oid, data) = change.record();
            assert!(left.has_kept(*tid, oid, data), "{}: {tid:x} was not kept", self.what);
            if let Change::Blob(oid, data) = change {
                let has = left.kept.iter().any(|(_, blobs)| blobs.get(&(*oid, *tid)) == Some(data));
                assert!(has, "{}: blob {oid} was not kept", self.what);
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.lines.end();
        for server in &*self.servers {
            // One that panics while it is held is one whose start has failed.
            drop(server.lock().map(|mut server| server.take()));
        }
    }
}

/// Starts servers again that were killed, until the test is over.
fn revive(servers: &[Mutex<Option<Server>>], lines: &Lines, dead: &Receiver<usize>, revives: bool) {
    for no in dead {
        let mut server = servers[no].lock().unwrap();
        let Some(server) = server.as_mut() else { return };
        server.kill();
        if revives {
            server.start_again();
            lines.runs(no, server.pid());
        }
    }
}

/// The transaction; `None`: it was there already.
fn store_once(client: &mut RawClient, change: &Change) -> io::Result<Option<u64>> {
    let refused = |error| io::Error::other(format!("{error:?}"));
    client.call("register", vec![text("1"), Value::Bool(false)])?.map_err(refused)?;
    let (oid, data) = change.record();
    if load(client, oid)?.is_some_and(|(found, _)| found == data) {
        return Ok(None);
    }
    match change {
        Change::Records(records) => {
            let mut stores = Vec::new();
            for (oid, data) in records {
                let serial = load(client, *oid)?.map_or(0, |(_, serial)| serial);
                stores.push((*oid, serial, &**data));
            }
            client.commit(&stores)?.map(Some).map_err(refused)
        }
        Change::Blob(oid, data) => {
            client.queue_begin(1);
            queue_blob(client, *oid, data, 1);
            client.call("vote", vec![Value::Int(1)])?.map_err(refused)?;
            Ok(Some(client.call("tpc_finish", vec![Value::Int(1)])?.map_err(refused)?.id()))
        }
    }
}

/// The newest record of an object and its transaction.
fn load(client: &mut RawClient, oid: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
    match client.call("loadBefore", vec![id(oid), id(LATEST)])? {
        Ok(Value::Tuple(found)) => Ok(Some((found[0].bytes().to_vec(), found[1].id()))),
        _ => Ok(None),
    }
}
