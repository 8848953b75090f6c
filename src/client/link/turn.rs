//! Who reads a link: one thread at a time, which has the *reader*.
//!
//! A thread that waits for its answer reads itself if no other thread does: so an answer wakes one thread, not two.
//! When it has its answer it puts the reader down, and the next caller picks it up.
//!
//! The thread of the link reads when there are more calls than that: a caller that puts the reader down while other
//! threads sleep until their answers come, or while there are calls for which no thread waits, wakes it. It goes on
//! until there are none of these. It also reads when callers have not read for a moment (`linger`), because the server
//! sends messages without a call, too. A caller that calls one by one so reads all its answers but the first.
//!
//! No thread is left asleep: one that finds no reader is counted as sleeping under the lock under which it looked. The
//! thread that has the reader at this time puts it down later, under the same lock, and then sees the count; or it is
//! the thread of the link, which reads as long as anything is counted.

use std::mem;
use std::time::Duration;

use super::end::{EndCause, LinkError};
use crate::base::clock::IoDeadline;
use crate::base::sync::{AtomicUsize, Condvar, Mutex, Ordering, rank};

/// Receives messages, and does what they ask for.
pub trait Reads: Send {
    /// Reads once. Returns after what has arrived, at `until`, or earlier. `Ok(true)`: a waiting thread has its answer.
    fn read(&mut self, until: Option<IoDeadline>) -> Result<bool, EndCause>;
}

impl Reads for Box<dyn Reads> {
    fn read(&mut self, until: Option<IoDeadline>) -> Result<bool, EndCause> {
        (**self).read(until)
    }
}

/// The reader of one link.
pub struct Turn<R> {
    state: Mutex<TurnState<R>, rank::LinkTurn>,
    /// For the thread of the link.
    changed: Condvar,
    /// Calls without an answer.
    unanswered: AtomicUsize,
    /// Those of them for which no thread waits.
    started: AtomicUsize,
    /// Threads that sleep until another one has read their answer. Grows under the lock only.
    sleeping: AtomicUsize,
    linger: Duration,
}

struct TurnState<R> {
    /// `None`: a thread reads.
    reader: Option<R>,
    /// How many times a caller has picked the reader up.
    picked_up: u64,
    /// The thread of the link is to read.
    is_called: bool,
    /// The thread of the link sleeps until the reader is put down.
    is_asleep: bool,
    has_ended: bool,
}

/// The place where a thread waits for the answer to one call.
pub struct Slot<T> {
    state: Mutex<SlotState<T>, rank::LinkSlot>,
    is_filled: Condvar,
}

struct SlotState<T> {
    result: Option<Result<T, LinkError>>,
    is_waiting: bool,
    /// In [`Turn::sleeping`].
    is_counted: bool,
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        let state = SlotState { result: None, is_waiting: false, is_counted: false };
        Slot { state: Mutex::new(state), is_filled: Condvar::new() }
    }
}

impl<T> Slot<T> {
    /// The answer has arrived, or never will. Returns whether the slot was counted until now.
    fn fill(&self, result: Result<T, LinkError>) -> bool {
        let mut state = self.state.lock();
        state.result = Some(result);
        let was_counted = mem::take(&mut state.is_counted);
        let is_waiting = state.is_waiting;
        // Else the woken thread would have to wait for the lock.
        drop(state);
        if is_waiting {
            self.is_filled.notify_one();
        }
        was_counted
    }

    /// Whether the slot is counted from now on: it is not filled yet.
    fn count(&self) -> bool {
        let mut state = self.state.lock();
        state.is_counted = state.result.is_none();
        state.is_counted
    }

    /// Whether the slot was counted until now.
    fn discount(&self) -> bool {
        mem::take(&mut self.state.lock().is_counted)
    }

    fn has_result(&self) -> bool {
        self.state.lock().result.is_some()
    }

    fn take(&self) -> Option<Result<T, LinkError>> {
        self.state.lock().result.take()
    }

    /// Waits for the result, or until `until`.
    fn wait(&self, until: Option<IoDeadline>) {
        let mut state = self.state.lock();
        state.is_waiting = true;
        while state.result.is_none() && !until.is_some_and(IoDeadline::is_over) {
            state = match until {
                Some(until) => self.is_filled.wait_timeout(state, until.left()),
                None => self.is_filled.wait(state),
            };
        }
        state.is_waiting = false;
    }
}

impl<R> Turn<R> {
    /// `linger`: how long the thread of the link leaves the reader to callers that do not use it; at most twice this.
    pub fn new(linger: Duration) -> Turn<R> {
        let state =
            TurnState { reader: None, picked_up: 0, is_called: false, is_asleep: false, has_ended: false };
        Turn {
            state: Mutex::new(state),
            changed: Condvar::new(),
            unanswered: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            linger,
        }
    }
}

impl<R: Reads> Turn<R> {
    /// The reader, at the start.
    pub fn put(&self, reader: R) {
        self.state.lock().reader = Some(reader);
    }

    /// Whether calls have no answer yet.
    pub fn is_busy(&self) -> bool {
        self.unanswered.load(Ordering::SeqCst) > 0
    }

    /// To be called before a call is sent. `is_awaited`: with [`Turn::wait_for`].
    pub fn calling(&self, is_awaited: bool) {
        self.unanswered.fetch_add(1, Ordering::SeqCst);
        if !is_awaited {
            self.started.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A call has its answer, or it is not wanted any more.
    pub fn answered(&self, is_awaited: bool) {
        self.unanswered.fetch_sub(1, Ordering::SeqCst);
        if !is_awaited {
            self.started.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Fills the slot of a call. By the thread that reads.
    pub fn fill<T>(&self, slot: &Slot<T>, result: Result<T, LinkError>) {
        if slot.fill(result) {
            self.sleeping.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// To be called after a call was sent for which no thread waits: somebody has to read the answer.
    pub fn call_thread(&self) {
        let mut state = self.state.lock();
        if state.reader.is_some() {
            state.is_called = true;
            self.changed.notify_one();
        }
    }

    /// The link is about to end: its thread has to learn that.
    pub fn end(&self) {
        self.state.lock().is_called = true;
        self.changed.notify_one();
    }

    /// Waits for the result of a call that was sent, and reads if no other thread does. `None`: there was none in time.
    pub fn wait_for<T>(&self, slot: &Slot<T>, until: Option<IoDeadline>) -> Option<Result<T, LinkError>> {
        match self.pick_up(slot) {
            Some(reader) => self.lead(slot, until, reader),
            None => {
                slot.wait(until);
                if slot.discount() {
                    self.sleeping.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
        let result = slot.take();
        if result.is_some() || until.is_some_and(IoDeadline::is_over) {
            return result;
        }
        // The link has ended while this thread was reading: the thread of the link gives each call its error.
        slot.wait(until);
        slot.take()
    }

    /// The reader, if no thread has it. Else the slot is counted.
    fn pick_up<T>(&self, slot: &Slot<T>) -> Option<R> {
        let mut state = self.state.lock();
        if state.has_ended {
            return None;
        }
        let reader = state.reader.take();
        if reader.is_some() {
            state.picked_up += 1;
            return reader;
        }
        // In this order: the thread that fills the slot subtracts what was added.
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        if !slot.count() {
            self.sleeping.fetch_sub(1, Ordering::SeqCst);
        }
        None
    }

    /// Whether an answer is to come that no caller will read. Under the lock.
    fn is_needed(&self) -> bool {
        self.started.load(Ordering::SeqCst) > 0 || self.sleeping.load(Ordering::SeqCst) > 0
    }

    /// Reads until the slot is filled.
    fn lead<T>(&self, slot: &Slot<T>, until: Option<IoDeadline>, mut reader: R) {
        let mut is_over = false;
        while !is_over && !slot.has_result() {
            is_over = until.is_some_and(IoDeadline::is_over);
            if !is_over && reader.read(until).is_err() {
                return self.put_down(reader, true);
            }
        }
        self.put_down(reader, false);
    }

    /// After its end the reader is for the thread of the link, whose next read fails again.
    fn put_down(&self, reader: R, has_ended: bool) {
        let mut state = self.state.lock();
        state.has_ended |= has_ended;
        state.reader = Some(reader);
        state.is_called |= has_ended || self.is_needed();
        if state.is_called || state.is_asleep {
            self.changed.notify_one();
        }
    }

    /// The work of the thread of the link. Returns at the end, with its cause.
    pub fn serve(&self) -> (R, EndCause) {
        loop {
            let mut reader = self.await_turn();
            loop {
                match reader.read(None) {
                    Err(cause) => {
                        self.state.lock().has_ended = true;
                        return (reader, cause);
                    }
                    // The thread that has got this answer is likely to call again.
                    Ok(true) if !self.is_needed() => break,
                    Ok(_) => {}
                }
            }
            self.put_down(reader, false);
        }
    }

    /// Waits until the thread of the link has to read. Callers have the first choice for a moment.
    fn await_turn(&self) -> R {
        let mut state = self.state.lock();
        // How many times callers had picked the reader up when this thread looked last.
        let mut seen = None;
        loop {
            let is_unused = seen == Some(state.picked_up);
            seen = Some(state.picked_up);
            if (is_unused || state.is_called)
                && let Some(reader) = state.reader.take()
            {
                state.is_called = false;
                return reader;
            }
            if is_unused {
                // One caller has read all the time, and may for long.
                state.is_asleep = true;
                state = self.changed.wait(state);
                state.is_asleep = false;
                seen = None;
            } else {
                state = self.changed.wait_timeout(state, self.linger);
            }
        }
    }
}
