//! The metrics of storages: a sample of each family for each storage.

use super::text::FamilyKind::{Counter, Gauge, Histogram};
use super::text::{FamilyKind, MetricsText, Number};
use crate::base::histogram::Distribution;
use crate::server::status::lag::LagStatus;
use crate::server::status::storage::{ReplicationReport, StorageReport, StorageState};

/// Histograms of times are counted in nanoseconds.
const NANOS: f64 = 1e9;

/// The storages, and where their metrics go.
struct Storages<'a> {
    out: &'a mut MetricsText,
    storages: &'a [StorageReport],
}

/// Adds all of them.
pub fn add(out: &mut MetricsText, storages: &[StorageReport]) {
    let mut all = Storages { out, storages };
    all.work();
    all.transactions();
    all.content();
    all.packs();
    all.scrubs();
    all.caches();
    all.replication();
    all.secondaries();
    all.remotes();
}

impl Storages<'_> {
    /// A family with a sample for each storage that has a value.
    fn family(
        &mut self,
        kind: FamilyKind,
        name: &'static str,
        help: &str,
        value: impl Fn(&StorageReport) -> Option<Number>,
    ) {
        let mut family = self.out.family(kind, name, help);
        for storage in self.storages {
            family.add_if_known(&[("storage", &storage.name)], value(storage));
        }
    }

    fn counter(&mut self, name: &'static str, help: &str, value: impl Fn(&StorageReport) -> u64) {
        self.family(Counter, name, help, |storage| Some(value(storage).into()));
    }

    fn gauge<N: Into<Number>>(
        &mut self,
        name: &'static str,
        help: &str,
        value: impl Fn(&StorageReport) -> N,
    ) {
        self.family(Gauge, name, help, |storage| Some(value(storage).into()));
    }

    fn known<N: Into<Number>>(
        &mut self,
        name: &'static str,
        help: &str,
        value: impl Fn(&StorageReport) -> Option<N>,
    ) {
        self.family(Gauge, name, help, |storage| value(storage).map(Into::into));
    }

    fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        in_one: f64,
        of: impl Fn(&StorageReport) -> Option<&Distribution>,
    ) {
        let mut family = self.out.family(Histogram, name, help);
        for storage in self.storages {
            if let Some(distribution) = of(storage) {
                family.add_histogram(&[("storage", &storage.name)], distribution, in_one);
            }
        }
    }

    fn work(&mut self) {
        self.counter("zeo_loads", "Objects that clients have loaded: what their caches did not have.", |s| {
            s.counters.loads
        });
        let help = "Requests of registered clients, by method; those of older protocols under today's names.";
        let mut requests = self.out.family(Counter, "zeo_requests", help);
        for storage in self.storages {
            for (method, number) in &storage.requests {
                requests.add(&[("storage", &*storage.name), ("method", method)], *number);
            }
        }
        self.counter("zeo_stores", "Records that clients have stored.", |s| s.counters.stores);
        self.counter("zeo_bytes_stored", "Bytes of the records that clients have stored.", |s| {
            s.counters.stored_bytes
        });
        self.counter("zeo_commits", "Transactions that were committed.", |s| s.counters.commits);
        self.counter("zeo_undos", "Committed transactions that undo others.", |s| s.counters.undos);
        self.counter("zeo_aborts", "Transactions that were aborted.", |s| s.counters.aborts);
        let help = "Objects that two transactions have changed: merged by the server, or not.";
        let mut conflicts = self.out.family(Counter, "zeo_conflicts", help);
        for storage in self.storages {
            let labels = |outcome| [("storage", &*storage.name), ("outcome", outcome)];
            conflicts.add(&labels("resolved"), storage.counters.conflicts_resolved);
            conflicts.add(&labels("refused"), storage.counters.conflicts);
        }
        self.counter("zeo_transaction_timeouts", "Connections that transaction-timeout has closed.", |s| {
            s.counters.transaction_timeouts
        });
        self.counter("zeo_slow_requests", "Requests that took longer than slow-request-time.", |s| {
            s.counters.slow_requests
        });
        let help = "Registrations and calls that the rules of an access section did not permit.";
        self.counter("zeo_access_denied", help, |s| s.counters.denied);
        let help = "Waits of clients whose addresses or networks were ahead of their rates.";
        self.counter("zeo_throttled", help, |s| s.counters.throttled);
        self.counter("zeo_network_receive_bytes", "Bytes of messages from clients.", |s| {
            s.counters.received_bytes
        });
        self.counter("zeo_network_transmit_bytes", "Bytes of messages to clients.", |s| {
            s.counters.sent_bytes
        });
        self.gauge("zeo_outbox_bytes", "Bytes that are queued for clients which do not read them.", |s| {
            s.clients.iter().map(|client| client.outbox_bytes).sum::<usize>()
        });
        self.counter(
            "zeo_outbox_overflows",
            "Connections that were closed because their clients did not read.",
            |s| s.counters.clients_unread,
        );
        let help = "Clients that have returned with a cache, by what they were told.";
        let mut verifications = self.out.family(Counter, "zeo_cache_verifications", help);
        for storage in self.storages {
            let counters = &storage.counters;
            for (result, number) in [
                ("quick", counters.verifications_quick),
                ("too-old", counters.verifications_too_old),
                ("unknown", counters.verifications_unknown),
            ] {
                verifications.add(&[("storage", &*storage.name), ("result", result)], number);
            }
        }
        self.gauge("zeo_clients_verifying", "Clients that verify their caches object by object.", |s| {
            s.clients_verifying
        });
    }

    fn transactions(&mut self) {
        self.gauge("zeo_active_transactions", "Transactions that have begun and not ended.", |s| {
            s.active_transactions
        });
        self.gauge("zeo_lock_holders", "Transactions between vote and finish.", |s| s.locks.holders.len());
        self.gauge("zeo_lock_waiters", "Transactions that wait for locks of others.", |s| {
            s.locks.waiters.len()
        });
        let help = "For how long the oldest holder has had its locks; 0: no locks are held.";
        self.gauge("zeo_lock_oldest_hold_seconds", help, |s| s.locks.oldest_hold_seconds.unwrap_or(0.0));
        let help = "Time from a call to its answer, of calls that wait for others or for the disk.";
        let mut calls = self.out.family(Histogram, "zeo_request_duration_seconds", help);
        for storage in self.storages {
            for (kind, distribution) in &storage.calls {
                let labels = [("storage", &*storage.name), ("method", kind.name())];
                calls.add_histogram(&labels, distribution, NANOS);
            }
        }
        let help = "Time that a vote has waited for its locks.";
        self.histogram("zeo_lock_wait_seconds", help, NANOS, |s| Some(&s.locks.wait_times));
        let help = "Time that a transaction has held its locks: from vote to finish or abort.";
        self.histogram("zeo_lock_hold_seconds", help, NANOS, |s| Some(&s.locks.hold_times));
        let help = "Transactions that were written and synced together.";
        self.histogram("zeo_commit_group_size", help, 1.0, |s| Some(&s.syncs.as_ref()?.group_sizes));
        let help = "Time that a sync of the file has taken, or that a database has committed a group.";
        self.histogram("zeo_fsync_duration_seconds", help, NANOS, |s| Some(&s.syncs.as_ref()?.sync_times));
    }

    fn content(&mut self) {
        self.gauge("zeo_storage_failed", "Whether its disk has failed, or its server is away.", |s| {
            s.state == StorageState::Failed
        });
        self.gauge("zeo_storage_read_only", "Whether the storage is read-only, for whatever reason.", |s| {
            s.state != StorageState::Writable
        });
        self.gauge("zeo_storage_size_bytes", "Size of the storage.", |s| s.size_bytes);
        self.gauge("zeo_storage_objects", "Objects in the storage.", |s| s.objects);
        self.known("zeo_last_transaction_timestamp_seconds", "Time of the last transaction.", |s| {
            s.last_transaction_time
        });
    }

    fn packs(&mut self) {
        self.gauge("zeo_pack_running", "Whether the storage is being packed.", |s| s.pack.running.is_some());
        self.known("zeo_pack_done_bytes", "Bytes that the running pack has worked through.", |s| {
            s.pack.running.as_ref().map(|running| running.done_bytes)
        });
        self.known("zeo_pack_total_bytes", "Bytes that the running pack has to work through.", |s| {
            s.pack.running.as_ref().map(|running| running.total_bytes)
        });
        let help = "When the last pack that has succeeded ended, since the start of the server.";
        self.known("zeo_pack_last_success_timestamp_seconds", help, |s| s.pack.last_success);
        self.known("zeo_pack_last_duration_seconds", "Time that the last pack has taken.", |s| {
            s.pack.last.as_ref().map(|last| last.seconds)
        });
        self.known(
            "zeo_pack_last_bytes_freed",
            "By how much the last pack has made the file smaller.",
            |s| s.pack.last.as_ref().map(|last| last.size_before.saturating_sub(last.size_after)),
        );
        self.counter("zeo_packs", "Packs that have succeeded.", |s| s.pack.successes);
        self.counter("zeo_pack_failures", "Packs that have failed or were cancelled.", |s| s.pack.failures);
        self.known("zeo_pack_next_timestamp_seconds", "When the next pack by pack-schedule is due.", |s| {
            s.pack.next
        });
    }

    fn scrubs(&mut self) {
        self.known("zeo_scrub_running", "Whether the file is being checked.", |s| {
            s.scrub.as_ref().map(|scrub| scrub.is_running)
        });
        let help = "When the last check of the file ended, since the start of the server.";
        self.known("zeo_scrub_last_timestamp_seconds", help, |s| {
            s.scrub.as_ref()?.last.as_ref().map(|last| last.began + last.seconds)
        });
        self.known(
            "zeo_scrub_last_duration_seconds",
            "Time that the last check of the file has taken.",
            |s| s.scrub.as_ref()?.last.as_ref().map(|last| last.seconds),
        );
        let help = "Damaged places and missing files of blobs that the last check has found.";
        let mut findings = self.out.family(Gauge, "zeo_scrub_findings", help);
        for storage in self.storages {
            let Some(scrub) = storage.scrub.as_ref().filter(|scrub| scrub.last.is_some()) else { continue };
            for (kind, number) in [("damage", scrub.damaged), ("blob", scrub.missing_blobs)] {
                findings.add(&[("storage", &*storage.name), ("kind", kind)], number);
            }
        }
        self.family(Counter, "zeo_scrub_failures", "Checks that could not read the file.", |s| {
            s.scrub.as_ref().map(|scrub| scrub.failures.into())
        });
        self.known("zeo_scrub_next_timestamp_seconds", "When the next check of the file is due.", |s| {
            s.scrub.as_ref().map(|scrub| scrub.next)
        });
    }

    fn replication(&mut self) {
        let standby = |s: &StorageReport| s.replication.clone().filter(ReplicationReport::is_standby);
        self.known("zeo_database_standby", "Whether the data is read from a standby or a secondary.", |s| {
            s.replication.as_ref().map(ReplicationReport::is_standby)
        });
        let help = "Whether the standby is connected to the server that it follows.";
        self.known("zeo_database_standby_connected", help, |s| Some(standby(s)?.connected));
        self.known("zeo_database_standby_behind_seconds", "How old the state of the standby is.", |s| {
            standby(s)?.behind_seconds
        });
    }

    fn secondaries(&mut self) {
        let help = "Secondaries that follow a primary of ZRS.";
        self.known("zeo_zrs_secondaries", help, |s| Some(s.secondaries.as_ref()?.len()));
        let help = "Bytes that the secondary that is furthest behind was not sent.";
        self.known("zeo_zrs_lag_bytes", help, |s| Some(furthest_behind(s)?.bytes));
        let help = "Transactions that it was not sent.";
        self.known("zeo_zrs_lag_transactions", help, |s| Some(furthest_behind(s)?.transactions));
        let help = "Time since the oldest of them was committed.";
        self.known("zeo_zrs_lag_seconds", help, |s| Some(furthest_behind(s)?.seconds));
    }

    fn remotes(&mut self) {
        let help = "Whether the server can be reached that a storage has its data from.";
        self.known("zeo_remote_connected", help, |s| Some(s.remote.as_ref()?.connected));
        let help = "How often the connection to that server was lost.";
        self.family(Counter, "zeo_remote_interruptions", help, |s| {
            s.remote.as_ref().map(|remote| remote.interruptions.into())
        });
    }

    fn caches(&mut self) {
        self.family(Counter, "zeo_cache_loads", "Loads through the cache of a zeoclient section.", |s| {
            s.cache.as_ref().map(|cache| cache.loads.into())
        });
        self.family(
            Counter,
            "zeo_cache_hits",
            "Loads that the cache of a zeoclient section has answered.",
            |s| s.cache.as_ref().map(|cache| cache.hits.into()),
        );
        self.known("zeo_cache_used_bytes", "Bytes that the cache of a zeoclient section uses.", |s| {
            s.cache.as_ref().map(|cache| cache.used_bytes)
        });
        self.known("zeo_cache_size_bytes", "Bytes that the cache of a zeoclient section may use.", |s| {
            s.cache.as_ref().map(|cache| cache.size_bytes)
        });
    }
}

/// How far behind the slowest secondary of a primary is.
fn furthest_behind(storage: &StorageReport) -> Option<LagStatus> {
    let secondaries = storage.secondaries.iter().flatten().map(|one| one.behind);
    secondaries.max_by(|one, other| one.seconds.total_cmp(&other.seconds))
}
