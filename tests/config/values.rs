//! What a configuration becomes: every key at its place in the structs, and the defaults.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use runzeo::base::address::Address;
use runzeo::config::{
    Config, EventLogConfig, FileStorageConfig, FormatStyle, HandlerConfig, Invocation, LineLayout, Location,
    LogEncoding, LogFileConfig, LogTarget, NamedStorage, NewFileFormat, RotateWhen, Rotation, StorageConfig,
    SyslogConfig, ZeoConfig, from_command_line,
};
use runzeo::server::limits::Limits;

const NO_ENVIRONMENT: &[(&str, &str)] = &[];

fn read(text: &str, more: &[&str], environment: &[(&str, &str)]) -> Config {
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
    for storage in &mut config.storages {
        let StorageConfig::File(file) = &mut storage.storage else { continue };
        if let Location::File { path, .. } = &mut file.location {
            *path = "zeo.conf".into();
        }
    }
    config
}

fn tcp(host: Option<&str>, port: u16) -> Address {
    Address::Tcp { host: host.map(String::from), port: Some(port) }
}

fn layout(format: &str) -> LineLayout {
    LineLayout {
        format: format.into(),
        dateformat: "%Y-%m-%dT%H:%M:%S".into(),
        style: FormatStyle::Classic,
        arbitrary_fields: false,
    }
}

fn log_file(target: LogTarget) -> LogFileConfig {
    LogFileConfig {
        target,
        level: 0,
        layout: layout("------\n%(asctime)s %(levelname)s %(name)s %(message)s"),
        rotation: Rotation::Never,
        delay: false,
        encoding: LogEncoding::Utf8,
    }
}

#[test]
fn defaults() {
    let text = "<zeo>\naddress 8100\n</zeo>\n<filestorage>\npath Data.fs\n</filestorage>\n";
    let expected = Config {
        zeo: ZeoConfig {
            address: tcp(None, 8100),
            read_only: false,
            invalidation_queue_size: 100,
            invalidation_age: None,
            transaction_timeout: None,
            pid_filename: None,
            client_conflict_resolution: false,
            conflict_resolver: None,
            msgpack: false,
            monitor_address: None,
            authentication: None,
            ssl: None,
            socket_mode: None,
            limits: Limits::default(),
            announced_protocol: None,
        },
        storages: vec![NamedStorage {
            name: "1".into(),
            storage: StorageConfig::File(FileStorageConfig {
                path: "Data.fs".into(),
                blob_dir: None,
                create: false,
                read_only: false,
                quota: None,
                pack_gc: true,
                pack_keep_old: true,
                pack_refuse_large_removals: false,
                new_file_format: NewFileFormat::Auto,
                location: Location::File { path: "zeo.conf".into(), line: 4 },
            }),
        }],
        eventlog: None,
        exit_immediately: false,
        warnings: vec![],
    };
    assert_eq!(read(text, &[], NO_ENVIRONMENT), expected);
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
          transaction-timeout 30
          pid-filename zeo.pid
          drop-cache-rather-verify yes
          msgpack on
          max-unregistered 50
        </zeo>
        <filestorage Main>
          path main.fs
          create on
          read-only on
          quota 1KB
          pack-gc off
          pack-keep-old off
          pack-refuse-large-removals on
          new-file-format fs21
        </filestorage>
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
        </eventlog>";
    let config = read(text, &["--test"], NO_ENVIRONMENT);
    let expected_zeo = ZeoConfig {
        address: tcp(Some("::1"), 8100),
        read_only: false,
        invalidation_queue_size: 1000,
        invalidation_age: Some(Duration::from_secs(3600)),
        transaction_timeout: Some(Duration::from_secs(30)),
        pid_filename: Some("zeo.pid".into()),
        client_conflict_resolution: false,
        conflict_resolver: None,
        msgpack: true,
        monitor_address: Some(tcp(Some("localhost"), 8101)),
        authentication: None,
        ssl: None,
        socket_mode: None,
        limits: Limits { unregistered: 50, ..Limits::default() },
        announced_protocol: None,
    };
    assert_eq!(config.zeo, expected_zeo);
    assert!(config.exit_immediately);
    let expected_storage = FileStorageConfig {
        path: "main.fs".into(),
        blob_dir: None,
        create: true,
        read_only: true,
        quota: Some(1024),
        pack_gc: false,
        pack_keep_old: false,
        pack_refuse_large_removals: true,
        new_file_format: NewFileFormat::Fs21,
        location: Location::File { path: "zeo.conf".into(), line: 14 },
    };
    assert_eq!(
        config.storages,
        [NamedStorage { name: "main".into(), storage: StorageConfig::File(expected_storage) }]
    );
    let expected_log = EventLogConfig {
        level: 10,
        handlers: vec![
            HandlerConfig::LogFile(log_file(LogTarget::Stderr)),
            HandlerConfig::LogFile(LogFileConfig {
                level: 5,
                layout: LineLayout {
                    format: "{message}".into(),
                    dateformat: "%H".into(),
                    style: FormatStyle::Format,
                    arbitrary_fields: true,
                },
                rotation: Rotation::Time { when: RotateWhen::Weekday(6), interval: 2, old_files: 3 },
                delay: true,
                encoding: LogEncoding::Latin1,
                ..log_file(LogTarget::Path("zeo.log".into()))
            }),
            HandlerConfig::Syslog(SyslogConfig {
                facility: "local1".into(),
                address: Address::Unix("/dev/log".into()),
                level: 40,
                layout: layout("%(name)s %(message)s"),
            }),
            HandlerConfig::Syslog(SyslogConfig {
                facility: "user".into(),
                address: tcp(Some("localhost"), 514),
                level: 0,
                layout: layout("%(name)s %(message)s"),
            }),
        ],
    };
    assert_eq!(config.eventlog, Some(expected_log));
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
    let config = read(&text.replace("%s", ""), &[], &set);
    assert!(config.zeo.msgpack);
    assert_eq!(config.zeo.pid_filename, Some(PathBuf::from("/instance/var/ZEO.pid")));
    assert_eq!(config.zeo.announced_protocol.as_deref(), Some("Z4"));
    assert_eq!(config.warnings.len(), 1);
    let config = read(&text.replace("%s", "msgpack off\nread-only on\n"), &[], &set);
    assert!(!config.zeo.msgpack, "the file wins");
    assert_eq!(config.zeo.pid_filename, None, "a read-only server writes none");
    let empty = set.map(|(name, _)| (name, ""));
    let config = read(&text.replace("%s", ""), &[], &empty);
    assert_eq!((config.zeo.msgpack, config.zeo.pid_filename, config.warnings.len()), (false, None, 0));
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
