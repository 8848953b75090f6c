//! The dump of a server's transactions: printed as they come, with one record in memory.

use std::io::Write;

use super::super::selection::OfServer;
use super::super::served::connection::{Served, Transactions};
use super::super::text::server_line;
use super::view::{Choice, TxnView, print_head, print_record};
use crate::commands::progress::Progress;
use crate::commands::subcommand::Trouble;
use crate::storage::TransactionRecord;

/// Prints the chosen transactions.
pub fn dump(out: &mut dyn Write, served: &Served<'_>, choice: &Choice, is_json: bool) -> Result<(), Trouble> {
    if !is_json {
        let server = OfServer { protocol: served.protocol(), size: served.size(), last: served.last };
        writeln!(out, "{}", server_line(served.name, &server))?;
    }
    let mut progress = Progress::on_terminal(served.name, None, false);
    let mut transactions = served.transactions(choice.selection.since, choice.selection.until)?;
    let mut count = 0;
    while let Some(txn) = transactions.next_transaction()? {
        transaction(out, &transactions, &txn, choice, is_json)?;
        count += 1;
        if let Some(progress) = &mut progress {
            progress.show_count(count, "transactions fetched");
        }
    }
    if let Some(progress) = &mut progress {
        progress.end();
    }
    Ok(())
}

fn transaction(
    out: &mut dyn Write,
    transactions: &Transactions<'_>,
    txn: &TransactionRecord,
    choice: &Choice,
    is_json: bool,
) -> Result<(), Trouble> {
    let head = TxnView { tid: txn.tid, status: txn.status, meta: &txn.meta, found: None };
    let mut is_shown = choice.selection.has_all_records();
    if is_shown {
        print_head(out, is_json, &head)?;
    }
    let mut records = transactions.records()?;
    while let Some(record) = records.next_record()? {
        if !choice.selection.has_oid(record.oid) {
            continue;
        }
        let Some(view) = choice.view(record.oid, record.tid, record.data.as_deref()) else { continue };
        if !std::mem::replace(&mut is_shown, true) {
            print_head(out, is_json, &head)?;
        }
        print_record(out, is_json, txn.tid, &view)?;
    }
    Ok(())
}
