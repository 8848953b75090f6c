//! `zeofs` on storages of running servers, of this program and of Python's: what it says of them is what it says of
//! their files, but for positions and lengths in the file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::files::{fixtures, made, zeofs};
use crate::servers::{AnyServer, PythonServer};
use crate::support::process::Server;

/// A server of copies of files, named 0, 1, ...
pub struct Serving {
    server: AnyServer,
    pub files: Vec<PathBuf>,
}

impl Serving {
    /// `environment`: of a Python; `None` is a server of this program. Returns `None` if there is no such Python.
    pub fn start(environment: Option<&str>, files: &[PathBuf]) -> Option<Serving> {
        let named = |number: usize| format!("{number}.fs");
        let sections: String = (0..files.len())
            .map(|number| format!("<filestorage {number}>\npath {}\n</filestorage>\n", named(number)))
            .collect();
        let put = |dir: &Path| {
            for (number, file) in files.iter().enumerate() {
                fs::copy(file, dir.join(named(number))).expect("it is copied");
            }
        };
        let server = match environment {
            None => AnyServer::Ours(Server::start_any("", &sections, put)),
            Some(environment) => AnyServer::Python(PythonServer::start_any(environment, "", &sections, put)?),
        };
        Some(Serving { server, files: files.to_vec() })
    }

    /// The address of a storage.
    pub fn url(&self, number: usize) -> String {
        format!("zeo://{}?storage={number}", self.server.address())
    }
}

/// The lines with `--json`, and the exit status.
fn json(arguments: &[&str]) -> (Vec<Value>, u8) {
    let (out, status) = zeofs(&[arguments, &["--json"]].concat());
    let text = String::from_utf8(out).expect("text");
    (text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), status)
}

/// Takes out what a server does not tell: where things are in its file, and how long transactions are in it.
fn without_places(lines: &mut [Value]) {
    for line in lines {
        let kind = line["kind"].as_str().unwrap_or_default().to_string();
        let Some(fields) = line.as_object_mut() else { continue };
        ["pos", "data_pos", "back", "in_use_by"].iter().for_each(|name| _ = fields.remove(*name));
        match &*kind {
            "transaction" => _ = fields.remove("len"),
            "sums" => _ = fields.remove("size"),
            _ => {}
        }
    }
}

/// What is said of a server, which is what is said of the file.
fn same(about: &str, command: &[&str], file: &str, url: &str, behind: &[&str]) -> Vec<Value> {
    let [(mut of_file, file_status), (mut of_server, server_status)] =
        [file, url].map(|name| json(&[command, &[name], behind].concat()));
    without_places(&mut of_file);
    // Not of the server: it has none of them.
    for line in of_server.iter_mut().filter(|line| line["kind"] == "sums") {
        line.as_object_mut().unwrap().retain(|name, _| name != "size" && name != "in_use_by");
    }
    let pairs = of_server.iter().zip(&of_file);
    for (of_server, of_file) in pairs {
        assert_eq!(of_server, of_file, "{about}: {command:?} {behind:?} {file}");
    }
    assert_eq!(of_server.len(), of_file.len(), "{about}: {command:?} {behind:?} {file}");
    assert_eq!(server_status, file_status, "{about}: {command:?} {behind:?} {file}");
    of_server
}

/// Commands with their options, of which one file or server is looked at.
const COMMANDS: &[&[&str]] = &[
    &["dump"],
    &["dump", "--refs"],
    &["dump", "--state"],
    &["dump", "-c", "persistent"],
    &["dump", "-o", "0"],
    &["tail"],
    &["tail", "-n", "2"],
    &["tail", "-n", "0"],
    &["refs"],
    &["trees"],
];

fn check(serving: &Serving, about: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut whole = 0;
    for (number, file) in serving.files.iter().enumerate() {
        let (file, url) = (file.to_str().unwrap(), serving.url(number));
        for command in COMMANDS {
            same(about, command, file, &url, &[]);
        }
        let all = same(about, &["dump"], file, &url, &[]);
        let tids: Vec<&str> = all
            .iter()
            .filter(|line| line["kind"] == "transaction")
            .map(|line| line["tid"].as_str().unwrap())
            .collect();
        let (since, until) = (tids[1.min(tids.len() - 1)], tids[tids.len() / 2]);
        for oid in ["0", "1", "9", "ffff"] {
            same(about, &["oid"], file, &url, &[oid]);
            same(about, &["oid", "--state"], file, &url, &[oid]);
        }
        let (lines, status) = json(&["diff", file, &url]);
        assert_eq!((lines.len(), status), (1, 0), "{about}: {file}: {lines:?}");

        // A server's extensions are pickled anew, so transactions may have some bytes more or less.
        let [of_file, of_server] = [file, &url].map(|name| {
            let (lines, _) = json(&["stats", name]);
            lines
                .into_iter()
                .filter(|line| line["kind"] == "class" || line["kind"] == "object")
                .collect::<Vec<_>>()
        });
        assert_eq!(of_server, of_file, "{about}: {file}");
        let copy = dir.path().join(format!("{number}.fs"));
        let copy = copy.to_str().unwrap();
        let blobs = dir.path().to_str().unwrap();
        let (_, status) = zeofs(&["copy", "--to-blob-dir", blobs, &url, copy]);
        // It has no blobs.
        let is_whole = status == 0;
        whole += usize::from(is_whole);
        for options in
            [&[][..], &["--since", since], &["--until", until], &["--since", since, "--until", until]]
        {
            same(about, &[&["dump"], options].concat()[..], file, &url, &[]);
            if is_whole {
                same(about, &[&["stats", "-n", "3"], options].concat(), copy, &url, &[]);
            }
        }
    }
    assert!(whole > 2, "{about}: {whole}");
}

/// The files of this magic.
fn files(magic: &[u8]) -> Vec<PathBuf> {
    let all = made().iter().flat_map(|made| made.files.clone());
    let all = all.chain(fixtures().into_iter().map(|(_, path)| path));
    all.filter(|path| fs::read(path).unwrap().starts_with(magic)).collect()
}

#[test]
fn a_server_has_what_its_file_has() {
    for (magic, servers) in [
        (b"FS30", [None, Some("zeo6-py311"), Some("zeo5-py38")]),
        (b"FS21", [None, Some("zeo4-py27"), Some("zodb39-py27")]),
    ] {
        for environment in servers {
            let Some(serving) = Serving::start(environment, &files(magic)) else { continue };
            check(&serving, environment.unwrap_or("ours"));
        }
    }
}

/// The program's output, what it says on stderr, and its exit status.
pub fn run(arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_zeofs")).args(arguments).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn words_for_people() {
    let Some(made) = made().first() else { return };
    let serving = Serving::start(None, &[made.file("small.fs")]).unwrap();
    let (file, url) = (made.file("small.fs"), serving.url(0));
    let len = fs::metadata(&file).unwrap().len();
    let last = json(&["tail", "-n", "1", file.to_str().unwrap()]).0[0]["tid"].as_str().unwrap().to_string();
    for command in ["dump", "tail", "stats", "refs", "trees", "oid"] {
        let arguments = [&[command, &url][..], if command == "oid" { &["1"] } else { &[] }].concat();
        let (text, error, status) = run(&arguments);
        assert_eq!((error.as_str(), status), ("", Some(0)), "{command}");
        let first = text.lines().next().unwrap();
        let bytes = format!("{},{:03}", len / 1000, len % 1000);
        assert!(
            first.starts_with(&format!("{url}: a server of protocol Z5, {bytes} bytes, up to 2026-")),
            "{first}"
        );
        assert!(first.ends_with(&last), "{first}");
        assert!(!text.contains(" at "), "{command}: {text}");
        if command == "stats" {
            continue;
        }
        // The rest is what is said of the file, without its places.
        let of_file = run(&[&[command, file.to_str().unwrap()][..], &arguments[2..]].concat()).0;
        let without =
            |text: &str| text.lines().skip(1).map(without_places_in_text).collect::<Vec<_>>().join("\n");
        assert_eq!(without(&text), without(&of_file), "{command}");
    }
    let (text, _, status) = run(&["diff", file.to_str().unwrap(), &url]);
    assert_eq!(status, Some(0));
    assert!(text.ends_with("\nthe same\n") && text.contains(&format!("only in {url} 0")), "{text}");
}

/// Without the words `at POSITION`, and what follows them of a transaction: its length.
fn without_places_in_text(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    while let Some(at) = words.iter().position(|word| *word == "at") {
        match words[at - 1] {
            "as" => _ = words.splice(at..at + 2, ["an", "earlier", "one"]),
            "those" => {
                words.drain(at - 1..at + 2);
                words[at - 2] = words[at - 2].trim_end_matches(',');
            }
            _ if words[at + 1].ends_with(',') => _ = words.drain(at - 1..at + 4),
            _ => _ = words.drain(at - 1..at + 2),
        }
    }
    words.join(" ")
}

#[test]
fn both_sides_of_a_diff_and_of_a_copy() {
    let Some(made) = made().first() else { return };
    let [small, unpacked] = ["small.fs", "unpacked.fs"].map(|name| made.file(name));
    let serving = Serving::start(None, &[small.clone(), unpacked.clone()]).unwrap();
    let [a, b] = [small.to_str().unwrap(), unpacked.to_str().unwrap()];
    let of = |a: &str, b: &str, options: &[&str]| {
        let (mut lines, status) = json(&[&["diff", a, b], options].concat());
        assert_eq!(status, 4);
        without_places(&mut lines);
        lines
    };
    for options in [&[][..], &["--objects"], &["-n", "1"]] {
        let expected = of(a, b, options);
        assert!(expected.len() > 2);
        assert_eq!(of(&serving.url(0), b, options), expected);
        assert_eq!(of(a, &serving.url(1), options), expected);
        assert_eq!(of(&serving.url(0), &serving.url(1), options), expected);
    }
    // Another server, and one with other transactions.
    let empty = Server::start();
    let url = format!("zeo://{}", empty.address);
    let (text, error, status) = run(&["copy", "--json", &serving.url(1), &url]);
    assert_eq!((error.as_str(), status), ("", Some(0)), "{text}");
    assert_eq!(json(&["diff", &url, &serving.url(1)]).1, 0);
    assert_eq!(json(&["diff", b, &url]).1, 0);
    let (_, error, status) = run(&["copy", &serving.url(0), &url]);
    assert!(status == Some(1) && error.contains("the histories differ"), "{error}");
}

#[test]
fn an_empty_storage() {
    let server = Server::start();
    let url = format!("zeo://{}?storage=1", server.address);
    for command in ["dump", "tail", "stats", "refs", "trees"] {
        let (text, error, status) = run(&[command, &url]);
        assert_eq!((error.as_str(), status), ("", Some(0)), "{command}");
        assert!(
            text.starts_with(&format!("{url}: a server of protocol Z5, 4 bytes, no transactions\n")),
            "{text}"
        );
    }
    assert_eq!(run(&["oid", &url, "0"]).2, Some(4));
}

#[test]
fn what_cannot_be_done_at_a_server_is_said() {
    let server = Server::start();
    let url = format!("zeo://{}", server.address);
    for arguments in [
        &["test", &url][..],
        &["pack-plan", &url],
        &["recover", &url, "New.fs"],
        &["fsdump", &url],
        &["fstail", &url],
        &["analyze", &url],
        &["fsrefs", &url],
        &["fsoids", &url, "1"],
        &["checkbtrees", &url],
    ] {
        let (text, error, status) = run(arguments);
        assert!(
            status == Some(1) && error.contains("is a server, and this looks at a file"),
            "{arguments:?} {error}"
        );
        assert_eq!(text, "", "{arguments:?}");
    }
    assert!(!Path::new("New.fs").exists());
    let address = server.address;
    for (url, expected, message) in [
        (format!("zeo://{address}?storage=other"), 1, "unknown storage"),
        (format!("zeo://{address}?password=x"), 2, "write a <zeoclient>"),
        (format!("zeo://{address}/main"), 2, "the name of the storage is not in the path"),
        ("zeo:///nonexistent/socket?wait_timeout=0".into(), 1, "zeo:///nonexistent/socket"),
    ] {
        for command in ["dump", "stats", "copy"] {
            let second = if command == "copy" { &["Other.fs"][..] } else { &[] };
            let url = format!("{url}{}wait_timeout=1", if url.contains('?') { "&" } else { "?" });
            let (_, error, status) = run(&[&[command, &url], second].concat());
            assert!(status == Some(expected) && error.contains(message), "{command} {url}: {error}");
        }
    }
    for environment in ["zodb38-py27"] {
        let Some(python) = PythonServer::start(environment, "", |_| ()) else { continue };
        let url = format!("zeo://{}", python.address);
        for command in ["dump", "tail", "stats"] {
            let (_, error, status) = run(&[command, &url]);
            assert!(status == Some(1) && error.contains("Servers since ZODB 3.9 do"), "{command}: {error}");
        }
    }
    // A storage that keeps no transactions.
    let memory =
        Server::start_any("", "%import tempstorage\n<temporarystorage 1>\n</temporarystorage>", |_| ());
    let (_, error, status) = run(&["dump", &format!("zeo://{}", memory.address)]);
    assert!(status == Some(1) && error.contains("of storages that keep them"), "{error}");
}

/// With a configuration, which has passwords and all else; and by a Unix socket.
#[test]
fn storages_of_a_configuration() {
    let Some(made) = made().first() else { return };
    let dir = tempfile::tempdir().unwrap();
    let passwords = dir.path().join("passwords");
    let made_them = Command::new(env!("CARGO_BIN_EXE_zeopasswd"))
        .args(["-f", passwords.to_str().unwrap(), "-p", "digest", "-r", "ZEO", "user", "secret"])
        .status();
    assert!(made_them.unwrap().success());
    let zeo = format!(
        "authentication-protocol digest\nauthentication-database {}\nauthentication-realm ZEO",
        passwords.display()
    );
    let storage = "<filestorage 1>\npath Data.fs\n</filestorage>";
    let file = made.file("small.fs");
    let put = |dir: &Path| _ = fs::copy(&file, dir.join("Data.fs")).unwrap();
    let server = Server::start_any(&zeo, storage, put);
    let client = |name: &str, password: &str| {
        let address = server.address;
        format!(
            "<zeoclient {name}>\nserver {address}\nusername user\npassword {password}\nrealm ZEO\n\
             wait-timeout 1\n</zeoclient>\n"
        )
    };
    let conf = dir.path().join("zeo.conf");
    let own = format!("<filestorage file>\npath {}\n</filestorage>\n", file.display());
    let text = format!(
        "<zeo>\naddress 1\n</zeo>\n{}{}{own}<mappingstorage memory>\n</mappingstorage>\n",
        client("served", "secret"),
        client("wrong", "other")
    );
    fs::write(&conf, text).unwrap();
    let conf = conf.to_str().unwrap();
    let path = file.to_str().unwrap();
    for command in ["dump", "tail", "refs", "trees"] {
        for name in ["served", "file"] {
            let (mut lines, status) = json(&[command, "-C", conf, name]);
            let (mut expected, _) = json(&[command, path]);
            [&mut lines, &mut expected].into_iter().for_each(|lines| without_places(lines));
            assert_eq!((lines, status), (expected, 0), "{command} {name}");
        }
    }
    assert_eq!(run(&["diff", "-C", conf, "served", "file"]).2, Some(0));
    assert_eq!(run(&["oid", "-C", conf, "served", "1"]).2, Some(0));
    assert_eq!(run(&["stats", "-C", conf, "served"]).2, Some(0));
    let (_, error, status) = run(&["dump", "-C", conf, "wrong"]);
    assert!(status == Some(1) && error.contains("password"), "{error}");
    let (_, error, status) = run(&["dump", "-C", conf, "memory"]);
    assert!(status == Some(1) && error.contains("neither a <zeoclient> nor a <filestorage>"), "{error}");
    let (_, error, status) = run(&["dump", &format!("zeo://{}?wait_timeout=1", server.address)]);
    assert!(status == Some(1) && error.contains("password"), "{error}");

    let socket = dir.path().join("socket");
    let served = dir.path().join("Data.fs");
    fs::copy(&file, &served).unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_runzeo"))
        .args(["-a", socket.to_str().unwrap(), "-f", served.to_str().unwrap()])
        .current_dir(dir.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (lines, status) = json(&["tail", "-n", "3", &format!("zeo://{}?storage=1", socket.display())]);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!((lines.len(), status), (3, 0));
}
