//! The connections: clients, those that have not registered, and what was refused.

use super::html::Html;
use super::locks::state;
use super::tables::{Cell, Column, HtmlTable, or_empty};
use super::words::{counted, since};
use crate::base::numbers::{grouped, span};
use crate::server::status::ServerReport;
use crate::server::status::client::ClientReport;

/// Bytes in a queue that are worth a mark: the client does not read.
const QUEUED_MAX: usize = 1 << 20;

const CLIENTS: &[Column] = &[
    Column::Number("Number"),
    Column::Text("Label and address"),
    Column::Text("Identity"),
    Column::Text("Storage"),
    Column::Text("Protocol"),
    Column::Number("Since"),
    Column::Text("Transaction"),
    Column::Number("Loads"),
    Column::Number("Stores"),
    Column::Number("Commits"),
    Column::Number("Received"),
    Column::Number("Sent"),
    Column::Number("Queued"),
];

/// Those with open transactions first, the oldest of these at the top; then by their numbers.
pub fn clients(report: &ServerReport) -> Html {
    let of_storages = report
        .storages
        .iter()
        .flat_map(|storage| storage.clients.iter().map(|client| (&*storage.name, client)));
    let mut clients: Vec<(&str, &ClientReport)> = of_storages.collect();
    let age =
        |client: &ClientReport| client.transaction.as_ref().map(|open| open.seconds.unwrap_or_default());
    clients.sort_by(|(_, one), (_, other)| {
        let by_age = age(other).unwrap_or(-1.0).total_cmp(&age(one).unwrap_or(-1.0));
        by_age.then(one.id.cmp(&other.id))
    });
    let mut html = Html::default();
    html.raw(
        "<section id=\"clients\" aria-labelledby=\"clients-title\"><h2 id=\"clients-title\">Clients</h2>",
    );
    let caption = "Clients, those with the oldest transactions first";
    html.add(&table("clients-table", caption, clients, report.time).or("No clients are connected."));
    html.raw("<details id=\"connections\"><summary>").text(&summary(report)).raw("</summary>");
    let unregistered = report.unregistered.iter().map(|client| ("", client)).collect();
    let caption = "Connections that have not registered";
    html.add(
        &table("unregistered-table", caption, unregistered, report.time)
            .or("All connections have registered."),
    );
    html.add(&refused(report)).raw("</details></section>");
    html
}

fn table(
    id: &'static str,
    caption: &'static str,
    clients: Vec<(&str, &ClientReport)>,
    now: f64,
) -> HtmlTable {
    let mut table = HtmlTable::new(id, caption, CLIENTS);
    for (storage, client) in clients {
        table.row(|| row(storage, client, now));
    }
    table
}

fn row(storage: &str, client: &ClientReport, now: f64) -> [Cell; 13] {
    let reads = if client.can_write || storage.is_empty() { "" } else { ", reads" };
    let transaction = client.transaction.as_ref().map(|open| {
        let seconds = open.seconds.map(|seconds| format!(" {}", span(seconds)));
        format!("{}{}", state(open.state), seconds.unwrap_or_default())
    });
    [
        Cell::short(&client.id.to_string()),
        Cell::text(&client.label),
        or_empty(client.identity.as_deref(), Cell::long),
        Cell::text(storage),
        Cell::short(&format!("{}{reads}", client.protocol.unwrap_or("none yet"))),
        Cell::html(since(client.since, now)),
        or_empty(transaction, |shown| Cell::short(&shown)),
        Cell::count(client.loads),
        Cell::count(client.stores),
        Cell::count(client.commits),
        Cell::size(client.received_bytes),
        Cell::size(client.sent_bytes),
        Cell::size(client.outbox_bytes as u64).marked_if(client.outbox_bytes > QUEUED_MAX),
    ]
}

fn summary(report: &ServerReport) -> String {
    let connections = &report.connections;
    format!(
        "{} of at most {}; {} not registered",
        counted(connections.registered, "client", "clients"),
        grouped(connections.registered_max as u64),
        grouped(connections.unregistered as u64)
    )
}

const REFUSED: &[Column] = &[Column::Text("Reason"), Column::Number("Refused")];

/// What became of other connections.
fn refused(report: &ServerReport) -> Html {
    let connections = &report.connections;
    let mut table =
        HtmlTable::new("refused-table", "Connections that were refused or closed since the start", REFUSED);
    let others = [
        ("TLS handshake failed", connections.tls_failures),
        ("wrong password", connections.password_failures),
    ];
    let reasons = connections.refused.iter().map(|(reason, count)| (*reason, *count)).chain(others);
    for (reason, count) in reasons.filter(|(_, count)| *count > 0) {
        table.row(|| [Cell::short(reason), Cell::count(count)]);
    }
    table.or("No connection was refused.")
}
