//! The server in this process, its disk, and the clients of a case.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::client::{Incoming, RawClient, Speaks, record};
use crate::support::disk::{Disk, Hand};
use crate::support::pickle::Value;
use runzeo::internal::base::address::Address;
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::net::listen::listen;
use runzeo::internal::server::Server;
use runzeo::internal::server::hosted::{Hosted, HostedOptions};
use runzeo::internal::server::limits::Limits;
use runzeo::internal::server::record_memory::RecordMemory;
use runzeo::internal::server::workers::Pools;
use runzeo::internal::wire::protocol::Greeting;
use runzeo::storage::Storage;
use runzeo::storage::file::{FileStorage, FileStorageOptions};

pub const TIMEOUT: Duration = Duration::from_secs(2);
/// Each client has its own object; the subject's is also the holder's.
pub const SUBJECT: u64 = 1;
pub const OTHER: u64 = 2;
pub const THIRD: u64 = 3;
/// Longer than the reserved space, so that its vote must reserve more.
pub const LONG: usize = 5 << 20;

pub struct World {
    /// The time of timeouts.
    pub clock: TimeSource,
    pub server: Arc<Server>,
    pub storage: Arc<FileStorage>,
    pub address: SocketAddr,
    pub hand: Hand,
    pub directory: tempfile::TempDir,
    /// A client that asks for the status.
    pub watcher: Mutex<Client>,
    /// The first transaction.
    pub tid: u64,
}

impl World {
    pub fn new(timeout: Option<Duration>, quota: Option<u64>) -> World {
        let clock = TimeSource::manual();
        let directory = tempfile::tempdir().expect("a directory");
        let hand = Hand::default();
        let mut options = FileStorageOptions::new(directory.path().join("Data.fs"));
        options.media = Arc::new(Disk(hand.clone()));
        options.quota = quota;
        options.pack_gc = false;
        let storage = Arc::new(FileStorage::open(options).expect("Data.fs"));
        let options = HostedOptions {
            read_only: false,
            invalidation_queue_size: 100,
            invalidation_age: None,
            transaction_timeout: timeout,
            client_conflict_resolution: false,
            transaction_objects: None,
        };
        let hosted = Hosted::new(
            "1".into(),
            Arc::clone(&storage) as Arc<dyn Storage>,
            options,
            Pools::start(RecordMemory::default(), &clock).unwrap(),
            clock.clone(),
        );
        let server = Server::new(
            vec![hosted.expect("hosted")],
            Greeting::new(false),
            Limits::default(),
            1000,
            clock.clone(),
        )
        .expect("a server");
        let listeners =
            listen(&Address::Tcp { host: Some("127.0.0.1".into()), port: Some(0) }, Default::default())
                .expect("a socket");
        let mut address = None;
        for listener in listeners {
            address = listener.socket.local_addr().expect("an address").as_socket();
            server.accept_on(listener, Default::default()).expect("accept");
        }
        let address = address.expect("an address");
        let mut watcher = Client::register(address, Speaks::Z5);
        let data = record(b"first");
        let first = [(0, 0, &data[..]), (SUBJECT, 0, &data), (OTHER, 0, &data), (THIRD, 0, &data)];
        let tid = watcher.client.commit(&first).expect("connection").expect("commit");
        World { clock, server, storage, address, hand, directory, watcher: Mutex::new(watcher), tid }
    }

    pub fn client(&self, speaks: Speaks) -> Client {
        Client::register(self.address, speaks)
    }

    /// Waits until this number of votes wait for locks.
    pub fn wait_for_waiting(&self, count: i64) {
        let mut client = self.watcher.lock().expect("the watcher");
        for _ in 0..6000 {
            let status = client.call("server_status", vec![]).expect("server_status");
            let Value::Dict(items) = status else { panic!("{status:?}") };
            let waiting = items.iter().find(|(key, _)| key.bytes() == b"waiting").expect("waiting");
            if waiting.1 == Value::Int(count) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{count} should wait for locks");
    }
}

pub struct Client {
    pub client: RawClient,
    pub serialnos: Vec<Value>,
}

pub const TXN: i64 = 7;

impl Client {
    pub fn register(address: SocketAddr, speaks: Speaks) -> Client {
        let (client, _) = RawClient::register(address, speaks).expect("register");
        Client { client, serialnos: Vec::new() }
    }

    /// Sends tpc_begin and one store.
    pub fn begin(&mut self, oid: u64, serial: u64, data: &[u8]) {
        self.client.queue_begin(TXN);
        self.client.queue_store(oid, serial, data, TXN);
        self.client.flush().expect("send");
    }

    pub fn send(&mut self, method: &str) -> i64 {
        let call = self.client.queue_call(method, vec![Value::Int(TXN)]);
        self.client.flush().expect("send");
        call
    }

    pub fn call(&mut self, method: &str, args: Vec<Value>) -> Result<Value, String> {
        let call = self.client.queue_call(method, args);
        self.client.flush().expect("send");
        self.answer(call)
    }

    /// The answer, or "gone" if the connection was closed before it.
    pub fn answer(&mut self, wanted: i64) -> Result<Value, String> {
        loop {
            match self.client.next() {
                Ok(Incoming::Reply { id, value }) if id == wanted => return Ok(value),
                Ok(Incoming::Error { id, class, .. }) if id == wanted => return Err(class),
                Ok(Incoming::Push { method, args }) if method == "serialnos" => {
                    self.serialnos.extend_from_slice(args[0].tuple());
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("no answer in a minute")
                }
                Err(_) => return Err("gone".into()),
            }
        }
    }

    /// The answer to vote; an error in serialnos is one.
    pub fn voted(&mut self, vote: i64) -> Result<(), String> {
        self.answer(vote)?;
        let failed = self.serialnos.iter().find(|pair| !matches!(pair.tuple()[1], Value::Bytes(_)));
        failed.map_or(Ok(()), |pair| Err(format!("{:?}", pair.tuple()[1])))
    }

    /// Finishes the voted transaction.
    pub fn finish(&mut self) -> Result<u64, String> {
        let finish = self.send("tpc_finish");
        self.answer(finish).map(|tid| tid.id())
    }

    /// Waits until the server closes the connection.
    pub fn wait_for_the_end(&mut self) {
        while self
            .client
            .next()
            .map_err(|error| assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock))
            .is_ok()
        {}
    }

    pub fn disconnect(&self) {
        let _ = self.client.stream().shutdown(std::net::Shutdown::Both);
    }
}
