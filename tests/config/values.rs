//! The result of a configuration: every key in its field, and the defaults.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runzeo::internal::backup::repository::Retention;
use runzeo::internal::base::address::Address;
use runzeo::internal::base::network::Networks;
use runzeo::internal::config::{
    AuditConfig, Config, FileStorageConfig, HttpConfig, Invocation, ListenerConfig, Location, NamedStorage,
    SendConfig, SocketGroup, StorageConfig, ZeoConfig, from_command_line,
};
use runzeo::internal::logging::{
    Destination, Encoding, FileSetup, HandlerSetup, Layout, LogSetup, Rotation, Style, SyslogAddress,
    SyslogSetup, When,
};
use runzeo::internal::server::audit::Event;
use runzeo::internal::server::hosted::HostedOptions;
use runzeo::internal::server::limits::Limits;
use runzeo::internal::server::pack_schedule::PackSchedule;
use runzeo::internal::server::rates::Rates;
use runzeo::internal::wire::protocol::Greeting;
use runzeo::storage::file::{FileStorageOptions, NewFileFormat};

const NO_ENVIRONMENT: &[(&str, &str)] = &[];

pub fn read(text: &str, more: &[&str], environment: &[(&str, &str)]) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.conf");
    fs::write(&path, text).unwrap();
    let mut arguments = vec![OsString::from("-C"), path.into()];
    arguments.extend(more.iter().map(OsString::from));
    let variable =
        |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
    let mut config = match from_command_line("runzeo", &arguments, &variable).unwrap() {
        Invocation::Serve(config) => *config,
        other => panic!("{other:?}"),
    };
    let listeners = config.zeo.listeners.iter_mut().map(|listener| &mut listener.location);
    for location in listeners {
        if let Location::File { path, .. } = location {
            *path = "zeo.conf".into();
        }
    }
    for storage in &mut config.storages {
        let StorageConfig::File(file) = &mut storage.storage else { continue };
        let schedule = file.pack_schedule.iter_mut().map(|(_, location)| location);
        for location in schedule.chain([&mut file.location]) {
            if let Location::File { path, .. } = location {
                *path = "zeo.conf".into();
            }
        }
    }
    config
}

fn tcp(host: Option<&str>, port: u16) -> Address {
    Address::Tcp { host: host.map(String::from), port: Some(port) }
}

/// An address with nothing of its own, from this line.
fn listener(address: Address, line: u32) -> ListenerConfig {
    ListenerConfig {
        section: None,
        address,
        socket_mode: None,
        socket_group: None,
        ssl: None,
        passwords: false,
        read_only: false,
        storages: None,
        allow: None,
        proxies: Networks::default(),
        connections: None,
        rates: Rates::default(),
        low_priority: false,
        location: Location::File { path: "zeo.conf".into(), line },
    }
}

fn layout(format: &str) -> Layout {
    Layout { format: format.into(), dateformat: "%Y-%m-%dT%H:%M:%S".into(), style: Style::Classic }
}

fn handler(destination: Destination) -> HandlerSetup {
    HandlerSetup {
        level: 0,
        layout: layout("------\n%(asctime)s %(levelname)s %(name)s %(message)s"),
        destination,
        encoding: Encoding::Utf8,
    }
}

fn syslog(level: u8, facility: &str, address: SyslogAddress) -> HandlerSetup {
    HandlerSetup {
        level,
        layout: layout("%(name)s %(message)s"),
        ..handler(Destination::Syslog(SyslogSetup { facility: facility.into(), address }))
    }
}

fn file_storage(name: &str, options: FileStorageOptions, line: u32) -> NamedStorage {
    let location = Location::File { path: "zeo.conf".into(), line };
    let file = FileStorageConfig { options, pack_schedule: None, scrub: None, location };
    NamedStorage { name: name.into(), storage: StorageConfig::File(file) }
}

/// Storages cannot be compared directly, because their options contain the disk.
fn assert_storages(config: &Config, expected: &[NamedStorage]) {
    assert_eq!(format!("{:#?}", config.storages), format!("{expected:#?}"));
}

#[test]
fn defaults() {
    let text = "<zeo>\naddress 8100\n</zeo>\n<filestorage>\npath Data.fs\n</filestorage>\n";
    let config = read(text, &[], NO_ENVIRONMENT);
    let expected = ZeoConfig {
        listeners: vec![listener(tcp(None, 8100), 2)],
        monitor_address: None,
        admin_socket: None,
        pid_filename: None,
        ssl: None,
        authentication: None,
        greeting: Greeting::new(false),
        hosted: HostedOptions {
            read_only: false,
            invalidation_queue_size: 100,
            invalidation_age: None,
            transaction_timeout: None,
            client_conflict_resolution: false,
            transaction_objects: Some(10_000_000),
        },
        limits: Limits::default(),
        conflict_resolver: None,
    };
    assert_eq!(config.zeo, expected);
    assert_storages(&config, &[file_storage("1", FileStorageOptions::new("Data.fs"), 4)]);
    assert_eq!(config.log, LogSetup::default());
    assert!(!config.exit_immediately);
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn every_key() {
    let text = "
        <zeo>
          address [::1]:8100
          read-only false
          invalidation-queue-size 1000
          invalidation-age 3600
          monitor-address localhost:8101
          admin-socket admin
          transaction-timeout 30
          pid-filename zeo.pid
          drop-cache-rather-verify yes
          msgpack on
          max-unregistered 50
          max-transaction-objects 7
        </zeo>
        <filestorage Main>
          path main.fs
          read-only on
          quota 1KB
          pack-gc off
          pack-keep-old off
          pack-refuse-large-removals on
          pack-max-rate 20MB
          new-file-format fs21
        </filestorage>
        <filestorage other>
          path other.fs
          blob-dir blobs
          create on
          pack-schedule Monthly 1 3:00
          pack-days 7
          scrub-schedule every 6h
          scrub-max-rate 5MB
        </filestorage>
        <backup>
          repository backups
          schedule weekly mon 4:30
          continuous 2m
          max-rate 1MB
          keep-last 1
          keep-daily 2
          keep-weekly 3
          keep-monthly 4
          command ssh elsewhere 'cat >$$HOME/backup'
          command-timeout 90
        </backup>
        <audit>
          path audit.log
          events commit  refused
          max-size 1MB
          old-files 4
        </audit>
        <http>
          address run/http
          socket-mode 620
        </http>
        <eventlog>
          level debug
          <logfile>
            path STDERR
          </logfile>
          <logfile>
            path zeo.log
            level trace
            format {message}
            style format
            dateformat %H
            arbitrary-fields true
            when w6
            interval 2
            old-files 3
            delay yes
            encoding latin-1
          </logfile>
          <syslog>
            facility LOCAL1
            address /dev/log
            level error
          </syslog>
          <syslog>
          </syslog>
          <syslog>
            address 1514
          </syslog>
        </eventlog>";
    let config = read(text, &["--test"], NO_ENVIRONMENT);
    let expected = ZeoConfig {
        listeners: vec![listener(tcp(Some("::1"), 8100), 3)],
        monitor_address: Some(tcp(Some("localhost"), 8101)),
        admin_socket: Some("admin".into()),
        pid_filename: Some("zeo.pid".into()),
        ssl: None,
        authentication: None,
        greeting: Greeting::new(true),
        hosted: HostedOptions {
            read_only: false,
            invalidation_queue_size: 1000,
            invalidation_age: Some(Duration::from_secs(3600)),
            transaction_timeout: Some(Duration::from_secs(30)),
            client_conflict_resolution: false,
            transaction_objects: Some(7),
        },
        limits: Limits { unregistered: 50, transaction_objects: Some(7), ..Limits::default() },
        conflict_resolver: None,
    };
    assert_eq!(config.zeo, expected);
    assert!(config.exit_immediately);
    let main = FileStorageOptions {
        read_only: true,
        quota: Some(1024),
        pack_gc: false,
        pack_keep_old: false,
        pack_refuse_large_removals: true,
        pack_max_rate: Some(20 << 20),
        new_file_format: NewFileFormat::FS21,
        ..FileStorageOptions::new("main.fs")
    };
    let other = FileStorageOptions {
        blob_dir: Some("blobs".into()),
        create: true,
        ..FileStorageOptions::new("other.fs")
    };
    let mut other = file_storage("other", other, 26);
    if let StorageConfig::File(file) = &mut other.storage {
        let plan = PackSchedule { schedule: "monthly 1 03:00".parse().unwrap(), days: 7 };
        let StorageConfig::File(read) = &config.storages[1].storage else { panic!("a file") };
        let scrub = read.scrub.expect("a schedule");
        assert_eq!((scrub.schedule.to_string(), scrub.rate_max), ("every 6h".into(), 5 << 20));
        file.scrub = Some(scrub);
        file.pack_schedule = Some((plan, Location::File { path: "zeo.conf".into(), line: 30 }));
    }
    assert_storages(&config, &[file_storage("main", main, 16), other]);
    let file = FileSetup {
        path: "audit.log".into(),
        rotation: Rotation::Size { max_size: 1 << 20, old_files: 4 },
        delay: false,
    };
    let events = [Event::Commit, Event::Refused].into();
    assert_eq!(config.audit, Some(AuditConfig { file, events }));
    let address = Address::Unix("run/http".into());
    assert_eq!(
        config.http,
        Some(HttpConfig { address, socket_mode: Some(0o620), allow: None, hosts: Vec::new(), ssl: None })
    );
    let [backup] = &config.backups[..] else { panic!("{:?}", config.backups) };
    assert_eq!(backup.repository, Path::new("backups"));
    assert_eq!(backup.schedule, Some("weekly mon 04:30".parse().unwrap()));
    assert_eq!((backup.continuous, backup.rate_max), (Some(Duration::from_secs(120)), Some(1 << 20)));
    assert_eq!(backup.retention, Some(Retention { last: 1, daily: 2, weekly: 3, monthly: 4 }));
    let command = "ssh elsewhere 'cat >$HOME/backup'".into();
    assert_eq!(backup.send, Some(SendConfig { command, timeout: Duration::from_secs(90) }));
    let file = FileSetup {
        path: "zeo.log".into(),
        rotation: Rotation::Time { when: When::Weekday(6), interval: 2, old_files: 3 },
        delay: true,
    };
    let localhost = |port| SyslogAddress::Udp { host: "localhost".into(), port };
    let handlers = vec![
        handler(Destination::Stderr),
        HandlerSetup {
            level: 5,
            layout: Layout { format: "{message}".into(), dateformat: "%H".into(), style: Style::Format },
            destination: Destination::File(file),
            encoding: Encoding::Latin1,
        },
        syslog(40, "local1", SyslogAddress::Unix("/dev/log".into())),
        syslog(0, "user", localhost(514)),
        syslog(0, "user", localhost(1514)),
    ];
    assert_eq!(config.log, LogSetup { level: 10, handlers, configured: true });
}

const LISTENERS: &str = "
        <zeo>
          address 8100
          address [::1]:8101
          address ./zeo.sock
          socket-mode 660
          socket-group 77
          allow 10.0.0.0/8 ::1
          proxy-protocol 10.0.0.9
          authentication-protocol digest
          authentication-database passwords
          max-connections 100
        </zeo>
        <listen Plain>
          address 8102
          authentication none
          read-only on
          storages B a
          allow 192.168.0.0/16
          proxy-protocol ::2
          max-connections 5
        </listen>
        <listen as-zeo>
          address 8103
          authentication passwords
          read-only off
          max-connections none
        </listen>
        <listen local>
          address ./local.sock
          authentication none
          socket-mode 600
          socket-group 78
        </listen>
        <mappingstorage a>
        </mappingstorage>
        <mappingstorage b>
        </mappingstorage>";

/// What a `<listen>` section does not say, `<zeo>` says.
#[test]
fn listeners() {
    let networks = |text: &str| text.parse::<Networks>().unwrap();
    let group = |id: u32| Some(SocketGroup { name: id.to_string(), id });
    let of_zeo = |address, line| ListenerConfig {
        passwords: true,
        allow: Some(networks("10.0.0.0/8 ::1")),
        proxies: networks("10.0.0.9"),
        ..listener(address, line)
    };
    let unix = |path: &str, line| ListenerConfig {
        passwords: true,
        socket_mode: Some(0o660),
        socket_group: group(77),
        ..listener(Address::Unix(path.into()), line)
    };
    let expected = [
        of_zeo(tcp(None, 8100), 3),
        of_zeo(tcp(Some("::1"), 8101), 4),
        unix("./zeo.sock", 5),
        ListenerConfig {
            section: Some("<listen plain>".into()),
            passwords: false,
            read_only: true,
            storages: Some(vec!["b".into(), "a".into()]),
            allow: Some(networks("192.168.0.0/16")),
            proxies: networks("::2"),
            connections: Some(5),
            ..of_zeo(tcp(None, 8102), 15)
        },
        ListenerConfig { section: Some("<listen as-zeo>".into()), ..of_zeo(tcp(None, 8103), 24) },
        ListenerConfig {
            section: Some("<listen local>".into()),
            passwords: false,
            socket_mode: Some(0o600),
            socket_group: group(78),
            ..unix("./local.sock", 30)
        },
    ];
    let config = read(LISTENERS, &[], NO_ENVIRONMENT);
    assert_eq!(config.zeo.listeners, expected);
    assert_eq!(config.zeo.limits.connections, Some(100));
    assert_eq!(config.warnings, [""; 0]);
    let names: Vec<_> = config.zeo.listeners.iter().map(|listener| listener.name()).collect();
    assert_eq!(names, [None, None, None, Some("plain"), Some("as-zeo"), Some("local")]);
    let replaced = read(&LISTENERS.replace("socket", "#"), &["-a", "9000"], NO_ENVIRONMENT);
    let location = Location::CommandLine;
    assert_eq!(
        replaced.zeo.listeners,
        [ListenerConfig { location, ..of_zeo(tcp(None, 9000), 0) }],
        "-a replaces all addresses"
    );
    let [warning] = &replaced.warnings[..] else { panic!("{:?}", replaced.warnings) };
    assert!(
        warning.starts_with("-a replaces all addresses: those of the <listen> sections (3, "),
        "{warning}"
    );
}

/// The `<ssl>` of `<zeo>`, one of its own, or none.
#[test]
fn certificates_of_listeners() {
    let own = |name: &str| format!("<ssl>\ncertificate {name}.pem\nauthenticate SIGNED\n</ssl>\n");
    let listen =
        |name: &str, port: u16, more: &str| format!("<listen {name}>\naddress {port}\n{more}\n</listen>\n");
    let text = format!(
        "<zeo>\naddress 1\n{}</zeo>\n{}{}{}{}<mappingstorage>\n</mappingstorage>\n",
        own("zeo"),
        listen("a", 2, ""),
        listen("b", 3, "ssl yes"),
        listen("c", 4, "ssl no"),
        listen("d", 5, &own("d")),
    );
    let config = read(&text, &[], NO_ENVIRONMENT);
    let certificate = |listener: &ListenerConfig| {
        listener.ssl.as_ref().map(|ssl| ssl.files.certificate.display().to_string())
    };
    let certificates: Vec<_> = config.zeo.listeners.iter().map(certificate).collect();
    let [zeo, d] = ["zeo.pem", "d.pem"].map(|name| Some(name.to_string()));
    assert_eq!(certificates, [zeo.clone(), zeo.clone(), zeo, None, d]);
}

#[test]
fn environment() {
    let text = "<zeo>\naddress 1\n%s</zeo>\n<filestorage>\npath Data.fs\n</filestorage>\n";
    let set = [
        ("ZEO_MSGPACK", "1"),
        ("INSTANCE_HOME", "/instance"),
        ("ZEO_SERVER_PROTOCOL", "Z4"),
        ("ZEO_MTACCEPTOR", "1"),
    ];
    let config = read(&text.replace("%s", ""), &[], &set[..1]);
    assert!(config.zeo.greeting.msgpack);
    let config = read(&text.replace("%s", ""), &[], &set);
    assert_eq!(config.zeo.greeting, Greeting::from_env("Z4", true).unwrap());
    assert_eq!(config.zeo.pid_filename, Some(PathBuf::from("/instance/var/ZEO.pid")));
    assert_eq!(config.warnings.len(), 1);
    let config = read(&text.replace("%s", "msgpack off\nread-only on\n"), &[], &set);
    assert!(!config.zeo.greeting.msgpack, "the file wins");
    assert_eq!(config.zeo.pid_filename, None, "a read-only server writes none");
    let empty = set.map(|(name, _)| (name, ""));
    let config = read(&text.replace("%s", ""), &[], &empty);
    assert_eq!(config.zeo.greeting, Greeting::new(false));
    assert_eq!((config.zeo.pid_filename, config.warnings.len()), (None, 0));
}

/// The second of two sections with one file was refused with "is another server running?".
#[test]
fn a_file_belongs_to_one_storage() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().display();
    fs::create_dir(directory.path().join("var")).unwrap();
    std::os::unix::fs::symlink("var", directory.path().join("link")).unwrap();
    let verdict = |storages: &str| {
        let path = directory.path().join("zeo.conf");
        fs::write(&path, format!("<zeo>\naddress 1\n</zeo>\n{storages}")).unwrap();
        from_command_line("runzeo", &["-C".into(), path.into()], &|_| None)
    };
    let file = |name: &str, path: &str, more: &str| {
        format!("<filestorage {name}>\npath {dir}/{path}\n{more}\n</filestorage>\n")
    };
    for same in ["var/Data.fs", "./var/../var/Data.fs", "link/Data.fs"] {
        for exists in [false, true] {
            if exists {
                fs::write(directory.path().join("var/Data.fs"), "FS30").unwrap();
            }
            let two = file("a", "var/Data.fs", "") + &file("b", same, "");
            let error = verdict(&two).unwrap_err().to_string();
            assert!(error.contains("zeo.conf:8: storage 'b' has the file of storage 'a'"), "{error}");
            assert!(error.contains("zeo.conf:4)"), "{error}");
        }
        fs::remove_file(directory.path().join("var/Data.fs")).unwrap();
    }
    let below = format!("<demostorage b>\n{}</demostorage>\n", file("", "link/Data.fs", ""));
    assert!(verdict(&(file("a", "var/Data.fs", "") + &below)).is_err());
    for fine in [file("b", "var/Other.fs", ""), file("b", "var/Data.fs", "read-only true")] {
        verdict(&(file("a", "var/Data.fs", "") + &fine)).unwrap();
    }
}

/// A pack of one removed blobs of the other. A file that two storages share was refused already.
#[test]
fn a_blob_directory_belongs_to_one_storage_that_stores() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().display();
    fs::create_dir(directory.path().join("var")).unwrap();
    std::os::unix::fs::symlink("var", directory.path().join("link")).unwrap();
    let verdict = |storages: String| {
        let path = directory.path().join("zeo.conf");
        fs::write(&path, format!("%import zc.beforestorage\n<zeo>\naddress 1\n</zeo>\n{storages}")).unwrap();
        match from_command_line("runzeo", &["-C".into(), path.into()], &|_| None) {
            Ok(Invocation::Serve(config)) => Ok(config),
            Ok(_) => panic!("it is not served"),
            Err(error) => Err(error.to_string()),
        }
    };
    let file = |name: &str, blobs: &str, more: &str| {
        let path = format!("{dir}/Data-{name}.fs");
        format!("<filestorage {name}>\npath {path}\nblob-dir {dir}/{blobs}\n{more}\n</filestorage>\n")
    };
    let blobs = |name: &str, blobs: &str, inside: &str| {
        format!("<blobstorage {name}>\nblob-dir {dir}/{blobs}\n{inside}</blobstorage>\n")
    };
    let mapping = "<mappingstorage>\n</mappingstorage>\n";
    for exists in [false, true] {
        if exists {
            fs::create_dir(directory.path().join("var/blobs")).unwrap();
        }
        let spellings = ["var/blobs", "./var/../var/blobs", "link/blobs", "var/blobs/", "link/blobs/."];
        for same in spellings.into_iter().take(if exists { 5 } else { 3 }) {
            let changes = format!("path {dir}/D.fs\nblob-dir {dir}/{same}\n");
            let changes = format!("<filestorage changes>\n{changes}</filestorage>\n");
            let demo = format!("<demostorage b>\n{changes}</demostorage>\n");
            for other in [file("b", same, ""), blobs("b", same, mapping), demo] {
                let error = verdict(file("a", "var/blobs", "") + &other).unwrap_err();
                assert!(error.contains("storage 'b' has the blob-dir of storage 'a'"), "{same}: {error}");
                assert!(error.contains("zeo.conf:5)") && error.contains(&format!("{dir}/{same}")), "{error}");
            }
        }
        for fine in [file("b", "var/others", ""), file("b", "link/blobs", "read-only true")] {
            let config = verdict(file("a", "var/blobs", "") + &fine).unwrap();
            assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        }
        // The base of a demo and what is before now are never stored to, but what they show may be removed.
        let base = format!("<demostorage b>\n{}</demostorage>\n", file("", "link/blobs", ""));
        let before = format!("<before b>\nbefore now\n{}</before>\n", file("", "var/blobs", ""));
        for doubtful in [base, before] {
            let config = verdict(file("a", "var/blobs", "") + &doubtful).unwrap();
            assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
            assert!(config.warnings[0].contains("storage 'b' has the blob-dir of storage 'a'"));
        }
    }
}

fn refusal(text: &str, environment: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.conf");
    fs::write(&path, text).unwrap();
    let variable =
        |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
    let answer = from_command_line("runzeo", &["-C".into(), path.into()], &variable);
    answer.expect_err(text).message.replace(&format!("{}/", directory.path().display()), "")
}

/// `--check` passed these, and then the server refused them when it opened log, storages and sockets.
#[test]
fn what_a_server_would_refuse_is_refused_by_the_check() {
    let zeo = "%import tempstorage\n%import zc.beforestorage\n<zeo>\naddress 1\n</zeo>\n";
    let blobs = |inside: &str| format!("{zeo}<blobstorage>\nblob-dir b\n{inside}\n</blobstorage>\n");
    let file = "<filestorage>\npath Data.fs\n</filestorage>\n";
    for (inside, expected) in [
        (file.replace("path", "blob-dir c\npath"), "the <filestorage> in it has a blob-dir of its own"),
        (
            "<temporarystorage>\n</temporarystorage>".into(),
            "the <temporarystorage> in it does not support blobs",
        ),
        (format!("<before>\n{file}</before>"), "the <before> storage in it is never written"),
        (
            format!("<blobstorage>\nblob-dir c\n{file}</blobstorage>"),
            "the storage in it is a <blobstorage> already",
        ),
        (
            "<demostorage>\n<temporarystorage changes>\n</temporarystorage>\n</demostorage>".into(),
            "the <temporarystorage> in it does not support blobs",
        ),
    ] {
        let expected = format!("zeo.conf:6: <blobstorage> with blob-dir b: {expected}");
        assert_eq!(refusal(&blobs(&inside), NO_ENVIRONMENT), expected);
    }
    let both = format!("{zeo}{}", file.replace("path", "create on\nread-only on\npath"));
    assert_eq!(refusal(&both, NO_ENVIRONMENT), "zeo.conf:6: <filestorage>: can't create a read-only file");
    assert_eq!(
        refusal(&format!("{zeo}{file}"), &[("ZEO_SERVER_PROTOCOL", "Z7")]),
        "ZEO_SERVER_PROTOCOL: no such protocol: 'Z7'"
    );
    let fields = "<eventlog>\n<logfile>\npath STDERR\narbitrary-fields on\nformat {user}\nstyle format\n</logfile>\n</eventlog>";
    let unknown = format!("{zeo}{file}{fields}\n");
    assert_eq!(
        refusal(&unknown, NO_ENVIRONMENT),
        "zeo.conf:13: format: there is no field 'user' in a log record"
    );
}
