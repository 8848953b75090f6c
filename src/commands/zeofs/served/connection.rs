//! A connected storage of a server, and its transactions.

use std::collections::VecDeque;

use crate::base::ids::Tid;
use crate::client::one_link::OneLink;
use crate::client::options::ClientOptions;
use crate::client::storage::ClientStorage;
use crate::commands::subcommand::Trouble;
use crate::storage::{DataRecord, RecordIterator, StorageError, TransactionIterator, TransactionRecord};

/// Bytes of the cache, which nothing is loaded into.
const CACHE_SIZE: u64 = 1 << 20;
/// Longest user, description or extension. A FileStorage has at most 64 KB of each.
const META_MAX: usize = 1 << 20;
/// The first interval that is searched for the newest transactions, in units of tids: a minute.
const FIRST_SPAN: u64 = 1 << 32;
/// How many transactions an undo log is asked for at most. Servers before ZEO 5 send nothing else at that time.
const UNDOABLE_MAX: usize = 1000;

/// Why a server does not give what it was asked for. The text names the server.
#[derive(Debug)]
pub enum ServedError {
    /// The connection is lost. It may come back.
    Lost(String),
    Failed(String),
}

impl From<ServedError> for Trouble {
    fn from(error: ServedError) -> Trouble {
        let (ServedError::Lost(what) | ServedError::Failed(what)) = error;
        Trouble::Failed(what)
    }
}

fn of_storage(name: &str, error: StorageError) -> ServedError {
    match error {
        // The client names itself in some of them.
        StorageError::Disconnected(what) if what.starts_with(name) => ServedError::Lost(what),
        StorageError::Disconnected(what) => ServedError::Lost(format!("{name}: {what}")),
        error => ServedError::Failed(format!("{name}: {error}")),
    }
}

/// A client that connects to a storage.
pub struct Client {
    name: String,
    storage: ClientStorage,
}

impl Client {
    /// Begins to connect. `name`: for people. `waits`: until there is a connection.
    pub fn open(name: &str, options: &ClientOptions, waits: bool) -> Result<Client, ServedError> {
        let options = ClientOptions {
            name: name.into(),
            cache_path: None,
            cache_size: CACHE_SIZE,
            memory_size: 0,
            read_only: true,
            read_only_fallback: false,
            wait: waits,
            blob_dir: None,
            shared_blob_dir: false,
            blob_cache_size: None,
            label: options.label.clone().or_else(|| Some("zeofs".into())),
            ..options.clone()
        };
        let storage = ClientStorage::open(options).map_err(|error| of_storage(name, error))?;
        Ok(Client { name: name.into(), storage })
    }

    /// The storage as it is now. `None`: there is no connection yet.
    pub fn served(&self) -> Option<Result<Served<'_>, ServedError>> {
        let link = self.storage.one_link()?;
        Some(Served::new(&self.name, link))
    }

    /// The storage as it is now. Errors: there is no connection.
    pub fn require_served(&self) -> Result<Served<'_>, ServedError> {
        let lost = || Err(ServedError::Lost(format!("{}: the connection is lost", self.name)));
        self.served().unwrap_or_else(lost)
    }
}

/// A storage of a server, as one connection shows it.
pub struct Served<'a> {
    pub name: &'a str,
    link: OneLink,
    /// Its last transaction when it was asked.
    pub last: Tid,
}

impl<'a> Served<'a> {
    fn new(name: &'a str, link: OneLink) -> Result<Served<'a>, ServedError> {
        if !link.can_iterate() {
            let protocol = link.generation();
            return Err(ServedError::Failed(format!(
                "{name}: the server does not list its transactions. Servers since ZODB 3.9 do, of storages that keep \
                 them, such as a FileStorage; this one speaks the protocol {protocol}"
            )));
        }
        let last = link.last_transaction().map_err(|error| of_storage(name, error))?;
        Ok(Served { name, link, last })
    }

    /// Asks for the last transaction again.
    pub fn ask_last(&mut self) -> Result<Tid, ServedError> {
        self.last = self.link.last_transaction().map_err(|error| of_storage(self.name, error))?;
        Ok(self.last)
    }

    /// Whether the connection has ended.
    pub fn is_lost(&self) -> bool {
        self.link.has_ended()
    }

    /// Bytes of the storage, as the server says.
    pub fn size(&self) -> u64 {
        self.link.size()
    }

    /// The protocol, such as `Z5`.
    pub fn protocol(&self) -> String {
        self.link.generation().to_string()
    }

    /// The transactions from `start` to `stop` and not behind the last one that is known.
    pub fn transactions(&self, start: Tid, stop: Tid) -> Result<Transactions<'a>, ServedError> {
        let stop = stop.min(self.last);
        let iterator = match start > stop {
            true => None,
            false => Some(self.link.iterate(start, stop).map_err(|error| of_storage(self.name, error))?),
        };
        Ok(Transactions { name: self.name, iterator, start, stop })
    }

    /// The `count` newest transactions up to `stop`, the oldest first: tid and status. Fewer if there are not so many.
    /// `at` gets the number of transactions that were passed.
    pub fn newest(
        &self,
        count: usize,
        stop: Tid,
        at: &mut dyn FnMut(u64),
    ) -> Result<VecDeque<(Tid, u8)>, ServedError> {
        let stop = stop.min(self.last);
        let mut newest = VecDeque::new();
        if count == 0 || stop == Tid::ZERO {
            return Ok(newest);
        }
        // Of a storage that was packed, or whose undo log leaves out some, it names too few; then longer and longer
        // intervals are searched.
        let undoable = match u32::try_from(count) {
            Ok(asked) if count <= UNDOABLE_MAX && stop == self.last => {
                self.link.undoable(asked).map_err(|error| of_storage(self.name, error))?
            }
            _ => None,
        };
        let mut span = FIRST_SPAN;
        let mut start = undoable.map_or(Tid(stop.0.saturating_sub(span)), |tid| tid.min(stop));
        let mut passed = 0;
        loop {
            newest.clear();
            let mut transactions = self.transactions(start, stop)?;
            while let Some(txn) = transactions.next_transaction()? {
                if newest.len() == count {
                    newest.pop_front();
                }
                newest.push_back((txn.tid, txn.status));
                passed += 1;
                at(passed);
            }
            if newest.len() == count || start == Tid::ZERO {
                return Ok(newest);
            }
            span = span.saturating_mul(8);
            start = Tid(stop.0.saturating_sub(span));
        }
    }
}

/// Transactions of a server, in the order of their tids.
pub struct Transactions<'a> {
    name: &'a str,
    /// `None`: there are none.
    iterator: Option<Box<dyn TransactionIterator>>,
    /// The next one must not be earlier.
    start: Tid,
    stop: Tid,
}

impl Transactions<'_> {
    /// The next one, with any number of records.
    pub fn next_transaction(&mut self) -> Result<Option<TransactionRecord>, ServedError> {
        let Some(iterator) = &mut self.iterator else { return Ok(None) };
        let next = iterator.next_transaction().map_err(|error| of_storage(self.name, error))?;
        let Some(txn) = next else { return Ok(None) };
        let wrong = |what: String| {
            Err(ServedError::Failed(format!(
                "{}: the server has sent transaction {} {what}",
                self.name, txn.tid
            )))
        };
        if txn.tid < self.start || txn.tid > self.stop || self.start.0 == u64::MAX {
            let (start, stop) = (self.start, self.stop);
            return wrong(format!("where one from {start} to {stop} should be"));
        }
        if !matches!(txn.status, b' ' | b'p') {
            return wrong(format!("with the unknown status '{}'", [txn.status].escape_ascii()));
        }
        let meta = &txn.meta;
        if [&meta.user, &meta.description, &meta.extension].iter().any(|text| text.len() > META_MAX) {
            return wrong("with a user, a description or an extension of more than a megabyte".into());
        }
        self.start = Tid(txn.tid.0.saturating_add(1));
        Ok(Some(txn))
    }

    /// The records of the transaction that came last.
    pub fn records(&self) -> Result<ServedRecords<'_>, ServedError> {
        let none = || ServedError::Failed(format!("{}: there is no transaction", self.name));
        let iterator = self.iterator.as_ref().ok_or_else(none)?;
        let records = iterator.records().map_err(|error| of_storage(self.name, error))?;
        Ok(ServedRecords { name: self.name, records })
    }
}

/// Records of one transaction.
pub struct ServedRecords<'a> {
    name: &'a str,
    records: Box<dyn RecordIterator>,
}

impl ServedRecords<'_> {
    /// The next one; its data is not empty.
    pub fn next_record(&mut self) -> Result<Option<DataRecord>, ServedError> {
        let next = self.records.next_record().map_err(|error| of_storage(self.name, error))?;
        match next {
            Some(DataRecord { oid, tid, data: Some(data), .. }) if data.is_empty() => {
                Err(ServedError::Failed(format!(
                    "{}: the server has sent an empty record of object 0x{oid} of {tid}",
                    self.name
                )))
            }
            next => Ok(next),
        }
    }
}
