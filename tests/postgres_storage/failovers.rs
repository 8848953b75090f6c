//! A standby takes over, with all that clients have seen or without.

use std::sync::Arc;

use runzeo::ids::Tid;
use runzeo::internal::postgres::Dsn;
use runzeo::internal::storage::postgres::{PostgresOptions, PostgresStorage};
use runzeo::storage::StorageError;
use runzeo::storage::prelude::*;

use crate::support::postgres::PostgresServer;
use crate::support::storage::{Answers, commit, load};
use crate::{Sql, eventually, lost_for_good};

/// A primary, its standby, and a storage that knows both.
struct Pair {
    primary: PostgresServer,
    standby: PostgresServer,
    options: PostgresOptions,
}

impl Pair {
    /// `None`: no PostgreSQL is installed.
    fn start(keep_history: bool) -> Option<Pair> {
        let primary = PostgresServer::start(&[])?;
        let standby = primary.standby();
        let [first, second] = [&primary, &standby].map(|server| server.socket_dir().display().to_string());
        let dsn = format!("host={first},{second} user=postgres dbname=postgres");
        let dsn = Dsn::parse(&dsn, &|_| None).unwrap();
        Some(Pair {
            primary,
            standby,
            options: PostgresOptions { keep_history, ..PostgresOptions::new(dsn) },
        })
    }

    fn storage(&self) -> PostgresStorage {
        let storage = PostgresStorage::open(self.options.clone()).unwrap();
        storage.set_publisher(Arc::new(Answers));
        storage
    }

    fn wait_for_standby(&self) {
        let position = "select (pg_current_wal_lsn() - '0/0')::bigint";
        let wanted = Sql::connect(&self.primary).number(position);
        let mut standby = Sql::connect(&self.standby);
        eventually("the standby has all", || {
            standby.number("select coalesce(pg_last_wal_replay_lsn() - '0/0', 0)::bigint") >= wanted
        });
    }

    /// What is committed from now on does not come to the standby.
    fn cut(&self) {
        let mut standby = Sql::connect(&self.standby);
        standby.run("alter system set primary_conninfo = ''");
        standby.run("select pg_reload_conf()");
        eventually("the standby is cut off", || {
            standby.number("select count(*) from pg_stat_wal_receiver") == 0
        });
    }

    fn take_over(&self) {
        self.primary.stop("immediate");
        self.standby.promote();
    }
}

/// What clients have seen is gone: neither the older states that are there nor anything new is served.
#[test]
fn after_a_failover_that_loses_transactions_nothing_is_served() {
    for keep_history in [true, false] {
        let Some(pair) = Pair::start(keep_history) else { return };
        let storage = pair.storage();
        let t1 = commit(&storage, &[(1, Tid::ZERO, b"one")]).unwrap();
        pair.wait_for_standby();
        pair.cut();
        let t2 = commit(&storage, &[(1, t1, b"two")]).unwrap();
        pair.take_over();
        eventually("it is noticed", || match load(&storage, 1) {
            Ok(found) => {
                assert_eq!(found, (b"two".to_vec(), t2), "an older state is served");
                false
            }
            Err(_) => lost_for_good(&storage).is_some(),
        });
        let why = lost_for_good(&storage).unwrap();
        assert!(why.contains("is not in the database any more") && why.contains("Restart"), "{why}");
        assert!(matches!(load(&storage, 1), Err(StorageError::Closed(_))));
        assert!(matches!(commit(&storage, &[(1, t2, b"three")]), Err(StorageError::Closed(_))));
        storage.close().unwrap();
        // A restart serves what is there.
        let again = pair.storage();
        assert_eq!(load(&again, 1).unwrap(), (b"one".to_vec(), t1));
        commit(&again, &[(1, t1, b"three")]).unwrap();
    }
}

/// The same where the lost transaction was another server's, which this one has only published.
#[test]
fn a_lost_transaction_of_another_server_is_noticed() {
    for keep_history in [true, false] {
        let Some(pair) = Pair::start(keep_history) else { return };
        let [here, there] = [pair.storage(), pair.storage()];
        let t1 = commit(&here, &[(1, Tid::ZERO, b"one")]).unwrap();
        pair.wait_for_standby();
        pair.cut();
        there.catch_up().unwrap();
        let t2 = commit(&there, &[(1, t1, b"two")]).unwrap();
        here.catch_up().unwrap();
        assert_eq!(load(&here, 1).unwrap(), (b"two".to_vec(), t2));
        pair.take_over();
        eventually("both notice it", || lost_for_good(&here).is_some() && lost_for_good(&there).is_some());
    }
}

/// With a synchronous standby what was acknowledged is there, and all goes on.
#[test]
fn after_a_failover_to_a_synchronous_standby_all_goes_on() {
    for keep_history in [true, false] {
        let Some(pair) = Pair::start(keep_history) else { return };
        let mut primary = Sql::connect(&pair.primary);
        primary.run("alter system set synchronous_standby_names = '*'");
        primary.run("select pg_reload_conf()");
        eventually("the standby is synchronous", || {
            primary.number("select count(*) from pg_stat_replication where sync_state = 'sync'") == 1
        });
        let [here, there] = [pair.storage(), pair.storage()];
        let mut tid = commit(&here, &[(1, Tid::ZERO, b"0")]).unwrap();
        for round in 1..50 {
            tid = commit(&here, &[(1, tid, format!("{round}").as_bytes())]).unwrap();
        }
        // On the new primary no other standby is waited for.
        let mut standby = Sql::connect(&pair.standby);
        standby.run("alter system set synchronous_standby_names = ''");
        standby.run("select pg_reload_conf()");
        pair.take_over();
        let next = commit(&here, &[(1, tid, b"after")]).unwrap();
        assert!(next > tid);
        there.catch_up().unwrap();
        assert_eq!(load(&there, 1).unwrap(), (b"after".to_vec(), next));
        assert_eq!((lost_for_good(&here), lost_for_good(&there)), (None, None));
    }
}
