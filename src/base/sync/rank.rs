//! The order of all locks of the program, outermost first, and which actions are allowed while one is held.
//!
//! A lock that permits nothing is only for short changes in memory, because commits, replies or the log wait for it.
//! Waiting at a condition variable gives back the lock that belongs to it; each other held lock must permit
//! [`Action::Wait`].
//!
//! A new lock gets a line here, before the locks that are taken while it is held. For most a place near the end is
//! right.

/// Actions that may take long, and so are not allowed under every lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Reading, writing or syncing a file.
    File,
    /// Writing a line to the log, whose reader may block.
    Log,
    /// Sending to a client, receiving from one, or closing its connection.
    Network,
    /// Waiting for a condition under another lock than the one that is given back.
    Wait,
}

/// The type of a lock's rank, see [`ranks`](self).
pub trait Ranked {
    /// The rank of locks of this type.
    const RANK: Rank;
}

macro_rules! ranks {
    ($($(#[$doc:meta])* $name:ident permits [$($action:ident),*];)*) => {
        /// A thread takes locks only in this order, and only one of each rank at a time.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum Rank {
            $($(#[$doc])* $name,)*
        }

        impl Rank {
            /// Whether the action is allowed while a lock of this rank is held.
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

    /// What a reload compares with and changes. It is held during the whole reload.
    Reload permits [File, Log, Network, Wait];
    /// One message at a time goes to the service manager.
    Notices permits [Log, Network];
    /// Whether the watch thread, or a thread that packs or scrubs by schedule, must end.
    Watch permits [];
    /// The storages that are packed by schedule.
    PackPlans permits [];
    /// The blobs that a verification of backups has read.
    VerifiedBlobs permits [];
    /// The server that is shown over HTTP, once there is one.
    HttpSite permits [];
    /// The open listeners of a server.
    Listeners permits [];
    /// The clients of a server, registered or not.
    Clients permits [];
    /// The threads of a file storage.
    StorageThreads permits [];
    /// The lock on `Data.fs.lock`, which is released when the storage closes.
    LockFile permits [File];
    /// The passwords as last read from their file, which is read again when it has changed.
    Passwords permits [File, Log];
    /// The thread that keeps conflict helpers ready.
    HelperKeeper permits [];

    // -- replication

    /// One change of a server's role in its cluster at a time.
    ClusterChange permits [File, Log, Network, Wait];
    /// The role and the timelines of a server in a cluster, and their file.
    ClusterState permits [File, Log];
    /// The storages of a server in a cluster, and its threads.
    ClusterMembers permits [];
    /// A replica's acknowledgements, in the order in which they are sent.
    ClusterAcks permits [Network];
    /// Which thread of a replica receives, and which one stores.
    ClusterTurns permits [];
    /// What a replica knows of the server that it follows.
    ClusterFollowed permits [];
    /// The threads of a primary or a secondary.
    ZrsThreads permits [];
    /// The secondaries of a primary. It is held while the storage is asked for its last transaction.
    ZrsSecondaries permits [];
    /// What a secondary knows of its primary.
    ZrsPrimary permits [];

    // -- the file storage

    /// The log's data about old transactions, read once for all clients that ask at the same time. The log may be
    /// another server's.
    LogChanges permits [File, Log, Network, Wait];
    /// Whether a pack is running.
    PackActive permits [];
    /// The right to save the index. A pack keeps it until it has switched files, for which it needs the lead of the
    /// group commit.
    Saving permits [File, Log, Wait];
    /// When the index has to be saved.
    Saver permits [];
    /// The queue of the group commit, and whether a thread leads.
    Lead permits [];
    /// Revisions that voted transactions point back to. A pack holds them while it switches files.
    Pins permits [File];
    /// The end of the file. Only the leader of the group commit writes.
    Writer permits [File, Log];
    /// One commit at a time of a storage in memory, whose blobs are files.
    MemoryCommit permits [File];

    // -- the client half

    /// The order of what arrives from a server: its holder changes the cache and tells the listener, which publishes.
    Arrivals permits [File, Log];

    // -- publishing: what every commit of a storage takes

    /// The registered clients of a storage and the invalidations they may ask for. Nothing is published while it is
    /// held.
    Members permits [];
    /// The transaction of one connection. Its session writes stores to the transaction's temporary file under this
    /// lock.
    Transaction permits [];
    /// The locks on objects.
    OidLocks permits [];

    // -- the server's other state

    /// The registered connections of a storage.
    Connections permits [];
    /// The pack of a storage that is running, and how the last one ended.
    LastPack permits [];
    /// How the last scrub of a storage ended.
    LastScrub permits [];
    /// What a storage has done in the last hour.
    History permits [];
    /// The room in the file systems of a server.
    DiskSpaces permits [];
    /// The backups of a server.
    Backups permits [];
    /// How the last reload of a server's configuration has ended, and the configuration that is in use, in words.
    ReloadFacts permits [];
    /// How the backups of a section have ended.
    BackupFacts permits [];
    /// The name of a client in log lines.
    Label permits [];
    /// The last conflicts of a storage.
    RecentConflicts permits [];
    /// The last slow requests of a storage.
    SlowRequests permits [];
    /// When the locks on objects were granted to their owners.
    LockTimes permits [];
    /// Deadlines of transactions.
    Timeouts permits [];
    /// What client addresses, or the clients of a network, have asked for, above their rates.
    Debts permits [];
    /// Number of connections, in all and for each host.
    Admission permits [];
    /// The memory for large records and replies.
    Room permits [];
    /// The jobs of a pool of threads.
    Workers permits [];
    /// Background jobs of one session.
    SessionJobs permits [];
    /// Loads of one session that wait for the disk.
    ColdLoads permits [];
    /// The blobs that one client waits for.
    SessionDownloads permits [];
    /// The action for a client that goes away while its conflict is being merged.
    Cancel permits [];
    /// The conflict helpers that are idle, busy, or not to be used for a class.
    Helpers permits [];
    /// The process of one conflict helper.
    HelperChild permits [];
    /// Hints about conflicts that were logged already.
    Advice permits [];

    // -- the client half

    /// The links of a client on which transactions are sent, and which of them are in use.
    CommitLinks permits [];
    /// The transactions of a client that are finished on another link than the one that tells of them.
    AwaitedFinishes permits [];
    /// What a server said about the stores of a transaction before it answered vote.
    Serialnos permits [];
    /// What a full verification has found so far.
    FullCheck permits [];
    /// The transactions that a client has received last, and the time of its views.
    RecentChanges permits [];
    /// The link to the server in use.
    CurrentLink permits [];
    /// Object ids that a server has given to a client in advance.
    OidPool permits [];
    /// The loads of a client that are under way.
    Flights permits [];
    /// The outcome of one load.
    Flight permits [];
    /// The outcome of one commit of the library.
    CommitOutcome permits [];
    /// What the library calls when something changes.
    ChangeListeners permits [];
    /// The addresses of a server, and what is being done to connect.
    Connector permits [];
    /// Whether the thread that keeps a link alive must end.
    LinkKeeper permits [];
    /// The calls of a link that have no answer yet.
    LinkPending permits [];
    /// The messages of a link that are to be sent. It determines their order. Network calls that do not wait are made
    /// under this lock.
    LinkQueue permits [Network];
    /// The thread that reads a link, and those that wait.
    LinkTurn permits [];
    /// The result of one call, for the thread that waits for it.
    LinkSlot permits [];

    // -- parts of storages

    /// Object ids that a demo storage has issued.
    DemoOids permits [];
    /// Files of blobs that a pack is to remove.
    SweepList permits [File, Log];
    /// What an iterator over transactions has read ahead.
    IteratorBuffer permits [File];
    /// The last object id that was given out, and the mark in the note of a file storage.
    Oids permits [File];
    /// The note for the next start, `Data.fs.tmp`.
    Note permits [File];
    /// The space at the end of the file that is reserved for voted transactions.
    Space permits [File];
    /// The last transaction ids that were given out.
    Tids permits [];
    /// The group of transactions that is written and waits for other servers.
    WrittenGroup permits [];
    /// How far a storage of a cluster and its replicas have come.
    ClusterProgress permits [];
    /// The places of old transactions.
    UndoPlaces permits [];
    /// Which iterators still use which file.
    Lent permits [];
    /// The directory of blobs of open transactions.
    BlobTmp permits [File];
    /// Open directories that are held back for when no descriptor is left.
    BlobReserve permits [File];
    /// What the sequencer of a database has to do.
    PostgresQueue permits [];
    /// The sessions for reading of a database, and the questions that wait.
    PostgresReaders permits [];
    /// The answer to one question, or to one request to the sequencer.
    PostgresAnswer permits [];
    /// What is known of the replication of a database.
    PostgresReplication permits [];
    /// Whether a database can be reached.
    PostgresRemote permits [];
    /// The snapshots of a database that lists are read from.
    PostgresSnapshots permits [];
    /// The session of one of them.
    PostgresSnapshot permits [];
    /// Large objects of a database that are to be removed.
    PostgresUploads permits [];
    /// The sessions of a database for large objects.
    PostgresSessions permits [];
    /// A shard of the records of a database that were read lately.
    PostgresRecords permits [];
    /// The objects of a storage in memory.
    MemoryState permits [];
    /// The last groups that a primary has published. It is taken while a storage publishes.
    ZrsRecent permits [];
    /// A shard of the pages of the index.
    IndexShard permits [];
    /// One page of the index.
    IndexPage permits [];

    /// The queue of messages to one client. It determines the order of replies and invalidations.
    Outbox permits [];

    // -- the client

    /// The blobs that a server is sending on a link. What arrives is written under this lock.
    IncomingBlobs permits [File];
    /// The blobs that are being downloaded into a cache.
    BlobDownloads permits [];
    /// The directories of a cache of blobs that this process has locked. A file is locked, without waiting, under this
    /// lock.
    BlobDirLocks permits [File];
    /// Whether the size of a cache of blobs is being checked.
    BlobSizeCheck permits [];
    /// What the log has said last about a cache.
    CacheReport permits [];
    /// What a cache has made durable. Held while it is synced.
    CacheSaved permits [File];
    /// The index of a cache and the place where it writes. Loads share it.
    CacheRing permits [File];
    /// The records of a cache's trace that are not written yet.
    CacheTrace permits [File];
    /// The objects that are watched for estimates of other sizes of a cache.
    CacheEstimate permits [];
    /// Some of the revisions that a cache has in memory.
    CacheHot permits [];

    // -- beside all others

    /// The state of one TLS connection. Network calls that do not wait are made under this lock.
    Tls permits [Network];
    /// The kinds of log lines with a rate limit.
    LogRates permits [];
    /// The lines of one kind that were logged in the last minute.
    LogRateWindow permits [];
    /// One handler of the log. It does not wait for a blocked reader without limit.
    LogHandler permits [File, Network, Wait];
}
