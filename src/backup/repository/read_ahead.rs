//! Reads an object in a thread of its own, which decompresses and adds up, while the caller uses what was read.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use super::error::{BackupError, Result};
use super::object::ObjectReader;

const CHUNK_LEN: usize = 256 << 10;
/// Number of chunks that wait for the caller.
const QUEUE_LEN: usize = 8;

/// Calls `consume` with the content. The object is read to its end and compared with its sum also if `consume` stops
/// early; the second result is about that.
pub fn read_ahead<T>(mut object: ObjectReader, consume: impl FnOnce(&mut dyn Read) -> T) -> (T, Result<()>) {
    thread::scope(|scope| {
        let (to, from) = sync_channel(QUEUE_LEN);
        let reader = scope.spawn(move || {
            loop {
                let mut chunk = vec![0; CHUNK_LEN];
                match object.read(&mut chunk) {
                    Ok(0) => return object.finish(),
                    Ok(len) => {
                        chunk.truncate(len);
                        // The caller has enough. The sum is still of interest.
                        if to.send(chunk).is_err() {
                            return object.finish();
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(object.unreadable(error)),
                }
            }
        });
        let consumed = consume(&mut Chunks { from, chunk: Vec::new(), at: 0 });
        // A panic would be one of the library that decompresses.
        let read = reader.join().unwrap_or_else(|_| {
            Err(BackupError::io("reading an object")(io::Error::other("the thread has panicked")))
        });
        (consumed, read)
    })
}

/// What the thread has read. After an error of it, the end.
struct Chunks {
    from: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let Ok(chunk) = self.from.recv() else { return Ok(0) };
            (self.chunk, self.at) = (chunk, 0);
        }
        let rest = self.chunk.get(self.at..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        self.at += len;
        Ok(len)
    }
}
