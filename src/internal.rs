//! What this project's own tests, benches and fuzzers need from inside the library. **No promise**: anything here may
//! change or go away with any commit. What others may build on is in the documented modules beside this one.

#![allow(missing_docs)]

pub mod backup {
    pub mod replace {
        pub use crate::backup::replace::{Replaced, Replacement};
    }
    pub use crate::backup::zstd::ZstdReader;
    pub mod repository {
        pub use crate::backup::repository::create::{CreateOptions, Created, Source, Tempo, create};
        pub use crate::backup::repository::error::BackupError;
        pub use crate::backup::repository::join::join;
        pub use crate::backup::repository::manifest::{Manifest, Stamp, Stay};
        pub use crate::backup::repository::prune::{Pruned, prune};
        pub use crate::backup::repository::restore::{RestoreOptions, Restored, Target, restore};
        pub use crate::backup::repository::retention::Retention;
        pub use crate::backup::repository::sent::SendRecords;
        pub use crate::backup::repository::split::split;
        pub use crate::backup::repository::stream::{Sending, Streamed, receive, send};
        pub use crate::backup::repository::verify::{Verified, verify};
        pub use crate::backup::repository::{ProgressListener, Repository};
    }
    pub mod repozo {
        pub use crate::backup::repozo::backup::{BackupOptions, backup};
        pub use crate::backup::repozo::error::RepozoError;
        pub use crate::backup::repozo::progress::{Listener, Progress};
        pub use crate::backup::repozo::repository::Repository;
        pub use crate::backup::repozo::restore::{RestoreOptions, restore};
        pub use crate::backup::repozo::verify::verify;
    }
}

pub mod base {
    pub mod address {
        pub use crate::base::address::Address;
    }
    pub mod cancel {
        pub use crate::base::cancel::Cancel;
    }
    pub mod clock {
        pub use crate::base::clock::{IoDeadline, ManualClock, TimeSource};
    }
    pub mod network {
        pub use crate::base::network::Networks;
    }
    pub mod level {
        pub use crate::base::level::{ALL, CRITICAL};
    }
    pub mod shared_dir {
        pub use crate::base::shared_dir::Dir;
    }
    pub mod sync {
        #[cfg(loom)]
        pub use crate::base::sync::{Answerer, answer};
        pub use crate::base::sync::{Arc, AtomicUsize, Condvar, Mutex, Ordering, Rank, Ranked};
    }
}

pub mod client {
    pub mod awaited {
        pub use crate::client::awaited::{FinishId, OwnFinish};
    }
    pub mod blobs {
        pub use crate::client::blobs::{
            Begun, BlobCache, BlobCacheOptions, BlobRecord, ClientBlobs, Fetched, IncomingBlobs,
            OutgoingBlob, fetch, send,
        };
    }
    pub mod cache {
        pub use crate::client::cache::{Cache, CacheError, CacheOptions, Cached};

        pub mod trace {
            pub use crate::client::cache::trace::{Trace, TraceItem, TraceReader, TraceRecord};
        }
    }
    pub mod connector {
        pub use crate::client::connector::{
            Connected, Connector, ConnectorOptions, NotConnected, Prepare, PrepareError, RetryLimits,
        };
    }
    pub mod dial {
        pub use crate::client::dial::{Credentials, DialError, DialOptions, Dialled, dial};
    }
    pub mod library {
        pub use crate::client::library::{Changed, Client, Done};
    }
    pub mod link {
        pub use crate::client::link::{
            EndCause, Link, LinkError, LinkOptions, Reads, Receiver, Silence, Slot, Turn, start,
        };
    }
    pub mod options {
        pub use crate::client::options::{ClientOptions, TlsOptions};
    }
    pub mod recent {
        pub use crate::client::recent::Change;
    }
    pub mod timeline {
        pub use crate::client::timeline::{Filled, Found, Listener, News, Revisions, Timeline};
    }
    pub mod view {
        pub use crate::client::view::{Changes, View};
    }
}

pub mod commands {
    pub mod zeofs {
        /// The program `zeofs` in this process: what it prints, and its exit status.
        pub fn zeofs(arguments: &[&str]) -> (Vec<u8>, u8) {
            let arguments: Vec<std::ffi::OsString> = arguments.iter().map(Into::into).collect();
            let mut out = Vec::new();
            let status = crate::commands::zeofs::run_to(&mut out, "zeofs", &arguments);
            (out, status)
        }
    }
}

pub mod config {
    pub use crate::config::{
        AuditConfig, Config, FileStorageConfig, HttpConfig, Invocation, ListenerConfig, Location,
        NamedStorage, SendConfig, SocketGroup, StorageConfig, ZeoConfig,
    };

    /// The command line of `runzeo` itself, which adds no kinds of storage.
    pub fn from_command_line(
        program: &str,
        arguments: &[std::ffi::OsString],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Invocation, crate::config::UsageError> {
        crate::config::from_command_line(&Default::default(), program, arguments, environment)
    }

    pub mod changes {
        pub use crate::config::changes::effects::{Effect, not_at_a_restart};
    }
    pub mod options {
        pub use crate::config::options::not_everywhere;
    }
    pub mod schema {
        pub use crate::config::schema::FILE;
    }
    pub mod zconfig {
        pub use crate::config::zconfig::{Surroundings, load};

        pub mod matcher {
            pub use crate::config::zconfig::matcher::{Child, Content, KnownTo, SectionType, check};
        }
    }
}

pub mod conflict {
    pub mod native {
        pub use crate::conflict::native::{Merge, Refusal, merge};
    }
}

pub mod exceptions {
    pub mod meaning {
        pub use crate::exceptions::meaning::{ConflictFacts, Meaning};
    }
}

pub mod inspect {
    pub use crate::inspect::check::{Check, CheckOptions};
    pub use crate::inspect::data_file::DataFile;
    pub use crate::inspect::garbage::{Member, Search};
    pub use crate::inspect::show::state;
    pub use crate::inspect::stats::Count;
}

pub mod logging {
    pub use crate::logging::{
        Destination, Encoding, FileSetup, Formatter, HandlerSetup, JournalSetup, Layout, LogError, LogHandle,
        LogSetup, Rotation, Style, SyslogAddress, SyslogSetup, When, build, install_panic_hook, lines_lost,
        panics, setup,
    };

    pub mod entry {
        pub use crate::logging::entry::Entry;
    }
}

pub mod net {
    pub mod listen {
        pub use crate::net::listen::listen;
    }
    pub mod stream {
        pub use crate::net::stream::{Sink, Stream};
    }
    pub mod tls {
        pub use crate::net::tls::{ClientTls, Files, HostCheck, Password, Peers, Tls};
    }
}

pub mod pickle {
    pub use crate::pickle::Dialect;

    pub mod globals {
        pub use crate::pickle::globals::in_message;
    }
    pub mod read {
        pub use crate::pickle::read::{Accept, read};
    }
    pub mod record {
        pub use crate::pickle::record::{class_name, is_blob};
    }
    pub mod refs {
        pub use crate::pickle::refs::references;
    }
    pub mod rewrite {
        pub use crate::pickle::rewrite::rewrite;
    }
}

pub mod postgres {
    pub use crate::postgres::batch::{Batch, Statement};
    pub use crate::postgres::connect::OpenError;
    pub use crate::postgres::connection::{Connection, Limits};
    pub use crate::postgres::dsn::Dsn;
    pub use crate::postgres::error::{Lost, ServerError};
    pub use crate::postgres::login::Login;
    pub use crate::postgres::rows::Row;
    pub use crate::postgres::value::{Type, Value};
    pub use crate::postgres::wake::Wake;
}

pub mod process {
    pub mod pid_file {
        pub use crate::process::pid_file::PidFile;
    }
    pub mod signals {
        pub use crate::process::signals::{Signal, Signals};
    }
}

pub mod replication {
    pub mod cluster {
        pub mod options {
            pub use crate::replication::cluster::options::{ClusterOptions, Level, OnTimeout, Role};
        }
        pub mod link {
            pub use crate::replication::cluster::link::{Outgoing, Receiving};
        }
        pub mod message {
            pub use crate::replication::cluster::message::{
                Ack, Follow, Hello, Message, News, Standing, put,
            };
            pub use crate::replication::cluster::position::Probe;
        }
        pub mod receive {
            pub use crate::replication::cluster::receive::{Received, TransactionStream};
        }
        pub mod state {
            pub use crate::replication::cluster::state::{ClusterState, Timelines};
        }
        #[cfg(loom)]
        pub use crate::replication::cluster::finishes::Finishes;
        #[cfg(loom)]
        pub use crate::replication::cluster::progress::{Connection, GroupProgress, Mode};
        #[cfg(loom)]
        pub mod turns {
            pub use crate::replication::cluster::turns::Turns;
        }
    }
    pub mod zrs {
        pub mod message {
            pub use crate::replication::zrs::message::{Message, RecordHead, Transaction, put_commit};
        }
        pub use crate::replication::zrs::receive::transactions;
    }
}

pub mod server {
    pub mod audit {
        pub use crate::server::audit::Event;
    }
    pub use crate::server::Server;

    pub mod connection {
        pub use crate::server::connection::Connection;
    }
    pub mod hosted {
        pub use crate::server::hosted::{Hosted, HostedOptions};
    }
    pub mod http {
        pub use crate::server::http::page::page;
        pub use crate::server::http::site::Site;
        pub use crate::server::http::{HttpServer, Rules};
    }
    pub mod invalidations {
        pub use crate::server::invalidations::Invalidations;
    }
    pub mod limits {
        pub use crate::server::limits::Limits;
    }
    pub mod locks {
        pub use crate::server::locks::{LockSet, Locks, Outcome, Owner};
    }
    pub mod outbox {
        pub use crate::server::outbox::Outbox;
    }
    pub mod pack_schedule {
        pub use crate::server::pack_schedule::PackSchedule;
    }
    pub mod policy {
        pub use crate::server::policy::{Authentication, Policy, PolicyOptions};
    }
    pub mod publish {
        pub use crate::server::publish::{Member, Publication, PublicationEntry};
    }
    pub mod record_memory {
        pub use crate::server::record_memory::RecordMemory;
    }
    pub mod session {
        pub use crate::server::session::serve;
    }
    pub mod status {
        pub use crate::server::status::{Phase, ServerReport};

        pub mod cluster {
            pub use crate::server::status::cluster::{
                ClusterRole, ClusterStatus, ClusterStorage, Following, ReplicaStatus,
            };
            pub use crate::server::status::lag::LagStatus;
        }
        pub mod client {
            pub use crate::server::status::client::TransactionState;
        }
        pub mod json {
            pub use crate::server::status::json::to_json;
        }
        pub mod storage {
            pub use crate::server::status::storage::StorageState;
        }
        pub mod slow {
            pub use crate::server::status::slow::{SlowReport, StepReport, WaitedForReport};
        }
        pub mod warnings {
            pub use crate::server::status::warnings::Warning;
        }
    }
    pub mod rates {
        pub use crate::server::rates::Rates;
    }
    pub mod slow {
        pub use crate::server::slow::{SlowRequest, Step};
    }
    pub mod workers {
        pub use crate::server::workers::Pools;
    }
}

pub mod wire {
    pub mod answers {
        pub use crate::wire::answers::{Answer, AnswerError, FromServer, Serialno, ServerPush};
    }
    pub mod availability {
        pub use crate::wire::availability::Method;
    }
    pub mod calls {
        pub use crate::wire::calls::{BLOB_CHUNK_LEN, Call};
    }
    pub mod frame {
        pub use crate::wire::frame::{FrameReader, put_frame};
    }
    pub mod mac {
        pub use crate::wire::mac::RunningMac;
    }
    pub mod protocol {
        pub use crate::wire::protocol::{
            Dialect, Encoding, Generation, Greeting, GreetingAnswer, UndoCall, Wire, negotiate,
        };
    }
    pub mod push {
        pub use crate::wire::push::Push;
    }
    pub mod reply {
        pub use crate::wire::reply::LoadShape;
    }
    pub mod request {
        pub use crate::wire::request::{MsgId, Request};
    }
    pub mod value {
        pub use crate::wire::value::{Value, extension_dict};
    }
}

pub mod auth {
    pub mod password_file {
        pub use crate::auth::password_file::Passwords;
    }
}

pub mod storage {
    pub mod blob {
        pub use crate::storage::blob::relayout::Relayout;
    }
    pub mod before {
        pub use crate::storage::before::Before;
    }
    pub mod demo {
        pub use crate::storage::demo::DemoStorage;
    }
    pub mod file {
        pub use crate::storage::file::index_file::parse as parse_index;
        pub use crate::storage::file::recover::{Tail, scan};
        pub use crate::storage::file::sums::{STRETCH_MAX, Stretch, SumJournal};
        pub use crate::storage::file::tail_note::TailNote;

        pub mod lead {
            pub use crate::storage::file::lead::{Joined, Lead, Tried};
        }
    }
    pub mod mapping {
        pub use crate::storage::mapping::MappingStorage;
    }
    pub mod media {
        pub use crate::storage::media::{
            Access, BOOT_LEN, Entry, Identity, Kind, Media, MediaDir, MediaFile, Readers, RealMedia,
            TakenOver, Time,
        };
    }
    pub mod postgres {
        pub use crate::storage::postgres::PostgresStorage;
        pub use crate::storage::postgres::options::PostgresOptions;

        #[cfg(loom)]
        pub mod sequencer {
            pub use crate::storage::postgres::sequencer::desk::{
                Desk, Finish, Sequencer, WrittenTransaction,
            };
            pub use crate::storage::postgres::sequencer::group::{Foreign, Group};
            pub use crate::storage::postgres::sequencer::publish::publish;
            pub use crate::storage::postgres::shared::DatabaseState;
        }
    }
    pub mod temporary {
        pub use crate::storage::temporary::TemporaryStorage;
    }
    pub mod transform {
        pub mod zlib {
            pub use crate::storage::transform::zlib::Zlib;
        }
    }
}
