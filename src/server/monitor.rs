//! `monitor-address`: each connection gets the counters as text, in the form that tools for ZEO 4 parse.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use crate::base::sync::Arc;
use crate::net::listen::Listener;
use crate::server::Server;
use crate::server::hosted::Hosted;
use crate::server::stats;

/// Longest wait for a client that does not read; the next one waits behind it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause after an error that will not go away at once (no descriptors left).
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Answers each connection, until the server stops.
pub fn serve(server: &Arc<Server>, listener: &Listener) {
    log::info!(target: "ZEO.monitor", "listening on {}", listener.endpoint);
    while !server.is_stopping() {
        let Ok((mut socket, _)) = listener.accept() else {
            server.wait_for_departure(ERROR_PAUSE);
            continue;
        };
        let text = dump(server);
        // The peer may be gone already.
        let _ =
            socket.set_write_timeout(Some(WRITE_TIMEOUT)).and_then(|()| socket.write_all(text.as_bytes()));
    }
}

fn dump(server: &Server) -> String {
    // Tools take a text that begins with version 3 alone: Python's is the version of ZODB 3.
    let mut text = format!(
        "ZEO monitor server version 3.10.7 (runzeo {})\n{}\n\n",
        env!("CARGO_PKG_VERSION"),
        stats::ctime_of(server.clock().system_time())
    );
    for hosted in server.storages() {
        dump_storage(&hosted, &mut text);
    }
    text
}

fn dump_storage(hosted: &Hosted, text: &mut String) {
    let stats = &hosted.stats;
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label}: {value}");
    };
    line("Storage", hosted.name.clone());
    line("Server started", stats.started());
    line("Clients", hosted.connection_count().to_string());
    line("Clients verifying", stats::get(&stats.verifying_clients).to_string());
    line("Active transactions", stats::get(&stats.active_txns).to_string());
    if let Some(held) = hosted.locks.locked_for() {
        line("Commit lock held for", held.as_secs().to_string());
    }
    line("Commits", stats::get(&stats.commits).to_string());
    line("Aborts", stats::get(&stats.aborts).to_string());
    line("Loads", hosted.loads().to_string());
    line("Stores", stats::get(&stats.stores).to_string());
    line("Conflicts", stats::get(&stats.conflicts).to_string());
    line("Conflicts resolved", stats::get(&stats.conflicts_resolved).to_string());
    if let Some(cache) = hosted.storage.cache_counts() {
        line("Cache loads", cache.loads.to_string());
        line("Cache hits", cache.hits.to_string());
        line("Cache bytes used", cache.used.to_string());
        line("Cache bytes", cache.size.to_string());
    }
    text.push('\n');
}
