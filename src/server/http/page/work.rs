//! Long work: packs, checks of files, backups.

use super::html::Html;
use super::tables::{Cell, Column, HtmlTable, bar, or_empty};
use super::words::{ago, ahead};
use crate::base::numbers::size;
use crate::server::status::ServerReport;
use crate::server::status::work::{AttemptsReport, BackupReport, PackReport, PackRun, ScrubReport};

const PACKS: &[Column] = &[
    Column::Text("Storage"),
    Column::Text("Now"),
    Column::Text("Last"),
    Column::Number("Took"),
    Column::Text("Result"),
    Column::Number("Succeeded"),
    Column::Number("Failed"),
    Column::Text("Next"),
];

const CHECKS: &[Column] = &[
    Column::Text("Storage"),
    Column::Text("Now"),
    Column::Text("Last"),
    Column::Number("Took"),
    Column::Number("Damaged places"),
    Column::Number("Missing blobs"),
    Column::Text("Result"),
    Column::Text("Next"),
];

const BACKUPS: &[Column] = &[
    Column::Text("Repository"),
    Column::Text("Step"),
    Column::Text("Now"),
    Column::Text("Last success"),
    Column::Number("Took"),
    Column::Number("Bytes"),
    Column::Number("Failed"),
    Column::Text("Last error"),
    Column::Text("Next"),
];

/// Packs, checks and backups.
pub fn work(report: &ServerReport) -> Html {
    let now = report.time;
    let mut packs = HtmlTable::new("packs-table", "Packs", PACKS);
    let mut checks = HtmlTable::new("checks-table", "Checks of the files", CHECKS);
    for storage in &report.storages {
        packs.row(|| pack(&storage.name, &storage.pack, now));
        storage.scrub.iter().for_each(|scrub| checks.row(|| check(&storage.name, scrub, now)));
    }
    let mut backups = HtmlTable::new("backups-table", "Backups", BACKUPS);
    for backup in &report.backups {
        backups.row(|| attempts(backup, "make", &backup.making, now));
        backup.sending.iter().for_each(|sending| backups.row(|| attempts(backup, "send", sending, now)));
    }
    let mut html = Html::default();
    html.raw("<section id=\"work\" aria-labelledby=\"work-title\"><h2 id=\"work-title\">Packs, checks and backups</h2>");
    html.add(&packs.or("There are no storages."));
    html.add(&checks.or("Files are not checked: there is no scrub-schedule."));
    html.add(&backups.or("The server makes no backups: there is no <code>&lt;backup&gt;</code> section."));
    html.raw("</section>");
    html
}

fn pack(storage: &str, pack: &PackReport, now: f64) -> [Cell; 8] {
    let last = pack.last.as_ref();
    let result = last.map(|last| match (&last.error, last.is_cancelled) {
        (_, true) => Cell::short("cancelled"),
        (Some(error), _) => Cell::long(&format!("failed: {error}")).marked_if(true),
        (None, _) => Cell::short(&format!(
            "from {} to {}",
            size(last.size_before as f64),
            size(last.size_after as f64)
        )),
    });
    [
        Cell::text(storage),
        pack.running.as_ref().map_or_else(|| Cell::short("idle"), progress),
        or_empty(last, |last| Cell::html(ago(last.began, now))),
        Cell::span(last.map(|last| last.seconds)),
        result.unwrap_or_else(|| Cell::short("none since the start")),
        Cell::count(pack.successes),
        Cell::count(pack.failures),
        next(pack.next, now),
    ]
}

fn progress(run: &PackRun) -> Cell {
    let part = run.done_bytes as f64 / (run.total_bytes.max(1) as f64);
    let mut html = bar(part);
    html.raw(" ").put(format_args!("{:.0} % of {}", 100.0 * part.min(1.0), size(run.total_bytes as f64)));
    Cell::html(html)
}

fn check(storage: &str, scrub: &ScrubReport, now: f64) -> [Cell; 8] {
    let last = scrub.last.as_ref();
    let result = last.map(|last| match &last.error {
        Some(error) => Cell::long(error).marked_if(true),
        None => Cell::short(&format!("{} read", size(last.bytes as f64))),
    });
    [
        Cell::text(storage),
        Cell::short(if scrub.is_running { "running" } else { "idle" }),
        or_empty(last, |last| Cell::html(ago(last.began, now))),
        Cell::span(last.map(|last| last.seconds)),
        Cell::count(scrub.damaged).marked_if(scrub.damaged > 0),
        Cell::count(scrub.missing_blobs).marked_if(scrub.missing_blobs > 0),
        result.unwrap_or_else(|| Cell::short("none since the start")),
        next(Some(scrub.next), now),
    ]
}

fn attempts(backup: &BackupReport, step: &'static str, attempts: &AttemptsReport, now: f64) -> [Cell; 9] {
    let running = attempts.running_since.map(|began| {
        let mut html = Html::default();
        html.raw("running, began ").add(&ago(began, now));
        Cell::html(html)
    });
    let error = attempts.last_error.as_deref();
    [
        Cell::long(&backup.repository),
        Cell::short(step),
        running.unwrap_or_else(|| Cell::short("idle")),
        attempts.last_success.map_or_else(|| Cell::short("none"), |at| Cell::html(ago(at, now))),
        Cell::span(attempts.last_seconds),
        or_empty(attempts.last_bytes, Cell::size),
        Cell::count(attempts.failures),
        or_empty(error, Cell::long).marked_if(attempts.is_failing),
        if step == "make" { next(backup.next, now) } else { Cell::default() },
    ]
}

/// When it is done by itself.
fn next(unix: Option<u64>, now: f64) -> Cell {
    unix.map_or_else(|| Cell::short("no schedule"), |at| Cell::html(ahead(at as f64, now)))
}
