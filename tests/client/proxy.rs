//! A proxy between a client and a server, which delays, holds and cuts connections.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Listens until the end of the process; its connections are cut when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    latency: Duration,
    connections: Mutex<Vec<Connection>>,
    changed: Condvar,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// What the server sends is kept back.
    is_held: bool,
    /// Bytes that the server has sent while it was held.
    kept_back: usize,
    /// Bytes that the server has sent in all.
    sent: usize,
}

impl Proxy {
    /// In front of a server. `latency`: in each direction.
    pub fn start(server: SocketAddr, latency: Duration) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let shared =
            Arc::new(Shared { server, latency, connections: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.begin(client);
            }
        });
        Proxy { address, shared }
    }

    /// Number of connections so far.
    pub fn count(&self) -> usize {
        self.shared.lock().len()
    }

    /// What the server sends on a connection is kept back from now on.
    pub fn hold(&self, connection: usize) {
        self.shared.lock()[connection].is_held = true;
    }

    /// Waits until the server has sent something that is kept back.
    pub fn wait_until_kept_back(&self, connection: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut connections = self.shared.lock();
        while connections[connection].kept_back == 0 {
            assert!(Instant::now() < deadline, "the server has sent nothing on connection {connection}");
            let second = Duration::from_secs(1);
            connections = self.shared.changed.wait_timeout(connections, second).expect("a lock").0;
        }
    }

    /// Bytes that the server has sent on all connections but the first.
    pub fn sent_on_others(&self) -> usize {
        self.shared.lock().iter().skip(1).map(|connection| connection.sent).sum()
    }

    /// As [`Proxy::wait_until_kept_back`], for any of the connections that are held.
    pub fn wait_until_any_is_kept_back(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut connections = self.shared.lock();
        while connections.iter().all(|connection| connection.kept_back == 0) {
            assert!(
                Instant::now() < deadline,
                "the server has sent nothing on the connections that are held"
            );
            let second = Duration::from_secs(1);
            connections = self.shared.changed.wait_timeout(connections, second).expect("a lock").0;
        }
    }

    pub fn is_any_kept_back(&self) -> bool {
        self.shared.lock().iter().any(|connection| connection.kept_back > 0)
    }

    pub fn release(&self, connection: usize) {
        let mut connections = self.shared.lock();
        connections[connection].is_held = false;
        connections[connection].kept_back = 0;
        self.shared.changed.notify_all();
    }

    /// Ends a connection; what is kept back never arrives.
    pub fn cut(&self, connection: usize) {
        self.shared.lock()[connection].cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().iter().for_each(Connection::cut);
    }
}

impl Connection {
    fn cut(&self) {
        for stream in [&self.client, &self.server] {
            _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().expect("a lock")
    }

    fn begin(self: &Arc<Self>, client: TcpStream) {
        // A server that is gone: the client's connection ends.
        let Ok(server) = TcpStream::connect(self.server) else { return };
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("an option");
        }
        let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
        let index = {
            let mut connections = self.lock();
            let (client, server) = (copy(&client), copy(&server));
            connections.push(Connection { client, server, is_held: false, kept_back: 0, sent: 0 });
            connections.len() - 1
        };
        self.pass(copy(&client), copy(&server), None);
        self.pass(server, client, Some(index));
    }

    /// Passes on what arrives. `held`: the connection, if this direction can be held.
    fn pass(self: &Arc<Self>, mut from: TcpStream, mut to: TcpStream, held: Option<usize>) {
        let (queue, due) = mpsc::channel::<(Instant, Vec<u8>)>();
        let latency = self.latency;
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if queue.send((Instant::now() + latency, buffer[..count].to_vec())).is_err() {
                    return;
                }
            }
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            for (at, bytes) in due {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                if let Some(index) = held {
                    shared.wait_until_released(index, bytes.len());
                }
                if to.write_all(&bytes).is_err() {
                    return;
                }
            }
            _ = to.shutdown(Shutdown::Both);
        });
    }

    fn wait_until_released(&self, index: usize, len: usize) {
        let mut connections = self.lock();
        connections[index].sent += len;
        if connections[index].is_held {
            connections[index].kept_back += len;
            self.changed.notify_all();
        }
        while connections[index].is_held {
            connections = self.changed.wait(connections).expect("a lock");
        }
    }
}
