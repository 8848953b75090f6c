//! What the storages have done in the last hour.

use super::html::Html;
use super::plots::{Plot, Unit};
use crate::server::status::ServerReport;
use crate::server::status::history::HistoryReport;
use crate::server::status::storage::StorageReport;

/// Storages whose plots are there.
const STORAGES_MAX: usize = 20;

/// The plots of each storage.
pub fn activity(report: &ServerReport) -> Html {
    let mut html = Html::default();
    html.raw("<section id=\"activity\" aria-labelledby=\"activity-title\"><h2 id=\"activity-title\">The last hour</h2>");
    for storage in report.storages.iter().take(STORAGES_MAX) {
        if report.storages.len() > 1 {
            html.raw("<h3><bdi>").text(&storage.name).raw("</bdi></h3>");
        }
        html.add(&plots(storage, report.time));
    }
    let hidden = report.storages.len().saturating_sub(STORAGES_MAX);
    if hidden > 0 {
        html.raw("<p class=\"more\">and ").text(&hidden.to_string());
        html.raw(" more storages: <a href=\"status.json\">status.json</a> has their samples</p>");
    }
    html.raw("</section>");
    html
}

fn plots(storage: &StorageReport, now: f64) -> Html {
    let HistoryReport { interval_seconds, times, loads, stored_bytes, commits, conflicts, clients, waiting } =
        &storage.history;
    let mut html = Html::default();
    let is_idle = |rates: &[f32]| rates.iter().all(|rate| *rate == 0.0);
    if !times.is_empty() && is_idle(loads) && is_idle(commits) && clients.iter().all(|count| *count == 0) {
        html.raw("<p class=\"none\">No client was there.</p>");
        return html;
    }
    html.raw("<div class=\"plots\">");
    let mut plot = |title, unit, values: &mut dyn Iterator<Item = f64>| {
        let samples: Vec<(f64, f64)> = times.iter().map(|at| *at as f64).zip(values).collect();
        let interval = *interval_seconds as f64;
        html.add(&Plot { title, unit, now, interval, samples: &samples }.figure());
    };
    plot("Commits", Unit::ASecond, &mut commits.iter().copied().map(f64::from));
    plot("Loads", Unit::ASecond, &mut loads.iter().copied().map(f64::from));
    plot("Stored", Unit::BytesASecond, &mut stored_bytes.iter().copied().map(f64::from));
    plot("Conflicts refused", Unit::AMinute, &mut conflicts.iter().copied().map(f64::from));
    plot("Waiting for locks", Unit::Count, &mut waiting.iter().copied().map(f64::from));
    plot("Clients", Unit::Count, &mut clients.iter().copied().map(f64::from));
    html.raw("</div>");
    html
}
