//! Histories that the checker must accept, and histories that it must refuse.

use super::*;

/// Two objects, 1 and 2, with values 10 and 20 at tid 1, and a valid history.
///
/// 2: stores 1 (value 11); 3: stores 1 and 2 (12, 21), without checks. One connection only reads.
fn good() -> History {
    let write = |oid, serial, value| (oid, (serial, value));
    let attempt = |writes: &[(Oid, (Tid, Value))], outcome| Attempt {
        writes: writes.iter().copied().collect(),
        outcome,
        ..Attempt::default()
    };
    let told = |tid, oids: &[Oid]| Event::Told { tid, oids: oids.iter().copied().collect() };
    History {
        start: (1, BTreeMap::from([(1, 10), (2, 20)])),
        attempts: vec![
            attempt(&[write(1, 1, 11)], Outcome::Acknowledged(2)),
            attempt(&[write(1, 2, 12), write(2, 1, 21)], Outcome::Acknowledged(3)),
            attempt(&[write(2, 1, 29)], Outcome::NotCommitted),
        ],
        connections: vec![Connection {
            label: String::new(),
            events: vec![
                Event::LastTransaction(1),
                loaded(1, LATEST, 1, 10, None),
                told(2, &[1]),
                loaded(1, LATEST, 2, 11, None),
                loaded(1, 2, 1, 10, Some(2)),
                told(3, &[1, 2]),
                loaded(1, LATEST, 3, 12, None),
                loaded(2, 3, 1, 20, Some(3)),
                Event::Invalidations { since: 2, answer: Some((3, BTreeSet::from([1, 2]))) },
                Event::LastTransaction(3),
            ],
        }],
        log: Some(vec![
            (1, BTreeMap::from([(1, Some(10)), (2, Some(20))])),
            (2, BTreeMap::from([(1, Some(11))])),
            (3, BTreeMap::from([(1, Some(12)), (2, Some(21))])),
        ]),
        end: BTreeMap::from([(1, (3, 12)), (2, (3, 21))]),
        ..History::default()
    }
}

/// Refused although all was as the client had read it.
#[test]
fn a_conflict_has_a_reason() {
    let current = Attempt { writes: BTreeMap::from([(2, (3, 29))]), conflict: Some(3), ..Attempt::default() };
    refused(|h| h.attempts[2] = current, "all was as it had read it");
    let mut history = good();
    history.attempts[2].conflict = Some(3);
    check(&history).expect("2 was changed by 3");
}

fn loaded(oid: Oid, before: Tid, tid: Tid, value: Value, end: Option<Tid>) -> Event {
    Event::Loaded { oid, before, answer: Some(Revision { tid, value, end }) }
}

fn refused(spoil: impl FnOnce(&mut History), why: &str) {
    let mut history = good();
    spoil(&mut history);
    let error = check(&history).expect_err("this history must be refused");
    assert!(error.contains(why), "refused for another reason: {error}");
}

#[test]
fn a_good_history_holds() {
    let summary = check(&good()).expect("it holds");
    assert_eq!((summary.commits, summary.not_committed, summary.reads, summary.told), (2, 1, 6, 2));
}

#[test]
fn a_lost_update() {
    refused(|h| h.attempts[1].writes.extend([(1, (1, 12))]), "lost update");
}

#[test]
fn a_check_that_did_not_hold() {
    refused(|h| h.attempts[1].checks.push((1, 1)), "lost update");
}

/// Object 2 as of before transaction 3, when object 1 has been read as of 3.
#[test]
fn a_torn_snapshot() {
    refused(|h| h.connections[0].events[7] = loaded(2, 4, 1, 20, None), "2 before 4 is");
}

#[test]
fn a_stale_read_after_an_invalidation() {
    refused(|h| h.connections[0].events[3] = loaded(1, LATEST, 1, 10, None), "(R2)");
}

#[test]
fn a_reply_from_before_a_transaction_behind_its_invalidation() {
    refused(|h| h.connections[0].events.swap(1, 2), "(R2)");
}

#[test]
fn a_reply_that_runs_ahead_of_the_invalidation() {
    refused(|h| h.connections[0].events.swap(2, 3), "(R2)");
    refused(|h| h.connections[0].events.swap(8, 5), "getInvalidations up to 3, but told up to 2");
}

#[test]
fn an_end_of_validity_that_is_wrong() {
    refused(|h| h.connections[0].events[4] = loaded(1, 2, 1, 10, Some(3)), "1 before 2 is");
    refused(|h| h.connections[0].events[4] = loaded(1, 2, 1, 10, None), "1 before 2 is");
}

#[test]
fn tids_out_of_order() {
    refused(|h| h.connections[0].events.swap(2, 5), "next after 1 was Some(2)");
    refused(|h| h.log.as_mut().expect("a log").swap(1, 2), "(R3)");
    refused(|h| h.attempts[1].outcome = Outcome::Acknowledged(2), "twice");
}

#[test]
fn an_invalidation_that_is_missing_or_wrong() {
    refused(|h| drop(h.connections[0].events.drain(2..5)), "next after 1 was Some(2)");
    let wrong = Event::Told { tid: 2, oids: BTreeSet::from([1, 2]) };
    refused(|h| h.connections[0].events[2] = wrong, "told that 2 changed");
    let phantom = Event::Told { tid: 9, oids: BTreeSet::from([1]) };
    refused(|h| h.connections[0].events.push(phantom), "nobody committed");
}

#[test]
fn an_acknowledged_commit_that_is_missing() {
    refused(|h| drop(h.log.as_mut().expect("a log").pop()), "is not in the log");
    refused(|h| h.end.extend([(2, (1, 20))]), "at the end 2 is");
}

#[test]
fn a_write_of_an_aborted_transaction() {
    let ghost = loaded(2, LATEST, 4, 29, None);
    refused(|h| h.connections[0].events.push(ghost), "was not committed");
    let ghost = (4, BTreeMap::from([(2, Some(29))]));
    refused(|h| h.log.as_mut().expect("a log").push(ghost), "was not committed");
}

#[test]
fn a_finish_without_an_answer_is_whole_or_absent() {
    let unanswered = |h: &mut History| {
        h.attempts[2] = Attempt {
            writes: BTreeMap::from([(1, (3, 13)), (2, (3, 22))]),
            outcome: Outcome::Unknown,
            ..Attempt::default()
        };
    };
    let mut absent = good();
    unanswered(&mut absent);
    assert_eq!(check(&absent).expect("absent").unanswered, (0, 1));
    let mut whole = absent.clone();
    whole.log.as_mut().expect("a log").push((4, BTreeMap::from([(1, Some(13)), (2, Some(22))])));
    whole.end = BTreeMap::from([(1, (4, 13)), (2, (4, 22))]);
    assert_eq!(check(&whole).expect("whole").unanswered, (1, 0));
    let mut half = whole.clone();
    half.log.as_mut().expect("a log")[3].1.remove(&2);
    check(&half).expect_err("a half transaction in the log");
    let mut half = whole;
    half.end.insert(2, (3, 21));
    check(&half).expect_err("a half transaction at the end");
}

#[test]
fn an_undo() {
    let undo = |h: &mut History, undone: Tid| {
        let attempt = Attempt {
            undo: Some(undone),
            outcome: Outcome::Acknowledged(4),
            writes: BTreeMap::from([(5, (0, 50))]),
            ..Attempt::default()
        };
        h.attempts.push(attempt);
        h.end.insert(5, (4, 50));
    };
    let mut good = good();
    undo(&mut good, 3);
    good.end.extend([(1, (4, 11)), (2, (4, 20))]);
    let undone = BTreeMap::from([(1, Some(11)), (2, Some(20)), (5, Some(50))]);
    good.log.as_mut().expect("a log").push((4, undone));
    check(&good).expect("an undo");
    refused(|h| undo(h, 2), "had been changed since");
    refused(|h| undo(h, 3), "at the end");
}

/// An undo whose client is gone may be known only by the values that it restored, and by none of its own.
#[test]
fn an_undo_without_an_answer_that_was_packed() {
    let mut history = good();
    let mark = |serial, value| BTreeMap::from([(5, (serial, value))]);
    history.attempts.push(Attempt {
        undo: Some(3),
        outcome: Outcome::Unknown,
        writes: mark(0, 50),
        ..Attempt::default()
    });
    let later = Attempt { outcome: Outcome::Acknowledged(5), writes: mark(4, 51), ..Attempt::default() };
    history.attempts.push(later);
    let told = |tid, oids: &[Oid]| Event::Told { tid, oids: oids.iter().copied().collect() };
    history.connections[0].events.extend([told(4, &[1, 2, 5]), told(5, &[5])]);
    history.end = BTreeMap::from([(1, (4, 11)), (2, (4, 20)), (5, (5, 51))]);
    history.packed = 5;
    history.log =
        Some(vec![(4, BTreeMap::from([(1, Some(11)), (2, Some(20))])), (5, BTreeMap::from([(5, Some(51))]))]);
    assert_eq!(check(&history).expect("it holds").unanswered, (1, 0));
}

#[test]
fn what_a_pack_took_may_be_missing_and_nothing_else() {
    let packed = |h: &mut History| {
        h.packed = 2;
        let log = h.log.as_mut().expect("a log");
        log[0].1.remove(&1);
    };
    let mut good = good();
    packed(&mut good);
    good.connections[0].events[4] = Event::Loaded { oid: 1, before: 2, answer: None };
    check(&good).expect("packed");
    let alive = |h: &mut History| {
        packed(h);
        h.log.as_mut().expect("a log")[0].1.remove(&2);
    };
    refused(alive, "is not in the log");
    let lost = |h: &mut History| {
        packed(h);
        h.connections[0].events[7] = Event::Loaded { oid: 2, before: 3, answer: None };
    };
    refused(lost, "2 before 3 is None");
}
