//! A line to a server that can be cut at any byte, and closed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::dice::Dice;

/// Listens at `address`, and passes everything on to a server and back.
pub struct Line {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    is_open: AtomicBool,
    has_ended: AtomicBool,
    /// Bytes of both directions that are passed on before all connections are cut.
    left: AtomicI64,
    streams: Mutex<Vec<TcpStream>>,
}

impl Line {
    pub fn to(target: SocketAddr) -> Line {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            target,
            is_open: AtomicBool::new(true),
            has_ended: AtomicBool::new(false),
            left: AtomicI64::new(i64::MAX),
            streams: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Line { address, shared }
    }

    /// Cuts all connections when this number of bytes has passed.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.left.store(bytes as i64, Ordering::SeqCst);
    }

    /// Cuts all connections, and accepts none.
    pub fn close(&self) {
        self.shared.is_open.store(false, Ordering::SeqCst);
        self.shared.cut();
    }

    pub fn open(&self) {
        self.shared.is_open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        self.shared.cut();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for (number, client) in listener.incoming().flatten().enumerate() {
            if self.has_ended.load(Ordering::SeqCst) {
                return;
            }
            if !self.is_open.load(Ordering::SeqCst) {
                continue;
            }
            let Ok(server) = TcpStream::connect(self.target) else { continue };
            for (from, to, number) in [(&client, &server, 2 * number), (&server, &client, 2 * number + 1)] {
                let _ = from.set_nodelay(true);
                let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                self.streams.lock().expect("streams").push(from.try_clone().expect("a socket"));
                let shared = Arc::clone(self);
                thread::spawn(move || {
                    shared.pass_on(from, to, Dice::new(self::seed(&shared), number as u64))
                });
            }
            // It may have been closed in between.
            if !self.is_open.load(Ordering::SeqCst) {
                self.cut();
            }
        }
    }

    /// One direction, with a pause now and then, so that the two directions are not in step.
    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream, mut dice: Dice) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            if dice.one_in(30) {
                thread::sleep(Duration::from_micros(dice.below(4000)));
            }
            let left = self.left.fetch_sub(len as i64, Ordering::SeqCst);
            if left < len as i64 {
                let _ = to.write_all(&buffer[..left.max(0) as usize]);
                self.left.store(i64::MAX, Ordering::SeqCst);
                self.cut();
                break;
            }
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn cut(&self) {
        for stream in self.streams.lock().expect("streams").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn seed(shared: &Shared) -> u64 {
    shared.target.port().into()
}
