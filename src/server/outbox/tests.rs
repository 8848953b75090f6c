//! The queue of a client that reads slowly, or not at all.

use std::io;
use std::io::IoSlice;
use std::sync::{OnceLock, Weak};
use std::thread;

use super::*;
use crate::wire::frame::{FrameReader, put_frame};

/// A sink that takes a few bytes at a time, and sometimes none.
#[derive(Default)]
struct Reluctant(std::sync::Mutex<(Vec<u8>, usize)>);

impl Reluctant {
    fn take(&self, chunks: &[IoSlice<'_>], may_refuse: bool) -> io::Result<usize> {
        let mut state = self.0.lock().expect("a lock");
        let (sent, turn) = &mut *state;
        *turn += 1;
        if may_refuse && *turn % 3 == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        let count = bytes.len().min([1, 7, 40, 1000][*turn % 4]);
        sent.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

impl Sink for Reluctant {
    fn try_send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        self.take(chunks, true)
    }

    fn send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        self.take(chunks, false)
    }

    fn shutdown(&self) {}
}

/// A sink that takes nothing, and records whether the lock of the queue was held when the connection was ended.
#[derive(Default)]
struct Deaf {
    outbox: OnceLock<Weak<Outbox<Deaf>>>,
    locked_at_shutdown: std::sync::Mutex<Vec<bool>>,
}

impl Sink for Deaf {
    fn try_send(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Returns the error of a socket that was shut down.
    fn send(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        while self.locked_at_shutdown.lock().expect("a lock").is_empty() {
            thread::yield_now();
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn shutdown(&self) {
        let outbox = self.outbox.get().and_then(Weak::upgrade).expect("an outbox");
        self.locked_at_shutdown.lock().expect("a lock").push(outbox.queue.is_locked());
    }
}

/// A client that read nothing was disconnected with the lock of its queue held, which a publisher takes with the
/// members list locked: with TLS every commit of the storage waited for close_notify to be sent.
#[test]
fn a_client_that_does_not_read_is_ended_without_the_lock() {
    for is_being_sent_to in [false, true] {
        let outbox = Arc::new(Outbox::new(Deaf::default(), 100));
        outbox.sink.outbox.set(Arc::downgrade(&outbox)).expect("once");
        if is_being_sent_to {
            outbox.place().push(Chunk::Own(vec![1; 10]));
            outbox.flush();
        }
        let mut place = outbox.place();
        place.push(Chunk::Own(vec![2; 200]));
        assert!(
            outbox.sink.locked_at_shutdown.lock().expect("a lock").is_empty(),
            "as if this were a publisher"
        );
        drop(place);
        assert!(outbox.is_closed());
        outbox.flush();
        assert_eq!(outbox.sink.locked_at_shutdown.lock().expect("a lock").first(), Some(&false));
    }
}

/// A reply to vote that was longer than `max-unsent` ended the connection: it was counted as an unasked message.
#[test]
fn replies_do_not_count_for_max_unsent() {
    let outbox = Arc::new(Outbox::new(Deaf::default(), 100));
    outbox.sink.outbox.set(Arc::downgrade(&outbox)).expect("once");
    outbox.post_own(outbox.place(), vec![1; 1000]);
    outbox.place().push(Chunk::Own(vec![2; 60]));
    outbox.post_own(outbox.place(), vec![3; 1000]);
    outbox.place().push(Chunk::Own(vec![4; 40]));
    assert!(!outbox.is_closed());
    outbox.place().push(Chunk::Own(vec![5; 1]));
    assert!(outbox.is_closed());
    outbox.flush();
}

#[test]
fn what_was_sent_does_not_count_any_more() {
    let outbox = Arc::new(Outbox::new(Reluctant::default(), 100));
    for n in 0..50 {
        outbox.place().push(Chunk::Own(vec![n; 90]));
        outbox.post_own(outbox.place(), vec![n; 1000]);
        outbox.wait_until_sent();
        assert_eq!(outbox.queue.lock().unasked_len, 0);
    }
    assert!(!outbox.is_closed());
}

fn frames(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut frames = Vec::new();
    payloads.iter().for_each(|payload| put_frame(payload, &mut frames));
    frames
}

/// Messages that could not be sent at once are signed already; signed again, or sent after later ones, they would end
/// the connection.
#[test]
fn signatures_follow_the_order_of_sending() {
    let outbox = Arc::new(Outbox::new(Reluctant::default(), 16 << 20));
    outbox.send_own(outbox.place(), &frames(&[b"unsigned".to_vec()]));
    outbox.sign_from_here(RunningMac::new(b"key"));
    let mut expected = Vec::new();
    for n in 0..200_u32 {
        let payloads: Vec<Vec<u8>> = (0..n % 4).map(|i| vec![n as u8; (n * 7 + i) as usize % 90]).collect();
        let bytes = frames(&payloads);
        expected.extend(payloads);
        match n % 3 {
            0 => outbox.send_own(outbox.place(), &bytes),
            1 => outbox.place().push(Chunk::Shared(bytes.into())),
            _ => {
                outbox.place().push(Chunk::Own(bytes));
                outbox.flush();
            }
        }
    }
    outbox.flush();
    outbox.wait_until_sent();
    assert_eq!(outbox.queue.lock().len, 0);

    let sent = outbox.sink.0.lock().expect("a lock").0.clone();
    let mut reader = FrameReader::new();
    let mut mac = RunningMac::new(b"key");
    let mut received = Vec::new();
    for piece in sent.chunks(1000) {
        reader.spare().unwrap()[..piece.len()].copy_from_slice(piece);
        reader.filled(piece.len());
        while let Some(frame) = reader.next().unwrap() {
            match frame.mac {
                None => assert_eq!((frame.payload, received.len()), (&b"unsigned"[..], 0)),
                Some(code) => {
                    assert!(mac.check_next(frame.payload, code), "message {}", received.len());
                    received.push(frame.payload.to_vec());
                }
            }
        }
    }
    assert_eq!(received, expected);
}
