//! The objects that clients change at the same time: the last conflicts that were refused, by object.

use std::collections::BTreeMap;

use super::html::Html;
use super::tables::{Cell, Column, HtmlTable};
use super::words::ago;
use crate::server::status::ServerReport;
use crate::server::status::storage::ConflictReport;

const CONFLICTS: &[Column] = &[
    Column::Text("Class"),
    Column::Text("Object"),
    Column::Text("Storage"),
    Column::Number("Refused"),
    Column::Text("Last"),
    Column::Text("Last client"),
];

/// The last hundred conflicts of each storage, those objects first that have most.
pub fn conflicts(report: &ServerReport) -> Html {
    // By storage and object; the newest is met first.
    let mut objects: BTreeMap<(&str, &str), (usize, &ConflictReport)> = BTreeMap::new();
    for storage in &report.storages {
        for conflict in &storage.conflicts {
            objects.entry((&storage.name, &conflict.oid)).or_insert((0, conflict)).0 += 1;
        }
    }
    let mut objects: Vec<_> = objects.into_iter().collect();
    objects.sort_by(|(_, one), (_, other)| {
        other.0.cmp(&one.0).then_with(|| other.1.time.total_cmp(&one.1.time))
    });
    let caption = "Objects of the last conflicts that were refused (of each storage a hundred)";
    let mut table = HtmlTable::new("conflicts-table", caption, CONFLICTS);
    for ((storage, oid), (count, last)) in objects {
        table.row(|| {
            [
                Cell::long(last.class.as_deref().unwrap_or("unknown")),
                Cell::code(oid),
                Cell::text(storage),
                Cell::count(count as u64),
                Cell::html(ago(last.time, report.time)),
                Cell::text(&last.label),
            ]
        });
    }
    let mut html = Html::default();
    html.raw("<section id=\"conflicts\" aria-labelledby=\"conflicts-title\"><h2 id=\"conflicts-title\">Conflicts</h2>");
    html.add(&table.or("No conflict was refused since the start.")).raw("</section>");
    html
}
