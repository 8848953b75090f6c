//! `<zeoclient>` and `<clientstorage>`: every key in its field, the defaults, and what a library reads.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use runzeo::internal::base::address::Address;
use runzeo::internal::client::dial::Credentials;
use runzeo::internal::client::options::{ClientOptions, TlsOptions};
use runzeo::internal::config::{Invocation, StorageConfig, from_command_line};
use runzeo::internal::net::tls::{Files, HostCheck, Peers};

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp { host: Some(host.into()), port: Some(port) }
}

fn section(name: &str, keys: &str) -> String {
    format!("<{name}>\nserver root:8200\n{keys}\n</{name}>\n")
}

fn read(text: &str) -> ClientOptions {
    ClientOptions::from_zconfig(text).unwrap_or_else(|error| panic!("{text}{error}"))
}

fn refusal(text: &str) -> String {
    ClientOptions::from_zconfig(text).expect_err(text).to_string()
}

/// The options of the only storage of a server, and the warnings.
fn served(text: &str) -> (ClientOptions, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.conf");
    fs::write(&path, format!("%import ZEO\n<zeo>\naddress 1\n</zeo>\n{text}")).unwrap();
    match from_command_line("runzeo", &[OsString::from("-C"), path.into()], &|_| None) {
        Ok(Invocation::Serve(config)) => match &config.storages[0].storage {
            StorageConfig::Client(client) => (client.options.clone(), config.warnings),
            other => panic!("{other:?}"),
        },
        other => panic!("{text}{other:?}"),
    }
}

fn assert_options(found: &ClientOptions, expected: &ClientOptions) {
    assert_eq!(format!("{found:#?}"), format!("{expected:#?}"));
}

/// Both sections have all keys of both.
#[test]
fn every_key_in_both_sections() {
    let keys = "
        server /run/zeo.sock
        storage main
        cache-size 128MB
        client app
        var /var/cache
        name upstream
        client-label middle
        read-only-fallback on
        wait off
        wait-timeout 7
        min-disconnect-poll 2
        max-disconnect-poll 9
        username joe
        password secret
        realm office
        blob-dir blobs
        blob-cache-size 1GB
        blob-cache-size-check 25
        server-sync on
        drop-cache-rather-verify on
        <ssl>
          certificate client.pem
          key client.key
          authenticate ca.pem
          check-hostname off
          server-hostname zeo.example.com
        </ssl>";
    let mut expected = ClientOptions::new(vec![tcp("root", 8200), Address::Unix("/run/zeo.sock".into())]);
    expected.storage = "main".into();
    expected.cache_size = 128 << 20;
    expected.cache_path = Some("/var/cache/app-main.zec".into());
    expected.name = "upstream".into();
    expected.label = Some("middle".into());
    expected.read_only_fallback = true;
    expected.wait = false;
    expected.wait_timeout = Duration::from_secs(7);
    expected.disconnect_poll = (Duration::from_secs(2), Duration::from_secs(9));
    expected.credentials =
        Some(Credentials { username: "joe".into(), password: "secret".into(), realm: Some("office".into()) });
    expected.blob_dir = Some("blobs".into());
    expected.blob_cache_size = Some(1 << 30);
    expected.blob_cache_size_check = 25;
    expected.server_sync = true;
    expected.drop_cache_rather_verify = true;
    expected.tls = Some(TlsOptions {
        files: Files {
            certificate: "client.pem".into(),
            key: Some("client.key".into()),
            password: None,
            peers: Peers::Listed("ca.pem".into()),
        },
        host: HostCheck { is_off: true, host: Some("zeo.example.com".into()) },
    });
    for name in ["zeoclient", "clientstorage"] {
        let options = read(&section(name, keys));
        assert_options(&options, &expected);
        // `Debug` hides the password.
        assert!(options.credentials == expected.credentials);
        let (options, warnings) = served(&section(name, keys));
        assert_options(&options, &expected);
        assert!(warnings.is_empty(), "{warnings:?}");
        let others = section(name, "cache-path /x.zec\nread-only on\nblob-dir b\nshared-blob-dir on");
        let options = read(&others);
        assert_eq!(options.cache_path.as_deref(), Some(Path::new("/x.zec")));
        assert!(options.read_only && options.shared_blob_dir);
    }
}

#[test]
fn the_defaults_are_those_of_the_library() {
    for name in ["zeoclient", "clientstorage"] {
        assert_options(&read(&section(name, "")), &ClientOptions::new(vec![tcp("root", 8200)]));
    }
}

#[test]
fn a_poll_that_is_not_given_makes_room() {
    for (keys, min, max) in [
        ("max-disconnect-poll 2", 2, 2),
        ("min-disconnect-poll 600", 600, 600),
        ("min-disconnect-poll 1", 1, 300),
        ("max-disconnect-poll 20", 5, 20),
    ] {
        let options = read(&section("zeoclient", keys));
        assert_eq!(options.disconnect_poll, (Duration::from_secs(min), Duration::from_secs(max)), "{keys}");
    }
}

/// `var` without `client` is what Plone's recipe writes.
#[test]
fn var_alone_is_a_warning() {
    let (options, warnings) = served(&section("zeoclient", "var /var/cache"));
    assert_eq!(options.cache_path, None);
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].ends_with("zeo.conf:7: var has no effect without client: the cache is a temporary file")
    );
}

/// What `check` refuses is refused with the line of the key.
#[test]
fn options_that_exclude_each_other() {
    for (keys, line, reason) in [
        ("blob-dir", 3, "blob-dir: the path is empty"),
        ("cache-path x\nclient y", 4, "client names a cache file"),
        ("server ./zeo.sock\n<ssl>\ncertificate c\n</ssl>", 2, "server: a Unix socket has no host name"),
    ] {
        let message = refusal(&section("zeoclient", keys));
        assert!(message.starts_with(&format!("text:{line}: {reason}")), "{message}");
    }
}

/// What Python's client takes and does not use is taken, with a warning that has the line.
#[test]
fn keys_without_effect_are_named() {
    for (keys, line, warning) in [
        ("read-only on\nread-only-fallback on", 7, "read-only has no effect: read-only-fallback prevails"),
        ("min-disconnect-poll 2\nmax-disconnect-poll 1", 8, "max-disconnect-poll has no effect"),
        ("shared-blob-dir on", 7, "shared-blob-dir has no effect: there is no blob-dir"),
        ("blob-cache-size 1", 7, "blob-cache-size has no effect: there is no blob-dir"),
        ("blob-cache-size-check 5", 7, "blob-cache-size-check has no effect: there is no blob-cache-size"),
        ("blob-dir b\nshared-blob-dir on\nblob-cache-size 1", 9, "blob-cache-size has no effect: nothing is"),
    ] {
        let (_, warnings) = served(&section("zeoclient", keys).replace("<zeoclient>", "<zeoclient 1>"));
        assert!(
            warnings.iter().any(|found| found.contains(&format!(":{line}: {warning}"))),
            "{keys}: {warnings:?}"
        );
    }
}

/// A library has no lines.
#[test]
fn options_of_a_program_are_checked_too() {
    let fine = || ClientOptions::new(vec![tcp("root", 8200)]);
    assert_eq!(fine().check(), Ok(()));
    let refused = |change: fn(&mut ClientOptions)| {
        let mut options = fine();
        change(&mut options);
        options.check().expect_err("refused").to_string()
    };
    assert_eq!(refused(|options| options.addresses.clear()), "server: there is no address");
    let no_port = |options: &mut ClientOptions| {
        options.addresses.push(Address::Tcp { host: Some("other".into()), port: None });
    };
    assert_eq!(refused(no_port), "server: 'other' lacks a host or a port");
    let too_much = |options: &mut ClientOptions| options.blob_cache_size_check = 100;
    assert_eq!(refused(too_much), "blob-cache-size-check: it is not below 100 percent");
}

/// The one client in the file of an application is found, whatever else is in it.
#[test]
fn a_library_reads_the_file_of_an_application() {
    let client = section("zeoclient", "cache-size $size");
    let zope = format!(
        "%define size 64MB\n%import Products.TemporaryFolder\ninstancehome /srv/app\n<environment>\nX y\n</environment>\n\
         <zodb_db main>\nmount-point /\ncache-size 30000\n{client}</zodb_db>\n\
         <zodb_db temporary>\n<temporarystorage>\nname t\n</temporarystorage>\n</zodb_db>\n"
    );
    assert_eq!(read(&zope).cache_size, 64 << 20);
    let zodb = format!("<zodb>\n{}</zodb>\n", section("clientstorage", ""));
    assert_eq!(read(&zodb).addresses, [tcp("root", 8200)]);
    assert_eq!(
        refusal("<filestorage>\npath x\n</filestorage>\n"),
        "there is neither a <zeoclient> nor a <clientstorage> in it"
    );
    let two = section("zeoclient", "") + &section("clientstorage", "");
    assert_eq!(
        refusal(&two),
        "text:5: <clientstorage> is the second client (first at text:1): give one only"
    );
    assert_eq!(
        refusal(&section("zeoclient", "cache-siz 1")),
        "text:3: unknown key 'cache-siz' in <zeoclient>, did you mean 'cache-size'?"
    );
    assert_eq!(
        refusal("<zeoclient>\nname x\n</zeoclient>\n"),
        "text:1: <zeoclient> lacks the required key 'server'"
    );
    assert_eq!(refusal("<zeoclient>\nserver 1\n"), "text:1: <zeoclient> is not closed");
}

/// Two clients that wrote into one cache file would mix two databases.
#[test]
fn a_cache_belongs_to_one_client() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().display();
    fs::create_dir(directory.path().join("var")).unwrap();
    std::os::unix::fs::symlink("var", directory.path().join("link")).unwrap();
    let verdict = |storages: String| {
        let path = directory.path().join("zeo.conf");
        fs::write(&path, format!("<zeo>\naddress 1\n</zeo>\n{storages}")).unwrap();
        from_command_line("runzeo", &["-C".into(), path.into()], &|_| None).map_err(|error| error.to_string())
    };
    let client = |name: &str, keys: &str| format!("<zeoclient {name}>\nserver 8200\n{keys}\n</zeoclient>\n");
    let first = client("a", &format!("cache-path {dir}/var/c-1.zec"));
    for same in [format!("cache-path {dir}/link/c-1.zec"), format!("client c\nvar {dir}/link/")] {
        let alone = client("b", &same);
        let below = format!("<demostorage b>\n{}</demostorage>\n", client("", &same));
        for other in [alone, below] {
            let error = verdict(first.clone() + &other).unwrap_err();
            assert!(error.contains("storage 'b' has the cache file of storage 'a'"), "{error}");
            assert!(error.contains("zeo.conf:4)"), "{error}");
        }
    }
    verdict(first + &client("b", &format!("cache-path {dir}/var/c-2.zec"))).unwrap();
}

/// The directory of a client may be nobody else's, unless it is its server's.
#[test]
fn a_directory_of_loaded_blobs_belongs_to_one_client() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().display();
    let verdict = |storages: String| {
        let path = directory.path().join("zeo.conf");
        fs::write(&path, format!("<zeo>\naddress 1\n</zeo>\n{storages}")).unwrap();
        match from_command_line("runzeo", &["-C".into(), path.into()], &|_| None) {
            Ok(Invocation::Serve(config)) => Ok(config.warnings),
            Ok(_) => panic!("it is not served"),
            Err(error) => Err(error.to_string()),
        }
    };
    let client = |name: &str, keys: &str| {
        format!("<zeoclient {name}>\nserver 8200\nblob-dir {dir}/blobs\n{keys}\n</zeoclient>\n")
    };
    let file = format!("<filestorage f>\npath {dir}/f.fs\nblob-dir {dir}/blobs\n</filestorage>\n");
    let base = format!("<demostorage d>\n{}</demostorage>\n", client("", ""));
    for other in
        [client("b", ""), client("b", "read-only on"), client("b", "shared-blob-dir on"), file.clone(), base]
    {
        let error = verdict(client("a", "") + &other).unwrap_err();
        assert!(error.contains("each needs a directory of its own"), "{error}");
        assert!(error.contains("blobs of both may have the same name"), "{error}");
    }
    let reading = client("b", "shared-blob-dir on\nread-only on");
    assert_eq!(verdict(file + &reading), Ok(vec![]));
}
