//! What stands between two servers of a cluster: it passes their messages on one by one, and at one of them does what a
//! test has planned.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A kind of message on its way.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Kind {
    pub from: usize,
    pub to: usize,
    /// On a connection that only asks for the role, not on one of a replica that follows.
    pub is_question: bool,
    /// The first byte of the message.
    pub letter: char,
}

/// What happens at a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deed {
    /// The message has arrived here, and is lost with its sender.
    KillSender,
    /// The message still arrives.
    KillSenderBehind,
    /// Before the message arrives.
    KillReceiver,
    /// The message has arrived at the receiver's socket, so long before.
    KillReceiverBehind(Duration),
    /// The message is lost with the connection.
    End,
    /// The message still arrives.
    EndBehind,
}

/// The message at which something happens: the `nth` of its kind, from 0, since the proxies count.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub nth: usize,
    pub deed: Deed,
}

impl Plan {
    /// The server that is killed.
    pub fn victim(&self) -> Option<usize> {
        match self.deed {
            Deed::KillSender | Deed::KillSenderBehind => Some(self.kind.from),
            Deed::KillReceiver | Deed::KillReceiverBehind(_) => Some(self.kind.to),
            Deed::End | Deed::EndBehind => None,
        }
    }
}

/// What all proxies of a cluster share.
pub struct Lines {
    state: Mutex<State>,
    changed: Condvar,
    plan: Option<Plan>,
}

#[derive(Default)]
struct State {
    /// Gets the servers that are killed, until the end.
    killed: Option<Sender<usize>>,
    /// The processes that run, or were the last to run.
    pids: HashMap<usize, u32>,
    is_counting: bool,
    has_happened: bool,
    counts: BTreeMap<Kind, usize>,
    /// Pairs of servers between which there is no connection.
    cut: Vec<[usize; 2]>,
    /// Both ends of the connections that there are, with their pair, by their number.
    made: BTreeMap<usize, ([usize; 2], [TcpStream; 2])>,
    connections: usize,
    /// Where the proxies listen.
    proxies: Vec<SocketAddr>,
    is_over: bool,
}

impl Lines {
    /// `killed` gets the number of a server that was killed.
    pub fn new(plan: Option<Plan>, killed: Sender<usize>) -> Arc<Lines> {
        let state = State { killed: Some(killed), ..State::default() };
        Arc::new(Lines { state: Mutex::new(state), changed: Condvar::new(), plan })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server runs as this process.
    pub fn runs(&self, server: usize, pid: u32) {
        self.state().pids.insert(server, pid);
        self.changed.notify_all();
    }

    /// Messages are counted from now on.
    pub fn count(&self) {
        self.state().is_counting = true;
    }

    /// What has been counted.
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        self.state().counts.clone()
    }

    /// Messages are counted no more, and nothing planned happens any more.
    pub fn stop_counting(&self) -> BTreeMap<Kind, usize> {
        let mut state = self.state();
        state.is_counting = false;
        state.counts.clone()
    }

    pub fn has_happened(&self) -> bool {
        self.state().has_happened
    }

    /// Waits until what is planned happens, for at most so long.
    pub fn wait_for_it(&self, wait_max: Duration) -> bool {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, wait_max, |state| !state.has_happened);
        waited.unwrap().0.has_happened
    }

    /// There is no connection between these two until they are joined.
    pub fn cut(&self, pair: [usize; 2]) {
        let mut state = self.state();
        state.cut.push(pair);
        for (_, ends) in state.made.values().filter(|(made, _)| is_same(made, &pair)) {
            ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        }
    }

    /// Ends all proxies and their connections.
    pub fn end(&self) {
        let mut state = self.state();
        (state.is_over, state.killed) = (true, None);
        for (_, ends) in state.made.values() {
            ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        }
        // They look when something comes.
        state.proxies.drain(..).for_each(|proxy| drop(TcpStream::connect(proxy)));
        self.changed.notify_all();
    }

    pub fn join(&self, pair: [usize; 2]) {
        self.state().cut.retain(|cut| !is_same(cut, &pair));
    }

    /// An address through which server `from` reaches server `to`, which listens at `target`.
    pub fn proxy(self: &Arc<Lines>, from: usize, to: usize, target: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        self.state().proxies.push(address);
        let lines = Arc::clone(self);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept()
                && !lines.state().is_over
            {
                let lines = Arc::clone(&lines);
                // An error is one of the connection, which ends.
                thread::spawn(move || drop(lines.connect([from, to], stream, target)));
            }
        });
        address
    }

    /// Passes messages in both directions, until both have ended.
    fn connect(self: &Arc<Lines>, pair: [usize; 2], near: TcpStream, target: SocketAddr) -> io::Result<()> {
        let far = TcpStream::connect(target)?;
        let mut state = self.state();
        while !state.is_over && !pair.iter().all(|no| state.pids.contains_key(no)) {
            state = self.changed.wait(state).unwrap();
        }
        if state.is_over || state.cut.iter().any(|cut| is_same(cut, &pair)) {
            return Ok(());
        }
        state.connections += 1;
        let number = state.connections;
        state.made.insert(number, (pair, [near.try_clone()?, far.try_clone()?]));
        drop(state);
        let result = self.carry(pair, &near, &far);
        self.state().made.remove(&number);
        result
    }

    fn carry(&self, [from, to]: [usize; 2], near: &TcpStream, far: &TcpStream) -> io::Result<()> {
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let Some(hello) = next_frame(&mut &*near)? else { return Ok(()) };
        let is_question = is_question(&hello);
        let there = Line { lines: self, source: near, sink: far, from, to, is_question };
        let back = Line { source: far, sink: near, from: to, to: from, ..there };
        if there.pass(&hello)? {
            thread::scope(|scope| {
                scope.spawn(|| back.pass_all());
                there.pass_all();
            });
        }
        Ok(())
    }

    /// Counts a message. What happens at it, if something does.
    fn deed(&self, kind: Kind) -> Option<Deed> {
        let mut state = self.state();
        if !state.is_counting {
            return None;
        }
        let count = state.counts.entry(kind).or_default();
        let nth = *count;
        *count += 1;
        self.plan.filter(|plan| plan.kind == kind && plan.nth == nth).map(|plan| plan.deed)
    }

    fn kill(&self, server: usize) {
        let pid = self.state().pids[&server];
        let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
        assert!(status.success(), "kill");
        if let Some(killed) = &self.state().killed {
            killed.send(server).unwrap();
        }
    }
}

/// One direction of a connection.
#[derive(Clone, Copy)]
struct Line<'a> {
    lines: &'a Lines,
    source: &'a TcpStream,
    sink: &'a TcpStream,
    from: usize,
    to: usize,
    is_question: bool,
}

impl Line<'_> {
    /// Passes messages on until there are no more.
    fn pass_all(&self) {
        while let Ok(Some(frame)) = next_frame(&mut &*self.source) {
            match self.pass(&frame) {
                Ok(true) => {}
                // The sender finds out.
                Err(_) => drop(self.source.shutdown(Shutdown::Both)),
                Ok(false) => return,
            }
        }
        // The other direction may still bring something.
        let _ = self.sink.shutdown(Shutdown::Write);
    }

    /// Passes a message on, or does what is planned. False: the connection is over.
    fn pass(&self, frame: &[u8]) -> io::Result<bool> {
        let Line { lines, source, mut sink, from, to, is_question } = *self;
        let letter = char::from(frame[4]);
        let Some(deed) = lines.deed(Kind { from, to, is_question, letter }) else {
            return sink.write_all(frame).map(|()| true);
        };
        let arrives = matches!(deed, Deed::KillSenderBehind | Deed::KillReceiverBehind(_) | Deed::EndBehind);
        // An error means that the receiver has gone already.
        let _ = if arrives { sink.write_all(frame) } else { Ok(()) };
        match deed {
            Deed::KillSender | Deed::KillSenderBehind => lines.kill(from),
            Deed::KillReceiver => lines.kill(to),
            Deed::KillReceiverBehind(pause) => {
                thread::sleep(pause);
                lines.kill(to);
            }
            Deed::End | Deed::EndBehind => {}
        }
        let _ = source.shutdown(Shutdown::Both);
        // What has been sent still arrives.
        let _ = sink.shutdown(if arrives { Shutdown::Write } else { Shutdown::Both });
        lines.state().has_happened = true;
        lines.changed.notify_all();
        Ok(false)
    }
}

fn is_same(one: &[usize; 2], other: &[usize; 2]) -> bool {
    one == other || [one[1], one[0]] == *other
}

/// A message with its length. `None`: the stream has ended.
fn next_frame(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut frame = head.to_vec();
    frame.resize(4 + u32::from_be_bytes(head) as usize, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(Some(frame))
}

/// Whether a hello only asks: it ends with the flags then, which are 0.
fn is_question(hello: &[u8]) -> bool {
    let text = |at: usize| 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    // Length, letter, magic, name, cluster, role.
    let mut at = 4 + 1 + 20;
    at += text(at) + 16 + 1;
    let count = u32::from_be_bytes(hello[at..at + 4].try_into().unwrap());
    at += 4;
    for _ in 0..count {
        at += 16 + 8 + 8;
        at += text(at);
    }
    hello[at] == 0
}
