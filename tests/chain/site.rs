//! The servers of a round: the root, a middle with a replica to fall back to, another middle behind it, and the lines
//! between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use runzeo::client::{Client, ClientOptions};
use runzeo::ids;
use runzeo::internal::base::address::Address;
use runzeo::storage::TransactionMeta;

use crate::check::{Oid, Tid, Value};
use crate::database::first_records;
use crate::library::Place;
use crate::line::Line;
use crate::servers::{AnyServer, PythonServer};
use crate::support::dice::Dice;
use crate::support::process::Server;

const HOT: u64 = 4;
const COLD: u64 = 60;
/// Objects for transactions of raw clients and of those of the library that identify their undoes.
const MARKS: u64 = 20;
/// Objects that are changed all at once: more than are listed after an interruption.
const BULK: u64 = 2300;

pub struct Site {
    pub root: AnyServer,
    pub middle: Server,
    pub behind: Server,
    pub replica: Server,
    /// From the middle, the second middle, and a client of the library to the server before it.
    pub lines: [Line; 3],
    pub hot: Vec<Oid>,
    pub cold: Vec<Oid>,
    pub bulk: Vec<Oid>,
    pub first_mark: Oid,
    pub start: (Tid, BTreeMap<Oid, Value>),
    /// The caches of clients.
    directory: tempfile::TempDir,
    cache_size: u64,
}

fn address_of(root: &AnyServer) -> SocketAddr {
    match root.address() {
        Address::Tcp { host: Some(host), port: Some(port) } => {
            format!("{host}:{port}").parse().expect("an address")
        }
        other => panic!("{other}"),
    }
}

impl Site {
    pub fn start(root: &str, dice: &mut Dice) -> Site {
        let queue = dice.of(&[10, 100, 1000]);
        let zeo = format!("transaction-timeout 8\ninvalidation-queue-size {queue}");
        let section = "<filestorage 1>\npath Data.fs\n</filestorage>";
        let root = match root {
            "ours" => AnyServer::Ours(Server::start_any(&zeo, section, |_| ())),
            python => AnyServer::Python(PythonServer::start(python, &zeo, |_| ()).expect("it is installed")),
        };
        let at = address_of(&root);
        let is_ours = matches!(root, AnyServer::Ours(_));
        let oids: Vec<Oid> = (1..=HOT + COLD + MARKS + BULK).collect();
        let (hot, rest) = oids.split_at(HOT as usize);
        let (cold, rest) = rest.split_at(COLD as usize);
        let (marks, bulk) = rest.split_at(MARKS as usize);
        // Servers before ZEO 5 do not tell of new objects.
        let there: Vec<Oid> = oids
            .iter()
            .copied()
            .filter(|oid| !is_ours || *oid <= HOT || *oid % 2 == 0 || bulk.contains(oid))
            .collect();
        let (records, values) = first_records(&oids, &there);
        let first = Client::open(ClientOptions::new(vec![root.address()])).expect("the root");
        let mut staged = first.transaction(TransactionMeta::default());
        for (oid, data) in &records {
            staged.store(ids::Oid(*oid), ids::Tid::ZERO, data).expect("memory");
        }
        let tid = first.commit(staged).expect("the first transaction").tid.0;
        let direct = Line::to(at);
        let cache_size = dice.of(&[150_000, 1_000_000, 20_000_000]);
        let keys = "transaction-timeout 4";
        let storage = |servers: &[SocketAddr], more: &str| {
            let servers: Vec<String> = servers.iter().map(|server| format!("server {server}")).collect();
            format!(
                "<zeoclient 1>\n{}\nmin-disconnect-poll 1\nmax-disconnect-poll 1\nwait-timeout 2\nwait off\nclient middle\n\
                 var .\ncache-size {cache_size}\n{more}\n</zeoclient>",
                servers.join("\n")
            )
        };
        let replica = Server::start_any("read-only true", &storage(&[at], ""), |_| ());
        let to_root = Line::to(at);
        let fallback = "read-only-fallback true";
        let middle = Server::start_any(keys, &storage(&[to_root.address, replica.address], fallback), |_| ());
        let to_middle = Line::to(middle.address);
        let behind = Server::start_any(keys, &storage(&[to_middle.address], fallback), |_| ());
        Site {
            root,
            middle,
            behind,
            replica,
            lines: [to_root, to_middle, direct],
            hot: hot.to_vec(),
            cold: cold.to_vec(),
            bulk: bulk.to_vec(),
            first_mark: marks[0],
            start: (tid, values),
            directory: tempfile::tempdir().expect("a directory"),
            cache_size,
        }
    }

    pub fn root_address(&self) -> SocketAddr {
        address_of(&self.root)
    }

    /// Starts the root again after a kill.
    pub fn start_root(&mut self) {
        self.root.start_again();
    }

    pub fn is_ours(&self) -> bool {
        matches!(self.root, AnyServer::Ours(_))
    }

    /// Of the root, the middle, the one behind it, and the replica. Python's servers do not keep the order that raw
    /// clients are checked for.
    pub fn raw_addresses(&self) -> [(&'static str, Vec<SocketAddr>); 4] {
        let root = if self.is_ours() { vec![self.root_address(), self.lines[2].address] } else { vec![] };
        let middle = vec![self.middle.address, self.lines[1].address];
        [
            ("the root", root),
            ("the middle", middle),
            ("the one behind", vec![self.behind.address]),
            ("the replica", vec![self.replica.address]),
        ]
    }

    pub fn library_places(&self, counts: [u64; 3]) -> Vec<Place> {
        let addresses = [
            vec![self.lines[2].address],
            vec![self.middle.address],
            vec![self.lines[1].address, self.behind.address],
        ];
        let mut places = Vec::new();
        for (number, (addresses, count)) in addresses.into_iter().zip(counts).enumerate() {
            for at in 0..count {
                let label = format!(
                    "client {at} of the library at {}",
                    ["the root", "the middle", "both middles"][number]
                );
                let path = self.directory.path().join(format!("{number}-{at}.zec"));
                let cache = (at > 0 || number != 1).then_some(path);
                places.push(Place {
                    label,
                    addresses: addresses.clone(),
                    cache,
                    cache_size: self.cache_size,
                });
            }
        }
        places
    }

    pub fn data_file(&self) -> PathBuf {
        self.root.directory().join("Data.fs")
    }

    /// The directories with cache files.
    pub fn cache_directories(&self) -> [&Path; 4] {
        [self.middle.directory(), self.behind.directory(), self.replica.directory(), self.directory.path()]
    }

    pub fn cache_size(&self) -> u64 {
        self.cache_size
    }

    pub fn open_lines(&self) {
        self.lines.iter().for_each(Line::open);
    }

    /// The ends of the logs.
    pub fn talk(&self) -> String {
        let mut text = String::new();
        let all = [("middle", &self.middle), ("behind", &self.behind), ("replica", &self.replica)];
        for (name, server) in all {
            let talk = server.talk();
            let lines: Vec<&str> = talk.lines().collect();
            text += &format!("-- {name}\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"));
        }
        text
    }
}
