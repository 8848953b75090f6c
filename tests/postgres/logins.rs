//! How a session begins: every way to authenticate, every mode of TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use runzeo::internal::postgres::{Connection, Statement};

use crate::support::postgres::{PostgresServer, free_port};
use crate::{connect, dsn, login, one};

/// Users of the test, and how each has to prove who it is. The password is that of all.
const HBA: &str = "\
local   all scram   scram-sha-256
local   all md5     md5
local   all plain   password
local   all nobody  reject
local   all all     trust
hostssl all cert    127.0.0.1/32 cert
hostssl all tls     127.0.0.1/32 scram-sha-256
hostnossl all clear 127.0.0.1/32 scram-sha-256
host    all scram   127.0.0.1/32 scram-sha-256
host    all postgres 127.0.0.1/32 trust
";
const PASSWORD: &str = "pass wörd'\\";
/// As it stands in a connection string.
const QUOTED: &str = "'pass wörd\\'\\\\'";

/// A server with the users, TLS and the certificates.
struct World {
    server: PostgresServer,
    /// `root.crt`, `other.crt` (another authority), `client.crt`, `client.key`.
    files: tempfile::TempDir,
    port: String,
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
    let mut params = CertificateParams::new(hosts).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2999, 1, 1);
    params
}

fn authority(name: &str) -> (CertificateParams, KeyPair) {
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params, KeyPair::generate().expect("a key"))
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
    path
}

fn certificates(dir: &Path) {
    let (params_of_root, key_of_root) = authority("the root");
    let root = Issuer::from_params(&params_of_root, &key_of_root);
    write(dir, "root.crt", &params_of_root.self_signed(&key_of_root).expect("one").pem());
    let (other, key) = authority("another root");
    write(dir, "other.crt", &other.self_signed(&key).expect("one").pem());
    let mut of_server = params("server", &["localhost"]);
    of_server.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
    for (name, params) in [("server", of_server), ("client", params("cert", &[]))] {
        let key = KeyPair::generate().expect("a key");
        write(dir, &format!("{name}.crt"), &params.signed_by(&key, &root).expect("one").pem());
        write(dir, &format!("{name}.key"), &key.serialize_pem());
    }
}

impl World {
    fn start() -> Option<World> {
        let files = tempfile::tempdir().expect("a directory");
        certificates(files.path());
        let hba = write(files.path(), "pg_hba.conf", HBA);
        let (dir, port) = (files.path().to_str().expect("text"), free_port());
        let options = ["--port", &port, "--tls", dir, "--hba", hba.to_str().expect("text")];
        let server = PostgresServer::start(&options)?;
        let mut connection = connect(&server);
        let quoted = PASSWORD.replace('\'', "''");
        for user in ["scram", "plain", "tls", "cert", "clear", "nobody"] {
            let sql = format!("create user {user} password E'{}'", quoted.replace('\\', "\\\\"));
            connection.simple(&sql).expect("a server").expect("a user");
        }
        let sql = format!(
            "set password_encryption = md5; create user md5 password E'{}'",
            quoted.replace('\\', "\\\\")
        );
        connection.simple(&sql).expect("a server").expect("a user");
        Some(World { server, files, port })
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// A session at the socket.
    fn at_socket(&self, more: &str) -> Result<Connection, String> {
        let text =
            format!("host={} port={} dbname=postgres {more}", self.server.socket_dir().display(), self.port);
        Connection::open(&dsn(&text), &login()).map_err(|error| error.to_string())
    }

    /// A session over TCP, which is to the name `localhost` at 127.0.0.1.
    fn over_tcp(&self, more: &str) -> Result<Connection, String> {
        let text = format!("host=localhost hostaddr=127.0.0.1 port={} dbname=postgres {more}", self.port);
        Connection::open(&dsn(&text), &login()).map_err(|error| error.to_string())
    }
}

/// Whether the server has an encrypted session, and with which version.
fn encryption(session: Result<Connection, String>) -> Option<String> {
    const SSL: Statement = Statement {
        sql: "select version from pg_catalog.pg_stat_ssl where pid = pg_catalog.pg_backend_pid()",
        types: &[],
    };
    let answers = session.expect("a session").run(&one(&SSL, &[])).expect("a server");
    let row = answers[0].as_ref().expect("no error")[0].first().expect("a row");
    row.text(0).expect("text").map(str::to_string)
}

fn refused(session: Result<Connection, String>, why: &str) {
    let error = session.expect_err(why);
    assert!(error.contains(why), "{error}");
    assert!(!error.contains("wörd"), "{error}");
}

#[test]
fn every_password_method() {
    let Some(world) = World::start() else { return };
    for user in ["scram", "md5", "plain"] {
        world.at_socket(&format!("user={user} password={QUOTED}")).expect(user);
        refused(world.at_socket(&format!("user={user} password='wörd'")), "28P01");
        refused(world.at_socket(&format!("user={user}")), "asks for a password");
    }
    refused(world.at_socket("user=nobody"), "28000");
    refused(world.at_socket("user=postgres dbname=missing"), "3D000");
    let passwords = format!("*:{}:*:scram:{}\n", world.port, PASSWORD.replace('\\', "\\\\"));
    let passfile = write(world.files.path(), "pgpass", &passwords);
    let with_file = format!("user=scram passfile={}", passfile.display());
    world.at_socket(&with_file).expect("a session");
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o640)).expect("permissions");
    refused(world.at_socket(&with_file), "asks for a password");
    // What the client demands of the server.
    let scram = format!("user=scram password={QUOTED}");
    world.at_socket(&format!("{scram} require_auth=scram-sha-256,md5")).expect("a session");
    world.at_socket(&format!("{scram} require_auth=!password")).expect("a session");
    refused(world.at_socket(&format!("{scram} require_auth=md5")), "require_auth");
    refused(world.at_socket("user=postgres require_auth=!none"), "require_auth");
    world.at_socket("user=postgres require_auth=none").expect("a session");
    refused(
        world.at_socket(&format!("user=md5 password={QUOTED} channel_binding=require")),
        "channel_binding",
    );
    refused(world.at_socket(&format!("{scram} channel_binding=require")), "needs TLS");
    refused(world.at_socket("user=postgres channel_binding=require"), "channel_binding");
    let user = rustix::process::geteuid();
    let other = if user.is_root() { "nobody" } else { "root" };
    refused(world.at_socket(&format!("user=postgres requirepeer={other}-x")), "requirepeer");
}

#[test]
fn a_password_is_bound_to_the_encrypted_connection() {
    let Some(world) = World::start() else { return };
    let user = format!("user=tls password={QUOTED} sslmode=require");
    for binding in ["disable", "prefer", "require"] {
        world.over_tcp(&format!("{user} channel_binding={binding}")).expect(binding);
        world
            .over_tcp(&format!("{user} channel_binding={binding} ssl_max_protocol_version=TLSv1.2"))
            .expect(binding);
    }
    refused(world.over_tcp("user=tls password='wörd' sslmode=require"), "28P01");
}

#[test]
fn every_mode_of_tls() {
    let Some(world) = World::start() else { return };
    let (root, other) = (world.file("root.crt"), world.file("other.crt"));
    let with = |user: &str, more: &str| world.over_tcp(&format!("user={user} password={QUOTED} {more}"));
    let tls = Some("TLSv1.3".to_string());
    // The server takes both.
    assert_eq!(encryption(with("scram", "sslmode=disable")), None);
    assert_eq!(encryption(with("scram", "sslmode=allow")), None);
    assert_eq!(encryption(with("scram", "")), tls);
    assert_eq!(encryption(with("scram", "sslmode=require")), tls);
    assert_eq!(
        encryption(with("scram", "sslmode=require ssl_max_protocol_version=TLSv1.2")),
        Some("TLSv1.2".into())
    );
    // It demands it.
    refused(with("tls", "sslmode=disable"), "28000");
    for mode in ["allow", "prefer", "require"] {
        assert_eq!(encryption(with("tls", &format!("sslmode={mode}"))), tls, "{mode}");
    }
    // It refuses it.
    for mode in ["disable", "allow", "prefer"] {
        assert_eq!(encryption(with("clear", &format!("sslmode={mode}"))), None, "{mode}");
    }
    refused(with("clear", "sslmode=require"), "28000");
    // The certificate.
    for mode in ["verify-ca", "verify-full", "require", "prefer"] {
        assert_eq!(encryption(with("scram", &format!("sslmode={mode} sslrootcert={root}"))), tls, "{mode}");
    }
    for mode in ["verify-ca", "verify-full", "require"] {
        refused(with("scram", &format!("sslmode={mode} sslrootcert={other}")), "'sslrootcert'");
    }
    assert_eq!(encryption(with("scram", &format!("sslmode=prefer sslrootcert={other}"))), None);
    refused(with("scram", "sslmode=verify-full"), "sslrootcert: there is no file");
    refused(with("scram", "sslrootcert=system"), "'sslrootcert'");
    let at = |host: &str, mode: &str| {
        let text = format!(
            "host={host} hostaddr=127.0.0.1 port={} dbname=postgres user=scram password={QUOTED} sslmode={mode} \
             sslrootcert={root}",
            world.port
        );
        Connection::open(&dsn(&text), &login()).map_err(|error| error.to_string())
    };
    assert_eq!(encryption(at("db.example.com", "verify-ca")), tls);
    assert_eq!(encryption(at("10.0.0.1", "verify-full")), tls);
    refused(at("db.example.com", "verify-full"), "not for 'db.example.com'");
    refused(at("127.0.0.1", "verify-full"), "not for '127.0.0.1'");
    // This version does not know it, or knows it.
    if connect(&world.server).server_version() < 17 {
        refused(with("scram", "sslmode=require sslnegotiation=direct"), "");
    } else {
        assert_eq!(encryption(with("scram", "sslmode=require sslnegotiation=direct")), tls);
    }
}

#[test]
fn a_server_without_tls() {
    let port = free_port();
    let Some(server) = PostgresServer::start(&["--port", &port]) else { return };
    let open = |mode: &str| {
        let text = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode={mode}");
        Connection::open(&dsn(&text), &login()).map_err(|error| error.to_string())
    };
    for mode in ["disable", "allow", "prefer"] {
        open(mode).expect(mode);
    }
    refused(open("require"), "has no TLS");
    refused(open("verify-ca"), "sslrootcert");
    assert!(server.log().contains("ready to accept"));
}

#[test]
fn a_certificate_as_the_proof() {
    let Some(world) = World::start() else { return };
    let (certificate, key) = (world.file("client.crt"), world.file("client.key"));
    let with_key = format!("user=cert sslmode=require sslcert={certificate} sslkey={key}");
    assert!(encryption(world.over_tcp(&with_key)).is_some());
    assert!(encryption(world.over_tcp(&format!("{with_key} ssl_max_protocol_version=TLSv1.2"))).is_some());
    refused(world.over_tcp(&format!("{with_key} sslcertmode=disable")), "28000");
    refused(world.over_tcp("user=cert sslmode=require"), "28000");
    refused(world.over_tcp(&format!("{with_key} require_auth=scram-sha-256")), "require_auth");
    let root = world.file("root.crt");
    refused(
        world.over_tcp(&format!("user=cert sslmode=require sslcert={root} sslkey={key}")),
        "is not the key of the certificate",
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("permissions");
    refused(world.over_tcp(&with_key), "chmod 600");
}

#[test]
fn settings_and_names_reach_the_server() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut login = login();
    login.settings = vec![("default_transaction_isolation".into(), "serializable".into())];
    let text = format!("{} options='-c work_mem=3MB -c DateStyle=ISO,\\\\ DMY'", server.dsn());
    const SHOW: Statement = Statement {
        sql: "select current_setting('application_name'), current_setting('work_mem'), current_setting('DateStyle'), \
              current_setting('transaction_isolation'), current_setting('client_encoding')",
        types: &[],
    };
    let show = |text: &str| {
        let mut connection = Connection::open(&dsn(text), &login).expect("a session");
        let answers = connection.run(&one(&SHOW, &[])).expect("a server");
        let row = answers[0].as_ref().expect("no error")[0].first().expect("a row");
        (0..row.columns()).map(|at| row.required_text(at).expect("text").to_string()).collect::<Vec<_>>()
    };
    assert_eq!(show(&text), ["test", "3MB", "ISO, DMY", "serializable", "UTF8"]);
    assert_eq!(show(&format!("{text} fallback_application_name=f"))[0], "f");
    assert_eq!(show(&format!("{text} application_name=a fallback_application_name=f"))[0], "a");
}
