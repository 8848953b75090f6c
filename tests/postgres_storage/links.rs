//! What lies between a server and its database loses messages, and processes stand still.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::postgres::Dsn;
use runzeo::internal::storage::postgres::{PostgresOptions, PostgresStorage};
use runzeo::storage::prelude::*;
use runzeo::storage::{Committed, Delivery, Publisher, StorageError, Ticket, TidAt};

use crate::support::postgres::{PostgresServer, free_port};
use crate::support::storage::{Answers, Outcome, commit, finish_voted, load, staged};
use crate::{LONG, Sql, storage};

/// A balancer that forgets connections: both ends stay open, and nothing comes through any more.
struct Balancer {
    address: SocketAddr,
    /// Connections that were made; those before the first remembered one are forgotten.
    made: Arc<AtomicUsize>,
    remembered: Arc<AtomicUsize>,
}

impl Balancer {
    fn start(port: &str) -> Balancer {
        let server: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let [made, remembered] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (counted, forgotten) = (Arc::clone(&made), Arc::clone(&remembered));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(server) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let forgotten = Arc::clone(&forgotten);
                    thread::spawn(move || pass(from, to, || number < forgotten.load(Ordering::SeqCst)));
                }
            }
        });
        Balancer { address, made, remembered }
    }

    fn forget_all(&self) {
        self.remembered.store(self.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_forgotten: impl Fn() -> bool) {
    let mut buffer = [0; 1 << 14];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if !is_forgotten() && to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    // Of a forgotten connection neither end hears that the other one has closed it.
    if !is_forgotten() {
        let _ = to.shutdown(std::net::Shutdown::Both);
    }
}

/// The result of something that may hang.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (to, from) = channel();
    thread::spawn(move || to.send(work()));
    from.recv_timeout(LONG * 2).unwrap_or_else(|_| panic!("{what} hangs"))
}

/// Symptom: the connections of the database stayed open, and nothing came through; commits and loads waited for ever,
/// and so did others for the locks. The system's keep-alives see nothing, for the balancer answers them. Now the
/// database is asked, on a new connection, whether it is at work.
#[test]
fn messages_that_are_lost_on_the_way_are_noticed() {
    let port = free_port();
    let Some(server) = PostgresServer::start(&["--port", &port]) else { return };
    let balancer = Balancer::start(&port);
    let dsn = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", balancer.address.port());
    let options = PostgresOptions::new(Dsn::parse(&dsn, &|_| None).unwrap());
    let here = PostgresStorage::open(PostgresOptions { cache_size: 0, ..options }).unwrap();
    here.set_publisher(Arc::new(Answers));
    let here = Arc::new(here);
    let t1 = commit(&*here, &[(1, Tid::ZERO, b"one")]).unwrap();
    assert_eq!(load(&*here, 1).unwrap(), (b"one".to_vec(), t1));
    let mut transaction = staged();
    transaction.store(Oid(1), t1, b"two").unwrap();
    let voted = here.vote(transaction, TidAt::Finish).unwrap();

    balancer.forget_all();
    let outcome = finish_voted(&*here, voted);
    let reading = Arc::clone(&here);
    let found = in_time("a load", move || load(&*reading, 1));
    assert!(matches!(&found, Ok((data, _)) if data == b"one" || data == b"two"), "{found:?}");
    let t2 = match in_time("a commit", move || outcome.recv().unwrap()) {
        Outcome::Done { tid, .. } => tid,
        Outcome::Failed(error) => panic!("{error}"),
    };
    assert_eq!(load(&*here, 1).unwrap(), (b"two".to_vec(), t2));
    assert_eq!(here.history(Oid(1), 100).unwrap().len(), 2, "it is committed once");
    // The former session has ended, and its locks with it.
    let there = storage(&server);
    commit(&there, &[(1, t2, b"three")]).unwrap();
}

/// A publisher at which the thread that commits stands still, as if the process was stopped.
struct Standstill {
    begins: Arc<AtomicBool>,
    goes_on: Mutex<Receiver<()>>,
    stands: Mutex<Sender<()>>,
}

impl Publisher for Standstill {
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        let delivery = Answers.publish(group, install);
        if self.begins.swap(false, Ordering::SeqCst) {
            let _ = self.stands.lock().unwrap().send(());
            let _ = self.goes_on.lock().unwrap().recv();
        }
        delivery
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        Answers.failed(ticket, error);
    }
}

/// Symptom: a server was stopped (SIGSTOP, or its machine stood still) between a vote and its finish, and the clients
/// of all other servers had conflicts with what it had locked, as long as it stood. With the commit lock of a client
/// of ZEO 4 nobody could commit anything. Now the database ends the session of a server that stands still.
#[test]
fn a_server_that_stands_still_loses_its_locks() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let here = PostgresStorage::open(PostgresOptions::new(crate::dsn(&server))).unwrap();
    let there = storage(&server);
    let ((go_on, goes_on), (stands, stood)) = (channel::<()>(), channel());
    let begins = Arc::new(AtomicBool::new(false));
    here.set_publisher(Arc::new(Standstill {
        begins: Arc::clone(&begins),
        goes_on: Mutex::new(goes_on),
        stands: Mutex::new(stands),
    }));
    let t1 = commit(&there, &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"other")]).unwrap();
    here.catch_up().unwrap();
    let mut transaction = staged();
    transaction.store(Oid(1), t1, b"lost").unwrap();
    let voted = here.vote(transaction, TidAt::Finish).unwrap();
    begins.store(true, Ordering::SeqCst);
    let t2 = commit(&there, &[(2, t1, b"changed")]).unwrap();
    stood.recv().unwrap();
    // Its locks end before this vote gives up.
    let t3 = commit(&there, &[(1, t1, b"two")]).unwrap();
    assert!(t3 > t2);
    drop(go_on);
    match finish_voted(&here, voted).recv().unwrap() {
        Outcome::Failed(StorageError::Disconnected(_)) => {}
        other => panic!("{other:?}"),
    }
    here.catch_up().unwrap();
    assert_eq!(load(&here, 1).unwrap(), (b"two".to_vec(), t3));
}

/// A client of ZEO 4 was told its transaction's id at the vote. Others have committed later ids since its session was
/// lost, so it cannot be committed any more; the client may try again.
#[test]
fn an_id_that_was_told_too_early_is_given_up() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut sql = Sql::connect(&server);
    sql.run("create role other superuser login");
    let dsn = server.dsn().replace("user=postgres", "user=other");
    let here = PostgresStorage::open(PostgresOptions::new(Dsn::parse(&dsn, &|_| None).unwrap())).unwrap();
    here.set_publisher(Arc::new(Answers));
    let there = storage(&server);
    let mut transaction = staged();
    transaction.store(Oid(1), Tid::ZERO, b"late").unwrap();
    let voted = here.vote(transaction, TidAt::Vote).unwrap();
    // It cannot come back before the other one has committed.
    sql.run("alter role other nologin");
    sql.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'other'");
    let t1 = commit(&there, &[(2, Tid::ZERO, b"other")]).unwrap();
    assert!(t1 > voted.tid().unwrap());
    sql.run("alter role other login");
    match finish_voted(&here, voted).recv().unwrap() {
        Outcome::Failed(StorageError::Disconnected(_)) => {}
        other => panic!("{other:?}"),
    }
    here.catch_up().unwrap();
    assert_eq!(load(&here, 2).unwrap(), (b"other".to_vec(), t1));
    commit(&here, &[(1, Tid::ZERO, b"again")]).unwrap();
}
