//! Where threads leave their requests for the sequencer.

use std::collections::VecDeque;
use std::mem;
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::blobs::VotedBlobs;
use super::super::session::LOG;
use super::locks::{Granted, LockRequest, NotGranted, WantedLocks};
use crate::base::cancel::Cancel;
use crate::base::clock::{IoDeadline, Stopwatch};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Answerer, Arc, Awaited, Condvar, Mutex, answer, rank};
use crate::postgres::Wake;
use crate::storage::{Result, StorageError, Ticket, TransactionMeta};

/// A vote that finds an object locked tries again after this time, and then more and more rarely, or when another
/// server says that it has released something.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(100);

/// A transaction as it is written.
pub struct WrittenTransaction {
    pub meta: TransactionMeta,
    /// A copied transaction keeps its status.
    pub is_packed: bool,
    /// The tid that it was promised at vote.
    pub tid: Option<Tid>,
    /// Each object once.
    pub records: Vec<WrittenRecord>,
    pub blobs: VotedBlobs,
}

/// A record of a transaction.
pub struct WrittenRecord {
    pub oid: Oid,
    /// The revision that it replaces; zero for a new object.
    pub serial: Tid,
    /// `None`: a deletion.
    pub data: Option<Vec<u8>>,
}

/// A voted transaction that is to be committed.
pub struct Finish {
    /// Its locks, see [`Granted::id`].
    pub locks: Vec<u64>,
    pub written: WrittenTransaction,
    pub ticket: Ticket,
    /// Since others have kept it from the commit lock.
    pub kept_waiting: Option<Stopwatch>,
}

impl Finish {
    pub fn new(locks: Vec<u64>, written: WrittenTransaction, ticket: Ticket) -> Finish {
        Finish { locks, written, ticket, kept_waiting: None }
    }
}

/// A client that waits until everything is published that was committed before.
pub type CatchUp = Answerer<Result<()>, rank::PostgresAnswer>;

/// The requests that wait.
#[derive(Default)]
pub struct Requests {
    pub locks: Vec<LockRequest>,
    pub finishes: VecDeque<Finish>,
    /// The locks of transactions that were aborted.
    pub releases: Vec<u64>,
    pub catch_ups: Vec<CatchUp>,
    /// Finish what is there, and end.
    pub is_closed: bool,
    /// The thread has ended: nothing is answered any more.
    pub is_over: bool,
}

/// The queue and its bell.
pub struct Desk {
    pub queue: Mutex<Requests, rank::PostgresQueue>,
    /// Another server has released locks.
    pub released: Condvar,
    pub wake: Wake,
}

impl Desk {
    pub fn new(wake: Wake) -> Desk {
        Desk { queue: Mutex::default(), released: Condvar::new(), wake }
    }

    /// Takes all requests that are there.
    pub fn take(&self) -> Requests {
        let mut queue = self.queue.lock();
        let rest = Requests { is_closed: queue.is_closed, is_over: queue.is_over, ..Requests::default() };
        mem::replace(&mut *queue, rest)
    }

    /// From here on nothing is taken in. Returns the transactions that nothing has been done about; their clients must
    /// get an answer. Those that wait for something else find out.
    pub fn end(&self) -> VecDeque<Finish> {
        let mut queue = self.queue.lock();
        queue.is_over = true;
        drop(queue);
        self.take().finishes
    }
}

/// The sequencer of a storage, as other threads see it.
pub struct Sequencer {
    name: String,
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<()>>, rank::StorageThreads>,
}

impl Sequencer {
    /// Starts the thread, which does `work` at the desk.
    pub fn start<W: FnOnce() + Send + 'static>(
        name: String,
        wake: Wake,
        work: impl FnOnce(Arc<Desk>) -> W,
    ) -> Result<Sequencer> {
        let desk = Arc::new(Desk::new(wake));
        let work = work(Arc::clone(&desk));
        let thread = std::thread::Builder::new().name("zeo-postgres".into());
        let thread = thread.spawn(work);
        let thread = thread.map_err(StorageError::io("starting the thread that commits"))?;
        Ok(Sequencer { name, desk, thread: Mutex::new(Some(thread)) })
    }

    /// For models, whose threads are not those of the machine.
    #[cfg(loom)]
    pub fn of_model(desk: Arc<Desk>) -> Sequencer {
        Sequencer { name: "model".into(), desk, thread: Mutex::new(None) }
    }

    /// Locks the objects of a transaction, and waits up to `timeout` for those that another server or a client of
    /// RelStorage has locked. Errors: [`StorageError::Conflict`] after that time.
    pub fn lock(&self, wanted: &WantedLocks, timeout: Duration, cancel: &Cancel) -> Result<Granted> {
        let until = IoDeadline::after(timeout);
        let mut pause = RETRY_MIN;
        loop {
            let (answer, answered) = answer();
            self.leave(|queue| queue.locks.push(LockRequest { wanted: wanted.clone(), answer }))?;
            let busy = match self.wait(answered)? {
                Ok(granted) => return Ok(granted),
                Err(NotGranted::Failed(error)) => return Err(error),
                Err(NotGranted::Busy(oid)) => oid,
            };
            if cancel.is_cancelled() {
                return Err(StorageError::Transaction("the transaction was given up".into()));
            }
            if until.is_over() {
                return Err(wanted.locked_too_long(busy));
            }
            let queue = self.desk.queue.lock();
            drop(self.desk.released.wait_timeout(queue, pause));
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Gives back the locks of a transaction that is not finished.
    pub fn release(&self, id: u64) {
        // If the sequencer has ended, so have its locks.
        let _ = self.leave(|queue| queue.releases.push(id));
    }

    /// Has a transaction committed and published. The publisher gets the outcome. Gives the transaction back if the
    /// sequencer has ended.
    pub fn finish(&self, finish: Finish) -> std::result::Result<(), Box<(Finish, StorageError)>> {
        let mut finish = Some(finish);
        let left = self.leave(|queue| queue.finishes.extend(finish.take()));
        match (left, finish) {
            (Err(error), Some(finish)) => Err(Box::new((finish, error))),
            _ => Ok(()),
        }
    }

    /// Waits until everything is published that was committed before this call, by whatever client of the database.
    pub fn catch_up(&self) -> Result<()> {
        let (answer, answered) = answer();
        self.leave(|queue| queue.catch_ups.push(answer))?;
        self.wait(answered)?
    }

    /// Commits what is to be finished, and ends the thread.
    pub fn close(&self) {
        let _ = self.leave(|queue| queue.is_closed = true);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::error!(target: LOG, "{}: the thread that commits has failed", self.name);
        }
    }

    fn leave(&self, add: impl FnOnce(&mut Requests)) -> Result<()> {
        let mut queue = self.desk.queue.lock();
        if queue.is_closed || queue.is_over {
            return Err(StorageError::Closed(format!("{} is closed", self.name)));
        }
        add(&mut queue);
        drop(queue);
        self.desk.wake.wake();
        Ok(())
    }

    fn wait<T>(&self, answered: Awaited<T, rank::PostgresAnswer>) -> Result<T> {
        answered.wait().ok_or_else(|| StorageError::Closed(format!("{} is closed", self.name)))
    }
}

impl Drop for Sequencer {
    fn drop(&mut self) {
        self.close();
    }
}
