//! The beginning of the page: one line that says whether all is well, what is to be looked at, and the storages.

use super::frame::Mood;
use super::html::Html;
use super::locks::WAIT_SECONDS_MAX;
use super::tables::{Cell, Column, HtmlTable, or_empty};
use super::words::{ago, clock, counted, since};
use crate::base::numbers::local;
use crate::server::status::storage::{StorageReport, StorageState};
use crate::server::status::{Phase, ServerReport};

/// Warnings that are shown.
const WARNINGS_MAX: usize = 50;

const STORAGES: &[Column] = &[
    Column::Text("Name"),
    Column::Text("State"),
    Column::Number("Commits/s"),
    Column::Number("Loads/s"),
    Column::Number("Clients"),
    Column::Number("Transactions"),
    Column::Number("Waiting"),
    Column::Text("Last transaction"),
    Column::Number("Size"),
    Column::Number("Objects"),
    Column::Text("Path or kind"),
];

/// How the server is.
pub fn mood(report: &ServerReport) -> Mood {
    let is_failed = report.storages.iter().any(|storage| storage.state == StorageState::Failed);
    match report.phase {
        Phase::Serving if is_failed => Mood::Bad,
        Phase::Serving if report.warnings.is_empty() => Mood::Good,
        Phase::Serving | Phase::Opening => Mood::Attention,
        Phase::Stopping => Mood::Bad,
    }
}

/// For the tab of the browser: what is wrong comes first.
pub fn title(report: &ServerReport, mood: Mood) -> String {
    match mood {
        Mood::Good => format!("ZEO on {}: all is well", report.host),
        _ => format!("{} – ZEO on {}", verdict(report), report.host),
    }
}

/// Whether all is well, in some words.
fn verdict(report: &ServerReport) -> String {
    let failed: Vec<&str> = report
        .storages
        .iter()
        .filter(|storage| storage.state == StorageState::Failed)
        .map(|storage| storage.name.as_str())
        .collect();
    match (report.phase, failed.as_slice(), report.warnings.len()) {
        (Phase::Opening, ..) => "The storages are being opened".into(),
        (Phase::Stopping, ..) => "The server stops".into(),
        (_, [one], _) => format!("Storage {one} cannot be written"),
        (_, [_, _, ..], _) => format!("{} storages cannot be written", failed.len()),
        (_, [], 0) => "All is well".into(),
        (_, [], 1) => "One thing needs attention".into(),
        (_, [], count) => format!("{count} things need attention"),
    }
}

/// The line at the top.
pub fn headline(report: &ServerReport, mood: Mood) -> Html {
    let mut html = Html::default();
    html.raw("<section id=\"headline\"").attribute("class", mood.class()).raw("><h1>");
    html.raw("<span class=\"sign\" aria-hidden=\"true\"></span>").text(&verdict(report)).raw("</h1><p>");
    match &report.opening {
        Some(opening) => html.text(opening).raw("; clients that connect wait"),
        None => html.text(&summary(report)),
    };
    if let Some(started) = report.started {
        html.raw("; serving for ").add(&since(started, report.time));
    }
    html.raw(".</p><p class=\"asof\">as of <time id=\"asof\"")
        .attribute("title", &local(report.time))
        .raw(">");
    html.text(&clock(report.time)).raw("</time></p></section>");
    html
}

/// `3 clients, 1 open transaction, nothing waits`
fn summary(report: &ServerReport) -> String {
    let sum = |of: fn(&StorageReport) -> usize| report.storages.iter().map(of).sum::<usize>();
    let transactions = sum(|storage| usize::try_from(storage.active_transactions).unwrap_or(usize::MAX));
    let waiting = match sum(|storage| storage.locks.waiters.len()) {
        0 => "nothing waits for locks".into(),
        1 => "1 waits for locks".into(),
        count => format!("{count} wait for locks"),
    };
    format!(
        "{}, {}, {waiting}",
        counted(report.connections.registered, "client", "clients"),
        counted(transactions, "open transaction", "open transactions")
    )
}

/// What is to be looked at, and what to do.
pub fn warnings(report: &ServerReport) -> Html {
    let mut html = Html::default();
    html.raw("<section id=\"warnings\" aria-label=\"Warnings\">");
    if !report.warnings.is_empty() {
        html.raw("<ul>");
        for warning in report.warnings.iter().take(WARNINGS_MAX) {
            html.raw("<li><strong><bdi>").text(&warning.what).raw("</bdi></strong> <span>");
            html.text(&warning.advice).raw("</span></li>");
        }
        let hidden = report.warnings.len().saturating_sub(WARNINGS_MAX);
        if hidden > 0 {
            html.raw("<li>and ").text(&hidden.to_string()).raw(" more</li>");
        }
        html.raw("</ul>");
    }
    html.raw("</section>");
    html
}

/// The storages, and their counters.
pub fn storages(report: &ServerReport) -> Html {
    let mut table = HtmlTable::new("storages-table", "Storages", STORAGES).below_heading();
    for storage in &report.storages {
        let history = &storage.history;
        let last = |rates: &[f32]| or_empty(rates.last(), |rate| Cell::rate(f64::from(*rate)));
        let state = match storage.state {
            StorageState::Writable => "writable",
            StorageState::ReadOnly => "read-only",
            StorageState::Failed => "failed",
        };
        let waiters = &storage.locks.waiters;
        let is_long =
            waiters.iter().any(|waiter| waiter.seconds.is_some_and(|seconds| seconds > WAIT_SECONDS_MAX));
        table.row(|| {
            [
                Cell::text(&storage.name),
                Cell::short(state).marked_if(storage.state == StorageState::Failed),
                last(&history.commits),
                last(&history.loads),
                Cell::count(storage.clients.len() as u64),
                Cell::count(storage.active_transactions),
                Cell::count(waiters.len() as u64).marked_if(is_long),
                or_empty(storage.last_transaction_time, |at| Cell::html(ago(at, report.time))),
                Cell::size(storage.size_bytes),
                Cell::count(storage.objects),
                Cell::long(&storage.storage),
            ]
        });
    }
    let mut html = Html::default();
    html.raw(
        "<section id=\"storages\" aria-labelledby=\"storages-title\"><h2 id=\"storages-title\">Storages</h2>",
    );
    html.add(&table.or("There are no storages."));
    html.raw("<details id=\"counters\"><summary>Counters since the start</summary>").add(&counters(report));
    html.raw("</details></section>");
    html
}

const COUNTERS: &[Column] = &[
    Column::Text("Name"),
    Column::Number("Loads"),
    Column::Number("Stores"),
    Column::Number("Stored"),
    Column::Number("Commits"),
    Column::Number("Undos"),
    Column::Number("Aborts"),
    Column::Number("Conflicts refused"),
    Column::Number("merged"),
    Column::Number("Timed out"),
    Column::Number("Slow"),
    Column::Number("Held back"),
    Column::Number("Denied"),
    Column::Number("Did not read"),
    Column::Number("Caches kept"),
    Column::Number("dropped"),
    Column::Number("Received"),
    Column::Number("Sent"),
    Column::Number("Own cache answers"),
];

fn counters(report: &ServerReport) -> Html {
    let mut table = HtmlTable::new("counters-table", "Counters since the start", COUNTERS).below_heading();
    for storage in &report.storages {
        let of = &storage.counters;
        let hits =
            storage.cache.as_ref().map(|cache| 100.0 * cache.hits as f64 / (cache.loads.max(1) as f64));
        table.row(|| {
            [
                Cell::text(&storage.name),
                Cell::count(of.loads),
                Cell::count(of.stores),
                Cell::size(of.stored_bytes),
                Cell::count(of.commits),
                Cell::count(of.undos),
                Cell::count(of.aborts),
                Cell::count(of.conflicts),
                Cell::count(of.conflicts_resolved),
                Cell::count(of.transaction_timeouts),
                Cell::count(of.slow_requests),
                Cell::count(of.throttled),
                Cell::count(of.denied),
                Cell::count(of.clients_unread),
                Cell::count(of.verifications_quick),
                Cell::count(of.verifications_too_old.saturating_add(of.verifications_unknown)),
                Cell::size(of.received_bytes),
                Cell::size(of.sent_bytes),
                or_empty(hits, |percent| Cell::short(&format!("{percent:.0} %"))),
            ]
        });
    }
    table.or("There are no storages.")
}
