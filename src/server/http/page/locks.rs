//! Who holds locks, who waits for whom, and all open transactions.

use super::html::Html;
use super::tables::{Cell, Column, HtmlTable, or_empty};
use super::words::counted;
use crate::base::numbers::grouped;
use crate::server::status::ServerReport;
use crate::server::status::client::{ClientReport, TransactionReport, TransactionState};
use crate::server::status::locks::LockEntry;
use crate::server::status::storage::StorageReport;

/// Waits that are longer than this are marked.
pub const WAIT_SECONDS_MAX: f64 = 10.0;

const LOCKS: &[Column] = &[
    Column::Text("State"),
    Column::Number("For"),
    Column::Number("Client"),
    Column::Text("Label"),
    Column::Text("Storage"),
    Column::Number("Objects"),
    Column::Text("Waits for"),
    Column::Text("User"),
    Column::Text("Description"),
];

const TRANSACTIONS: &[Column] = &[
    Column::Number("Client"),
    Column::Text("Label"),
    Column::Text("Storage"),
    Column::Text("State"),
    Column::Number("For"),
    Column::Number("Stores"),
    Column::Number("Bytes"),
    Column::Text("User"),
    Column::Text("Description"),
];

/// The locks, and the open transactions.
pub fn locks(report: &ServerReport) -> Html {
    let mut table =
        HtmlTable::new("locks-table", "Transactions that hold locks, and that wait for them", LOCKS);
    for storage in &report.storages {
        let locks = &storage.locks;
        locks.holders.iter().for_each(|entry| table.row(|| lock(storage, entry, false)));
        locks.waiters.iter().for_each(|entry| table.row(|| lock(storage, entry, true)));
    }
    let mut html = Html::default();
    html.raw("<section id=\"locks\" aria-labelledby=\"locks-title\"><h2 id=\"locks-title\">Locks and transactions</h2>");
    html.add(&table.or("No transaction holds locks."));
    let open = open(report);
    html.raw("<details id=\"transactions\"><summary>");
    html.text(&counted(open.len(), "open transaction", "open transactions")).raw("</summary>");
    let mut table = HtmlTable::new("transactions-table", "Open transactions, the oldest first", TRANSACTIONS)
        .below_heading();
    for (storage, client, transaction) in open {
        table.row(|| row(storage, client, transaction));
    }
    html.add(&table.or("No transaction is open.")).raw("</details></section>");
    html
}

fn lock(storage: &StorageReport, entry: &LockEntry, is_waiting: bool) -> [Cell; 9] {
    let client = storage.clients.iter().find(|client| client.id == entry.client);
    let transaction = client.and_then(transaction_of);
    let objects = if entry.whole_storage { "all".into() } else { grouped(entry.objects as u64) };
    let waits_for: Vec<String> = entry.waits_for.iter().map(u64::to_string).collect();
    let is_long = entry.seconds.is_some_and(|seconds| seconds > WAIT_SECONDS_MAX);
    [
        Cell::short(if is_waiting { "waits" } else { "holds" }),
        Cell::span(entry.seconds).marked_if(is_long),
        Cell::short(&entry.client.to_string()),
        Cell::text(&entry.label),
        Cell::text(&storage.name),
        Cell::short(&objects),
        Cell::short(&waits_for.join(", ")),
        or_empty(transaction.and_then(|transaction| transaction.user.as_deref()), Cell::text),
        or_empty(transaction.and_then(|transaction| transaction.description.as_deref()), Cell::long),
    ]
}

/// The open transactions, the oldest first.
fn open(report: &ServerReport) -> Vec<(&StorageReport, &ClientReport, &TransactionReport)> {
    let mut open = Vec::new();
    for storage in &report.storages {
        let with_one = |client| Some((storage, client, transaction_of(client)?));
        open.extend(storage.clients.iter().filter_map(with_one));
    }
    let age = |transaction: &TransactionReport| transaction.seconds.unwrap_or_default();
    open.sort_by(|one, other| age(other.2).total_cmp(&age(one.2)));
    open
}

fn transaction_of(client: &ClientReport) -> Option<&TransactionReport> {
    client.transaction.as_ref()
}

fn row(storage: &StorageReport, client: &ClientReport, transaction: &TransactionReport) -> [Cell; 9] {
    [
        Cell::short(&client.id.to_string()),
        Cell::text(&client.label),
        Cell::text(&storage.name),
        Cell::short(state(transaction.state)),
        Cell::span(transaction.seconds),
        or_empty(transaction.stores, |stores| Cell::count(stores as u64)),
        or_empty(transaction.bytes, Cell::size),
        or_empty(transaction.user.as_deref(), Cell::text),
        or_empty(transaction.description.as_deref(), Cell::long),
    ]
}

/// As in `/status.json`.
pub fn state(state: TransactionState) -> &'static str {
    match state {
        TransactionState::Busy => "busy",
        TransactionState::Open => "open",
        TransactionState::Waiting => "waiting",
        TransactionState::Voting => "voting",
        TransactionState::Voted => "voted",
        TransactionState::Failed => "failed",
        TransactionState::Finishing => "finishing",
    }
}
