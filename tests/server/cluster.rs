//! `<replication>`: servers that follow each other, and their promotions.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{RawClient, Speaks, content, record};
use crate::support::pickle::{Value, text};
use crate::support::process::{Server, free_address};
use crate::tls::identities::{Identity, authority, params};
use crate::zeoadmin::zeoadmin;

const WAIT: Duration = Duration::from_secs(60);
pub const FILE: &str = "<filestorage 1>\npath Data.fs\n</filestorage>";

/// Servers that know each other.
pub struct Cluster {
    pub addresses: Vec<SocketAddr>,
    pub servers: Vec<Server>,
}

impl Cluster {
    /// The first one is the primary. `keys`: of all `<replication>` sections.
    pub fn start(count: usize, keys: &str) -> Cluster {
        let addresses: Vec<_> = (0..count).map(|_| free_address()).collect();
        let mut cluster = Cluster { addresses, servers: Vec::new() };
        for no in 0..count {
            cluster.add(no, FILE, keys);
        }
        cluster
    }

    pub fn add(&mut self, no: usize, storage: &str, keys: &str) {
        let role = if no == 0 { "primary" } else { "replica" };
        let peers = self.addresses.iter().enumerate().filter(|(peer, _)| *peer != no);
        let peers: String = peers.map(|(_, address)| format!("peer {address}\n")).collect();
        let listen = self.addresses[no];
        let storage = format!(
            "{storage}\n<replication>\nname n{no}\nrole {role}\nlisten {listen}\ntrigger-file promote\n{peers}{keys}\n\
             </replication>"
        );
        self.servers.push(Server::start_any("admin-socket admin", &storage, |_| ()));
    }

    pub fn client(&self, no: usize) -> RawClient {
        RawClient::register(self.servers[no].address, Speaks::Z5).unwrap().0
    }

    /// One that only reads.
    pub fn reader(&self, no: usize) -> RawClient {
        let mut client = RawClient::connect(self.servers[no].address, Speaks::Z5).unwrap();
        client.call("register", vec![text("1"), Value::Bool(true)]).unwrap().unwrap();
        client
    }

    /// Its last transaction; `None` if the connection ends, as when transactions are taken back.
    pub fn try_last(&self, no: usize) -> Option<u64> {
        let mut client = RawClient::connect(self.servers[no].address, Speaks::Z5).ok()?;
        client.call("register", vec![text("1"), Value::Bool(true)]).ok()?.ok()?;
        Some(client.call("lastTransaction", vec![]).ok()?.ok()?.id())
    }

    pub fn last(&self, no: usize) -> u64 {
        self.try_last(no).unwrap()
    }

    pub fn wait_for_last(&self, no: usize, tid: u64) {
        let deadline = Instant::now() + WAIT;
        while self.try_last(no) != Some(tid) {
            assert!(Instant::now() < deadline, "n{no} has not {tid:x}: {}", self.servers[no].talk());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until both have the same last transaction.
    pub fn wait_for_same(&self, one: usize, other: usize) {
        let deadline = Instant::now() + WAIT;
        while self.try_last(one).is_none() || self.try_last(one) != self.try_last(other) {
            assert!(Instant::now() < deadline, "{}", self.servers[other].talk());
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn admin(&self, no: usize, arguments: &[&str]) -> Output {
        zeoadmin(&self.servers[no], arguments)
    }

    pub fn wait_for_role(&self, no: usize, code: i32) {
        let deadline = Instant::now() + WAIT;
        while self.admin(no, &["role"]).status.code() != Some(code) {
            assert!(Instant::now() < deadline, "{}", self.servers[no].talk());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The file without its magic: the records of the tests look as if Python 2 had written them, which a replica goes
    /// by and a primary does not.
    pub fn data(&self, no: usize) -> Vec<u8> {
        fs::read(self.servers[no].directory().join("Data.fs")).unwrap().split_off(4)
    }
}

/// The state of an object and its serial.
fn loaded(client: &mut RawClient, oid: u64) -> (Vec<u8>, u64) {
    let load = client.queue_load(oid);
    client.flush().unwrap();
    let loaded = client.answer(load).unwrap().unwrap();
    (content(loaded.tuple()[0].bytes()).to_vec(), loaded.tuple()[1].id())
}

pub fn load(client: &mut RawClient, oid: u64) -> Vec<u8> {
    loaded(client, oid).0
}

fn is_read_only(result: std::io::Result<Result<u64, (String, Value)>>) -> bool {
    matches!(&result, Ok(Err((class, _))) if class.contains("ReadOnlyError"))
}

/// Object 1 has the content, as a new transaction. Returns its tid.
pub fn put(client: &mut RawClient, serial: u64, data: &[u8]) -> u64 {
    client.commit(&[(1, serial, &record(data))]).unwrap().unwrap()
}

#[test]
fn a_replica_has_the_same_file_and_serves_it() {
    let mut cluster = Cluster::start(2, "compress true");
    let mut client = cluster.client(0);
    let mut serial = put(&mut client, 0, b"first");
    cluster.wait_for_last(1, serial);
    let mut reader = cluster.reader(1);
    assert_eq!(load(&mut reader, 1), b"first");
    // Invalidations come as from the primary.
    for no in 0..20_u8 {
        serial = client
            .commit(&[(1, serial, &record(&[no; 3000])), (2 + u64::from(no), 0, &record(&[0; 10]))])
            .unwrap()
            .unwrap();
    }
    let mut pushed = 0;
    while pushed != serial {
        if let crate::support::client::Incoming::Push { method, args } = reader.next().unwrap()
            && method == "invalidateTransaction"
        {
            pushed = args[0].id();
        }
    }
    assert_eq!(load(&mut reader, 1), [19; 3000]);
    // It does not store.
    let mut writer = RawClient::connect(cluster.servers[1].address, Speaks::Z5).unwrap();
    let refused = writer.call("register", vec![text("1"), Value::Bool(false)]).unwrap().unwrap_err();
    assert!(refused.0.contains("ReadOnlyError"), "{refused:?}");
    assert!(is_read_only(reader.commit(&[(1, serial, &record(b"no"))])) || reader.next().is_err());
    assert_eq!(cluster.admin(0, &["role"]).status.code(), Some(0));
    assert_eq!(cluster.admin(1, &["role"]).status.code(), Some(10));
    // The same after stops in any order, and commits while one is down.
    assert!(cluster.servers[1].stop().success());
    serial = put(&mut client, serial, b"while it was down");
    cluster.servers[1].start_again();
    cluster.wait_for_last(1, serial);
    cluster.servers[0].restart();
    serial = put(&mut cluster.client(0), serial, b"after a restart");
    cluster.wait_for_last(1, serial);
    cluster.servers[1].kill();
    cluster.servers[1].start_again();
    serial = put(&mut cluster.client(0), serial, b"after a kill");
    cluster.wait_for_last(1, serial);
    for server in &mut cluster.servers {
        assert!(server.stop().success());
    }
    assert!(cluster.data(0) == cluster.data(1), "the files differ");
}

#[test]
fn a_replica_is_promoted_and_the_old_primary_comes_back_as_one() {
    let mut cluster = Cluster::start(2, "");
    let mut client = cluster.client(0);
    let first = put(&mut client, 0, b"both have it");
    cluster.wait_for_last(1, first);
    // The replica does not get this one.
    cluster.servers[1].freeze();
    let lost = put(&mut client, first, b"only the primary has it");
    cluster.servers[0].kill();
    cluster.servers[1].signal("CONT");
    let promoted = cluster.admin(1, &["promote"]);
    assert!(promoted.status.success(), "{promoted:?}");
    assert_eq!(cluster.admin(1, &["role"]).status.code(), Some(0));
    let mut client = cluster.client(1);
    let last = cluster.last(1);
    // If the transaction had arrived in the socket before, it is not lost.
    let has_it = load(&mut client, 1) == b"only the primary has it";
    assert!(last > lost, "the marker is later than all that clients know");
    let oids = client.new_oids(1).unwrap();
    assert!(oids[0] > 1 << 20, "object ids that the old primary has given are not given again: {oids:?}");
    let serial = put(&mut client, if has_it { lost } else { first }, b"of the new primary");
    cluster.servers[0].start_again();
    cluster.wait_for_last(0, serial);
    cluster.wait_for_role(0, 10);
    assert_eq!(load(&mut cluster.reader(0), 1), b"of the new primary");
    let kept: Vec<_> = fs::read_dir(cluster.servers[0].directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| is_kept(name))
        .collect();
    assert_eq!(kept.is_empty(), has_it, "{kept:?}: {}", cluster.servers[0].talk());
    if !has_it {
        cluster.servers[0].wait_for_log("the primary does not have the last 1 transactions");
        let lost = fs::read(cluster.servers[0].directory().join(&kept[0])).unwrap();
        assert!(contains(&lost, b"only the primary has it"));
    }
    for server in &mut cluster.servers {
        assert!(server.stop().success());
    }
    assert!(cluster.data(0) == cluster.data(1), "the files differ");
    // Both remember their roles.
    cluster.servers[0].start_again();
    cluster.servers[1].start_again();
    let serial = put(&mut cluster.client(1), serial, b"after all");
    cluster.wait_for_last(0, serial);
}

/// Whether a file is a database of transactions that were taken back.
fn is_kept(name: &str) -> bool {
    name.starts_with("Data.fs.lost-")
        && name["Data.fs.lost-".len()..].bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Whoever is promoted has every transaction that was answered, and the old primary answers nothing any more.
#[test]
fn nothing_that_was_answered_is_lost_with_a_synchronous_replica() {
    let keys = "synchronous-replicas 1\non-timeout block\nsynchronous-timeout 1s";
    let cluster = Cluster::start(2, keys);
    cluster.servers[0].wait_for_log("replica n1 at");
    let address = cluster.servers[0].address;
    let writing = thread::spawn(move || {
        let mut client = RawClient::register(address, Speaks::Z5).unwrap().0;
        let mut answered = (0, 0_u32);
        while let Ok(Ok(tid)) = client.commit(&[(1, answered.0, &record(&(answered.1 + 1).to_be_bytes()))]) {
            answered = (tid, answered.1 + 1);
        }
        answered.1
    });
    thread::sleep(Duration::from_millis(500));
    // A primary that is stopped, and does not know it.
    cluster.servers[0].freeze();
    let promoted = cluster.admin(1, &["promote", "--force"]);
    assert!(promoted.status.success(), "{promoted:?}");
    cluster.servers[0].signal("CONT");
    let answered = writing.join().unwrap();
    cluster.servers[0].wait_for_log("this server is not the primary any more");
    cluster.wait_for_role(0, 10);
    let mut reader = cluster.reader(1);
    let found = u32::from_be_bytes(load(&mut reader, 1).try_into().unwrap());
    assert!(answered > 0 && (found == answered || found == answered + 1), "{answered} {found}");
    cluster.wait_for_same(1, 0);
    assert_eq!(load(&mut cluster.reader(0), 1), found.to_be_bytes());
    let serial = loaded(&mut reader, 1).1;
    let tid = put(&mut cluster.client(1), serial, b"and on it goes");
    cluster.wait_for_last(0, tid);
}

#[test]
fn without_its_replica_a_synchronous_primary_goes_on_or_waits_as_configured() {
    for (on_timeout, goes_on) in [("degrade", true), ("block", false)] {
        let keys = format!("synchronous-replicas 1\non-timeout {on_timeout}\nsynchronous-timeout 1s");
        let cluster = Cluster::start(2, &keys);
        cluster.servers[0].wait_for_log("replica n1 at");
        let mut client = cluster.client(0);
        let first = put(&mut client, 0, b"with the replica");
        assert_eq!(cluster.servers[0].count_in_log("have not acknowledged"), 0);
        cluster.servers[1].freeze();
        let address = cluster.servers[0].address;
        let writing = thread::spawn(move || {
            let mut client = RawClient::register(address, Speaks::Z5).unwrap().0;
            put(&mut client, first, b"without it")
        });
        cluster.servers[0].wait_for_log("1 synchronous replicas have not acknowledged transaction");
        // Until it is answered, no client sees it.
        let mut reader = cluster.reader(0);
        let serial = match goes_on {
            true => {
                let serial = writing.join().unwrap();
                assert_eq!(load(&mut reader, 1), b"without it");
                cluster.servers[1].signal("CONT");
                cluster.servers[0].wait_for_log("enough replicas have everything again");
                serial
            }
            false => {
                assert_eq!(load(&mut reader, 1), b"with the replica");
                cluster.servers[1].signal("CONT");
                writing.join().unwrap()
            }
        };
        cluster.wait_for_last(1, serial);
    }
}

#[test]
fn a_replica_is_added_to_a_running_primary_with_blobs_and_all() {
    let file = "<filestorage 1>\npath Data.fs\nblob-dir blobs\n</filestorage>";
    let mut cluster = Cluster { addresses: (0..2).map(|_| free_address()).collect(), servers: Vec::new() };
    cluster.add(0, file, "");
    let mut client = cluster.client(0);
    let (mut serial, data) = (0, record(&vec![7; 200_000]));
    for _ in 0..30 {
        serial = client.commit(&[(1, serial, &data)]).unwrap().unwrap();
    }
    let address = cluster.servers[0].address;
    let writing = thread::spawn(move || {
        let mut client = RawClient::register(address, Speaks::Z5).unwrap().0;
        let mut other = 0;
        for no in 0..200_u32 {
            other = client.commit(&[(2, other, &record(&no.to_be_bytes()))]).unwrap().unwrap();
        }
        other
    });
    cluster.add(1, file, "");
    let last = writing.join().unwrap();
    cluster.wait_for_last(1, last);
    for server in &mut cluster.servers {
        assert!(server.stop().success());
    }
    assert!(cluster.data(0) == cluster.data(1), "the files differ");
}

/// A client that reads at a replica, because no server could be written, is sent away when another one can be.
#[test]
fn clients_of_a_replica_look_again_after_a_promotion() {
    let cluster = Cluster::start(3, "");
    let serial = put(&mut cluster.client(0), 0, b"0");
    (1..3).for_each(|no| cluster.wait_for_last(no, serial));
    assert!(cluster.admin(0, &["demote"]).status.success());
    let mut waiting = RawClient::connect(cluster.servers[2].address, Speaks::Z5).unwrap();
    waiting.call("register", vec![text("1"), Value::Bool(false)]).unwrap().unwrap_err();
    waiting.call("register", vec![text("1"), Value::Bool(true)]).unwrap().unwrap();
    let mut reader = cluster.reader(2);
    // These are refused before the promotion, and register as readers after it. They stayed.
    let mut late = [1, 2].map(|no| RawClient::connect(cluster.servers[no].address, Speaks::Z5).unwrap());
    for client in &mut late {
        client.call("register", vec![text("1"), Value::Bool(false)]).unwrap().unwrap_err();
    }
    assert!(cluster.admin(1, &["promote", "--wait", "20"]).status.success());
    while waiting.next().is_ok() {}
    cluster.servers[2].wait_for_log("disconnected: another server can be written now");
    for (client, server) in late.iter_mut().zip(&cluster.servers[1..]) {
        client.call("register", vec![text("1"), Value::Bool(true)]).unwrap().unwrap();
        server.wait_for_log("disconnected: a server can be written now");
    }
    // One that only wants to read stays.
    assert_eq!(load(&mut reader, 1), b"0");
}

#[test]
fn who_does_not_belong_to_the_cluster_is_refused() {
    let mut cluster = Cluster::start(2, "");
    let serial = put(&mut cluster.client(0), 0, b"0");
    cluster.wait_for_last(1, serial);
    // Anybody.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x05hello", b"\0\0\0\0", b"\xff\xff\xff\xff"] {
        let mut stream = TcpStream::connect(cluster.addresses[0]).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    cluster.servers[0].wait_for_log("a server is refused: ");
    // A primary of another cluster, in whose place this one's replica comes.
    let other = Cluster::start(1, "");
    put(&mut other.client(0), 0, b"another cluster");
    let foreign = format!(
        "{FILE}\n<replication>\nname n9\nrole replica\npeer {}\n</replication>",
        cluster.addresses[0]
    );
    let state = fs::read(other.servers[0].directory().join("Data.fs.replication")).unwrap();
    let stranger = Server::start_any("", &foreign, |directory| {
        let text = String::from_utf8(state).unwrap().replace("role primary", "role replica");
        fs::write(directory.join("Data.fs.replication"), text).unwrap();
    });
    stranger.wait_for_log("the primary refuses this replica: it belongs to another cluster");
    cluster.servers[0].wait_for_log("n9 must not follow: it belongs to another cluster");
    // One with a database of its own.
    let data = fs::read(other.servers[0].directory().join("Data.fs")).unwrap();
    let stranger = Server::start_any("", &foreign.replace("n9", "n8"), |directory| {
        fs::write(directory.join("Data.fs"), data).unwrap();
    });
    stranger.wait_for_log("it has a database of its own, which has nothing in common with the one here");
    // A first primary beside a cluster.
    cluster.servers[1].kill();
    fs::remove_file(cluster.servers[1].directory().join("Data.fs.replication")).unwrap();
    let conf = cluster.servers[1].directory().join("zeo.conf");
    let text = fs::read_to_string(&conf).unwrap().replace("role replica", "role primary");
    fs::write(&conf, text).unwrap();
    assert_eq!(cluster.servers[1].run_to_its_end().code(), Some(1));
    assert!(cluster.servers[1].talk().contains("belongs to one already"), "{}", cluster.servers[1].talk());
    // All this has not disturbed the cluster.
    put(&mut cluster.client(0), serial, b"1");
}

#[test]
fn a_replica_packs_when_its_primary_was_packed() {
    for (keys, follows) in [("", true), ("follow-packs false", false)] {
        let mut cluster = Cluster::start(2, keys);
        let mut client = cluster.client(0);
        let mut serial = client.commit(&[(0, 0, &record(b"root"))]).unwrap().unwrap();
        for no in 0..20_u8 {
            serial = client.commit(&[(0, serial, &record(&[no; 5000]))]).unwrap().unwrap();
        }
        cluster.wait_for_last(1, serial);
        let whole = cluster.data(1).len();
        let packed = cluster.admin(0, &["pack"]);
        assert!(packed.status.success(), "{packed:?}");
        assert!(cluster.data(0).len() < 20_000);
        serial = client.commit(&[(0, serial, &record(b"later"))]).unwrap().unwrap();
        cluster.wait_for_last(1, serial);
        if follows {
            cluster.servers[1].wait_for_log_count("complete", 1);
            assert!(cluster.data(1).len() < 20_000);
        } else {
            assert!(cluster.data(1).len() > whole);
        }
        // Both have the same, whether packed or not, and it is found.
        cluster.servers[1].restart();
        serial = client.commit(&[(0, serial, &record(b"last"))]).unwrap().unwrap();
        cluster.wait_for_last(1, serial);
        assert_eq!(cluster.servers[1].count_in_log("does not have the last"), 0);
    }
}

/// A replica that was away while the primary was packed has transactions that the primary does not have any more.
#[test]
fn a_replica_that_missed_a_pack_takes_back_what_the_pack_has_removed() {
    let mut cluster = Cluster::start(2, "");
    let mut client = cluster.client(0);
    let mut serial = client.commit(&[(0, 0, &record(b"root"))]).unwrap().unwrap();
    serial = client.commit(&[(0, serial, &record(b"its last one"))]).unwrap().unwrap();
    cluster.wait_for_last(1, serial);
    assert!(cluster.servers[1].stop().success());
    for no in 0..20_u8 {
        serial = client.commit(&[(0, serial, &record(&[no; 5000]))]).unwrap().unwrap();
    }
    assert!(cluster.admin(0, &["pack"]).status.success());
    serial = client.commit(&[(0, serial, &record(b"later"))]).unwrap().unwrap();
    cluster.servers[1].start_again();
    cluster.wait_for_last(1, serial);
    assert_eq!(load(&mut cluster.reader(1), 0), b"later");
    for server in &mut cluster.servers {
        assert!(server.stop().success());
    }
    assert!(cluster.data(0) == cluster.data(1), "the files differ");
}

/// One that follows a replica follows it also when it takes transactions back.
#[test]
fn replicas_in_a_chain_and_at_a_limited_rate() {
    let addresses: Vec<_> = (0..3).map(|_| free_address()).collect();
    let mut cluster = Cluster { addresses, servers: Vec::new() };
    cluster.add(0, FILE, "max-rate 20MB");
    cluster.add(1, FILE, "");
    let storage = format!(
        "{FILE}\n<replication>\nname n2\nrole replica\npeer {}\nfollow-replicas true\n</replication>",
        cluster.addresses[1]
    );
    cluster.servers.push(Server::start_any("", &storage, |_| ()));
    let mut client = cluster.client(0);
    let first = put(&mut client, 0, b"all have it");
    cluster.wait_for_last(2, first);
    cluster.servers[2].wait_for_log("following n1 at");
    // The link of the chain loses a transaction that it has sent on.
    cluster.servers[0].kill();
    assert!(cluster.admin(1, &["promote"]).status.success());
    let lost = put(&mut cluster.client(1), first, b"it is taken back");
    cluster.wait_for_last(2, lost);
    cluster.servers[1].freeze();
    let state = cluster.servers[0].directory().join("Data.fs.replication");
    let text = fs::read_to_string(&state).unwrap();
    let newer = format!("timeline {:032x} 5 {} n0\nend", 7, u64::MAX / 4);
    fs::write(&state, text.replace("end", &newer)).unwrap();
    cluster.servers[0].start_again();
    let serial = put(&mut cluster.client(0), first, b"of the newest timeline");
    cluster.servers[1].signal("CONT");
    cluster.wait_for_last(1, serial);
    cluster.servers[1].wait_for_log("this server is not the primary any more");
    cluster.wait_for_last(2, serial);
    assert_eq!(load(&mut cluster.reader(2), 1), b"of the newest timeline");
}

/// Only servers whose certificate an authority of the cluster has signed get in, or are followed.
#[test]
fn servers_know_each_other_by_their_certificates() {
    let root = Identity::self_signed(authority("cluster"));
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: String| {
        let path = files.path().join(name);
        fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let trusted = write("root.pem", root.pem());
    let certificate =
        |no: usize| write(&format!("n{no}.pem"), root.sign(params(&format!("n{no}"))).pem_with_key());
    let stranger = write("stranger.pem", Identity::self_signed(params("stranger")).pem_with_key());
    let ssl = |certificate: &str| format!("<ssl>\ncertificate {certificate}\nauthenticate {trusted}\n</ssl>");
    let mut cluster = Cluster { addresses: (0..4).map(|_| free_address()).collect(), servers: Vec::new() };
    cluster.add(0, FILE, &ssl(&certificate(0)));
    cluster.add(1, FILE, &ssl(&certificate(1)));
    cluster.add(2, FILE, &ssl(&stranger));
    cluster.add(3, FILE, "");
    let serial = put(&mut cluster.client(0), 0, b"secret");
    cluster.wait_for_last(1, serial);
    cluster.servers[2].wait_for_log("no primary was found");
    cluster.servers[3].wait_for_log("no primary was found");
    cluster.servers[0].wait_for_log("'CN=stranger': ");
    assert_eq!((cluster.last(2), cluster.last(3)), (0, 0));
    // A promotion asks the others in the same way.
    cluster.servers[0].freeze();
    assert!(cluster.admin(1, &["promote", "--force"]).status.success());
    cluster.servers[0].signal("CONT");
    cluster.servers[0].wait_for_log("this server is not the primary any more");
    let serial = put(&mut cluster.client(1), serial, b"still secret");
    cluster.wait_for_last(0, serial);
}

/// Far more transactions than wait to be stored, in a shorter time than passes between two messages of the primary.
#[test]
fn an_empty_replica_catches_up_with_many_short_transactions() {
    let mut cluster = Cluster { addresses: (0..2).map(|_| free_address()).collect(), servers: Vec::new() };
    cluster.add(0, FILE, "");
    let mut client = cluster.client(0);
    let mut serial = 0;
    for no in 0..3000_u32 {
        serial = put(&mut client, serial, &no.to_be_bytes());
    }
    cluster.add(1, FILE, "");
    cluster.wait_for_last(1, serial);
    assert_eq!(load(&mut cluster.reader(1), 1), 2999_u32.to_be_bytes());
    cluster.servers.iter_mut().for_each(|server| assert!(server.stop().success()));
    assert!(cluster.data(0) == cluster.data(1), "a transaction is missing");
}

/// A group of several transactions that waits for a replica: the replica must store all of it before it waits itself.
#[test]
fn many_clients_of_a_synchronous_primary_wait_for_no_timeout() {
    for level in ["received", "synced", "published"] {
        many_clients_commit(level);
    }
}

fn many_clients_commit(level: &str) {
    let keys = format!(
        "synchronous-replicas 1\non-timeout block\nsynchronous-timeout 20s\nsynchronous-level {level}"
    );
    let cluster = Cluster::start(2, &keys);
    cluster.servers[0].wait_for_log("replica n1 at");
    let address = cluster.servers[0].address;
    let write = |oid: u64| {
        let mut client = RawClient::register(address, Speaks::Z5).unwrap().0;
        let mut serial = 0;
        for no in 0..40 {
            serial = client.commit(&[(oid, serial, &record(&[no; 100_000]))]).unwrap().unwrap();
        }
        serial
    };
    let last = thread::scope(|scope| {
        let clients: Vec<_> = (1..=12).map(|oid| scope.spawn(move || write(oid))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).max()
    });
    assert_eq!(cluster.servers[0].count_in_log("have not acknowledged"), 0);
    cluster.wait_for_last(1, last.unwrap());
}
