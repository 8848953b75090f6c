//! The links on which transactions and loads are sent, and which of them are free.
//!
//! A server has one open transaction for each link. So the transactions of a client take turns on the link that is used
//! for everything (the *main link*), unless the server is one whose transactions do not wait for each other and which
//! tells of them completely: then there are *lanes*, links to the same server. They are opened when they are needed, up
//! to [`LANES_MAX`], by threads of their own: a transaction takes the link that is free first. Loads take them, too
//! ([`loads`]).
//! Python's servers vote one transaction at a time, so with them nothing but the sending of stores could overlap, and
//! versions before ZEO 5.2.2 do not tell of all objects: no lanes.
//!
//! A transaction that needs its tid at vote, or at an undo, has a lane of its own, which speaks an older protocol. If
//! the server takes none, the transaction fails: on the main link others could be committed between its vote and its
//! finish, which a client of ZEO 4 or older does not bear.
//!
//! All lanes belong to one main link, and are closed with it. They hear nothing of other transactions: the main link
//! tells of them. See [`awaited`](super::awaited) for the order.

mod loads;
mod open;

use std::thread;
use std::time::Duration;

use super::awaited::LinkId;
use super::link::Link;
use crate::base::clock::IoDeadline;
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::wire::protocol::Generation;
pub use open::{Lane, LaneOptions, Serialnos, Sibling};

/// Upper bound on the lanes beside the main link, those of older protocols not counted.
const LANES_MAX: usize = 8;
/// Pause after a lane could not be opened.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Lanes that were not used for this long are closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The main link.
pub struct MainLink {
    pub id: LinkId,
    pub lane: Lane,
    /// Where lanes lead. `None`: there are none.
    pub sibling: Option<Arc<Sibling>>,
}

/// The link that a transaction needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LaneKind {
    Any,
    /// One of this protocol, whose votes give serials; the main link of a server with which there are no lanes.
    Serials(Generation),
}

/// The protocols of [`LaneKind::Serials`]: with the answer to vote, and with the answer to an undo.
const SERIALS: [Generation; 2] = [Generation::Z4, Generation::Z309];

/// The outcome of [`Lanes::take`].
pub enum Take {
    Taken(HeldLane),
    /// It is not wanted any more.
    Over,
    /// The server takes no further link now, and without [`LaneKind::Serials`] the transaction cannot be made.
    Unavailable,
    /// The main link was lost: again with the next one.
    Lost,
}

/// There is no lane of an older protocol, and the server takes none now.
struct Unavailable;

/// A link that no other transaction has; a lane, no other load either. Given back when it is dropped.
pub struct HeldLane {
    lanes: Arc<Lanes>,
    seat: Seat,
    pub main: LinkId,
    pub lane: Lane,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seat {
    Main,
    Lane,
    /// The index in [`SERIALS`].
    Serials(usize),
}

/// The lanes of a client.
pub struct Lanes {
    options: LaneOptions,
    state: Mutex<LaneState, rank::CommitLinks>,
    /// A link is free, or there will be none.
    changed: Condvar,
}

#[derive(Default)]
struct LaneState {
    /// The main link; 0: none.
    main: LinkId,
    /// The last main link that was lost.
    lost: LinkId,
    main_is_taken: bool,
    /// The free lanes, and since when; the one used last behind.
    idle: Vec<(Lane, IoDeadline)>,
    /// Lanes that are being opened.
    opening: usize,
    /// Transactions that wait for a link.
    waiting: usize,
    /// Loads that found no lane since [`Lanes::close_unused`] looked, or since a lane was opened for them.
    crowd: u32,
    serials: [SerialsLane; SERIALS.len()],
    /// All lanes, to be closed with the main link.
    links: Vec<(Seat, Link)>,
    /// No lane is opened before, because the last attempt has failed.
    retry: Option<IoDeadline>,
}

#[derive(Default)]
enum SerialsLane {
    #[default]
    Closed,
    Opening,
    Idle(Lane, IoDeadline),
    InUse,
}

impl Lanes {
    pub fn new(options: LaneOptions) -> Arc<Lanes> {
        Arc::new(Lanes { options, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Waits for a link. `is_over`: it is not wanted any more; see [`Lanes::wake`].
    pub fn take(self: &Arc<Self>, main: &MainLink, kind: LaneKind, is_over: impl Fn() -> bool) -> Take {
        let mut state = self.state.lock();
        loop {
            if is_over() {
                return Take::Over;
            }
            if main.id <= state.lost || main.id < state.main {
                return Take::Lost;
            }
            if main.id > state.main {
                let links = state.renew(main.id);
                drop(state);
                links.iter().for_each(Link::close);
                state = self.state.lock();
                continue;
            }
            let found = match (kind, &main.sibling) {
                (LaneKind::Serials(generation), Some(sibling)) => {
                    match self.find_serials(&mut state, main, sibling, generation) {
                        Ok(found) => found,
                        Err(Unavailable) => return Take::Unavailable,
                    }
                }
                _ => self.find(&mut state, main),
            };
            if let Some((seat, lane)) = found {
                return Take::Taken(HeldLane { lanes: Arc::clone(self), seat, main: main.id, lane });
            }
            state.waiting += 1;
            if kind == LaneKind::Any
                && let Some(sibling) = &main.sibling
                && state.may_open()
            {
                self.open(&mut state, main.id, sibling, Seat::Lane);
            }
            state = self.changed.wait(state);
            state.waiting -= 1;
        }
    }

    fn find(&self, state: &mut LaneState, main: &MainLink) -> Option<(Seat, Lane)> {
        if !state.main_is_taken {
            state.main_is_taken = true;
            return Some((Seat::Main, main.lane.clone()));
        }
        state.take_idle().map(|lane| (Seat::Lane, lane))
    }

    /// The lane of an older protocol.
    fn find_serials(
        self: &Arc<Self>,
        state: &mut LaneState,
        main: &MainLink,
        sibling: &Arc<Sibling>,
        generation: Generation,
    ) -> Result<Option<(Seat, Lane)>, Unavailable> {
        let Some(index) = SERIALS.iter().position(|known| *known == generation) else {
            return Ok(self.find(state, main));
        };
        let Some(slot) = state.serials.get_mut(index) else { return Ok(None) };
        match std::mem::take(slot) {
            SerialsLane::Idle(lane, _) if !lane.link.has_ended() => {
                *slot = SerialsLane::InUse;
                return Ok(Some((Seat::Serials(index), lane)));
            }
            SerialsLane::Idle(lane, _) => state.forget(&lane.link),
            SerialsLane::Closed => {}
            waiting => {
                *slot = waiting;
                return Ok(None);
            }
        }
        if state.retry.is_some_and(|retry| !retry.is_over()) {
            return Err(Unavailable);
        }
        self.open(state, main.id, sibling, Seat::Serials(index));
        Ok(None)
    }

    /// Starts to open a lane.
    fn open(self: &Arc<Self>, state: &mut LaneState, main: LinkId, sibling: &Arc<Sibling>, seat: Seat) {
        let (lanes, sibling) = (Arc::clone(self), Arc::clone(sibling));
        let thread = thread::Builder::new().name("zeo-lane".into());
        let started = thread.spawn(move || {
            let generation = match seat {
                Seat::Serials(index) => SERIALS.get(index).copied(),
                Seat::Main | Seat::Lane => None,
            };
            let opened = open::open(&lanes.options, &sibling, generation);
            if let Err(why) = &opened {
                lanes.options.log(&format!("no further link to the server, calls take turns: {why}"));
            }
            lanes.opened(main, seat, opened.ok());
        });
        match (seat, started.is_ok()) {
            (_, false) => state.retry = Some(IoDeadline::after(RETRY_AFTER)),
            (Seat::Serials(index), true) => {
                if let Some(slot) = state.serials.get_mut(index) {
                    *slot = SerialsLane::Opening;
                }
            }
            (_, true) => state.opening += 1,
        }
    }

    fn opened(&self, main: LinkId, seat: Seat, opened: Option<Lane>) {
        let mut state = self.state.lock();
        if state.main != main {
            drop(state);
            return opened.into_iter().for_each(|lane| lane.link.close());
        }
        let is_open = opened.is_some();
        state.retry = (!is_open).then(|| IoDeadline::after(RETRY_AFTER));
        if let Some(lane) = &opened {
            state.links.push((seat, lane.link.clone()));
        }
        let until = IoDeadline::after(IDLE_MAX);
        match seat {
            Seat::Serials(index) => {
                let new = opened.map_or(SerialsLane::Closed, |lane| SerialsLane::Idle(lane, until));
                if let Some(slot) = state.serials.get_mut(index) {
                    *slot = new;
                }
            }
            Seat::Main | Seat::Lane => {
                state.opening = state.opening.saturating_sub(1);
                state.idle.extend(opened.map(|lane| (lane, until)));
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn give_back(&self, seat: Seat, main: LinkId, lane: &Lane) {
        let mut state = self.state.lock();
        if state.main == main {
            let has_ended = lane.link.has_ended();
            let until = IoDeadline::after(IDLE_MAX);
            match seat {
                Seat::Main => state.main_is_taken = false,
                Seat::Lane if has_ended => state.forget(&lane.link),
                Seat::Lane => state.idle.push((lane.clone(), until)),
                Seat::Serials(index) => {
                    if has_ended {
                        state.forget(&lane.link);
                    }
                    if let Some(slot) = state.serials.get_mut(index) {
                        *slot = match has_ended {
                            true => SerialsLane::Closed,
                            false => SerialsLane::Idle(lane.clone(), until),
                        };
                    }
                }
            }
        }
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.changed.notify_all();
        }
    }

    /// All waiting calls of [`Lanes::take`] check `is_over` again.
    pub fn wake(&self) {
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// The main link has ended.
    pub fn lose(&self, main: LinkId) {
        let links = {
            let mut state = self.state.lock();
            state.lost = state.lost.max(main);
            if state.main == main { state.renew(0) } else { Vec::new() }
        };
        self.changed.notify_all();
        links.iter().for_each(Link::close);
    }

    /// Closes lanes that were not used for a while. To be called from time to time.
    pub fn close_unused(&self) {
        let mut links = Vec::new();
        {
            let mut state = self.state.lock();
            state.crowd = 0;
            while let Some((_, until)) = state.idle.first()
                && until.is_over()
            {
                links.push(state.idle.remove(0).0.link);
            }
            for slot in &mut state.serials {
                if let SerialsLane::Idle(lane, until) = slot
                    && until.is_over()
                {
                    links.push(lane.link.clone());
                    *slot = SerialsLane::Closed;
                }
            }
            links.iter().for_each(|link| state.forget(link));
        }
        links.iter().for_each(Link::close);
    }
}

impl LaneState {
    /// Another main link. Returns what is to be closed.
    fn renew(&mut self, main: LinkId) -> Vec<Link> {
        let (lost, waiting) = (self.lost, self.waiting);
        let before = std::mem::replace(self, LaneState { main, lost, waiting, ..LaneState::default() });
        before.links.into_iter().map(|(_, link)| link).collect()
    }

    /// A free lane.
    fn take_idle(&mut self) -> Option<Lane> {
        while let Some((lane, _)) = self.idle.pop() {
            if !lane.link.has_ended() {
                return Some(lane);
            }
            self.forget(&lane.link);
        }
        None
    }

    /// Whether a transaction wants one more lane, and there may be one.
    fn may_open(&self) -> bool {
        self.opening < self.waiting && self.has_room()
    }

    /// Whether there may be one more lane.
    fn has_room(&self) -> bool {
        let lanes = self.links.iter().filter(|(seat, _)| *seat == Seat::Lane).count();
        lanes + self.opening < LANES_MAX && self.retry.is_none_or(IoDeadline::is_over)
    }

    fn forget(&mut self, link: &Link) {
        self.links.retain(|(_, known)| !known.is(link));
    }
}

impl HeldLane {
    /// Whether it is the main link.
    pub fn is_main(&self) -> bool {
        self.seat == Seat::Main
    }
}

impl Drop for HeldLane {
    fn drop(&mut self) {
        self.lanes.give_back(self.seat, self.main, &self.lane);
    }
}
