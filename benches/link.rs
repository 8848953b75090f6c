//! Loads over one link, by 1 and by 8 threads, beside a client that only sends and receives in one thread.
//!
//!     cargo bench --bench link

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::address::Address;
use runzeo::internal::base::cancel::Cancel;
use runzeo::internal::client::dial::{DialOptions, Dialled, dial};
use runzeo::internal::client::link::{EndCause, Link, LinkOptions, Receiver, start};
use runzeo::internal::net::stream::Sink;
use runzeo::internal::wire::answers::{FromServer, ServerPush};
use runzeo::internal::wire::calls::Call;
use runzeo::internal::wire::value::Value;

const OBJECTS: u64 = 1000;
const RECORD_LEN: usize = 1000;
/// Short slices in turn: on a busy machine neighbours meet the same conditions.
const SECONDS: f64 = 0.15;
const ROUNDS: usize = 25;
const LATEST: Tid = Tid(i64::MAX as u64);

struct Deaf;

impl Receiver for Deaf {
    fn push(&self, _: &Link, _: ServerPush<'_>) {}
    fn ended(&self, _: &Link, _: &EndCause) {}
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let binary = std::env::var_os("RUNZEO_BENCH_BINARY").unwrap_or(env!("CARGO_BIN_EXE_runzeo").into());
    let child = Command::new(binary)
        .args(["-a", &format!("127.0.0.1:{port}"), "-f", "Data.fs"])
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _server = Server(child.expect("the server starts"));
    while TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err() {
        thread::sleep(Duration::from_millis(10));
    }
    let address = Address::Tcp { host: Some("127.0.0.1".into()), port: Some(port) };
    fill(&link_to(&address));

    let mut measured: [Vec<f64>; 5] = Default::default();
    let link = link_to(&address);
    for _ in 0..ROUNDS {
        let slices =
            [raw(&address, 1), linked(&link, 1), raw(&address, 8), linked(&link, 8), started(&address)];
        measured.iter_mut().zip(slices).for_each(|(all, slice)| all.push(slice));
    }
    link.close();
    let [raw, one, raw_piped, eight, started] = &measured;
    let ratio =
        |of: &[f64], to: &[f64]| median(&of.iter().zip(to).map(|(of, to)| of / to).collect::<Vec<_>>());
    println!("loads/s, medians of {ROUNDS} slices, and their ratio to the raw client");
    println!("raw client                  {:8.0}", median(raw));
    println!("link, 1 thread              {:8.0}  {:.2}", median(one), ratio(one, raw));
    println!("link, 8 threads             {:8.0}  {:.2}", median(eight), ratio(eight, raw));
    println!("raw client, 8 outstanding   {:8.0}", median(raw_piped));
    println!("link, 8 started             {:8.0}  {:.2}", median(started), ratio(started, raw_piped));
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn dialled(address: &Address) -> Dialled {
    dial(address, &DialOptions::default(), &Cancel::default()).expect("connected")
}

fn link_to(address: &Address) -> Link {
    let link = start(dialled(address), Arc::new(Deaf), LinkOptions::default()).expect("threads");
    link.call(&Call::Register { storage: "1", read_only: false }, None, |answer| {
        answer.done().expect("registered");
    })
    .expect("a link");
    link
}

fn fill(link: &Link) {
    let done = |call: &Call<'_>| {
        link.call(call, None, |answer| answer.done().expect("done")).expect("a link");
    };
    let extension = Value::Dict(Vec::new());
    link.send(&Call::TpcBegin {
        txn: 1,
        user: b"",
        description: b"",
        extension: &extension,
        tid: None,
        status: ' ',
    });
    let data = vec![b'x'; RECORD_LEN];
    for oid in 0..OBJECTS {
        link.send(&Call::Store { oid: Oid(oid), serial: Tid(0), data: &data, txn: 1 });
    }
    done(&Call::Vote { txn: 1 });
    done(&Call::TpcFinish { txn: 1 });
    link.close();
}

fn oid(number: u64) -> Oid {
    Oid(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % OBJECTS)
}

/// `depth` loads outstanding, in one thread that sends and receives.
fn raw(address: &Address, depth: u64) -> f64 {
    let Dialled { stream, mut frames, wire, mut ids, .. } = dialled(address);
    let mut out = Vec::new();
    wire.put_call(ids.take(), &Call::Register { storage: "1", read_only: false }, &mut out);
    let mut wire = wire;
    let begun = Instant::now();
    let (mut sent, mut answered) = (0, 0u64);
    loop {
        if !out.is_empty() {
            assert_eq!(stream.send(&[IoSlice::new(&out)]).expect("sent"), out.len());
            out.clear();
        }
        let count = stream.recv(frames.spare().expect("memory")).expect("received");
        frames.filled(count);
        while let Some(frame) = frames.next().expect("a frame") {
            let FromServer::Reply { answer, .. } = wire.from_server(frame.payload).expect("a message") else {
                continue;
            };
            if answered == 0 {
                answer.done().expect("registered");
                wire = wire.of_first_reply(frame.payload);
            } else {
                assert_eq!(answer.loaded().expect("a revision").expect("a revision").data.len(), RECORD_LEN);
            }
            answered += 1;
            if begun.elapsed().as_secs_f64() > SECONDS {
                return answered as f64 / SECONDS;
            }
            while sent + 1 < answered + depth {
                wire.put_call(ids.take(), &Call::LoadBefore { oid: oid(sent), before: LATEST }, &mut out);
                sent += 1;
            }
        }
    }
}

/// Threads that load one object after the other.
fn linked(link: &Link, threads: u64) -> f64 {
    let count: u64 = thread::scope(|scope| {
        let all: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || load_in_turn(link, thread))).collect();
        all.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    count as f64 / SECONDS
}

/// The number of loads.
fn load_in_turn(link: &Link, thread: u64) -> u64 {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed().as_secs_f64() < SECONDS {
        let call = Call::LoadBefore { oid: oid(count * 8 + thread), before: LATEST };
        let data = link.call(&call, None, |answer| {
            answer.loaded().expect("a revision").expect("a revision").data.to_vec()
        });
        assert_eq!(data.expect("a link").len(), RECORD_LEN);
        count += 1;
    }
    count
}

/// One thread that keeps 8 loads outstanding.
fn started(address: &Address) -> f64 {
    let link = link_to(address);
    let (done, wait) = std::sync::mpsc::channel();
    let begun = Instant::now();
    let mut count = 0;
    let ask = |number: u64| {
        let done = done.clone();
        link.start(&Call::LoadBefore { oid: oid(number), before: LATEST }, move |_, answer| {
            // The last ones end with the link.
            if let Ok(answer) = answer {
                let data = answer.loaded().expect("a revision").expect("a revision").data.to_vec();
                let _ = done.send(data.len());
            }
        });
    };
    (0..8).for_each(ask);
    while begun.elapsed().as_secs_f64() < SECONDS {
        assert_eq!(wait.recv().expect("an answer"), RECORD_LEN);
        ask(8 + count);
        count += 1;
    }
    link.close();
    count as f64 / SECONDS
}
