//! The client of the library: a connection, views and commits.

use std::io::Read;
use std::ops::Deref;

use super::options::ClientOptions;
use super::storage::ClientStorage;
use super::view::View;
use crate::base::clock::since_1970;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::storage::blob::StagedBlob;
use crate::storage::{
    BlobFile, Blobs, Commit, Committed, Delivery, NotVoted, Publisher, Result, Staged, Storage, StorageError,
    Ticket, TidAt, TransactionMeta,
};

/// Bytes of a transaction that are kept in memory; beyond, its records go to a temporary file.
const TRANSACTION_MEMORY: usize = 8 << 20;

/// A client of a ZEO server. Cheap to clone; may be used from any number of threads.
///
/// It is also a [`Storage`](crate::storage::Storage), whose methods list transactions, undo, pack and give out object
/// ids.
#[derive(Clone)]
pub struct Client {
    storage: Arc<ClientStorage>,
    listeners: Arc<Listeners>,
}

/// What a commit has become.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Done {
    /// The transaction's id.
    pub tid: Tid,
    /// Objects whose state differs from what was stored: the server has merged a conflict. Load them again.
    pub merged: Vec<Oid>,
}

/// What is called when something has changed.
type OnChange = Box<dyn Fn(&Changed<'_>) + Send + Sync>;

/// What [`Client::on_change`] tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum Changed<'a> {
    /// A transaction, of this client or of another one.
    Transaction {
        /// Its id.
        tid: Tid,
        /// The objects that it changed.
        oids: &'a [Oid],
    },
    /// Several transactions up to `last`, which this client has missed while it was not connected.
    Missed {
        /// The last of them.
        last: Tid,
        /// The objects that they changed.
        oids: &'a [Oid],
    },
    /// Anything may have changed.
    Anything {
        /// The last transaction.
        last: Tid,
    },
}

#[derive(Default)]
struct Listeners(Mutex<Vec<Arc<OnChange>>, rank::ChangeListeners>);

impl Client {
    /// Opens the cache and connects. With [`ClientOptions::wait`] this waits for a connection; without it, reads that
    /// the cache can answer succeed at once.
    ///
    /// Errors: another process has the cache's file; `Disconnected` if there was no connection in time.
    pub fn open(options: ClientOptions) -> Result<Client> {
        let storage = Arc::new(ClientStorage::open(options)?);
        let listeners = Arc::new(Listeners::default());
        storage.set_publisher(Arc::new(Tell(Arc::clone(&listeners))));
        Ok(Client { storage, listeners })
    }

    /// A snapshot of the database as it is now.
    pub fn view(&self) -> View {
        self.storage.view()
    }

    /// An empty transaction, for [`Client::commit`].
    pub fn transaction(&self, meta: TransactionMeta) -> Staged {
        Staged::new(meta, None, b' ', TRANSACTION_MEMORY)
    }

    /// Commits. Views that are refreshed afterwards see the transaction.
    ///
    /// Errors: `Conflict` and `ReadConflict` if objects were changed since they were read: refresh the view, and run
    /// the transaction again. `Disconnected`: nothing was committed. `OutcomeUnknown`: the connection broke in the one
    /// moment in which nobody can know.
    pub fn commit(&self, staged: Staged) -> Result<Done> {
        let voted = self.storage.vote(staged, TidAt::Finish).map_err(|not_voted| match not_voted {
            NotVoted::Failed(error) => error,
            other => other.into(),
        })?;
        let merged = voted.resolved().to_vec();
        let outcome = Arc::new(CommitSlot::default());
        self.storage.finish(voted, Box::new(Arc::clone(&outcome)));
        Ok(Done { tid: outcome.wait()?, merged })
    }

    /// Whether there is a connection now. Without one, what is cached can be read, as of the last transaction that was
    /// received: later ones of other clients are missing. A commit fails.
    pub fn is_connected(&self) -> bool {
        self.storage.is_connected()
    }

    /// The blob that an object has in the revision `serial`, open for reading.
    ///
    /// ```no_run
    /// # use runzeo::client::Client;
    /// # use runzeo::ids::Oid;
    /// # fn copied(client: &Client, oid: Oid) -> Result<(), Box<dyn std::error::Error>> {
    /// let revision = client.view().load(oid)?.ok_or("it is gone")?;
    /// let blob = client.open_blob(oid, revision.serial)?;
    /// let mut beginning = [0; 16];
    /// let len = blob.read_at(&mut beginning, 0)?;
    /// println!("{} bytes, beginning with {}", blob.len, beginning[..len].escape_ascii());
    ///
    /// // A new state of it.
    /// let mut transaction = client.transaction(Default::default());
    /// let data = client.stage_blob(oid, &mut "new content".as_bytes())?;
    /// transaction.store_blob(oid, revision.serial, &revision.data, data)?;
    /// client.commit(transaction)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors: `NoBlob`; `Refused` without [`ClientOptions::blob_dir`].
    pub fn open_blob(&self, oid: Oid, serial: Tid) -> Result<BlobFile> {
        self.require_blobs()?.load_blob(oid, serial)
    }

    /// Reads the content of a blob, for [`Staged::store_blob`]. It is kept in the blob directory until the commit.
    pub fn stage_blob(&self, oid: Oid, from: &mut dyn Read) -> Result<StagedBlob> {
        let reading = || StorageError::io("receiving a blob");
        let dir = self.require_blobs()?.dir().ok_or_else(StorageError::no_blobs)?;
        let mut upload = dir.begin()?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match from.read(&mut buffer).map_err(reading())? {
                0 => return upload.end(oid),
                len => upload.write(buffer.get(..len).unwrap_or_default()).map_err(reading())?,
            }
        }
    }

    fn require_blobs(&self) -> Result<&dyn Blobs> {
        self.blobs().ok_or_else(StorageError::no_blobs)
    }

    /// Removes the revisions that are not current any more, and garbage if the server is configured so. Waits for the
    /// end.
    pub fn pack_now(&self) -> Result<()> {
        self.storage.pack_at(since_1970().as_secs_f64())
    }

    /// Calls `listener` after each change, in the order of transactions, in the thread that receives messages: it must
    /// not call the server.
    pub fn on_change(&self, listener: impl Fn(&Changed<'_>) + Send + Sync + 'static) {
        self.listeners.0.lock().push(Arc::new(Box::new(listener)));
    }
}

impl Deref for Client {
    type Target = ClientStorage;

    fn deref(&self) -> &ClientStorage {
        &self.storage
    }
}

/// The outcome of a finish, for the thread that waits for it.
#[derive(Default)]
struct CommitSlot {
    result: Mutex<Option<Result<Tid>>, rank::CommitOutcome>,
    known: Condvar,
}

impl CommitSlot {
    fn set(&self, result: Result<Tid>) {
        *self.result.lock() = Some(result);
        self.known.notify_all();
    }

    fn wait(&self) -> Result<Tid> {
        let mut result = self.result.lock();
        loop {
            match result.take() {
                Some(result) => return result,
                None => result = self.known.wait(result),
            }
        }
    }
}

/// Tells listeners and committers.
struct Tell(Arc<Listeners>);

impl Tell {
    fn tell(&self, changed: &Changed<'_>) {
        let listeners = self.0.0.lock().clone();
        listeners.iter().for_each(|listener| listener(changed));
    }
}

impl Publisher for Tell {
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        install();
        for committed in &group {
            self.tell(&Changed::Transaction { tid: committed.tid, oids: &committed.oids });
        }
        Box::new(move || {
            for committed in group {
                if let Ok(outcome) = committed.ticket.downcast::<Arc<CommitSlot>>() {
                    outcome.set(Ok(committed.tid));
                }
            }
        })
    }

    fn missed(&self, last: Tid, oids: Option<Vec<Oid>>, install: &mut dyn FnMut()) -> Delivery {
        install();
        match &oids {
            Some(oids) => self.tell(&Changed::Missed { last, oids }),
            None => self.tell(&Changed::Anything { last }),
        }
        Box::new(|| ())
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        if let Ok(outcome) = ticket.downcast::<Arc<CommitSlot>>() {
            outcome.set(Err(error));
        }
    }
}
