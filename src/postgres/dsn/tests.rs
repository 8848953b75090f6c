//! Connection strings beside libpq 17, and what follows from them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// What `psycopg2.extensions.parse_dsn` says, which calls libpq's `PQconninfoParse` (17.11). `None`: an error.
#[rustfmt::skip]
const AS_LIBPQ: &[(&str, Option<&str>)] = &[
    ("", Some("")),
    ("host=localhost", Some("host=localhost")),
    ("host = localhost port= 5433", Some("host=localhost;port=5433")),
    (" host=a\tuser=b ", Some("host=a;user=b")),
    ("dbname='my db' user=x", Some("dbname=my db;user=x")),
    ("password='it\\'s \\\\here'", Some("password=it's \\here")),
    ("password=a\\ b\\'c", Some("password=a b'c")),
    ("password=a'b", Some("password=a'b")),
    ("password=''", Some("password=")),
    ("password=", Some("password=")),
    ("host= user=x", Some("host=user=x")),
    ("host=x user=", Some("host=x;user=")),
    ("user=x user=y", Some("user=y")),
    ("host='a'user=b", Some("host=a;user=b")),
    ("host='a", None),
    ("host=a'", Some("host=a'")),
    ("host", None),
    ("host=a port", None),
    ("=a", None),
    ("host=a =b", None),
    ("ho st=a", None),
    ("unknown=1", None),
    ("host=a,b,c port=1,2,3", Some("host=a,b,c;port=1,2,3")),
    ("host=/var/run/postgresql", Some("host=/var/run/postgresql")),
    ("host=@abstract", Some("host=@abstract")),
    ("hostaddr=::1 host=x", Some("host=x;hostaddr=::1")),
    ("options='-c geqo=off -c a=b'", Some("options=-c geqo=off -c a=b")),
    ("options=-c\\ geqo=off", Some("options=-c geqo=off")),
    ("password=a=b", Some("password=a=b")),
    ("password==", Some("password==")),
    ("sslmode=bogus", Some("sslmode=bogus")),
    ("port=abc", Some("port=abc")),
    ("application_name=a\\", Some("application_name=a")),
    ("application_name='a\\'", None),
    ("application_name='a\\\\'", Some("application_name=a\\")),
    ("connect_timeout=10 keepalives_idle=5 target_session_attrs=read-write", Some("connect_timeout=10;keepalives_idle=5;target_session_attrs=read-write")),
    ("service=x passfile=/tmp/y sslcrldir=/z sslsni=0 load_balance_hosts=random require_auth=md5", Some("load_balance_hosts=random;passfile=/tmp/y;require_auth=md5;service=x;sslcrldir=/z;sslsni=0")),
    ("HOST=a", None),
    ("Host=a", None),
    ("host=größe", Some("host=größe")),
    ("postgresql://", Some("")),
    ("postgres://", Some("")),
    ("postgresql:/", None),
    ("postgresqlx://a", None),
    ("postgresql://localhost", Some("host=localhost")),
    ("postgresql://localhost:5433", Some("host=localhost;port=5433")),
    ("postgresql://localhost/mydb", Some("dbname=mydb;host=localhost")),
    ("postgresql://user@localhost", Some("host=localhost;user=user")),
    ("postgresql://user:secret@localhost", Some("host=localhost;password=secret;user=user")),
    ("postgresql://user:@localhost", Some("host=localhost;user=user")),
    ("postgresql://:secret@localhost", Some("host=localhost;password=secret")),
    ("postgresql://@localhost", Some("host=localhost")),
    ("postgresql://user:a:b@localhost", Some("host=localhost;password=a:b;user=user")),
    ("postgresql://user:a@b@localhost", Some("host=b@localhost;password=a;user=user")),
    ("postgresql://user:a%40b%3a%2f@localhost/x", Some("dbname=x;host=localhost;password=a@b:/;user=user")),
    ("postgresql://us%20er:p@h1:1,h2:2/db?target_session_attrs=any&application_name=app", Some("application_name=app;dbname=db;host=h1,h2;password=p;port=1,2;target_session_attrs=any;user=us er")),
    ("postgresql://h1,h2:2/db", Some("dbname=db;host=h1,h2;port=,2")),
    ("postgresql://h1:1,h2/db", Some("dbname=db;host=h1,h2;port=1,")),
    ("postgresql://,/db", Some("dbname=db;host=,;port=,")),
    ("postgresql://[::1]/db", Some("dbname=db;host=::1")),
    ("postgresql://[::1]:5433/db", Some("dbname=db;host=::1;port=5433")),
    ("postgresql://[2001:db8::1234]", Some("host=2001:db8::1234")),
    ("postgresql://[::1", None),
    ("postgresql://[]", None),
    ("postgresql://[::1]x", None),
    ("postgresql://[::1],[::2]:5/x", Some("dbname=x;host=::1,::2;port=,5")),
    ("postgresql:///mydb?host=localhost&port=5433", Some("dbname=mydb;host=localhost;port=5433")),
    ("postgresql://%2Fvar%2Flib%2Fpostgresql/dbname", Some("dbname=dbname;host=/var/lib/postgresql")),
    ("postgresql:///?host=/tmp", Some("host=/tmp")),
    ("postgresql://?host=a", Some("host=a")),
    ("postgresql://host?user=u", Some("host=host;user=u")),
    ("postgresql://host/?user=u", Some("host=host;user=u")),
    ("postgresql://host/db/x?user=u", Some("dbname=db/x;host=host;user=u")),
    ("postgresql://host/db?", Some("dbname=db;host=host")),
    ("postgresql://host/db?user", None),
    ("postgresql://host/db?user=", Some("dbname=db;host=host;user=")),
    ("postgresql://host/db?user=a=b", None),
    ("postgresql://host/db?=a", None),
    ("postgresql://host/db?user=a&", Some("dbname=db;host=host;user=a")),
    ("postgresql://host/db?user=a&&port=1", None),
    ("postgresql://host/db?&user=a", None),
    ("postgresql://host/db?user=a&user=b", Some("dbname=db;host=host;user=b")),
    ("postgresql://host/db?ssl=true", Some("dbname=db;host=host;sslmode=require")),
    ("postgresql://host/db?ssl=false", None),
    ("postgresql://host/db?ssl=true&sslmode=disable", Some("dbname=db;host=host;sslmode=disable")),
    ("postgresql://host/db?unknown=1", None),
    ("postgresql://host/db?us%65r=x", Some("dbname=db;host=host;user=x")),
    ("postgresql://host/db?user=%", None),
    ("postgresql://host/db?user=%4", None),
    ("postgresql://host/db?user=%zz", None),
    ("postgresql://host/db?user=%00", None),
    ("postgresql://host/db?user=a+b", Some("dbname=db;host=host;user=a+b")),
    ("postgresql://host/db?user=a%20b", Some("dbname=db;host=host;user=a b")),
    ("postgresql://host/db?user=a b", Some("dbname=db;host=host;user=a b")),
    ("postgresql://host/d b", Some("dbname=d b;host=host")),
    ("postgresql://ho st/db", Some("dbname=db;host=ho st")),
    ("postgresql://host /db", Some("dbname=db;host=host ")),
    ("postgresql://host/%20db", Some("dbname= db;host=host")),
    (" postgresql://host/db", None),
    ("POSTGRESQL://host/db", None),
    ("postgresql://user@host@other/db", Some("dbname=db;host=host@other;user=user")),
    ("postgresql://us/er@host/db", Some("dbname=er@host/db;host=us")),
    ("postgresql://host:/db", Some("dbname=db;host=host")),
    ("postgresql://host:abc/db", Some("dbname=db;host=host;port=abc")),
    ("postgresql://host/db#frag", Some("dbname=db#frag;host=host")),
    ("postgresql://host/db?options=-c%20geqo%3Doff", Some("dbname=db;host=host;options=-c geqo=off")),
    ("postgresql://größe/db", Some("dbname=db;host=größe")),
    ("postgresql://host/db?user=%c3%b6", Some("dbname=db;host=host;user=ö")),
];

#[test]
fn strings_mean_what_they_mean_for_libpq() {
    for (text, expected) in AS_LIBPQ {
        let found = pairs(text).ok().map(|pairs| {
            let pairs: BTreeMap<String, String> = pairs.into_iter().collect();
            pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";")
        });
        assert_eq!(found.as_deref(), *expected, "{text}");
    }
}

/// Without files and variables of the user.
fn parse(text: &str) -> Result<Dsn, DsnError> {
    Dsn::parse(text, &|name| (name == "HOME").then(|| "/nonexistent".into()))
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn hosts_and_ports_belong_together() {
    let hosts = |text: &str| {
        let one = |host: &Host| {
            let address = host.address.map(|address| format!("={address}")).unwrap_or_default();
            format!("{}{address}:{}", host.host, host.port)
        };
        parse(text).expect(text).hosts.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(hosts(""), "/var/run/postgresql:5432");
    assert_eq!(hosts("host=a,,b port=1,2,"), "a:1 /var/run/postgresql:2 b:5432");
    assert_eq!(hosts("host=a,b port=7"), "a:7 b:7");
    assert_eq!(hosts("host=a,b hostaddr=::1,10.0.0.1"), "a=::1:5432 b=10.0.0.1:5432");
    assert_eq!(hosts("hostaddr=::1 port=' 9 '"), "::1=::1:9");
    assert_eq!(hosts("postgresql://h1:1,h2,[::1]:3/x"), "h1:1 h2:5432 ::1:3");
    assert_eq!(
        parse("host=/a port=3").expect("one").hosts[0].socket_path().as_deref(),
        Some("/a/.s.PGSQL.3")
    );
    for (text, why) in [
        ("host=a,b port=1,2,3", "3 ports for 2 hosts"),
        ("host=a,b hostaddr=::1", "1 addresses for 2 hosts"),
        ("hostaddr=a", "hostaddr: not an address"),
        ("port=0", "port: not a number"),
        ("port=65536", "port: not a number"),
        ("port=abc", "port: not a number"),
    ] {
        assert!(error(text).contains(why), "{text}: {}", error(text));
    }
}

#[test]
fn the_string_comes_before_the_environment() {
    let environment = |name: &str| {
        let value = match name {
            "PGHOST" => "db.example",
            "PGPORT" => "77",
            "PGUSER" => "zope",
            "PGPASSWORD" => "secret",
            "PGCONNECT_TIMEOUT" => "5",
            "PGSSLMODE" => "disable",
            "PGAPPNAME" => "app",
            _ => return None,
        };
        Some(value.to_string())
    };
    let dsn = Dsn::parse("dbname=zodb port=5", &environment).expect("one");
    assert_eq!(dsn.describe(), "host=db.example port=5 dbname=zodb user=zope");
    assert_eq!(dsn.password_for(&dsn.hosts[0]), Some(Secret("secret".into())));
    assert_eq!((dsn.connect_timeout, dsn.ssl.mode), (Some(Duration::from_secs(5)), SslMode::Disable));
    assert_eq!(dsn.application_name.as_deref(), Some("app"));
    // Without a database, it has the name of the user. An empty value is the default, not the variable.
    let dsn = Dsn::parse("user=me host=''", &environment).expect("one");
    assert_eq!(dsn.describe(), "host=/var/run/postgresql port=77 dbname=me user=me");
    assert!(!format!("{dsn:?} {dsn}").contains("secret"));
    let wrong = Dsn::parse("", &|name| (name == "PGSSLMODE").then(|| "bogus".into())).expect_err("wrong");
    assert!(wrong.to_string().starts_with("PGSSLMODE: not one of disable, allow"), "{wrong}");
}

#[test]
fn what_is_not_supported_is_named() {
    for (text, why) in [
        ("gssencmode=require", "gssencmode: encryption by GSSAPI is not supported"),
        ("replication=database", "replication: not supported"),
        ("oauth_issuer=x", "oauth_issuer: not supported"),
        ("sslcertmode=require", "sslcertmode: 'require' is not supported"),
        ("sslkey=pkcs11:id", "sslkey: keys in engines"),
        ("client_encoding=latin1", "client_encoding: it is always UTF8"),
        ("min_protocol_version=3.2", "min_protocol_version: version 3.0"),
        ("ssl_max_protocol_version=TLSv1.1", "ssl_max_protocol_version: versions before"),
        ("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "newer than"),
        ("sslmode=bogus", "sslmode: not one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("sslrootcert=system sslmode=require", "it must be verify-full"),
        ("sslnegotiation=direct", "needs sslmode=require"),
        ("require_auth=md5,!scram-sha-256", "cannot be mixed"),
        ("require_auth=magic", "not a list of"),
        ("target_session_attrs=master", "not one of any, read-write"),
        ("connect_timeout=soon", "not a whole number"),
        ("keepalives_idle=99999999999", "not a whole number"),
        ("user='a\0b'", "zero byte"),
    ] {
        assert!(error(text).contains(why), "{text}: {}", error(text));
    }
    // What has no effect, or the effect that there is anyway.
    for text in [
        "gssencmode=prefer krbsrvname=x gsslib=gssapi gssdelegation=0",
        "replication=false client_encoding=UTF-8 sslcompression=1",
        "max_protocol_version=latest min_protocol_version=3.0",
        "ssl_min_protocol_version=TLSv1 sslmode=verify-full sslrootcert=system",
        "require_auth=oauth,none sslcertmode=allow",
    ] {
        parse(text).expect(text);
    }
}

#[test]
fn numbers_mean_times() {
    let dsn = parse(
        "connect_timeout=0 keepalives=0 keepalives_idle=5 keepalives_interval=-1 keepalives_count=3 tcp_user_timeout=1500",
    );
    let dsn = dsn.expect("one");
    assert_eq!(dsn.connect_timeout, Some(Duration::ZERO));
    let expected = KeepAlive {
        is_off: true,
        idle: Some(Duration::from_secs(5)),
        interval: None,
        count: Some(3),
        user_timeout: Some(Duration::from_millis(1500)),
    };
    assert_eq!(dsn.keep_alive, expected);
    assert_eq!(parse("").expect("one").connect_timeout, None);
}

#[test]
fn a_service_file_fills_what_the_string_leaves_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pg_service.conf");
    let text = "# a comment\n[other]\nhost=wrong\n\n[mine]\n  host=db.example \nport=7\npassword=a=b\n[last]\nport=8\n";
    fs::write(&file, text).expect("a file");
    let environment = |name: &str| match name {
        "PGSERVICEFILE" => Some(file.display().to_string()),
        "PGPORT" => Some("9".to_string()),
        "PGSYSCONFDIR" | "HOME" => Some("/nonexistent".to_string()),
        _ => None,
    };
    let dsn = Dsn::parse("service=mine user=u dbname=d", &environment).expect("one");
    assert_eq!(dsn.describe(), "host=db.example port=7 dbname=d user=u");
    assert_eq!(dsn.password_for(&dsn.hosts[0]), Some(Secret("a=b".into())));
    let dsn = Dsn::parse("service=mine user=u dbname=d port=1", &environment).expect("one");
    assert_eq!(dsn.hosts[0].port, 1);
    let missing = Dsn::parse("service=none", &environment).expect_err("none");
    assert!(missing.to_string().starts_with("there is no service 'none' in /"), "{missing}");
    for (line, why) in [
        ("bogus=1", "line 2: unknown key"),
        ("host", "line 2: not of the form"),
        ("service=x", "line 2: a service cannot refer"),
        ("ldap://x", "line 2: settings in LDAP"),
    ] {
        fs::write(&file, format!("[mine]\n{line}\n")).expect("a file");
        let wrong = Dsn::parse("service=mine", &environment).expect_err(line);
        assert!(wrong.to_string().contains(why), "{wrong}");
    }
    fs::write(&file, "[mine]\nport=x\n").expect("a file");
    let wrong = Dsn::parse("service=mine", &environment).expect_err("no number");
    assert!(wrong.to_string().starts_with("port, in the service file: not a number"), "{wrong}");
}

#[test]
fn a_password_file_that_others_read_is_not_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join(".pgpass");
    fs::write(&file, "localhost:5432:d:u:one\n/tmp:*:*:*:two\n").expect("a file");
    let environment = |name: &str| (name == "HOME").then(|| dir.path().display().to_string());
    let password = |text: &str| {
        let dsn = Dsn::parse(text, &environment).expect(text);
        dsn.password_for(&dsn.hosts[0]).map(|password| password.0)
    };
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("permissions");
    mode(0o600);
    assert_eq!(password("user=u dbname=d").as_deref(), Some("one"));
    assert_eq!(password("user=u dbname=d host=/tmp").as_deref(), Some("two"));
    assert_eq!(password("user=u dbname=e"), None);
    assert_eq!(password("user=u dbname=d password=x").as_deref(), Some("x"));
    mode(0o604);
    assert_eq!(password("user=u dbname=d"), None);
}

#[test]
fn a_list_of_servers_has_one_in_a_line() {
    let read = |text: &str| -> Result<Vec<(String, u16)>, String> {
        let hosts = super::hosts_of_lines(text, 7000).map_err(|error| error.to_string())?;
        Ok(hosts.into_iter().map(|host| (host.host, host.port)).collect())
    };
    let text = " one \n# two\n\nthree:5433\r\n::1\n[::1]:5434\n[::2]\n/run/postgresql\n/run/pg:5435";
    let expected = [
        ("one", 7000),
        ("three", 5433),
        ("::1", 7000),
        ("::1", 5434),
        ("::2", 7000),
        ("/run/postgresql", 7000),
        ("/run/pg", 5435),
    ];
    assert_eq!(read(text), Ok(expected.map(|(host, port)| (host.to_string(), port)).to_vec()));
    assert_eq!(read("# nothing\n"), Err("it names no server".into()));
    for line in ["a b", "a,b", "a:", "a:b", ":5432", "a:0", "a:65536", "[::1", "[a]:1", "[::1]5432", "a:1:2"]
    {
        assert_eq!(read(&format!("\n{line}\n")), Err("line 2: neither HOST nor HOST:PORT".into()), "{line}");
    }
}
