//! A connection that can be cut: a port that passes on what arrives, until it is closed.

use crate::client::Result;
use crate::servers::free_address;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

/// The port.
pub struct Proxy {
    pub address: String,
    target: String,
    open: Option<Open>,
}

struct Open {
    state: Arc<Mutex<State>>,
    acceptor: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    streams: Vec<TcpStream>,
    /// Times of all connections, in seconds since 1970.
    accepted: Vec<f64>,
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Proxy {
    /// A port for `target` that is open.
    pub fn open(target: &str) -> Result<Proxy> {
        let mut proxy = Proxy { address: free_address()?, target: target.into(), open: None };
        proxy.reopen()?;
        Ok(proxy)
    }

    /// Takes connections.
    pub fn reopen(&mut self) -> Result<()> {
        let listener = TcpListener::bind(&self.address).map_err(|e| format!("{}: {e}", self.address))?;
        let state = Arc::new(Mutex::new(State::default()));
        let (target, theirs) = (self.target.clone(), Arc::clone(&state));
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming().map_while(io::Result::ok) {
                if locked(&theirs).is_closed {
                    return;
                }
                // A connection that fails is closed, which its client sees.
                let _ = pass_on(client, &target, &theirs);
            }
        });
        self.open = Some(Open { state, acceptor });
        Ok(())
    }

    /// Ends all connections, and takes no more.
    pub fn close(&mut self) {
        let Some(Open { state, acceptor }) = self.open.take() else { return };
        for stream in {
            let mut state = locked(&state);
            state.is_closed = true;
            std::mem::take(&mut state.streams)
        } {
            // It may have ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the acceptor.
        let _ = TcpStream::connect(&self.address);
        let _ = acceptor.join();
    }

    /// When the last connection before the time `before` was made. Seconds since 1970.
    pub fn accepted_before(&self, before: f64) -> Option<f64> {
        let open = self.open.as_ref()?;
        locked(&open.state).accepted.iter().copied().rfind(|at| *at <= before)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
    }
}

fn pass_on(client: TcpStream, target: &str, state: &Mutex<State>) -> io::Result<()> {
    let at = now();
    let server = TcpStream::connect(target)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    {
        let mut state = locked(state);
        state.accepted.push(at);
        state.streams.extend([client.try_clone()?, server.try_clone()?]);
    }
    for (mut from, mut to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        std::thread::spawn(move || {
            // Either end may close it at any time.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}
