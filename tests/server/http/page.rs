//! The status page: whole HTML, whatever clients, paths and errors are called, of bounded length, with header fields
//! that let nothing else run. What a browser makes of it is tested in `compat-tests/browser`.

use std::thread;
use std::time::{Duration, Instant};

use super::{FILE, Served, ask};
use crate::commit_states::world::{SUBJECT, TXN, World};
use crate::support::client::{LATEST, Speaks, record};
use crate::support::pickle::{Value, id, text};
use runzeo::internal::server::http::page;
use runzeo::internal::server::status::slow::{SlowReport, StepReport, WaitedForReport};
use runzeo::internal::server::status::storage::StorageState;
use runzeo::internal::server::status::warnings::Warning;
use runzeo::internal::server::status::{Phase, ServerReport};

/// Text that would do harm as markup, that would reverse or hide the text after it, and that is no UTF-8.
const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt;\u{202e}\u{2066}\u{0}\u{1b}[2J\r\n\u{2028}-->]]>";
const INVALID: &[u8] = b"\xff\xfe<b>\xc3";

/// Elements without an end.
const VOID: [&str; 6] = ["meta", "link", "br", "path", "rect", "img"];

/// Checks that each element ends where it should, that attributes are in quotes, and that none has style or script.
/// Returns the text without markup.
fn text_of(page: &str) -> String {
    let body = page.strip_prefix("<!DOCTYPE html>\n").expect("the document type");
    let mut open: Vec<&str> = Vec::new();
    let mut text = String::new();
    let mut rest = body;
    while let Some((before, after)) = rest.split_once('<') {
        let is_raw = matches!(open.last(), Some(&("style" | "script")));
        if is_raw && !after.starts_with('/') {
            // A sign of JavaScript.
            rest = after;
            continue;
        }
        if !is_raw {
            assert!(!before.contains('>'), "{before}");
            text.push_str(before);
        }
        let (tag, after) = after.split_once('>').unwrap_or_else(|| panic!("no end: {after:.80}"));
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{}", &text[text.len().saturating_sub(300)..]);
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{tag}");
        assert_eq!(attributes.matches('"').count() % 2, 0, "{tag}");
        for (index, part) in attributes.split('"').enumerate().filter(|(index, _)| index % 2 == 0) {
            let names = part.split_whitespace().map(|name| name.trim_end_matches('='));
            for name in names.filter(|name| *name != "/") {
                assert!(!name.starts_with("on") && name != "style" && name != "src", "{index} {tag}");
                assert!(name.chars().all(|c| c.is_ascii_alphabetic() || "-/".contains(c)), "{tag}");
            }
        }
        if !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert_eq!((open, rest), (Vec::new(), "\n"));
    text
}

#[test]
fn the_page_is_sent_with_fields_that_let_nothing_else_run() {
    let served = Served::with("", &format!("{FILE}\n<mappingstorage 2>\n</mappingstorage>"));
    let answer = served.get("/");
    assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("text/html; charset=utf-8")));
    let policy = answer.field("Content-Security-Policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
    for (field, value) in [
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    ] {
        assert_eq!(answer.field(field), Some(value));
    }
    let text = text_of(&answer.body);
    for part in
        ["0 clients, 0 open transactions, nothing waits for locks", "writable", "Mapping Storage", "zeo.conf"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        !answer.body.contains("http://") || answer.body.matches("http://").count() == 1,
        "the name space of the icon"
    );
    let head = ask(served.address, "HEAD / HTTP/1.0\r\n\r\n");
    assert_eq!((head.status, &*head.body), (200, ""));
    assert_eq!(served.get("/?refresh").status, 200);
    assert_eq!(served.get("/index.html").status, 404);
}

/// Of everything that comes from outside.
#[test]
fn hostile_values_are_text() {
    let world = World::new(None, None);
    let mut client = world.client(Speaks::Z5);
    client.client.call("set_client_label", vec![text(HOSTILE)]).expect("an answer").expect("done");
    let mut old = world.client(Speaks::Z309);
    for (one, user) in [(&mut client, HOSTILE.as_bytes()), (&mut old, INVALID)] {
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
        let args =
            vec![Value::Int(TXN), bytes(user), bytes(user), Value::Dict(Vec::new()), Value::None, text(" ")];
        one.client.queue_async("tpc_begin", args);
        one.client.queue_store(SUBJECT, world.tid, &record(b"a state"), TXN);
    }
    client.call("ping", vec![]).expect("an answer");
    let vote = client.client.queue_call("vote", vec![Value::Int(TXN)]);
    client.client.flush().expect("sent");
    client.voted(vote).expect("a vote");
    old.client.queue_call("vote", vec![Value::Int(TXN)]);
    old.client.flush().expect("sent");
    world.wait_for_waiting(1);
    client.finish().expect("a finish");
    // Its conflict is noted.
    while ServerReport::of(&world.server).storages[0].conflicts.is_empty() {
        thread::sleep(Duration::from_millis(5));
    }

    let mut report = ServerReport::of(&world.server);
    let hostile = || HOSTILE.to_string();
    report.host = hostile();
    report.configuration = Some(hostile());
    let storage = &mut report.storages[0];
    storage.name = hostile();
    storage.storage = hostile();
    storage.failure = Some(hostile());
    storage.conflicts[0].class = Some(hostile());
    storage.conflicts[0].label = hostile();
    storage.clients[0].identity = Some(hostile());
    storage.slow_requests.push(SlowReport {
        time: report.time - 90.0,
        method: "vote",
        client: 7,
        label: hostile(),
        seconds: 12.5,
        steps: [("write", 0.5), ("locks", 12.0)].map(|(step, seconds)| StepReport { step, seconds }).into(),
        behind: Some(WaitedForReport { client: 8, label: Some(hostile()), oid: None }),
        oid: Some("0x1f".into()),
        tid: None,
        user: Some(hostile()),
        description: Some(hostile()),
    });
    report.warnings.push(Warning { what: hostile(), advice: hostile() });
    let page = page(&report);
    let text = text_of(&page);
    assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&gt;&lt;img src=x"), "{text}");
    assert!(text.contains("\\u{202e}\\u{2066}\\u{0}\\u{1b}[2J\\r\\n\\u{2028}--&gt;]]&gt;"), "{text}");
    assert!(text.contains("\u{fffd}\u{fffd}&lt;b&gt;\u{fffd}"), "invalid UTF-8: {text}");
    let is_active = |c: char| {
        c.is_control() || matches!(c, '\u{2028}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.chars().any(is_active), "{text:?}");
    assert_eq!(page.matches("<script").count(), 1, "its own");
    assert!(text.contains("90 s agovote12 slocks 12 s, write 0.5 s7 &lt;script&gt;"), "{text}");
}

#[test]
fn thousands_of_clients_make_a_page_of_bounded_length() {
    let world = World::new(None, None);
    let _client = world.client(Speaks::Z5);
    let mut report = ServerReport::of(&world.server);
    let one = report.storages[0].clients[0].clone();
    report.unregistered = vec![one.clone(); 5000];
    report.storages[0].clients = vec![one; 5000];
    let storage = report.storages[0].clone();
    report.storages = vec![storage; 300];
    let page = page(&report);
    let text = text_of(&page);
    assert!(page.len() < 1 << 20, "{}", page.len());
    assert!(
        text.contains("and 1,499,800 more") && text.contains("and 4,800 more"),
        "{}",
        &text[text.len() - 3000..]
    );
}

#[test]
fn what_the_server_does_is_said_first() {
    let headline = |report: &ServerReport| {
        let text = text_of(&page(report));
        let (_, from) = text.split_once("Pause").expect("the head");
        from.split("as of").next().expect("the line").to_string()
    };
    let world = World::new(None, None);
    let mut report = ServerReport::of(&world.server);
    report.warnings.clear();
    let said = headline(&report);
    assert!(
        said.starts_with("All is well1 client, 0 open transactions, nothing waits for locks; serving for "),
        "{said}"
    );
    report.storages[0].state = StorageState::Failed;
    assert!(headline(&report).starts_with("Storage 1 cannot be written"));
    assert!(page(&report).contains("<title>Storage 1 cannot be written – ZEO on "));
    report.phase = Phase::Stopping;
    assert!(headline(&report).starts_with("The server stops"));
    let opening = ServerReport::of_opening("opening 1: 43 % of Data.fs".into(), world.clock.system_time());
    let said = headline(&opening);
    assert_eq!(said, "The storages are being openedopening 1: 43 % of Data.fs; clients that connect wait.");
}

/// A sample every ten seconds: what has happened since the one before.
#[test]
fn the_last_hour_is_sampled() {
    let world = World::new(None, None);
    let history = || ServerReport::of(&world.server).storages[0].history.clone();
    world.clock.advance(Duration::from_secs(100));
    assert_eq!(history().times, [0; 0], "nobody asked for it");
    world.server.record_history();
    let wait_for = |count: usize| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while history().times.len() < count {
            assert!(Instant::now() < deadline, "{:?}", history());
            thread::sleep(Duration::from_millis(2));
        }
    };
    // The first look takes no sample; it is there after a second sample at the latest.
    let mut samples = 0;
    while samples == 0 {
        world.clock.advance(Duration::from_secs(10));
        thread::sleep(Duration::from_millis(20));
        samples = history().times.len();
    }
    let mut client = world.client(Speaks::Z5);
    let data = record(b"a state");
    let tid = client.client.commit(&[(SUBJECT, world.tid, &data)]).expect("connected").expect("a commit");
    client.client.commit(&[(SUBJECT, world.tid, &data)]).expect("connected").expect_err("a conflict");
    client.client.commit(&[(SUBJECT, tid, &data)]).expect("connected").expect("a commit");
    for _ in 0..30 {
        client.call("loadBefore", vec![id(SUBJECT), id(LATEST)]).expect("a load");
    }
    world.clock.advance(Duration::from_secs(10));
    wait_for(samples + 1);
    let seen = history();
    assert_eq!(seen.interval_seconds, 10);
    let last = |rates: &[f32]| rates.last().copied().expect("a sample");
    assert_eq!((last(&seen.loads), last(&seen.commits), last(&seen.conflicts)), (3.0, 0.2, 0.1));
    assert!(last(&seen.stored_bytes) > 2.0 * data.len() as f32 / 10.0);
    assert_eq!((seen.clients.last(), seen.waiting.last()), (Some(&2), Some(&0)));
    let lists = [seen.loads.len(), seen.stored_bytes.len(), seen.commits.len(), seen.conflicts.len()];
    assert_eq!((lists, seen.clients.len(), seen.waiting.len()), ([samples + 1; 4], samples + 1, samples + 1));
    assert!(page(&ServerReport::of(&world.server)).contains("Commits in the last hour: now 0.2/s"));
}
