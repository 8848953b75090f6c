//! Addresses that come, change and go, certificates, and reloads while clients work.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{STORAGE, Site, reload_of};
use crate::limits::{client, commit_something, wait_until};
use crate::listeners::{connect, connect_unix, listen, register};
use crate::support::client::{Speaks, record};
use crate::support::process::free_address;
use crate::tls::identities::{Identity, Secured, params};

fn with(listeners: &str) -> String {
    format!("{STORAGE}\n{listeners}")
}

#[test]
fn addresses_come_and_go() {
    let site = Site::start("", STORAGE);
    let (more, path) = (free_address(), site.server.directory().join("clients"));
    let both = listen("more", more, "") + &listen("here", path.display(), "socket-mode 600");
    site.write("", &with(&both));
    let (code, said) = site.reload(&["--dry-run"]);
    assert_eq!(code, 0, "{said}");
    assert!(TcpStream::connect(more).is_err() && !path.exists(), "a dry run opens nothing");
    assert!(said.contains(&format!("  <listen more> has come: address {more}\n")), "{said}");
    assert_eq!(site.reload(&[]).0, 0);
    let mut remote = connect(more, Speaks::Z5);
    register(&mut remote, "1", false).expect("registered");
    let mut local = connect_unix(&path, Speaks::Z5);
    register(&mut local, "1", false).expect("registered");
    site.server.wait_for_log(&format!("listening on ('127.0.0.1', {}) (<listen more>)", more.port()));
    let listeners = site.status()["listeners"].as_array().expect("a list").len();

    let said = site.apply("", STORAGE);
    assert!(said.contains("  <listen more> has gone\n"), "{said}");
    assert!(said.contains(&format!("\nno longer listening on {more} (<listen more>)\n")), "{said}");
    assert!(
        said.contains("\nclients that stay, and could not connect now (zeoadmin kill ends them): "),
        "{said}"
    );
    assert_eq!(site.status()["listeners"].as_array().expect("a list").len(), listeners - 2);
    wait_until("nothing listens", || TcpStream::connect(more).is_err());
    assert!(UnixStream::connect(&path).is_err() && !path.exists());
    [&mut remote, &mut local].into_iter().for_each(commit_something);
    // Rules hold for them, too.
    site.apply("", &(STORAGE.to_string() + "\n<access>\nrule read everyone\n</access>"));
    let class = remote.call("new_oids", vec![crate::support::pickle::Value::Int(1)]).expect("connected");
    class.expect_err("it may only read");
    // The same address once more.
    site.apply("", &with(&both));
    let mut again = connect(more, Speaks::Z5);
    register(&mut again, "1", false).expect("registered");
}

/// The address of `<zeo>` is another one.
#[test]
fn a_server_moves() {
    let site = Site::start("", STORAGE);
    let old = site.server.address;
    let mut before = client(&site.server);
    let new = free_address();
    let text = fs::read_to_string(site.server.directory().join("zeo.conf")).expect("a file");
    site.write_raw(&text.replace(&old.to_string(), &new.to_string()));
    let (code, said) = site.reload(&[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("  <zeo> address: {old} -> {new}\n")), "{said}");
    commit_something(&mut before);
    wait_until("nothing listens", || TcpStream::connect(old).is_err());
    let mut after = connect(new, Speaks::Z5);
    register(&mut after, "1", false).expect("registered");
    commit_something(&mut after);
}

/// One address that cannot be had: none of the others comes, goes or changes.
#[test]
fn an_address_in_use_keeps_everything() {
    let gone = free_address();
    let site = Site::start("", &with(&listen("gone", gone, "")));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (new, taken) = (free_address(), taken.local_addr().expect("an address"));
    let missing = site.server.directory().join("missing/socket");
    for bad in [taken.to_string(), missing.display().to_string()] {
        let listeners = listen("new", new, "") + &listen("bad", &bad, "");
        site.write("max-connections 1", &with(&listeners));
        let (code, said) = site.reload(&[]);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("zeo.conf:"), "{said}");
        assert!(said.contains("<listen bad>: ") || said.contains("missing"), "{said}");
        wait_until("the new one is not there", || TcpStream::connect(new).is_err());
        let mut clients = [client(&site.server), connect(gone, Speaks::Z5)];
        register(&mut clients[1], "1", false).expect("registered");
        clients.iter_mut().for_each(commit_something);
    }
}

/// Other clients' certificates, by another content and another path, and no TLS any more.
#[test]
fn certificates_are_read_again() {
    let [first, second] = ["first", "second"].map(|name| Identity::self_signed(params(name)));
    let secured = Secured::start_with(&first.pem(), "admin-socket admin");
    let directory = secured.server.directory().to_path_buf();
    let configuration = directory.join("zeo.conf");
    let reload = || reload_of(&directory, &[]);
    wait_until("it serves", || reload().0 == 0);
    let mut before = secured.client(&first);
    assert!(secured.connect(&second, Speaks::Z5).is_err());
    fs::write(secured.file("clients.pem"), second.pem()).expect("written");
    assert_eq!(reload().0, 0);
    secured.client(&second);
    assert!(secured.connect(&first, Speaks::Z5).is_err());

    fs::write(secured.file("other.pem"), first.pem()).expect("written");
    let text = fs::read_to_string(&configuration).expect("a file");
    fs::write(&configuration, text.replace("clients.pem", "other.pem")).expect("written");
    let (code, said) = reload();
    assert!(code == 0 && said.contains("  <zeo> <ssl> authenticate: "), "{said}");
    secured.client(&first);
    assert!(secured.connect(&second, Speaks::Z5).is_err());
    // SIGUSR2 reads those that are in use now.
    fs::write(secured.file("other.pem"), second.pem()).expect("written");
    secured.reload("TLS: certificate of 'CN=server'");
    secured.client(&second);

    // A file that is no certificate changes nothing.
    fs::write(secured.file("other.pem"), "nonsense").expect("written");
    let (code, said) = reload();
    assert!(code == 4 && said.contains("other.pem"), "{said}");
    secured.client(&second);
    let without = text.lines().filter(|line| !line.contains("ssl>") && !line.contains(".pem"));
    fs::write(&configuration, without.collect::<Vec<_>>().join("\n") + "\n").expect("written");
    let (code, said) = reload();
    assert!(code == 0 && said.contains("  <zeo> <ssl> has gone ("), "{said}");
    let mut plain = client(&secured.server);
    [&mut before, &mut plain].into_iter().for_each(commit_something);
}

/// Not one call fails and no connection is lost while listeners, limits and rules change again and again.
#[test]
fn clients_that_work_notice_nothing() {
    let site = Site::start("", STORAGE);
    let more = free_address();
    let (is_over, commits) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for number in 0..4 {
            let (site, is_over, commits) = (&site, &is_over, &commits);
            scope.spawn(move || {
                let mut worker = client(&site.server);
                let oid = worker.new_oids(1).expect("oids")[0];
                let mut serial = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let data = record(&[number; 500]);
                    serial = worker.commit(&[(oid, serial, &data)]).expect("connected").expect("a commit");
                    let load = worker.queue_load(oid);
                    worker.flush().expect("connected");
                    worker.answer(load).expect("connected").expect("a record");
                    commits.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let variants = [
            ("max-connections 50", STORAGE.to_string()),
            ("transaction-timeout 30\nmax-undo-log 7", with(&listen("more", more, ""))),
            ("transaction-timeout 60", with(&listen("more", more, "read-only on"))),
            ("", with("<access>\nrule none 10.0.0.1\nrule all everyone\n</access>\n")),
        ];
        let mut longest = Duration::ZERO;
        for turn in 0..24 {
            let (zeo, sections) = &variants[turn % variants.len()];
            let begun = Instant::now();
            site.apply(zeo, sections);
            longest = longest.max(begun.elapsed());
        }
        is_over.store(true, Ordering::Relaxed);
        println!("24 reloads, the longest took {longest:?}");
    });
    assert!(commits.load(Ordering::Relaxed) > 24, "{commits:?}");
    assert_eq!(site.server.count_in_log("disconnected during"), 0);
    assert_eq!(site.server.count_in_log("ERROR"), 0, "{}", site.server.log());
}

#[test]
fn several_reloads_at_once() {
    let site = Site::start("", STORAGE);
    let more = free_address();
    for turn in 0..4 {
        site.write(
            "max-undo-log 7",
            &with(&if turn % 2 == 0 { listen("more", more, "") } else { String::new() }),
        );
        thread::scope(|scope| {
            let reloads: Vec<_> = (0..6).map(|_| scope.spawn(|| site.reload(&[]))).collect();
            let said: Vec<_> = reloads.into_iter().map(|reload| reload.join().expect("no panic")).collect();
            assert!(said.iter().all(|(code, _)| *code == 0), "{said:?}");
            let others =
                said.iter().filter(|(_, said)| said == "the configuration is the one that is in use\n");
            assert_eq!(others.count(), 5, "only the first finds changes: {said:?}");
        });
        wait_until("the listener is as configured", || TcpStream::connect(more).is_ok() == (turn % 2 == 0));
    }
}

/// Before the storages are open a reload is refused; when the server stops, it is refused or done, and never in the
/// way.
#[test]
fn reloads_at_the_start_and_the_stop() {
    let mut site = Site::start("", STORAGE);
    let directory = site.server.directory().to_path_buf();
    commit_something(&mut client(&site.server));
    site.server.stop();
    for _ in 0..3 {
        site.server.start_again();
        let mut outcomes = Vec::new();
        wait_until("it serves", || {
            outcomes.push(site.reload(&[]));
            outcomes.last().is_some_and(|(code, _)| *code == 0)
        });
        let early = ["is not ready", "does not serve yet", "os error"];
        for (code, said) in &outcomes {
            assert!(*code == 0 || early.iter().any(|part| said.contains(part)), "{said}");
        }
        let is_over = AtomicBool::new(false);
        let (stopped, outcomes) = thread::scope(|scope| {
            let reloading = scope.spawn(|| {
                let mut outcomes = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    outcomes.push(reload_of(&directory, &[]));
                }
                outcomes
            });
            thread::sleep(Duration::from_millis(50));
            site.server.signal("TERM");
            wait_until("it has ended", || reload_of(&directory, &[]).1.contains("os error"));
            is_over.store(true, Ordering::Relaxed);
            (site.server.count_in_log("panicked"), reloading.join().expect("no panic"))
        });
        assert_eq!(stopped, 0);
        assert!(outcomes.iter().all(|(code, _)| [0, 1].contains(code)), "{outcomes:?}");
        assert!(site.server.stop().success());
    }
}
