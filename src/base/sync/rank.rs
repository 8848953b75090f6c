//! The order of all locks of the program, outermost first, and what may be done while one is held.
//!
//! A lock that permits nothing is for memory only, and short: commits, replies or the log wait for it. Waiting at a
//! condition variable gives back the lock that it is used with, and is forbidden by each other lock that does not
//! permit [`Action::Wait`].
//!
//! A new lock gets a line here, before those that are taken while it is held. Most need no more than a place near the
//! end.

/// What may take long, and so is not done under every lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Reading, writing or syncing a file.
    File,
    /// Writing a line to the log, whose reader may be stuck.
    Log,
    /// Sending to a client or receiving from one, closing its connection.
    Network,
    /// Waiting for a condition under another lock than the one that is given back.
    Wait,
}

/// The type of a lock's rank, see [`ranks`](self).
pub trait Ranked {
    const RANK: Rank;
}

macro_rules! ranks {
    ($($(#[$doc:meta])* $name:ident permits [$($action:ident),*];)*) => {
        /// A thread takes locks in this order only, and of each rank one at a time.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum Rank {
            $($(#[$doc])* $name,)*
        }

        impl Rank {
            /// May this be done while a lock of this rank is held?
            pub fn permits(self, action: Action) -> bool {
                let permitted: &[Action] = match self {
                    $(Rank::$name => &[$(Action::$action),*],)*
                };
                permitted.contains(&action)
            }
        }

        $($(#[$doc])*
        pub struct $name;

        impl Ranked for $name {
            const RANK: Rank = Rank::$name;
        })*
    };
}

ranks! {
    // -- start, stop and configuration

    /// Whether the watch thread is to end.
    Watch permits [];
    /// The open listeners of a server.
    Listeners permits [];
    /// The clients of a server, registered or not.
    Clients permits [];
    /// The threads of a file storage.
    StorageThreads permits [];
    /// `Data.fs.lock`, which is removed when the storage closes.
    LockFile permits [File];
    /// The passwords as of the last look at their file, which is read anew when it has changed.
    Passwords permits [File, Log];
    /// The thread that keeps conflict helpers ready.
    HelperKeeper permits [];

    // -- the file storage

    /// What the log says about old transactions, read once for all clients that ask at the same time.
    LogChanges permits [File, Log];
    /// Whether a pack is under way.
    PackActive permits [];
    /// The right to save the index. A pack keeps it until it has switched files, which needs the lead of the group
    /// commit.
    Saving permits [File, Log, Wait];
    /// When the index is to be saved.
    Saver permits [];
    /// The queue of the group commit, and who leads it.
    Lead permits [];
    /// Revisions that voted transactions point back to. A pack holds them while it switches files.
    Pins permits [File];
    /// The end of the file. Only the leader of the group commit writes.
    Writer permits [File, Log];
    /// The one commit of a storage in memory, whose blobs are files.
    MemoryCommit permits [File];

    // -- publishing: what every commit of a storage takes

    /// The registered clients of a storage and the invalidations they may ask for. Nothing is published while it is
    /// held.
    Members permits [];
    /// The transaction of one connection. Its session writes stores to the transaction's temporary file under it.
    Transaction permits [];
    /// The locks on objects.
    OidLocks permits [];

    // -- the server's other state

    /// The registered connections of a storage.
    Connections permits [];
    /// How a client is called in log lines.
    Label permits [];
    /// When owners of object locks were granted them.
    LockTimes permits [];
    /// Deadlines of transactions.
    Timeouts permits [];
    /// How many connections there are, in all and of each host.
    Admission permits [];
    /// Memory that large records, and replies, may take.
    Room permits [];
    /// The jobs of a pool of threads.
    Workers permits [];
    /// Background jobs of one session.
    SessionJobs permits [];
    /// Loads of one session that wait for the disk.
    ColdLoads permits [];
    /// What is done when a client goes away while its conflict is being resolved.
    Cancel permits [];
    /// The conflict helpers that are idle, busy, or not to be used for a class.
    Helpers permits [];
    /// The process of one conflict helper.
    HelperChild permits [];
    /// Hints about conflicts that were logged already.
    Advice permits [];

    // -- parts of storages: each for itself

    /// Object ids that a demo storage has issued.
    DemoOids permits [];
    /// Files of blobs that a pack is to remove.
    SweepList permits [File, Log];
    /// What an iterator over transactions has read ahead.
    IteratorBuffer permits [File];
    /// The last object id given out. A file storage notes in steps how far it may go.
    Oids permits [File];
    /// The file of notes for the next start, `Data.fs.tmp`.
    Note permits [File];
    /// Space at the end of the file that voted transactions have reserved.
    Space permits [File];
    /// The last transaction id given out.
    Tids permits [];
    /// Where old transactions begin.
    UndoPlaces permits [];
    /// Which readers still have which file.
    Lent permits [];
    /// The directory of blobs that are under way.
    BlobTmp permits [File];
    /// Open directories for the time when no descriptor is left.
    BlobReserve permits [File];
    /// The objects of a storage in memory.
    MemoryState permits [];
    /// A part of the pages of the index.
    IndexShard permits [];
    /// One page of the index.
    IndexPage permits [];

    /// What waits to be sent to one client. Replies and invalidations have their order from it.
    Outbox permits [];

    // -- beside all others

    /// The state of one TLS connection. Calls that do not wait are made under it.
    Tls permits [Network];
    /// Which log lines have a rate limit.
    LogRates permits [];
    /// The lines of one kind that were logged in the last minute.
    LogRateWindow permits [];
    /// One handler of the log. It gives up on a reader that is stuck.
    LogHandler permits [File, Network, Wait];
}
