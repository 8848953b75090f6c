//! A line between a client and a server that is cut, or stands still, at a chosen message.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The direction of messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// How much of the message is passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum At {
    Before,
    Within,
    After,
}

/// The message at which something happens: the `nth` with this name in it, from 1 on.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub way: Way,
    pub name: &'static str,
    pub nth: usize,
    pub at: At,
}

/// What happens there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The line is cut.
    Cut,
    /// Nothing is passed on any more, until [`Line::cut`].
    Hold,
}

/// A line; new connections are accepted for as long as the test runs.
pub struct Line {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    happened: Receiver<()>,
}

struct Shared {
    server: SocketAddr,
    plan: Mutex<Option<(Point, Event)>>,
    ends: Mutex<Vec<TcpStream>>,
    happens: Mutex<Sender<()>>,
}

impl Line {
    pub fn to(server: SocketAddr) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let address = listener.local_addr().expect("an address");
        let (happens, happened) = channel();
        let shared =
            Shared { server, plan: Mutex::default(), ends: Mutex::default(), happens: Mutex::new(happens) };
        let shared = Arc::new(shared);
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                _ = accepting.connect(client);
            }
        });
        Line { address, shared, happened }
    }

    /// From now on messages are counted.
    pub fn plan(&self, point: Point, event: Event) {
        *self.shared.plan.lock().unwrap() = Some((point, event));
    }

    /// Nothing happens any more.
    pub fn clear(&self) {
        *self.shared.plan.lock().unwrap() = None;
    }

    /// Waits until it has happened.
    pub fn wait(&self, what: &str) {
        let happened = self.happened.recv_timeout(Duration::from_secs(60));
        happened
            .unwrap_or_else(|error| panic!("{what}: {error}, still planned: {:?}", self.shared.plan.lock()));
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        for end in self.shared.ends.lock().unwrap().drain(..) {
            _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.server)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        self.ends.lock().unwrap().extend([client.try_clone()?, server.try_clone()?]);
        for (way, from, to) in [
            (Way::ToServer, client.try_clone()?, server.try_clone()?),
            (Way::ToClient, server.try_clone()?, client.try_clone()?),
        ] {
            let shared = Arc::clone(self);
            thread::spawn(move || {
                if let Err(false) = shared.pump(way, &from, &to) {
                    _ = from.shutdown(Shutdown::Both);
                    _ = to.shutdown(Shutdown::Both);
                }
            });
        }
        Ok(())
    }

    /// Passes messages on. The error: whether the line is held.
    fn pump(&self, way: Way, mut from: &TcpStream, mut to: &TcpStream) -> Result<(), bool> {
        let mut message = vec![0; 4];
        loop {
            message.resize(4, 0);
            from.read_exact(&mut message).map_err(|_| false)?;
            let len = u32::from_be_bytes([message[0], message[1], message[2], message[3]]) as usize;
            message.resize(4 + len, 0);
            from.read_exact(&mut message[4..]).map_err(|_| false)?;
            let Some((at, event)) = self.happens(way, &message) else {
                to.write_all(&message).map_err(|_| false)?;
                continue;
            };
            let passed = match at {
                At::Before => 0,
                At::Within => message.len() / 2,
                At::After => message.len(),
            };
            to.write_all(&message[..passed]).map_err(|_| false)?;
            _ = self.happens.lock().unwrap().send(());
            return Err(event == Event::Hold);
        }
    }

    fn happens(&self, way: Way, message: &[u8]) -> Option<(At, Event)> {
        let mut plan = self.plan.lock().unwrap();
        let (point, event) = plan.as_mut()?;
        let name = point.name.as_bytes();
        if point.way != way || !message.windows(name.len()).any(|window| window == name) {
            return None;
        }
        point.nth -= 1;
        let happens = (point.at, *event);
        if point.nth > 0 {
            return None;
        }
        *plan = None;
        Some(happens)
    }
}
