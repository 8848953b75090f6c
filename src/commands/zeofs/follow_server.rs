//! `zeofs tail` of a server, and with `--follow` as transactions come, until a signal ends the program or nothing reads
//! its output.
//!
//! The server is asked for its last transaction at each look: a server before ZEO 5 does not tell its clients of
//! transactions that only make objects. When a connection is lost, a new client takes the place of the old one, so that
//! nothing of the time before is believed: whether the database still has the last transaction that was shown is asked.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::brief::{Content, show};
use super::dump::view::TxnView;
use super::follow::{ended, named, objects_max, restored, wait};
use super::selection::OfServer;
use super::served::connection::{Client, Served, ServedError};
use super::text::server_line;
use crate::base::ids::Tid;
use crate::client::options::ClientOptions;
use crate::commands::progress::Progress;
use crate::commands::subcommand::Trouble;
use crate::process::signals::stop_flag;
use crate::storage::TransactionRecord;

/// Prints the newest transactions, the newest first.
pub(super) fn tail(
    out: &mut dyn Write,
    served: &Served<'_>,
    count: usize,
    is_json: bool,
) -> Result<u8, Trouble> {
    first_line(out, served, is_json)?;
    for (txn, content) in newest(served, count, 0)?.into_iter().rev() {
        print(out, &txn, content, is_json)?;
    }
    Ok(0)
}

/// Prints the newest transactions, at most `count`, then those that come.
pub(super) fn follow_server(
    out: &mut dyn Write,
    name: &str,
    options: &ClientOptions,
    count: usize,
    is_json: bool,
) -> Result<u8, Trouble> {
    // Until then a signal ends the program as usual.
    let client = Client::open(name, options, true)?;
    let stop = stop_flag()?;
    let follow = Follow { out, name, is_json, stop: &stop, last: Tid::ZERO };
    ended(follow.run(client, options, count))
}

fn first_line(out: &mut dyn Write, served: &Served<'_>, is_json: bool) -> io::Result<()> {
    if is_json {
        return Ok(());
    }
    let server = OfServer { protocol: served.protocol(), size: served.size(), last: served.last };
    writeln!(out, "{}", server_line(served.name, &server))
}

/// The newest transactions, the oldest first.
fn newest(
    served: &Served<'_>,
    count: usize,
    objects_max: usize,
) -> Result<VecDeque<(TransactionRecord, Content)>, ServedError> {
    let mut progress = Progress::on_terminal(served.name, None, true);
    let wanted = served.newest(count, Tid(u64::MAX), &mut |passed| {
        if let Some(progress) = &mut progress {
            progress.show_count(passed, "transactions passed");
        }
    })?;
    if let Some(progress) = &mut progress {
        progress.end();
    }
    let mut found = VecDeque::new();
    let Some((first, _)) = wanted.front() else { return Ok(found) };
    let mut transactions = served.transactions(*first, served.last)?;
    while let Some(txn) = transactions.next_transaction()? {
        let mut content = Content::new(objects_max);
        let mut records = transactions.records()?;
        while let Some(record) = records.next_record()? {
            content.add(&record);
        }
        drop(records);
        if found.len() == count {
            found.pop_front();
        }
        found.push_back((txn, content));
    }
    Ok(found)
}

fn print(
    out: &mut dyn Write,
    txn: &TransactionRecord,
    content: Content,
    is_json: bool,
) -> Result<(), Trouble> {
    let view = TxnView { tid: txn.tid, status: txn.status, meta: &txn.meta, found: None };
    show(out, &view, content, is_json)
}

/// Why the look at a server has ended.
enum End {
    Stopped,
    Lost(String),
}

struct Follow<'a> {
    out: &'a mut dyn Write,
    name: &'a str,
    is_json: bool,
    stop: &'a AtomicBool,
    /// The last transaction that was shown, or that was there at the beginning.
    last: Tid,
}

impl Follow<'_> {
    fn run(mut self, mut client: Client, options: &ClientOptions, count: usize) -> Result<(), Trouble> {
        let mut served = client.require_served()?;
        first_line(self.out, &served, self.is_json)?;
        for (txn, content) in newest(&served, count, objects_max(self.is_json))? {
            print(self.out, &txn, content, self.is_json)?;
        }
        self.last = served.last;
        self.out.flush()?;
        loop {
            match self.look(&mut served)? {
                End::Stopped => return Ok(()),
                End::Lost(why) => self.lost(&why)?,
            }
            client = Client::open(self.name, options, false)?;
            served = loop {
                if self.stop.load(Ordering::Relaxed) || !wait()? {
                    return Ok(());
                }
                let found = match client.served() {
                    None => continue,
                    Some(found) => found.and_then(|served| self.resume(&served).map(|found| (served, found))),
                };
                match found {
                    Ok((served, found)) => {
                        self.back(found)?;
                        break served;
                    }
                    // It comes back once more.
                    Err(ServedError::Lost(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            };
        }
    }

    /// Shows what comes, as long as the connection lasts.
    fn look(&mut self, served: &mut Served<'_>) -> Result<End, Trouble> {
        while !self.stop.load(Ordering::Relaxed) {
            if served.is_lost() {
                return Ok(End::Lost(format!("{}: the connection is lost", self.name)));
            }
            match self.show_new(served) {
                Ok(()) => {}
                Err(Ended::Served(ServedError::Lost(why))) => return Ok(End::Lost(why)),
                Err(Ended::Served(error)) => return Err(error.into()),
                Err(Ended::Output(trouble)) => return Err(trouble),
            }
            if !wait()? {
                break;
            }
        }
        Ok(End::Stopped)
    }

    fn show_new(&mut self, served: &mut Served<'_>) -> Result<(), Ended> {
        if served.ask_last()? <= self.last {
            return Ok(());
        }
        let mut transactions = served.transactions(Tid(self.last.0.saturating_add(1)), served.last)?;
        while let Some(txn) = transactions.next_transaction()? {
            let mut content = Content::new(objects_max(self.is_json));
            let mut records = transactions.records()?;
            while let Some(record) = records.next_record()? {
                content.add(&record);
            }
            drop(records);
            print(self.out, &txn, content, self.is_json).map_err(Ended::Output)?;
            self.out.flush().map_err(|error| Ended::Output(error.into()))?;
            self.last = txn.tid;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What a server has of the last transaction that was shown.
    fn resume(&self, served: &Served<'_>) -> Result<Resumed, ServedError> {
        let last = self.last;
        let found = served.newest(1, last, &mut |_| ())?.pop_back();
        let (found, status) = found.unwrap_or((Tid::ZERO, b' '));
        // A pack may take out the last transaction, but not what is before it without marking that as packed.
        Ok(Resumed { found, is_restored: found != last && status != b'p' })
    }

    fn lost(&mut self, why: &str) -> Result<(), Trouble> {
        match self.is_json {
            true => writeln!(self.out, "{}", json!({"kind": "disconnected", "what": why}))?,
            false => writeln!(self.out, "\n{why}; waiting for the server")?,
        }
        Ok(self.out.flush()?)
    }

    fn back(&mut self, resumed: Resumed) -> Result<(), Trouble> {
        let Resumed { found, is_restored } = resumed;
        let last = self.last;
        if self.is_json {
            let kind = if is_restored { "restored" } else { "connected" };
            let value = json!({"kind": kind, "last": last.to_string(), "found": found.to_string()});
            writeln!(self.out, "{value}")?;
        } else if is_restored {
            writeln!(self.out, "\n{}", restored(self.name, last, found))?;
        } else {
            writeln!(self.out, "\n{} is there again; going on behind {}", self.name, named(found))?;
        }
        Ok(self.out.flush()?)
    }
}

/// Where following goes on.
struct Resumed {
    /// The last transaction up to the one that was shown.
    found: Tid,
    is_restored: bool,
}

/// Why no more can be shown.
enum Ended {
    Served(ServedError),
    Output(Trouble),
}

impl From<ServedError> for Ended {
    fn from(error: ServedError) -> Ended {
        Ended::Served(error)
    }
}
