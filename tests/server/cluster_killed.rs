//! Every step of the protocol between the servers of a cluster, at which one of them is killed, or the connection ends.
//!
//! A story makes messages of certain kinds pass between servers. It is told once to see which do. Then it is told again
//! and again: each time something happens at one message, before it arrives or just behind that. What was killed is
//! started again, and everything must come right by itself.
//!
//! Usually the first message of each kind and direction is taken; with `RUNZEO_EVERY_MESSAGE` every one, and more
//! happens at it. A number there: only every so many of them.

mod files;
mod proxy;
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use self::files::Left;
use self::proxy::{Deed, Kind, Plan};
use self::world::{Change, World};
use crate::support::client::record;

/// Cases that are told beside each other: most of the time they wait.
const BESIDE: usize = 4;
/// Time for what is planned, behind the end of a story: heartbeats come each second.
const PATIENCE: Duration = Duration::from_secs(3);
/// A case in which it does not happen is tried again.
const TRIES: usize = 2;
/// Longer than two pieces of a blob.
const LARGE: usize = 300_000;

/// What is told.
type Story = fn(&Case);

/// One telling.
struct Case {
    plan: Option<Plan>,
    /// For choices of the story.
    number: usize,
    /// Messages that pass in any case.
    letters: &'static str,
    seen: Mutex<BTreeMap<Kind, usize>>,
    has_happened: Mutex<bool>,
}

impl Case {
    fn new(plan: Option<Plan>, number: usize, letters: &'static str) -> Case {
        Case { plan, number, letters, seen: Mutex::default(), has_happened: Mutex::new(false) }
    }

    fn world(&self, count: usize, keys: &str) -> World {
        World::new(count, keys, self.plan, true)
    }

    /// The messages that are meant have passed.
    fn over(&self, world: &World) {
        if self.plan.is_none() {
            world.until("seen all messages", || {
                let found: Vec<char> = world.lines.counts().keys().map(|kind| kind.letter).collect();
                self.letters.chars().all(|letter| found.contains(&letter))
            });
        }
        *self.has_happened.lock().unwrap() = self.plan.is_none() || world.lines.wait_for_it(PATIENCE);
        *self.seen.lock().unwrap() = world.lines.stop_counting();
    }
}

/// What is asked for with the environment: every so many messages. `None`: the first of each kind.
fn every() -> Option<usize> {
    let given = std::env::var("RUNZEO_EVERY_MESSAGE").ok()?;
    Some(given.parse().unwrap_or(1).max(1))
}

/// Tells a story with something happening at each message in turn. `letters`: the kinds that must be there.
fn tell(story: Story, letters: &'static str, is_meant: fn(&Plan) -> bool) {
    let first = Case::new(None, 0, letters);
    story(&first);
    let seen = first.seen.into_inner().unwrap();
    let plans = plans(&seen, is_meant);
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..BESIDE {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(plan) = plans.get(at) else { return };
                    let happens = |number| {
                        let case = Case::new(Some(*plan), number + at, letters);
                        story(&case);
                        case.has_happened.into_inner().unwrap()
                    };
                    if !(0..TRIES).any(happens) {
                        missed.lock().unwrap().push(*plan);
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    eprintln!("{} cases, {} of them did not happen: {missed:?}", plans.len(), missed.len());
    // Others come only sometimes.
    let has_happened = |letter: char| {
        let of_letter = |plan: &&Plan| plan.kind.letter == letter && plan.nth == 0;
        let count = |plans: &[Plan]| plans.iter().filter(of_letter).count();
        count(&missed) < count(&plans).max(1)
    };
    assert!(letters.chars().all(has_happened), "{missed:?}");
}

fn plans(seen: &BTreeMap<Kind, usize>, is_meant: fn(&Plan) -> bool) -> Vec<Plan> {
    let short = [Deed::KillSender, Deed::KillReceiver, Deed::KillReceiverBehind(Duration::ZERO), Deed::End];
    let more = [
        Deed::KillSenderBehind,
        Deed::EndBehind,
        Deed::KillReceiverBehind(Duration::from_millis(5)),
        Deed::KillReceiverBehind(Duration::from_millis(25)),
    ];
    let mut plans = Vec::new();
    for (kind, count) in seen {
        let (deeds, count, step) = match every() {
            None => (short.to_vec(), 1, 1),
            Some(step) => ([short, more].concat(), *count, step),
        };
        for nth in (0..count).step_by(step) {
            let planned = deeds.iter().map(|deed| Plan { kind: *kind, nth, deed: *deed });
            plans.extend(planned.filter(is_meant));
        }
    }
    plans
}

fn one(oid: u64, data: &[u8]) -> Change {
    Change::Records(vec![(oid, record(data))])
}

/// Transactions of all kinds. Their objects begin with `first`.
fn changes(first: u64) -> Vec<Change> {
    vec![
        one(first, b"one"),
        Change::Records((first..first + 3).map(|oid| (oid, record(&oid.to_be_bytes()))).collect()),
        Change::Blob(first + 3, vec![7; LARGE]),
        one(first + 4, &vec![b'l'; LARGE]),
        Change::Blob(first + 5, Vec::new()),
        one(first, b"again"),
    ]
}

/// All servers go on, and have the same in the end.
fn check(mut world: World, primary: usize) -> (World, Vec<Left>) {
    world.store(primary, one(9999, b"it goes on"));
    let servers: Vec<usize> = (0..world.count()).collect();
    world.wait_for_same(world.last_answered(), &servers);
    let roles: Vec<i32> = servers.iter().map(|no| if *no == primary { 0 } else { 10 }).collect();
    world.wait_for_roles(&roles);
    let left = world.stop();
    for other in &left[1..] {
        world.check_same(&left[0], other);
    }
    (world, left)
}

/// The same, and nothing was ever taken back.
fn check_whole(world: World, primary: usize) {
    let servers: Vec<usize> = (0..world.count()).collect();
    let (world, left) = check(world, primary);
    for left in &left {
        world.check_answered(left, &servers);
        assert!(left.kept.is_empty(), "{}: something was taken back", world.what());
    }
}

/// A replica that has nothing.
fn join(case: &Case, keys: &str) {
    let mut world = case.world(2, keys);
    world.start(0);
    for first in [100, 200] {
        changes(first).into_iter().for_each(|change| world.store(0, change));
    }
    world.lines.count();
    world.start(1);
    world.wait_for_same(world.last_answered(), &[0, 1]);
    case.over(&world);
    check_whole(world, 0);
}

#[test]
fn a_replica_joins() {
    tell(|case| join(case, ""), "hstdbBena", |plan| !plan.kind.is_question);
}

#[test]
fn a_replica_joins_compressed() {
    let is_own = |plan: &Plan| plan.kind.letter == 'z' || every().is_some() && !plan.kind.is_question;
    tell(|case| join(case, "compress true"), "hza", is_own);
}

/// Commits that wait for the replica.
fn commits(case: &Case) {
    let level = ["synced", "received", "published"][case.number % 3];
    let keys = format!(
        "synchronous-replicas 1\non-timeout block\nsynchronous-timeout 1s\nsynchronous-level {level}"
    );
    let mut world = case.world(2, &keys);
    world.start(0);
    world.start(1);
    world.store(0, one(1, b"before"));
    world.lines.count();
    changes(100).into_iter().for_each(|change| world.store(0, change));
    case.over(&world);
    check_whole(world, 0);
}

#[test]
fn a_synchronous_replica_follows() {
    tell(commits, "tdbBena", |plan| !plan.kind.is_question);
}

/// A primary that is killed and does not come back before its replica is promoted: what it has answered is there.
fn commits_and_the_end(case: &Case) {
    let level = ["synced", "received", "published"][case.number % 3];
    let keys = format!(
        "synchronous-replicas 1\non-timeout degrade\nsynchronous-timeout 60s\nsynchronous-level {level}"
    );
    let mut world = World::new(2, &keys, case.plan, false);
    world.start(0);
    world.start(1);
    world.store(0, one(1, b"before"));
    world.wait_for_same(world.last_answered(), &[0, 1]);
    world.lines.count();
    for change in changes(100) {
        if !world.lines.has_happened() {
            world.store_once(0, change);
        }
    }
    case.over(&world);
    if !world.lines.has_happened() {
        return;
    }
    let answered = world.last_answered();
    world.until("promoted", || world.admin(1, &["promote", "--wait", "20"]).status.success());
    // What has reached it and was not answered is there as well.
    assert!(world.try_last(1) > Some(answered));
    world.start_again(0);
    let (world, left) = check(world, 1);
    left.iter().for_each(|left| world.check_answered(left, &[0, 1]));
}

#[test]
fn what_a_lost_primary_has_answered_is_at_its_replica() {
    tell(commits_and_the_end, "tdbBena", |plan| !plan.kind.is_question && plan.victim() == Some(0));
}

/// A pack at the primary, which its replica follows.
fn pack(case: &Case) {
    let mut world = case.world(2, "");
    world.start(0);
    world.start(1);
    world.store(0, Change::Records(vec![(0, record(b"root"))]));
    for round in 0..6 {
        world.store(0, Change::Records(vec![(0, record(&[round; 3000]))]));
    }
    world.store(0, Change::Blob(50, b"nothing refers to it".to_vec()));
    world.wait_for_same(world.last_answered(), &[0, 1]);
    world.lines.count();
    world.until("packed", || world.admin(0, &["pack"]).status.success());
    world.store(0, Change::Records(vec![(0, record(b"packed"))]));
    case.over(&world);
    world.wait_for_same(world.last_answered(), &[0, 1]);
    // A replica that was away is packed with a later pack.
    let packs = world.count_in_log(1, "complete");
    world.until("packed as well", || {
        assert!(world.admin(0, &["pack"]).status.success(), "{}", world.what());
        let is_packed = |_: &u32| {
            thread::sleep(Duration::from_millis(10));
            world.count_in_log(1, "complete") > packs
        };
        (0..100).find(is_packed).is_some()
    });
    check(world, 0);
}

#[test]
fn a_replica_packs() {
    let is_own = |plan: &Plan| plan.kind.letter == 'k' || every().is_some() && !plan.kind.is_question;
    tell(pack, "kna", is_own);
}

/// An exchange of the roles by the operator.
fn exchange(case: &Case) {
    let mut world = case.world(2, "");
    world.start(0);
    world.start(1);
    changes(100).into_iter().for_each(|change| world.store(0, change));
    world.wait_for_same(world.last_answered(), &[0, 1]);
    world.lines.count();
    world.exchange(0, 1);
    world.store(1, one(300, b"of the new primary"));
    world.wait_for_same(world.last_answered(), &[0, 1]);
    case.over(&world);
    check_whole(world, 1);
}

#[test]
fn roles_are_exchanged() {
    tell(exchange, "hrstdena", |_| true);
}

/// A promotion while the primary is cut off. Returns what both have.
fn parted(case: &Case) -> (World, u64) {
    let mut world = case.world(2, "");
    world.start(0);
    world.start(1);
    changes(100).into_iter().for_each(|change| world.store(0, change));
    let common = world.last_answered();
    world.wait_for_same(common, &[0, 1]);
    world.lines.cut([0, 1]);
    changes(200).into_iter().for_each(|change| world.store(0, change));
    assert!(world.admin(1, &["promote", "--force"]).status.success());
    world.store(1, one(300, b"of the new primary"));
    world.store(1, Change::Blob(301, b"as well".to_vec()));
    (world, common)
}

/// What only the old primary had is taken back, and kept.
fn check_taken_back(world: World, common: u64) {
    let (world, left) = check(world, 1);
    world.check_answered(&left[0], &[1]);
    world.check_kept(&left[0], 0, common);
    assert_eq!((left[0].kept.len(), left[1].kept.len()), (1, 0), "{}: {}", world.what(), world.talk(0));
}

fn rewind(case: &Case) {
    let (world, common) = parted(case);
    world.lines.count();
    world.lines.join([0, 1]);
    world.wait_for_same(world.last_answered(), &[0, 1]);
    case.over(&world);
    check_taken_back(world, common);
}

/// A server saves the timelines of the one that it follows before it takes its own transactions back.
#[test]
fn a_server_that_was_killed_before_it_took_back_takes_back_at_its_next_start() {
    let (world, common) = parted(&Case::new(None, 0, ""));
    world.kill(0);
    let [old, new] = [0, 1].map(|no| world.directory(no).join("Data.fs.replication"));
    let text = fs::read_to_string(new).unwrap();
    assert!(text.contains("role primary"));
    fs::write(old, text.replace("role primary", "role replica")).unwrap();
    world.lines.join([0, 1]);
    world.start_again(0);
    check_taken_back(world, common);
}

#[test]
fn an_old_primary_takes_back() {
    // How transactions come is in other stories.
    let is_own = |plan: &Plan| every().is_some() || !"tdbBe".contains(plan.kind.letter);
    tell(rewind, "hrcpstdbBena", is_own);
}

/// Three servers, the first of which is the primary as long as the others answer it.
fn lease(case: &Case) {
    let mut world = case.world(3, "lease 5s");
    (0..3).for_each(|no| world.start(no));
    world.store(0, one(1, b"before"));
    world.wait_for_same(world.last_answered(), &[0, 1, 2]);
    world.lines.count();
    changes(100).into_iter().for_each(|change| world.store(0, change));
    case.over(&world);
    check_whole(world, 0);
}

#[test]
fn a_primary_asks_for_its_lease() {
    tell(lease, "hr", |plan| plan.kind.is_question);
}

/// The old and the new primary reach only a third server, which follows first the one and then the other.
fn third(case: &Case) {
    let mut world = case.world(3, "follow-replicas true");
    world.lines.cut([0, 1]);
    (0..3).for_each(|no| world.start(no));
    world.store(0, one(1, b"before"));
    world.wait_for_same(world.last_answered(), &[0, 1, 2]);
    world.lines.count();
    world
        .until("promoted", || world.admin(1, &["promote", "--force"]).status.success() || world.role(1) == 0);
    world.wait_for_roles(&[10, 0]);
    changes(100).into_iter().for_each(|change| world.store(1, change));
    world.wait_for_same(world.last_answered(), &[0, 1, 2]);
    case.over(&world);
    check_whole(world, 1);
}

#[test]
fn a_third_server_tells_of_a_promotion() {
    tell(third, "hr", |plan| plan.kind.is_question);
}
