//! The blobs that one client waits for, and the threads that send them while its session goes on.
//!
//! A client has at most [`THREADS_MAX`] threads. What it asks for beyond that waits, in order. A thread sends one part
//! of a blob at a time; if others wait, the blob goes behind them. So a short blob does not wait until long ones are
//! sent. A blob that must come from another server keeps its thread until it is here.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::server::job_panic::contained;
use crate::server::session::send_blob::{Download, Sent};

/// Threads that send blobs to one client.
const THREADS_MAX: usize = 8;
/// Blobs that wait for a thread. At the limit the session waits, and reads nothing.
const WAITING_MAX: usize = 1000;
/// Interval at which a session that waits checks whether the client has gone.
const PAUSE: Duration = Duration::from_millis(100);
/// A download from another server reads what that server sends, invalidations included.
const THREAD_STACK: usize = 512 << 10;

/// The blobs that one client waits for.
#[derive(Default)]
pub struct Downloads {
    queue: Mutex<DownloadQueue, rank::SessionDownloads>,
    /// Fewer blobs wait, or fewer threads run.
    changed: Condvar,
}

#[derive(Default)]
struct DownloadQueue {
    waiting: VecDeque<Download>,
    /// Threads that send. Each looks for a blob that waits before it ends.
    threads: usize,
}

impl Downloads {
    /// Sends a blob in another thread; in this one if none can be started. Waits while very many are under way.
    pub fn send(self: &Arc<Self>, download: Download) {
        {
            let mut queue = self.queue.lock();
            while queue.threads >= THREADS_MAX && queue.waiting.len() >= WAITING_MAX {
                if download.is_unwanted() {
                    return;
                }
                queue = self.changed.wait_timeout(queue, PAUSE);
            }
            queue.waiting.push_back(download);
            if queue.threads >= THREADS_MAX {
                return;
            }
            queue.threads += 1;
        }
        let downloads = Arc::clone(self);
        let run = move || downloads.work();
        if thread::Builder::new().name("zeo-blob".into()).stack_size(THREAD_STACK).spawn(run).is_err() {
            self.work();
        }
    }

    /// Sends what waits, until there is nothing left.
    fn work(&self) {
        let mut unfinished = None;
        while let Some(download) = self.next(unfinished) {
            unfinished = send_part(download);
        }
    }

    /// The blob whose turn is next; `None` ends a thread. `unfinished`: goes to the end of the queue.
    fn next(&self, unfinished: Option<Download>) -> Option<Download> {
        let mut queue = self.queue.lock();
        queue.waiting.extend(unfinished);
        let next = queue.waiting.pop_front();
        if next.is_none() {
            queue.threads -= 1;
        }
        drop(queue);
        self.changed.notify_all();
        next
    }
}

/// Sends a part of a blob. Returns it if there is more to send.
fn send_part(mut download: Download) -> Option<Download> {
    let connection = Arc::clone(download.connection());
    let mut sent = Sent::All;
    contained(&connection, || sent = download.send_part());
    (sent == Sent::Part).then_some(download)
}
