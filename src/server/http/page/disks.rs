//! The room in the file systems, and how long it lasts.

use super::html::Html;
use super::tables::{Cell, Column, HtmlTable, bar, or_empty};
use super::words::ago;
use crate::base::numbers::{size, span};
use crate::server::status::ServerReport;
use crate::server::status::storage::DiskReport;

/// Disks with less free space than this part are marked, and those that are full sooner than this.
const FREE_PART_MIN: f64 = 0.05;
const FULL_SECONDS_MIN: f64 = 7.0 * 86400.0;

const DISKS: &[Column] = &[
    Column::Text("Directory"),
    Column::Text("For"),
    Column::Text("Used"),
    Column::Number("Free"),
    Column::Number("Of"),
    Column::Text("Change"),
    Column::Text("Full"),
    Column::Text("Asked"),
];

/// The file systems of all storages, and of temporary files.
pub fn disks(report: &ServerReport) -> Html {
    let mut table = HtmlTable::new("disks-table", "File systems", DISKS).below_heading();
    let of_storages = report.storages.iter().flat_map(|storage| &storage.disks);
    for disk in of_storages.chain(&report.temporary_directory) {
        table.row(|| row(disk, report.time));
    }
    let mut html = Html::default();
    html.raw("<section id=\"disks\" aria-labelledby=\"disks-title\"><h2 id=\"disks-title\">Disks</h2>");
    html.add(&table.or("No storage has a file system.")).raw("</section>");
    html
}

fn row(disk: &DiskReport, now: f64) -> [Cell; 8] {
    let free_part =
        disk.free_bytes.zip(disk.total_bytes).map(|(free, total)| free as f64 / (total.max(1) as f64));
    let purpose = match (disk.usage, &disk.storage) {
        ("tmp", _) => "temporary files".into(),
        (usage, Some(storage)) => format!("{usage} of {storage}"),
        (usage, None) => usage.into(),
    };
    let used = or_empty(free_part, |free| {
        let mut html = bar(1.0 - free);
        html.raw(" ").put(format_args!("{:.0} %", 100.0 * (1.0 - free)));
        Cell::html(html)
    });
    [
        Cell::long(&disk.directory),
        Cell::text(&purpose),
        used,
        or_empty(disk.free_bytes, Cell::size).marked_if(free_part.is_some_and(|free| free < FREE_PART_MIN)),
        or_empty(disk.total_bytes, Cell::size),
        Cell::short(&change(disk)),
        Cell::short(&full(disk))
            .marked_if(disk.full_in_seconds.is_some_and(|seconds| seconds < FULL_SECONDS_MIN)),
        disk.time.map_or_else(|| Cell::short("never"), |at| Cell::html(ago(at, now))),
    ]
}

/// `1.2 GB less a day`
fn change(disk: &DiskReport) -> String {
    let Some(change) = disk.free_change_per_day else { return "unknown yet".into() };
    match (size(change.abs()), change) {
        (_, change) if change.abs() < 1000.0 => "none".into(),
        (bytes, change) if change < 0.0 => format!("{bytes} less a day"),
        (bytes, _) => format!("{bytes} more a day"),
    }
}

/// When nothing is left.
fn full(disk: &DiskReport) -> String {
    match (disk.full_in_seconds, disk.change_seconds) {
        (_, None) => "unknown yet".into(),
        (None, Some(_)) => "not like this".into(),
        (Some(seconds), Some(over)) => format!("in {}, by {} of values", span(seconds), span(over)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(free_change_per_day: Option<f64>, full_in_seconds: Option<f64>) -> DiskReport {
        DiskReport {
            storage: None,
            usage: "tmp",
            directory: "/tmp".into(),
            free_bytes: Some(0),
            total_bytes: Some(0),
            time: None,
            free_change_per_day,
            change_seconds: free_change_per_day.map(|_| 7200.0),
            full_in_seconds,
        }
    }

    #[test]
    fn how_long_a_disk_lasts_is_said_in_words() {
        for (change_per_day, full_in, words) in [
            (None, None, ("unknown yet", "unknown yet")),
            (Some(0.0), None, ("none", "not like this")),
            (Some(5e9), None, ("5.0 GB more a day", "not like this")),
            (Some(-5e9), Some(864_000.0), ("5.0 GB less a day", "in 10 days, by 2 h 0 min of values")),
        ] {
            let disk = disk(change_per_day, full_in);
            assert_eq!((&*change(&disk), &*full(&disk)), words);
            // Numbers of a broken file system are no reason to panic.
            row(&disk, f64::NAN);
        }
    }
}
