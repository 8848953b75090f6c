//! The last requests that took longer than `slow-request-time`, and what their time went into.

use super::html::Html;
use super::tables::{Cell, Column, HtmlTable, or_empty};
use super::words::ago;
use crate::base::numbers::span;
use crate::server::status::ServerReport;
use crate::server::status::slow::{SlowReport, WaitedForReport};
use crate::server::status::storage::StorageReport;

const SLOW: &[Column] = &[
    Column::Text("Ended"),
    Column::Text("Request"),
    Column::Number("Took"),
    Column::Text("Longest steps"),
    Column::Text("Client"),
    Column::Text("Storage"),
    Column::Text("Object"),
    Column::Text("Waited for"),
    Column::Text("User"),
    Column::Text("Description"),
];

/// Steps of a request that are shown.
const STEPS_MAX: usize = 3;

/// The last ones of all storages, the newest first.
pub fn slow(report: &ServerReport) -> Html {
    let mut requests: Vec<(&StorageReport, &SlowReport)> = Vec::new();
    for storage in &report.storages {
        requests.extend(storage.slow_requests.iter().map(|request| (storage, request)));
    }
    requests.sort_by(|(_, one), (_, other)| other.time.total_cmp(&one.time));
    let mut table = HtmlTable::new("slow-table", "The last requests that took long, the newest first", SLOW);
    for (storage, request) in requests {
        table.row(|| row(storage, request, report.time));
    }
    let mut html = Html::default();
    html.raw("<section id=\"slow\" aria-labelledby=\"slow-title\"><h2 id=\"slow-title\">Slow requests</h2>");
    html.add(&table.or("No request took longer than <code>slow-request-time</code> since the start."))
        .raw("</section>");
    html
}

fn row(storage: &StorageReport, request: &SlowReport, now: f64) -> [Cell; 10] {
    let mut steps: Vec<_> = request.steps.iter().collect();
    steps.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
    let steps: Vec<String> =
        steps.iter().take(STEPS_MAX).map(|step| format!("{} {}", step.step, span(step.seconds))).collect();
    let behind = request.behind.as_ref().map(|WaitedForReport { client, label, oid }| {
        let label = label.as_deref().unwrap_or("has gone");
        format!("{client} ({label}), {}", oid.as_deref().unwrap_or("the whole storage"))
    });
    [
        Cell::html(ago(request.time, now)),
        Cell::code(request.method),
        Cell::span(Some(request.seconds)),
        Cell::short(&steps.join(", ")),
        Cell::text(&format!("{} {}", request.client, request.label)),
        Cell::text(&storage.name),
        or_empty(request.oid.as_deref(), Cell::code),
        or_empty(behind.as_deref(), Cell::text),
        or_empty(request.user.as_deref(), Cell::text),
        or_empty(request.description.as_deref(), Cell::long),
    ]
}
