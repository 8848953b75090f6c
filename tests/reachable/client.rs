//! Clients that change references between objects, at random.
//!
//! No transaction makes a dangling reference: a client refers to a new object; or the transaction proves that the
//! object is reachable (it stores the object that refers to it, or checks that it is current); or the object exists
//! after the vote of an undo or a copy, which then holds it. An undo that un-creates an object proves that only
//! containers that it changes lead to the object. So each dangling reference is the server's fault.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::thread;
use std::time::Duration;

use crate::peer::{Peer, finding};
use crate::support::client::{Speaks, undo_id};
use crate::support::dice::Dice;
use crate::world::{Done, Oid, State, Tid, World, blob_content, record};

/// Upper bound on the references of a container.
const REFERENCES_MAX: usize = 6;
pub const BALLAST_LEN: usize = 100_000;

/// Allowed reasons for refusing a vote: other clients were faster.
const REFUSALS: [&str; 5] =
    ["ConflictError", "POSKeyError", "UndoError", "MultipleUndoErrors", "is not later than the last one"];

/// A transaction.
#[derive(Default)]
struct Plan {
    what: &'static str,
    /// A copy has its own tid.
    tid: Option<Tid>,
    stores: Vec<(Oid, Tid, Vec<u8>)>,
    blobs: Vec<(Oid, Tid, Vec<u8>)>,
    checks: Vec<(Oid, Tid)>,
    undo: Vec<Tid>,
    /// A former revision of an object: its data and its transaction.
    copy: Option<(Oid, Vec<u8>, Tid)>,
    /// Objects whose state an undo or a copy determines: all that they refer to must exist after the vote.
    planned: Vec<(Oid, State)>,
    changed: Vec<Oid>,
    creates: Vec<Oid>,
    removes: Vec<Oid>,
}

impl Plan {
    fn new(what: &'static str) -> Plan {
        Plan { what, ..Plan::default() }
    }
}

pub struct Client<'a> {
    world: &'a World,
    dice: Dice,
    peer: Peer,
}

/// One connection after another, of any generation, until the round is over.
pub fn visits(world: &World, mut dice: Dice) -> io::Result<()> {
    while world.goes_on() {
        let speaks = dice.of(&[Speaks::Z5, Speaks::Z5, Speaks::M5, Speaks::M5, Speaks::M5, Speaks::Z4]);
        let speaks = if dice.one_in(10) { dice.of(&Speaks::ALL) } else { speaks };
        let steps = 10 + dice.below(150);
        let mut client = Client { world, dice, peer: Peer::register(world.address, speaks)? };
        for _ in 0..steps {
            if !world.goes_on() || !client.step()? {
                break;
            }
        }
        dice = client.dice;
    }
    Ok(())
}

/// Loads all reachable objects, repeatedly.
pub fn audits(world: &World, mut dice: Dice) -> io::Result<()> {
    let mut peer = Peer::register(world.address, Speaks::Z5)?;
    for oid in world.containers.iter().cycle() {
        if !world.goes_on() {
            break;
        }
        peer.audit(*oid, |blobs| (!blobs.is_empty()).then(|| dice.of(blobs)))?;
        world.count("audit");
        // Gives the clients time.
        thread::sleep(Duration::from_millis(dice.below(4)));
    }
    Ok(())
}

impl Client<'_> {
    /// One step. `false`: the client has disconnected.
    fn step(&mut self) -> io::Result<bool> {
        let plan = match self.dice.below(100) {
            0..20 => self.link()?,
            20..32 => self.cut()?,
            32..40 => self.shift()?,
            40..50 => self.second_link()?,
            50..60 => self.change_below()?,
            60..82 if self.world.can_undo => self.undo()?,
            82..90 if self.world.can_copy && !self.peer.speaks().has_versions() => self.copy()?,
            90..93 => self.ballast()?,
            60..90 => self.cut()?,
            _ => {
                let container = self.dice.of(&self.world.containers);
                let dice = &mut self.dice;
                self.peer.audit(container, |blobs| (!blobs.is_empty()).then(|| dice.of(blobs)))?;
                None
            }
        };
        match plan {
            Some(plan) => self.commit(plan),
            None => Ok(true),
        }
    }

    // -- transactions

    fn commit(&mut self, mut plan: Plan) -> io::Result<bool> {
        let world = self.world;
        self.peer.begin(plan.tid);
        if self.dice.one_in(2) {
            plan.stores.reverse();
        }
        for (oid, serial) in &plan.checks {
            self.peer.check_current(*oid, *serial);
        }
        for (oid, serial, data) in &plan.stores {
            self.peer.store(*oid, *serial, data);
        }
        for (oid, serial, content) in &plan.blobs {
            self.peer.store_blob(*oid, *serial, content);
        }
        if let (Some((oid, data, from)), Some(tid)) = (&plan.copy, plan.tid) {
            self.peer.restore(*oid, tid, data, *from);
        }
        for tid in &plan.undo {
            if !self.peer.undo(*tid)? {
                return self.abort(&plan, "refused");
            }
        }
        if self.dice.one_in(60) {
            return self.abort(&plan, "aborted");
        }
        if let Err(refused) = self.peer.vote()? {
            if !REFUSALS.iter().any(|known| refused.contains(known)) {
                return finding(format!("the vote of {}: {refused}", plan.what));
            }
            return self.abort(&plan, "refused");
        }
        if !self.is_all_there(&plan)? {
            return self.abort(&plan, "given up");
        }
        if self.dice.one_in(if plan.planned.is_empty() { 20 } else { 2 }) {
            self.wait(plan.tid.is_some() || self.peer.speaks().is_old());
        }
        match self.dice.below(60) {
            0 | 1 => return self.abort(&plan, "aborted"),
            2 => {
                self.peer.leave();
                return Ok(false);
            }
            _ => world.remove(plan.removes.iter().copied()),
        }
        if self.dice.one_in(60) {
            self.peer.finish_and_leave();
            world.note(format!("(unknown) {}: {}", plan.what, changes(&plan)));
            return Ok(false);
        }
        let tid = self.peer.finish()?;
        world.note(format!("{tid:016x} {}: {}", plan.what, changes(&plan)));
        world.count(plan.what);
        let Plan { changed, creates, removes, undo: undoes, .. } = plan;
        world.done(Done { tid, changed, creates, removes, undoes });
        Ok(true)
    }

    /// Waits, so that packs can replace the file. `alone`: no other transaction can vote until this one ends.
    fn wait(&mut self, alone: bool) {
        let millis = if alone { self.dice.of(&[0, 0, 1, 5, 30]) } else { self.dice.of(&[0, 5, 30, 80, 200]) };
        thread::sleep(Duration::from_millis(millis));
    }

    fn abort(&mut self, plan: &Plan, why: &str) -> io::Result<bool> {
        self.world.count(&format!("{} {why}", plan.what));
        self.peer.abort()?;
        Ok(true)
    }

    /// Whether the states that an undo or a copy restores refer only to existing objects, now that the vote holds them.
    fn is_all_there(&mut self, plan: &Plan) -> io::Result<bool> {
        if let Some((oid, _, from)) = &plan.copy
            && self.peer.load_serial(*oid, *from)?.is_none()
        {
            // It may have been packed away before the vote: then the hint was ignored, and the vote holds nothing.
            return Ok(false);
        }
        let missing = match self.peer.walk(plan.planned.iter().cloned())? {
            Ok(_) => return Ok(true),
            Err(missing) => missing,
        };
        if plan.copy.is_some() || self.world.was_removed(missing.oid) {
            return Ok(false);
        }
        // The undone transactions are not packed, so everything that was reachable before them exists.
        let undone: Vec<_> = plan.undo.iter().map(|tid| format!("{tid:016x}")).collect();
        finding(format!("after the vote of an undo of {undone:?}, an object is missing: {missing}"))
    }

    // -- actions

    fn container(&mut self) -> io::Result<(Oid, State)> {
        let oid = self.dice.of(&self.world.containers);
        match self.peer.load(oid)? {
            Some(state) => Ok((oid, state)),
            None => finding(format!("0x{oid:016x} cannot be loaded, to which the root refers")),
        }
    }

    /// Two different containers.
    fn containers(&mut self) -> io::Result<[(Oid, State); 2]> {
        let first = self.container()?;
        loop {
            let second = self.container()?;
            if second.0 != first.0 {
                return Ok([first, second]);
            }
        }
    }

    fn take(&mut self, references: &mut Vec<Oid>) -> Option<Oid> {
        let count = references.len() as u64;
        (count > 0).then(|| references.remove(self.dice.below(count) as usize))
    }

    fn record(&mut self, references: &[Oid]) -> Vec<u8> {
        let len = if self.dice.one_in(15) { 20_000 } else { self.dice.below(400) };
        record(references, self.world.nonce(), &vec![b'x'; len as usize])
    }

    fn store(&mut self, plan: &mut Plan, oid: Oid, state: &State) {
        let data = self.record(&state.references);
        plan.stores.push((oid, state.serial, data));
        plan.changed.push(oid);
    }

    /// Makes a short chain of new objects; returns its first.
    fn chain(&mut self, plan: &mut Plan) -> io::Result<Oid> {
        let mut last = None;
        for at in 0..1 + self.dice.below(3) {
            let oid = self.peer.new_oid()?;
            if at == 0 && self.world.has_blobs && self.dice.one_in(3) {
                plan.blobs.push((oid, 0, blob_content(oid, self.world.nonce())));
            } else {
                let data = self.record(last.as_slice());
                plan.stores.push((oid, 0, data));
            }
            plan.creates.push(oid);
            last = Some(oid);
        }
        Ok(last.expect("a chain has at least one"))
    }

    fn link(&mut self) -> io::Result<Option<Plan>> {
        let mut plan = Plan::new("link");
        let (oid, mut state) = self.container()?;
        while state.references.len() >= REFERENCES_MAX {
            self.take(&mut state.references);
        }
        state.references.push(self.chain(&mut plan)?);
        self.store(&mut plan, oid, &state);
        Ok(Some(plan))
    }

    fn cut(&mut self) -> io::Result<Option<Plan>> {
        let mut plan = Plan::new("cut");
        let (oid, mut state) = self.container()?;
        if self.take(&mut state.references).is_none() {
            return Ok(None);
        }
        self.store(&mut plan, oid, &state);
        Ok(Some(plan))
    }

    /// Moves a reference from one container to another.
    fn shift(&mut self) -> io::Result<Option<Plan>> {
        let mut plan = Plan::new("move");
        let [(from, mut giver), (to, mut taker)] = self.containers()?;
        let Some(moved) = self.take(&mut giver.references) else { return Ok(None) };
        taker.references.push(moved);
        taker.references.dedup();
        self.store(&mut plan, from, &giver);
        self.store(&mut plan, to, &taker);
        Ok(Some(plan))
    }

    /// Adds a reference to an object that is reachable through another container, directly or deeper.
    fn second_link(&mut self) -> io::Result<Option<Plan>> {
        let mut plan = Plan::new("second link");
        let [(through, mut state), (to, mut taker)] = self.containers()?;
        plan.checks.push((through, state.serial));
        let Some(mut target) = self.take(&mut state.references) else { return Ok(None) };
        while self.dice.one_in(2) {
            let Some(mut deeper) = self.peer.load(target)? else { return Ok(None) };
            let Some(next) = self.take(&mut deeper.references) else { break };
            plan.checks.push((target, deeper.serial));
            target = next;
        }
        if taker.references.contains(&target) {
            return Ok(None);
        }
        while taker.references.len() >= REFERENCES_MAX {
            self.take(&mut taker.references);
        }
        taker.references.push(target);
        self.store(&mut plan, to, &taker);
        Ok(Some(plan))
    }

    /// Changes an object that a container refers to: it gets one more object below it, or loses one, perhaps to another
    /// container; a blob gets new content.
    fn change_below(&mut self) -> io::Result<Option<Plan>> {
        let mut plan = Plan::new("change below");
        let [(through, mut state), (to, mut taker)] = self.containers()?;
        plan.checks.push((through, state.serial));
        let Some(oid) = self.take(&mut state.references) else { return Ok(None) };
        let Some(mut changed) = self.peer.load(oid)? else { return Ok(None) };
        if changed.is_blob {
            plan.blobs.push((oid, changed.serial, blob_content(oid, self.world.nonce())));
            plan.changed.push(oid);
            return Ok(Some(plan));
        }
        match self.take(&mut changed.references) {
            Some(child) if self.dice.one_in(2) && !taker.references.contains(&child) => {
                taker.references.push(child);
                self.store(&mut plan, to, &taker);
            }
            Some(_) => {}
            None => changed.references.push(self.chain(&mut plan)?),
        }
        self.store(&mut plan, oid, &changed);
        Ok(Some(plan))
    }

    /// Stores many bytes, which the next pack removes.
    fn ballast(&mut self) -> io::Result<Option<Plan>> {
        let mut plan = Plan::new("ballast");
        let oid = self.dice.of(&self.world.ballast);
        let Some(state) = self.peer.load(oid)? else {
            return finding(format!("0x{oid:016x} cannot be loaded, to which the root refers"));
        };
        plan.stores.push((oid, state.serial, ballast(&mut self.dice, self.world.nonce())));
        Ok(Some(plan))
    }

    /// Restores a former state of a container. The tid is slightly in the future, so that it is later than other
    /// commits until the vote.
    fn copy(&mut self) -> io::Result<Option<Plan>> {
        let recent = self.recent(20);
        if recent.is_empty() {
            return Ok(None);
        }
        let from = recent[self.dice.below(recent.len() as u64) as usize].clone();
        let Some(oid) = from.changed.iter().copied().find(|oid| self.world.containers.contains(oid)) else {
            return Ok(None);
        };
        let Some(data) = self.peer.load_serial(oid, from.tid)? else { return Ok(None) };
        let mut plan = Plan::new("copy");
        let now = runzeo::ids::Tid::now().to_unix() + self.dice.below(100) as f64 / 1000.0;
        let tid = runzeo::ids::Tid::from_unix(now).0;
        plan.tid = Some(tid);
        plan.planned = vec![(oid, State::new(tid, &data))];
        plan.copy = Some((oid, data, from.tid));
        plan.changed = vec![oid];
        Ok(Some(plan))
    }

    /// Finished transactions, newest first, as known to the clients or to the server.
    fn recent(&mut self, count: usize) -> Vec<Done> {
        let mut recent = self.world.recent();
        recent.truncate(count);
        recent
    }

    fn undo(&mut self) -> io::Result<Option<Plan>> {
        let mut recent = self.recent(12);
        if self.dice.one_in(3) {
            let names = self.peer.undo_info(12)?;
            recent.retain(|done| names.contains(&undo_id(done.tid).into_bytes()));
        }
        if recent.is_empty() {
            return Ok(None);
        }
        let count = recent.len() as u64;
        let at = self.dice.below(count).min(self.dice.below(count)) as usize;
        let mut undone = vec![recent[at].clone()];
        // Two in one transaction, the newer one first.
        if self.dice.one_in(6)
            && let Some(older) = recent.iter().find(|older| older.tid < undone[0].tid)
        {
            undone.push(older.clone());
        }
        self.undo_of(&undone)
    }

    fn undo_of(&mut self, undone: &[Done]) -> io::Result<Option<Plan>> {
        let mut plan = Plan::new(if undone.len() == 1 { "undo" } else { "undo of two" });
        plan.undo = undone.iter().map(|done| done.tid).collect();
        // Whether each object exists before and after, and its new state.
        let mut exists: BTreeMap<Oid, (bool, bool)> = BTreeMap::new();
        let mut planned: BTreeMap<Oid, State> = BTreeMap::new();
        for Done { tid, changed, creates, removes, .. } in undone {
            let objects = changed.iter().map(|oid| (*oid, true, true));
            let objects = objects.chain(creates.iter().map(|oid| (*oid, true, false)));
            for (oid, before, after) in objects.chain(removes.iter().map(|oid| (*oid, false, true))) {
                exists.entry(oid).or_insert((before, after)).1 = after;
                planned.remove(&oid);
                if after {
                    // If that is packed away, so is the transaction.
                    let Some(state) = self.peer.load_before(oid, *tid)? else { return Ok(None) };
                    planned.insert(oid, state);
                }
            }
        }
        for (oid, existence) in exists {
            match existence {
                (true, true) => plan.changed.push(oid),
                (false, true) => plan.creates.push(oid),
                (true, false) => plan.removes.push(oid),
                (false, false) => {}
            }
        }
        if !plan.removes.is_empty() && !self.check_unused(&mut plan, &planned)? {
            self.world.count("undo not tried");
            return Ok(None);
        }
        plan.planned = planned.into_iter().collect();
        Ok(Some(plan))
    }

    /// Whether no object will refer to a removed one; the vote will prove that all containers are unchanged.
    fn check_unused(&mut self, plan: &mut Plan, planned: &BTreeMap<Oid, State>) -> io::Result<bool> {
        let mut start = planned.clone();
        let others: Vec<Oid> =
            self.world.containers.iter().copied().filter(|oid| !planned.contains_key(oid)).collect();
        for (oid, state) in others.iter().zip(self.peer.load_many(&others)?) {
            let Some(state) = state else {
                return finding(format!("0x{oid:016x} cannot be loaded, to which the root refers"));
            };
            plan.checks.push((*oid, state.serial));
            start.insert(*oid, state);
        }
        let removes: BTreeSet<Oid> = plan.removes.iter().copied().collect();
        Ok(match self.peer.walk(start)? {
            Ok(walked) => walked.states.keys().all(|oid| !removes.contains(oid)),
            // Another client is changing it.
            Err(_) => false,
        })
    }
}

/// Bytes that cannot be compressed.
pub fn ballast(dice: &mut Dice, nonce: u64) -> Vec<u8> {
    let filler: Vec<u8> =
        (0..BALLAST_LEN / 4).flat_map(|_| (dice.below(1 << 32) as u32).to_le_bytes()).collect();
    record(&[], nonce, &filler)
}

fn changes(plan: &Plan) -> String {
    let list = |oids: &[Oid]| oids.iter().map(|oid| format!("0x{oid:016x}")).collect::<Vec<_>>().join(" ");
    let tids = |tids: &[Tid]| tids.iter().map(|tid| format!("{tid:016x}")).collect::<Vec<_>>().join(" ");
    let mut text = format!("changes [{}]", list(&plan.changed));
    for (what, oids) in [("creates", &plan.creates), ("removes", &plan.removes)] {
        if !oids.is_empty() {
            text.push_str(&format!(", {what} [{}]", list(oids)));
        }
    }
    let states = plan.stores.iter().map(|(oid, _, data)| (*oid, State::new(0, data)));
    for (oid, state) in states.chain(plan.planned.iter().cloned()) {
        text.push_str(&format!(", 0x{oid:016x} -> [{}]", list(&state.references)));
    }
    if let Some((_, _, from)) = plan.copy {
        text.push_str(&format!(", as of {from:016x}"));
    }
    if !plan.undo.is_empty() {
        text.push_str(&format!(", undoes {}", tids(&plan.undo)));
    }
    text
}
