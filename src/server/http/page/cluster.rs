//! The cluster: what this server follows, and what follows it.

use super::html::Html;
use super::tables::{Cell, Column, HtmlTable, or_empty};
use super::words::{ago, counted};
use crate::base::numbers::span;
use crate::server::status::ServerReport;
use crate::server::status::cluster::{ClusterRole, ClusterStatus, ClusterStorage, Following, ReplicaStatus};
use crate::server::status::lag::LagStatus;
use crate::server::status::storage::SecondaryReport;

const FOLLOWING: &[Column] = &[
    Column::Text("Storage"),
    Column::Text("Connection"),
    Column::Number("Behind"),
    Column::Number("Transactions"),
    Column::Number("Bytes"),
    Column::Text("Last transaction here"),
];

const REPLICAS: &[Column] = &[
    Column::Text("Storage"),
    Column::Text("Replica"),
    Column::Text("Address"),
    Column::Text("Connected"),
    Column::Number("Behind"),
    Column::Number("Transactions"),
    Column::Number("Bytes"),
    Column::Text("Commits wait for it"),
];

const SECONDARIES: &[Column] = &[
    Column::Text("Storage"),
    Column::Text("Address"),
    Column::Text("Connected"),
    Column::Number("Behind"),
    Column::Number("Transactions"),
    Column::Number("Bytes"),
];

/// Nothing for a server on its own.
pub fn cluster(report: &ServerReport) -> Html {
    let mut html = Html::default();
    let Some(cluster) = &report.cluster else { return html };
    html.raw(
        "<section id=\"cluster\" aria-labelledby=\"cluster-title\"><h2 id=\"cluster-title\">Cluster</h2><p>",
    );
    html.text(&summary(cluster)).raw(" Timeline ").text(&cluster.timeline).raw(", begun ");
    html.add(&ago(cluster.since, report.time)).raw(".</p>");
    let mut following = HtmlTable::new("following-table", "What it follows", FOLLOWING);
    let mut replicas = HtmlTable::new("replicas-table", "Replicas", REPLICAS);
    for storage in &cluster.storages {
        storage.following.iter().for_each(|one| following.row(|| follows(storage, one)));
        storage.replicas.iter().for_each(|one| replicas.row(|| followed(storage, one, report.time)));
    }
    if cluster.role == ClusterRole::Replica {
        html.add(&following.or("It has not begun to follow."));
    }
    html.add(&replicas.or("No server follows this one."));
    html.raw("</section>");
    html
}

/// `This server is a, the primary.`
fn summary(cluster: &ClusterStatus) -> String {
    let role = match (cluster.role, &cluster.primary) {
        (ClusterRole::Primary, _) => "the primary".into(),
        (ClusterRole::Replica, Some(primary)) => format!("a replica of {primary}"),
        (ClusterRole::Replica, None) => "a replica, which has found no primary".into(),
    };
    let needed = match cluster.synchronous_replicas {
        0 => String::new(),
        count => format!(" A commit waits for {}.", counted(count, "replica", "replicas")),
    };
    format!("This server is {}, {role}.{needed}", cluster.name)
}

fn follows(storage: &ClusterStorage, following: &Following) -> [Cell; 6] {
    let [seconds, transactions, bytes] = lag(following.behind);
    [
        Cell::text(&storage.storage),
        match &following.failure {
            None => Cell::short("connected"),
            Some(failure) => Cell::long(failure).marked_if(true),
        },
        seconds,
        transactions,
        bytes,
        Cell::short(&storage.last),
    ]
}

fn followed(storage: &ClusterStorage, replica: &ReplicaStatus, now: f64) -> [Cell; 8] {
    let [seconds, transactions, bytes] = lag(Some(replica.behind));
    [
        Cell::text(&storage.storage),
        Cell::text(&replica.name),
        Cell::text(&replica.peer),
        Cell::html(ago(replica.since, now)),
        seconds,
        transactions,
        bytes,
        Cell::short(if replica.synchronous { "yes" } else { "no" }),
    ]
}

/// The secondaries of primaries of ZRS; nothing if this is none.
pub fn secondaries(report: &ServerReport) -> Html {
    let mut html = Html::default();
    if report.storages.iter().all(|storage| storage.secondaries.is_none()) {
        return html;
    }
    let mut table = HtmlTable::new("secondaries-table", "Secondaries", SECONDARIES);
    for storage in &report.storages {
        let secondaries = storage.secondaries.iter().flatten();
        secondaries.for_each(|one| table.row(|| secondary(&storage.name, one, report.time)));
    }
    html.raw(
        "<section id=\"secondaries\" aria-labelledby=\"secondaries-title\"><h2 id=\"secondaries-title\">Secondaries</h2>",
    );
    html.add(&table.or("No secondary follows this server."));
    html.raw("</section>");
    html
}

fn secondary(storage: &str, secondary: &SecondaryReport, now: f64) -> [Cell; 6] {
    let [seconds, transactions, bytes] = lag(Some(secondary.behind));
    [
        Cell::text(storage),
        Cell::text(&secondary.peer),
        Cell::html(ago(secondary.since, now)),
        seconds,
        transactions,
        bytes,
    ]
}

fn lag(lag: Option<LagStatus>) -> [Cell; 3] {
    [
        or_empty(lag, |lag| Cell::short(&span(lag.seconds))),
        or_empty(lag, |lag| Cell::count(lag.transactions)),
        or_empty(lag, |lag| Cell::size(lag.bytes)),
    ]
}
