//! When a changed key takes effect: one table with every key of the schema. A test fails if one is missing, so that
//! no key can be forgotten.

use crate::config::schema::access::ACCESS;
use crate::config::schema::audit::AUDIT;
use crate::config::schema::backup::BACKUP;
use crate::config::schema::client::{CLIENTSTORAGE, ZEOCLIENT};
use crate::config::schema::eventlog::{EVENTLOG, JOURNAL, LOGFILE, SYSLOG};
use crate::config::schema::http::HTTP;
use crate::config::schema::listen::LISTEN;
use crate::config::schema::network::NETWORK;
use crate::config::schema::relstorage::{POSTGRESQL, RELSTORAGE};
use crate::config::schema::replication::REPLICATION;
use crate::config::schema::ssl::{CLIENT_SSL, SSL};
use crate::config::schema::storages::{
    BEFORE, BLOBSTORAGE, DEMOSTORAGE, FILESTORAGE, MAPPINGSTORAGE, SERVERZLIBSTORAGE, TEMPORARYSTORAGE,
    ZLIBSTORAGE, ZRS,
};
use crate::config::schema::zeo::ZEO;
use crate::config::zconfig::matcher::SectionType;

/// When a change takes effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// A reload applies it: at once, or to what the text names.
    Applied(&'static str),
    /// The next start applies it.
    Restart,
    /// It has none; the text says why.
    Nothing(&'static str),
}

impl Effect {
    /// The command line has this option, which wins.
    pub(super) fn of_command_line(option: &'static str) -> Effect {
        Effect::Nothing(match option {
            "-a" => "-a of the command line wins",
            "-f" => "-f of the command line wins",
            "-t" => "-t of the command line wins",
            "-m" => "-m of the command line wins",
            "--http" => "--http of the command line wins",
            "--pid-file" => "--pid-file of the command line wins",
            _ => "the command line wins",
        })
    }
}

/// `<runner>`, which this server checks and does not use.
pub(super) const OF_ZEOCTL: Effect = Effect::Nothing("it is for zeoctl");

const NOW: Effect = Effect::Applied("");
const CONNECTIONS: Effect = Effect::Applied("for later connections");
const TRANSACTIONS: Effect = Effect::Applied("for later transactions");
const LOCKS: Effect = Effect::Applied("for transactions that get their locks later");
const OF_CLIENTS: Effect = Effect::Nothing("it is a setting of clients");

/// The section as a whole, which comes or goes.
const WHOLE: &str = "";

/// Keys of a section.
struct Row {
    section: &'static SectionType,
    effect: Effect,
    keys: &'static [&'static str],
}

const fn row(section: &'static SectionType, effect: Effect, keys: &'static [&'static str]) -> Row {
    Row { section, effect, keys }
}

/// The keys of both sections of a client.
const CLIENT_KEYS: &[&str] = &[
    WHOLE,
    "server",
    "storage",
    "cache-size",
    "cache-path",
    "client",
    "var",
    "name",
    "client-label",
    "read-only",
    "read-only-fallback",
    "wait",
    "wait-timeout",
    "min-disconnect-poll",
    "max-disconnect-poll",
    "username",
    "password",
    "realm",
    "blob-dir",
    "shared-blob-dir",
    "blob-cache-size",
    "blob-cache-size-check",
    "server-sync",
    "drop-cache-rather-verify",
];

/// The keys that all handlers of the log have, without `level`.
const DATABASE_KEYS: &[&str] = &[
    WHOLE,
    "name",
    "read-only",
    "keep-history",
    "create-schema",
    "commit-lock-timeout",
    "commit-lock-id",
    "blob-dir",
    "shared-blob-dir",
    "blob-cache-size",
    "blob-cache-size-check",
    "blob-cache-size-check-external",
    "blob-chunk-size",
    "replica-conf",
    "ro-replica-conf",
    "replica-timeout",
    "revert_when_stale",
    "revert-when-stale",
    "poll-interval",
    "pack-gc",
    "pack-prepack-only",
    "pack-skip-prepack",
    "pack-batch-timeout",
    "pack-commit-busy-delay",
    "cache-local-mb",
    "cache-local-object-max",
    "cache-local-compression",
    "cache-local-dir",
    "cache-local-storage",
    "cache-local-dir-count",
    "cache-local-dir-read-count",
    "cache-local-dir-compress",
    "cache-local-dir-write-max-size",
    "cache-delta-size-limit",
    "cache-prefix",
    "cache-servers",
    "cache-module-name",
];

const HANDLER_KEYS: &[&str] = &[WHOLE, "formatter", "dateformat", "style", "arbitrary-fields", "format"];

static TABLE: &[Row] = &[
    // `<zeo>` itself is always there.
    row(
        &ZEO,
        Effect::Restart,
        &[
            WHOLE,
            "read-only",
            "invalidation-queue-size",
            "monitor-address",
            "admin-socket",
            "pid-filename",
            "conflict-resolver",
            "conflict-resolver-user",
            "conflict-resolver-allow",
            "msgpack",
            "socket-mode",
            "socket-group",
            "max-message-size",
        ],
    ),
    row(&ZEO, OF_CLIENTS, &["drop-cache-rather-verify"]),
    row(&ZEO, LOCKS, &["transaction-timeout"]),
    row(
        &ZEO,
        TRANSACTIONS,
        &[
            "client-conflict-resolution",
            "transaction-memory",
            "max-transaction-size",
            "max-transaction-objects",
        ],
    ),
    row(
        &ZEO,
        CONNECTIONS,
        &[
            "authentication-protocol",
            "authentication-database",
            "authentication-realm",
            "allow",
            "proxy-protocol",
            "dead-peer-timeout",
            "max-unsent",
        ],
    ),
    row(
        &ZEO,
        NOW,
        &[
            "address",
            "invalidation-age",
            "handshake-timeout",
            "max-connections",
            "max-connections-per-address",
            "max-unregistered",
            "idle-transaction-timeout",
            "max-iterators",
            "max-undo-log",
            "slow-request-time",
            "max-requests-per-second",
            "max-sent-per-second",
        ],
    ),
    row(
        &SSL,
        CONNECTIONS,
        &[WHOLE, "certificate", "key", "password-file", "password-function", "authenticate"],
    ),
    row(
        &LISTEN,
        NOW,
        &[
            WHOLE,
            "address",
            "read-only",
            "storages",
            "max-connections",
            "max-requests-per-second",
            "max-sent-per-second",
        ],
    ),
    row(&LISTEN, CONNECTIONS, &["ssl", "authentication", "allow", "proxy-protocol", "priority"]),
    row(&LISTEN, Effect::Restart, &["socket-mode", "socket-group"]),
    row(&ACCESS, NOW, &[WHOLE, "rule"]),
    row(&NETWORK, NOW, &[WHOLE, "addresses", "max-requests-per-second", "max-sent-per-second"]),
    row(
        &BACKUP,
        NOW,
        &[
            WHOLE,
            "repository",
            "schedule",
            "continuous",
            "max-rate",
            "command",
            "command-timeout",
            "keep-last",
            "keep-daily",
            "keep-weekly",
            "keep-monthly",
        ],
    ),
    row(&AUDIT, Effect::Restart, &[WHOLE, "path", "events", "old-files", "max-size", "when", "interval"]),
    row(&HTTP, CONNECTIONS, &["allow", "host"]),
    row(&HTTP, Effect::Restart, &[WHOLE, "address", "socket-mode"]),
    row(
        &REPLICATION,
        Effect::Restart,
        &[
            WHOLE,
            "name",
            "listen",
            "peer",
            "role",
            "state-file",
            "trigger-file",
            "synchronous-replicas",
            "synchronous-level",
            "synchronous-timeout",
            "on-timeout",
            "max-staleness",
            "lease",
            "max-rate",
            "compress",
            "follow-packs",
            "follow-replicas",
        ],
    ),
    row(&EVENTLOG, NOW, &["level"]),
    row(&EVENTLOG, Effect::Restart, &[WHOLE]),
    row(&LOGFILE, NOW, &["level"]),
    row(&LOGFILE, Effect::Restart, HANDLER_KEYS),
    row(
        &LOGFILE,
        Effect::Restart,
        &["path", "old-files", "max-size", "when", "interval", "encoding", "delay"],
    ),
    row(&SYSLOG, NOW, &["level"]),
    row(&SYSLOG, Effect::Restart, HANDLER_KEYS),
    row(&SYSLOG, Effect::Restart, &["facility", "address"]),
    row(&JOURNAL, NOW, &["level"]),
    row(&JOURNAL, Effect::Restart, &[WHOLE, "identifier", "path"]),
    row(&FILESTORAGE, NOW, &["pack-schedule", "pack-days", "scrub-schedule", "scrub-max-rate"]),
    row(
        &FILESTORAGE,
        Effect::Restart,
        &[
            WHOLE,
            "path",
            "blob-dir",
            "create",
            "read-only",
            "quota",
            "packer",
            "pack-gc",
            "pack-keep-old",
            "pack-refuse-large-removals",
            "pack-max-rate",
            "new-file-format",
        ],
    ),
    row(&MAPPINGSTORAGE, Effect::Restart, &[WHOLE, "name"]),
    row(&TEMPORARYSTORAGE, Effect::Restart, &[WHOLE, "name"]),
    row(&DEMOSTORAGE, Effect::Restart, &[WHOLE, "name"]),
    row(&BLOBSTORAGE, Effect::Restart, &[WHOLE, "blob-dir"]),
    row(&ZLIBSTORAGE, Effect::Restart, &[WHOLE, "compress"]),
    row(&SERVERZLIBSTORAGE, Effect::Restart, &[WHOLE, "compress"]),
    row(&BEFORE, Effect::Restart, &[WHOLE, "before", "before-from-file"]),
    row(&ZRS, Effect::Restart, &[WHOLE, "replicate-to", "replicate-from", "keep-alive-delay"]),
    row(&RELSTORAGE, Effect::Restart, DATABASE_KEYS),
    row(&POSTGRESQL, Effect::Restart, &[WHOLE, "driver", "dsn"]),
    row(&ZEOCLIENT, Effect::Restart, CLIENT_KEYS),
    row(&CLIENTSTORAGE, Effect::Restart, CLIENT_KEYS),
    row(
        &CLIENT_SSL,
        Effect::Restart,
        &[
            WHOLE,
            "certificate",
            "key",
            "password-file",
            "password-function",
            "authenticate",
            "check-hostname",
            "server-hostname",
        ],
    ),
];

/// When the change of a key takes effect.
pub(super) fn of_key(section: &'static SectionType, key: &str) -> Effect {
    let row = TABLE.iter().find(|row| std::ptr::eq(row.section, section) && row.keys.contains(&key));
    // The storages that a program adds are not in the table.
    row.map_or(Effect::Restart, |row| row.effect)
}

/// When it takes effect that a section comes or goes.
pub(super) fn of_section(section: &'static SectionType) -> Effect {
    of_key(section, WHOLE)
}

/// The keys that a reload applies or that have no effect, for the documents: section, key, effect.
pub fn not_at_a_restart() -> impl Iterator<Item = (&'static str, &'static str, Effect)> {
    let rows = TABLE.iter().filter(|row| row.effect != Effect::Restart);
    rows.flat_map(|row| row.keys.iter().map(|key| (row.section.name, *key, row.effect)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::FILE;
    use crate::config::schema::eventlog::{EMAIL_NOTIFIER, HTTP_LOGGER, WIN32_EVENTLOG};
    use crate::config::schema::runner::RUNNER;
    use crate::config::zconfig::matcher::Content;

    /// Section types of which no file with them is accepted: they never change.
    static REFUSED: &[&SectionType] = &[&WIN32_EVENTLOG, &HTTP_LOGGER, &EMAIL_NOTIFIER];

    /// All section types whose keys can change.
    fn section_types() -> Vec<&'static SectionType> {
        let in_runner = RUNNER.inner_types();
        let of_server = FILE.inner_types().into_iter().filter(|section| {
            // What only `<runner>` has is compared, and has no effect.
            let is_of_zeoctl = std::ptr::eq(*section, &RUNNER)
                || section.name == "logger" && in_runner.iter().any(|one| std::ptr::eq(*one, *section));
            let is_refused = matches!(section.content, Content::Opaque)
                || REFUSED.iter().any(|refused| std::ptr::eq(*refused, *section));
            !is_of_zeoctl && !is_refused
        });
        of_server.collect()
    }

    #[test]
    fn every_key_is_in_the_table_once() {
        let types = section_types();
        assert!(types.len() > 18, "{}", types.len());
        for section in &types {
            for key in section.keys().chain([WHOLE]) {
                let rows =
                    TABLE.iter().filter(|row| std::ptr::eq(row.section, *section) && row.keys.contains(&key));
                assert_eq!(rows.count(), 1, "<{}> '{key}': when does its change take effect?", section.name);
            }
        }
        for row in TABLE {
            assert!(types.iter().any(|known| std::ptr::eq(*known, row.section)), "<{}>", row.section.name);
            for key in row.keys.iter().filter(|key| **key != WHOLE) {
                assert!(row.section.keys().any(|known| known == *key), "<{}> has no {key}", row.section.name);
            }
        }
    }
}
