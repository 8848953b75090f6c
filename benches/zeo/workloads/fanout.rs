//! Invalidations: the time until the last of many listeners has one.

use super::commit::Writer;
use super::{COMMIT_OBJECTS, Setting};
use crate::client::{Client, Result};
use crate::latencies::Latencies;
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::sys::Readiness;
use crate::wire::Id8;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

const COMMITS: usize = 60;
const WARM_UP_COMMITS: usize = 10;

/// A transaction whose invalidation has reached every listener, and when it did.
type Known = Result<(Id8, Instant)>;

pub fn fanout(setting: &Setting<'_>, listeners: usize, outcome: &mut Outcome) -> Result<()> {
    let mut writer = Writer::new(Client::open(setting.target())?, COMMIT_OBJECTS, setting.object_len, 5)?;
    writer.commit()?;
    let mut crowd = Crowd { clients: vec![], heard: HashMap::new() };
    for number in 1..=listeners {
        let client =
            Client::open(setting.listeners_target()).map_err(|e| format!("listener {number}: {e}"))?;
        client.stream.set_nonblocking(true).map_err(|e| format!("socket: {e}"))?;
        crowd.clients.push(client);
    }
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| crowd.listen(&stop, sender));
        let measured = measure(setting, listeners, &mut writer, &receiver, outcome);
        stop.store(true, Relaxed);
        measured
    })
}

fn measure(
    setting: &Setting<'_>,
    listeners: usize,
    writer: &mut Writer,
    receiver: &Receiver<Known>,
    outcome: &mut Outcome,
) -> Result<()> {
    for _ in 0..WARM_UP_COMMITS {
        commit_and_wait(writer, receiver)?;
    }
    let (mut last, mut replies, mut after) =
        (Latencies::default(), Latencies::default(), Latencies::default());
    let meter = Meter::start_all(&setting.pids());
    for _ in 0..COMMITS {
        let (to_reply, to_last) = commit_and_wait(writer, receiver)?;
        replies.add(to_reply);
        last.add(to_last);
        after.add(to_last.saturating_sub(to_reply));
    }
    meter.read().report(outcome, (COMMITS * listeners) as u64);
    last.report(outcome, "last_");
    replies.report(outcome, "reply_");
    after.report(outcome, "after_");
    Ok(())
}

/// From sending tpc_finish until its reply, and until the last listener has the invalidation.
fn commit_and_wait(writer: &mut Writer, receiver: &Receiver<Known>) -> Result<(Duration, Duration)> {
    let transaction = writer.vote()?;
    let sent = Instant::now();
    let id = writer.client.send_finish(transaction)?;
    let tid = writer.client.wait_finish(id)?;
    let to_reply = sent.elapsed();
    writer.committed(tid);
    loop {
        let known = receiver.recv_timeout(Duration::from_secs(15));
        let (known_tid, when) = known.map_err(|_| "not every listener got the invalidation")??;
        if known_tid == tid {
            return Ok((to_reply, when - sent));
        }
    }
}

/// The listeners, served by one thread.
struct Crowd {
    clients: Vec<Client>,
    /// Number of listeners that have a transaction's invalidation, until all have it.
    heard: HashMap<Id8, usize>,
}

impl Crowd {
    fn listen(mut self, stop: &AtomicBool, sender: Sender<Known>) {
        if let Err(e) = self.listen_until(stop, &sender) {
            // The receiver is gone only if the measurement is over.
            let _ = sender.send(Err(e));
        }
    }

    fn listen_until(&mut self, stop: &AtomicBool, sender: &Sender<Known>) -> Result<()> {
        let mut readiness = Readiness::new().map_err(|e| format!("epoll: {e}"))?;
        for (number, client) in self.clients.iter().enumerate() {
            readiness.add(client.stream.as_raw_fd(), number).map_err(|e| format!("epoll: {e}"))?;
        }
        while !stop.load(Relaxed) {
            for number in readiness.wait(Duration::from_millis(20)) {
                if self.drain(number, sender)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads the messages that have arrived for one listener.
    fn drain(&mut self, number: usize, sender: &Sender<Known>) -> Result<ControlFlow<()>> {
        let listeners = self.clients.len();
        let client = &mut self.clients[number];
        loop {
            match client.receive_some() {
                Ok(0) => return Err("the server closed a listener's connection".into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(ControlFlow::Continue(())),
                Err(e) => return Err(format!("listener: {e}")),
            }
            while let Some(frame) = client.received() {
                let message = client.message(frame.clone())?;
                let tid = if message.name == b"invalidateTransaction" {
                    Some(message.invalidated_tid()?)
                } else {
                    None
                };
                client.handle_pushed(frame)?;
                let Some(tid) = tid else { continue };
                let count = self.heard.entry(tid).or_insert(0);
                *count += 1;
                if *count == listeners {
                    self.heard.remove(&tid);
                    if sender.send(Ok((tid, Instant::now()))).is_err() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
    }
}
