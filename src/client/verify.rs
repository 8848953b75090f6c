//! Verification: what the cache has missed, asked of the server of a new link, for servers of every generation.
//!
//! In short: nothing, if the server has nothing newer; else the objects that changed since, if the server's queue of
//! invalidations reaches back so far; else servers before ZEO 5 check each cached object (unless
//! `drop-cache-rather-verify` is set), and for newer ones everything is dropped.
//!
//! A restored or another database is noticed, too: the newest revision that stays in the cache must be the server's
//! current one. If none stays, former revisions are dropped, too. Python's clients mix such a cache with the database
//! silently, unless its last tid is in the server's future.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use super::ask::{AskError, ask};
use super::link::{Link, LinkError};
use super::timeline::Found;
use crate::base::ids::{Oid, Tid};
use crate::wire::availability::Method;
use crate::wire::calls::Call;

/// Upper bound on the wait for each answer. Servers answer these calls from memory.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Upper bound on the cached objects of which it is checked whether the server has them.
const CHECKED_MAX: usize = 100;

/// The cache, as verification sees it.
pub trait CacheToVerify {
    /// All transactions up to this one are in it. `None`: it was never verified.
    fn last_tid(&self) -> Option<Tid>;
    /// The objects whose revision counts as current, with its tid.
    fn current(&self) -> Vec<(Oid, Tid)>;
}

/// What was found.
pub struct Verified {
    /// The last transaction that the cache, and what was found, stand for.
    pub last: Tid,
    pub found: Found,
    /// For the log.
    pub verdict: Verdict,
    /// No current revision stays in the cache that could show that it is of this database: former revisions may be of
    /// a timeline that a restored backup does not have, and must be dropped, too.
    pub is_unproven: bool,
}

/// The kinds of outcomes, in the words of Python's client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Empty,
    UpToDate,
    Quick,
    Full,
    TooOld,
    WithoutTid,
    /// Not in Python's client.
    OtherDatabase,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Empty => "empty cache",
            Verdict::UpToDate => "Cache up to date",
            Verdict::Quick => "quick verification",
            Verdict::Full => "full verification",
            Verdict::TooOld => "cache too old, clearing",
            Verdict::WithoutTid => "Non-empty cache w/o tid -- clearing",
            Verdict::OtherDatabase => {
                "the cache is of another database, or of one that was restored, clearing"
            }
        })
    }
}

/// Why the cache is not verified.
#[derive(Debug)]
pub enum VerifyError {
    Link(LinkError),
    /// The server answered with an exception, or not as it should.
    Refused(String),
    /// The cache has seen later transactions than this server has.
    CacheNewer {
        cache: Tid,
        server: Tid,
    },
}

impl From<LinkError> for VerifyError {
    fn from(error: LinkError) -> VerifyError {
        VerifyError::Link(error)
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VerifyError::Link(error) => error.fmt(f),
            VerifyError::Refused(what) => f.write_str(what),
            VerifyError::CacheNewer { cache, server } => write!(
                f,
                "Client cache is out of sync with the server: its last transaction is {cache}, the server's {server}. \
                 Was an older copy of the database put back, or is this the wrong server? The cache is not used with this \
                 server; to give it up, remove its file."
            ),
        }
    }
}

/// How to verify.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `drop-cache-rather-verify`
    pub drop_rather: bool,
    /// Views or listeners know of objects that are not in the cache: what changed is asked for even if the cache is
    /// empty.
    pub has_readers: bool,
}

/// Has the server check objects with the tids of their cached revisions; returns the stale ones. `None`: it did not
/// answer as it should.
pub type CheckAll<'a> = dyn Fn(&[(Oid, Tid)]) -> Result<Option<Vec<Oid>>, VerifyError> + 'a;

/// Verifies the cache with the server of `link`, on which the client has registered. `server_last`: the last
/// transaction of the server, asked for after the link began to keep transactions that arrive early. `check_all`
/// is for servers before ZEO 5.
pub fn verify(
    link: &Link,
    server_last: Tid,
    cache: &dyn CacheToVerify,
    options: Options,
    check_all: &CheckAll<'_>,
) -> Result<Verified, VerifyError> {
    let verified = |last, found, verdict| Ok(Verified { last, found, verdict, is_unproven: false });
    let current = cache.current();
    let last = match cache.last_tid() {
        Some(last) => last,
        None if current.is_empty() => {
            // In an empty database nothing can have been missed.
            let may_miss = options.has_readers && server_last != Tid::ZERO;
            let found = if may_miss { Found::Unknown } else { Found::Nothing };
            return verified(server_last, found, Verdict::Empty);
        }
        None => return verified(server_last, Found::Unknown, Verdict::WithoutTid),
    };
    if current.is_empty() && !options.has_readers {
        // Former revisions may be of a timeline that a restored backup does not have.
        let found = if last == server_last { Found::Nothing } else { Found::Unknown };
        return verified(server_last, found, Verdict::Empty);
    }
    if last > server_last {
        return Err(VerifyError::CacheNewer { cache: last, server: server_last });
    }
    let (server_last, changed) = if last == server_last {
        (server_last, Some(Vec::new()))
    } else {
        let call = Call::GetInvalidations { tid: last };
        match answer(ask(link, &call, Some(ANSWER_MAX), |answer| answer.invalidations()))? {
            // Servers before ZEO 5 answer the newest transaction of their queue.
            Some((newest, oids)) => (newest.max(server_last), Some(oids)),
            None => (server_last, None),
        }
    };
    let Some(changed) = changed else {
        let can_check = link.wire().knows(Method::Verify) && !options.drop_rather;
        return match if can_check { check_all(&current)? } else { None } {
            Some(stale) => verified(server_last, Found::Stale(stale), Verdict::Full),
            None => verified(server_last, Found::Unknown, Verdict::TooOld),
        };
    };
    let mut staying = current;
    if !changed.is_empty() {
        let changed: HashSet<Oid> = changed.iter().copied().collect();
        staying.retain(|(oid, _)| !changed.contains(oid));
    }
    let is_unproven = staying.is_empty() && last != server_last;
    let verified = |last, found, verdict| Ok(Verified { last, found, verdict, is_unproven });
    match same_database(link, server_last, staying)? {
        None => verified(server_last, Found::Unknown, Verdict::OtherDatabase),
        Some(gone) if changed.is_empty() && gone.is_empty() => {
            // There may be transactions that change nothing, as a server adds one to a restored file.
            let found = if last == server_last { Found::Nothing } else { Found::Objects(Vec::new()) };
            verified(server_last, found, Verdict::UpToDate)
        }
        Some(gone) => verified(server_last, Found::Objects([changed, gone].concat()), Verdict::Quick),
    }
}

/// Whether the newest cached revisions are the server's. `staying`: objects that have not changed, with their tids.
/// Returns objects that the server does not have any more: garbage that a pack removed, or objects of a lost
/// timeline. `None`: it is another database.
///
/// Of a cache that has seen a lost timeline, the newest revisions are from it: all transactions of the database that
/// was restored are earlier, all new ones are among the changes.
fn same_database(
    link: &Link,
    server_last: Tid,
    mut staying: Vec<(Oid, Tid)>,
) -> Result<Option<Vec<Oid>>, VerifyError> {
    let checked = staying.len().min(CHECKED_MAX);
    if let Some(last) = checked.checked_sub(1) {
        staying.select_nth_unstable_by_key(last, |(_, tid)| Reverse(*tid));
    }
    staying.truncate(checked);
    staying.sort_unstable_by_key(|(_, tid)| Reverse(*tid));
    let mut gone = Vec::new();
    let is_all = staying.len() < CHECKED_MAX;
    for (oid, tid) in staying {
        match ask(link, &Call::GetTid { oid }, Some(ANSWER_MAX), |answer| answer.tid()) {
            // Its invalidation arrives after this verification.
            Ok(current) if current > server_last => {}
            Ok(current) => return Ok((current == tid).then_some(gone)),
            Err(AskError::Raised(exception)) if *exception.name == *"POSKeyError" => gone.push(oid),
            Err(error) => return answer(Err(error)),
        }
    }
    Ok(is_all.then_some(gone))
}

/// An exception is no answer to these calls.
pub(super) fn answer<T>(result: Result<T, AskError>) -> Result<T, VerifyError> {
    result.map_err(|error| match error {
        AskError::Link(error) => VerifyError::Link(error),
        other => VerifyError::Refused(other.to_string()),
    })
}
