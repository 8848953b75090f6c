//! The checker: what each client saw must be explained by the root's file, in one of its timelines.
//!
//! A timeline is what the file holds between two restores: all transactions, without those that a restore has cut. A
//! tid is of one timeline only, as far as it was cut; so the last transaction that a client knows says which timelines
//! it can be in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::check::{
    self, Changes, Event, History, Oid, Order, Outcome, Revision, Summary, Tid, attribution, check_connection,
};
use crate::library::{Heard, Seen, Visit};

/// The root's file when it was restored, and at the end.
#[derive(Clone, Debug, Default)]
pub struct Epoch {
    /// The content of the file at the end of the epoch.
    pub log: Vec<(Tid, Changes)>,
    /// The last transaction of the copy that was put back then. `None`: the end.
    pub restored: Option<Tid>,
}

/// The content of a cache file.
#[derive(Clone, Debug)]
pub struct CacheContent {
    pub label: String,
    /// It was closed; else a copy was read after a kill, whose last tid may be an earlier one, as after a power cut.
    pub is_closed: bool,
    pub last: Option<Tid>,
    pub revisions: Vec<(Oid, Revision)>,
}

/// Everything that was seen.
pub struct Facts {
    pub history: History,
    pub epochs: Vec<Epoch>,
    pub visits: Vec<Visit>,
    pub caches: Vec<CacheContent>,
    /// What was done to the servers, with the times as tids.
    pub story: Vec<(Tid, String)>,
}

#[allow(dead_code)] // shown with Debug
#[derive(Debug, Default)]
pub struct Counts {
    pub history: Summary,
    pub views: usize,
    pub outdated: usize,
    pub looked_up: usize,
    pub heard: usize,
    pub cached: usize,
    pub restores: usize,
}

/// Checks everything. The error explains itself.
pub fn check(facts: &mut Facts) -> Result<Counts, String> {
    let log = all_logs(&facts.epochs);
    facts.history.markers =
        log.iter().filter(|(_, changes)| changes.is_empty()).map(|(tid, _)| *tid).collect();
    facts.history.log = Some(log);
    let facts = &*facts;
    let orders = orders(facts)?;
    let mut counts = Counts { restores: orders.len() - 1, ..Counts::default() };
    let all: Vec<&Order> = orders.iter().collect();
    check::check_conflicts(&facts.history, &all)
        .map_err(|error| format!("{error}\n{}", story(facts, 0, Tid::MAX)))?;
    for (order, epoch) in orders.iter().zip(&facts.epochs) {
        let mut end = BTreeMap::new();
        for (tid, changes) in &epoch.log {
            for (oid, value) in changes {
                match value {
                    Some(value) => drop(end.insert(*oid, (*tid, *value))),
                    None => drop(end.remove(oid)),
                }
            }
        }
        check::check_end(order, Some(&epoch.log), &end, facts.history.packed)
            .map_err(|error| format!("the file: {error}\n{}", story(facts, 0, Tid::MAX)))?;
    }
    for connection in &facts.history.connections {
        check_raw(facts, &orders, &connection.label, &connection.events, &mut counts.history)?;
    }
    for visit in &facts.visits {
        check_heard(facts, &orders, visit)?;
        for seen in &visit.views {
            check_view(facts, &orders, visit, seen)?;
            counts.looked_up += seen.loads.len();
        }
        counts.views += visit.views.len();
        counts.outdated += visit.outdated;
        counts.heard += visit.heard.len();
    }
    for cache in &facts.caches {
        check_cache(facts, &orders, cache)?;
        counts.cached += cache.revisions.len();
    }
    Ok(counts)
}

fn all_logs(epochs: &[Epoch]) -> Vec<(Tid, Changes)> {
    let mut all: BTreeMap<Tid, Changes> = BTreeMap::new();
    for (tid, changes) in epochs.iter().flat_map(|epoch| &epoch.log) {
        all.entry(*tid).or_default().extend(changes.iter().map(|(oid, value)| (*oid, *value)));
    }
    all.into_iter().collect()
}

/// The order of each timeline.
fn orders(facts: &Facts) -> Result<Vec<Order>, String> {
    let by_tid = attribution::attribute(&facts.history)
        .map_err(|error| format!("{error}\n{}", story(facts, 0, Tid::MAX)))?;
    let mut lost: Vec<(Tid, Tid)> = Vec::new();
    let mut orders = Vec::new();
    for epoch in &facts.epochs {
        let last = epoch.log.last().map_or(0, |(tid, _)| *tid);
        let is_here = |tid: Tid| tid <= last && !lost.iter().any(|(from, to)| tid > *from && tid <= *to);
        let here = by_tid.iter().filter(|(tid, _)| is_here(**tid)).map(|(tid, number)| (*tid, *number));
        let mut order = check::replay(&facts.history, &here.collect())
            .map_err(|error| format!("{error}\n{}", story(facts, 0, Tid::MAX)))?;
        let markers = facts.history.markers.iter().filter(|marker| is_here(**marker));
        markers.for_each(|marker| _ = order.txns.entry(*marker).or_default());
        orders.push(order);
        lost.extend(epoch.restored.map(|restored| (restored, last)));
    }
    let mut summary = Summary { commits: by_tid.len(), ..Summary::default() };
    check::count(&facts.history, &by_tid, &mut summary);
    println!("  {summary:?}");
    Ok(orders)
}

/// Runs the check for each timeline. `Err`: the error of the one that explains the most, by its first number.
fn in_some(
    orders: &[Order],
    check: impl Fn(&Order) -> Result<(), (usize, String)>,
) -> Result<(), (usize, String)> {
    let mut worst: Option<(usize, String)> = None;
    // The latest first: of equal ones its error is of interest.
    for order in orders.iter().rev() {
        match check(order) {
            Ok(()) => return Ok(()),
            Err(error) if worst.as_ref().is_none_or(|worst| worst.0 < error.0) => worst = Some(error),
            Err(_) => {}
        }
    }
    worst.map_or(Ok(()), Err)
}

/// Whether it is the last transaction of a state of this timeline. 0: of a server that was never connected.
fn is_state(order: &Order, last: Tid) -> bool {
    last == 0 || order.txns.contains_key(&last)
}

/// A connection of a raw client.
fn check_raw(
    facts: &Facts,
    orders: &[Order],
    label: &str,
    events: &[Event],
    summary: &mut Summary,
) -> Result<(), String> {
    let checked = in_some(orders, |order| {
        if let Some(Event::LastTransaction(first)) = events.first()
            && !is_state(order, *first)
        {
            return Err((0, format!("it began after {first:x}, which is not in the file")));
        }
        let check =
            |count: usize| check_connection(&facts.history, order, &events[..count], &mut Summary::default());
        let Err(error) = check(events.len()) else { return Ok(()) };
        let (mut good, mut bad) = (0, events.len());
        while bad - good > 1 {
            let middle = (good + bad) / 2;
            *if check(middle).is_ok() { &mut good } else { &mut bad } = middle;
        }
        Err((good, error))
    });
    let Err((at, error)) = checked else {
        summary.reads += events.iter().filter(|event| matches!(event, Event::Loaded { .. })).count();
        summary.told += events.iter().filter(|event| matches!(event, Event::Told { .. })).count();
        return Ok(());
    };
    let mut text = format!(
        "a connection, {label}: {error}\n{}  event {at} of {}: {:x?}\n",
        authors(facts, events.get(at)),
        events.len(),
        events.get(at)
    );
    let oid = match events.get(at) {
        Some(Event::Loaded { oid, .. }) => Some(*oid),
        _ => None,
    };
    let places = events[..at].iter().enumerate().filter(|(number, event)| match event {
        Event::Told { oids, .. } => at - number < 12 || oid.is_some_and(|oid| oids.contains(&oid)),
        Event::Loaded { oid: loaded, .. } => oid == Some(*loaded),
        _ => at - number < 12,
    });
    let shown: Vec<_> = places.collect();
    for (number, event) in shown.iter().skip(shown.len().saturating_sub(12)) {
        writeln!(text, "  event {number}: {event:x?}").expect("a string");
    }
    let first = events.iter().find_map(|event| match event {
        Event::LastTransaction(tid) => Some(*tid),
        _ => None,
    });
    let last = events.iter().take(at + 1).rev().find_map(|event| match event {
        Event::LastTransaction(tid) | Event::Told { tid, .. } | Event::Finished { tid } => Some(*tid),
        _ => None,
    });
    text.extend(oid.map(|oid| revisions(orders, oid, last.unwrap_or(0))));
    text += &story(facts, first.unwrap_or(0), last.unwrap_or(Tid::MAX));
    Err(text)
}

/// Each transaction once, in order, none missing.
fn check_heard(facts: &Facts, orders: &[Order], visit: &Visit) -> Result<(), String> {
    // Between two of these the client is in one timeline.
    let is_restart = |heard: &Heard| matches!(heard, Heard::Anything { .. });
    for part in visit.heard.chunk_by(|_, next| !is_restart(next)) {
        let checked = in_some(orders, |order| check_part(order, part));
        if let Err((at, error)) = checked {
            let mut text = format!("what {} heard: {error}\n", visit.label);
            for (number, heard) in part.iter().enumerate().take(at + 1).skip(at.saturating_sub(6)) {
                writeln!(text, "  {number}: {heard:x?}").expect("a string");
            }
            let tid = part.get(at).map_or(0, last_of);
            return Err(text + &story(facts, 0, tid));
        }
    }
    Ok(())
}

fn last_of(heard: &Heard) -> Tid {
    match heard {
        Heard::Transaction { tid: last, .. } | Heard::Missed { last, .. } | Heard::Anything { last } => *last,
    }
}

fn check_part(order: &Order, part: &[Heard]) -> Result<(), (usize, String)> {
    let mut state = None;
    for (at, heard) in part.iter().enumerate() {
        let last = last_of(heard);
        if !is_state(order, last) {
            return Err((at, format!("{last:x} is not in the file")));
        }
        if let Some(state) = state {
            let missing = match heard {
                Heard::Transaction { .. } => {
                    let next = order.txns.range(state + 1..).next().map(|(tid, _)| *tid);
                    (next != Some(last)).then(|| format!("after {state:x} comes {next:x?}, not {last:x}"))
                }
                Heard::Missed { oids, .. } => {
                    let oids: BTreeSet<Oid> = oids.iter().copied().collect();
                    let changed = order.changed(state, last);
                    (!changed.is_subset(&oids)).then(|| format!("{changed:?} changed, missed are {oids:?}"))
                }
                Heard::Anything { .. } => (last < state).then(|| "it went back".to_string()),
            };
            if let Some(missing) = missing {
                return Err((at, missing));
            }
        }
        if let Heard::Transaction { tid, oids } = heard {
            let oids: BTreeSet<Oid> = oids.iter().copied().collect();
            let changed: BTreeSet<Oid> = order.txns[tid].keys().copied().collect();
            if oids != changed {
                return Err((at, format!("{tid:x} changed {changed:?}, heard were {oids:?}")));
            }
        }
        state = Some(last);
    }
    Ok(())
}

/// A view is the state of the file at its time.
fn check_view(facts: &Facts, orders: &[Order], visit: &Visit, seen: &Seen) -> Result<(), String> {
    let last = seen.start - 1;
    let checked = in_some(orders, |order| {
        if !is_state(order, last) {
            return Err((0, format!("{last:x}, the last transaction of a view, is not in the file")));
        }
        for (at, (oid, found)) in seen.loads.iter().enumerate() {
            let expected = order.load_before(*oid, seen.start, last);
            let end = order.of(*oid).iter().map(|(tid, _)| *tid).find(|tid| *tid >= seen.start);
            let is_same = match (found, expected) {
                (None, None) => true,
                (None, Some(_)) => seen.start <= facts.history.packed,
                (Some(_), None) => false,
                (Some(found), Some(expected)) => {
                    (found.tid, found.value) == (expected.tid, expected.value)
                        && (found.end.is_none() || found.end == end)
                }
            };
            if !is_same {
                return Err((
                    at + 1,
                    format!(
                        "{oid} before {:x} is {found:x?}, must be {expected:x?}, end {end:x?}",
                        seen.start
                    ),
                ));
            }
        }
        if let Some((since, oids)) = &seen.changed {
            let oids: BTreeSet<Oid> = oids.iter().copied().collect();
            let changed = order.changed(since - 1, last);
            if *since < seen.start && !changed.is_subset(&oids) {
                let error =
                    format!("from {since:x} to {:x} changed {changed:?}, named are {oids:?}", seen.start);
                return Err((seen.loads.len() + 1, error));
            }
        }
        Ok(())
    });
    checked.map_err(|(at, error)| {
        let mut text = format!("a view of {}: {error}\n", visit.label);
        text.extend(
            at.checked_sub(1).and_then(|at| seen.loads.get(at)).map(|(oid, _)| revisions(orders, *oid, last)),
        );
        let heard = visit.heard.iter().filter(|heard| last_of(heard) <= last);
        let heard: Vec<_> = heard.collect();
        for heard in heard.iter().skip(heard.len().saturating_sub(5)) {
            writeln!(text, "  heard {heard:x?}").expect("a string");
        }
        text + &story(facts, 0, last)
    })
}

/// All that is in a cache is in the file; what counts as current has not been replaced up to the cache's last tid.
fn check_cache(facts: &Facts, orders: &[Order], cache: &CacheContent) -> Result<(), String> {
    let checked = in_some(orders, |order| {
        let last = cache.last.unwrap_or(0);
        if cache.is_closed && !is_state(order, last) {
            return Err((0, format!("its last transaction {last:x} is not in the file")));
        }
        for (at, (oid, found)) in cache.revisions.iter().enumerate() {
            let revisions = order.of(*oid);
            let place =
                revisions.iter().position(|(tid, value)| (*tid, *value) == (found.tid, Some(found.value)));
            let end = place.map(|place| revisions.get(place + 1).map(|(tid, _)| *tid));
            // At a kill an end may be of a transaction that was not applied yet; no view that begins later sees it.
            let is_later = |tid: Option<Tid>| tid.is_none_or(|tid| tid > last);
            let is_right = end.is_some_and(|end| found.end == end || is_later(found.end) && is_later(end));
            if !is_right {
                return Err((
                    at + 1,
                    format!("{oid} is {found:x?}, must end {end:x?}, last transaction {last:x}"),
                ));
            }
        }
        Ok(())
    });
    checked.map_err(|(at, error)| {
        let mut text = format!("the cache {}: {error}\n", cache.label);
        if let Some((oid, _)) = at.checked_sub(1).and_then(|at| cache.revisions.get(at)) {
            text += &revisions(orders, *oid, cache.last.unwrap_or(0));
        }
        text + &story(facts, 0, cache.last.unwrap_or(Tid::MAX))
    })
}

/// Who committed the transactions of an event.
fn authors(facts: &Facts, event: Option<&Event>) -> String {
    let tids = match event {
        Some(Event::Told { tid, .. } | Event::Finished { tid }) => vec![*tid],
        Some(Event::Loaded { answer: Some(found), .. }) => found.end.into_iter().chain([found.tid]).collect(),
        _ => vec![],
    };
    let mut text = String::new();
    for tid in tids {
        let authors =
            facts.history.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Acknowledged(tid));
        for author in authors {
            writeln!(text, "  {tid:x} was committed by {}", author.label).expect("a string");
        }
    }
    text
}

/// The revisions of an object about a tid, for an explanation.
fn revisions(orders: &[Order], oid: Oid, about: Tid) -> String {
    let mut text = String::new();
    for (number, order) in orders.iter().enumerate() {
        writeln!(text, "  {oid} in timeline {number}: {:x?}", order.about(oid, about)).expect("a string");
    }
    text
}

/// What was done to the servers between two tids, and just before; not more than the last events.
fn story(facts: &Facts, from: Tid, to: Tid) -> String {
    let second = (1u64 << 32) / 60;
    let mut text = String::new();
    let shown: Vec<_> = facts
        .story
        .iter()
        .filter(|(tid, _)| *tid >= from.saturating_sub(second) && *tid <= to.saturating_add(second))
        .collect();
    for (tid, what) in shown.iter().skip(shown.len().saturating_sub(25)) {
        writeln!(text, "  {tid:x} {what}").expect("a string");
    }
    text
}
