//! The library and a middle at servers that demand a password.

use std::process::Command;
use std::time::Duration;

use runzeo::client::{Client, ClientOptions, Credentials};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::StorageError;

use crate::library::{commit, options, state};
use crate::middle::{leaf, middle};
use crate::servers::{AnyServer, PythonServer};
use crate::support::process::Server;

/// Ours and those of the environments, which know the password `secret` of `user` in the realm `ZEO`; and the directory
/// with their password file.
pub fn servers_with_password(
    environments: &[&'static str],
) -> (tempfile::TempDir, Vec<(&'static str, AnyServer)>) {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Command::new(env!("CARGO_BIN_EXE_zeopasswd"))
        .args(["-f", "passwords", "-p", "digest", "-r", "ZEO", "user", "secret"])
        .current_dir(dir.path())
        .status();
    assert!(made.expect("zeopasswd").success());
    let keys = format!(
        "authentication-protocol digest\nauthentication-database {}/passwords\nauthentication-realm ZEO",
        dir.path().display()
    );
    let mut servers = vec![("ours", AnyServer::Ours(Server::start_with(&keys)))];
    for environment in environments {
        let server = PythonServer::start(environment, &keys, |_| ());
        servers.extend(server.map(|server| (*environment, AnyServer::Python(server))));
    }
    (dir, servers)
}

fn with_password(server: &AnyServer, password: &str) -> ClientOptions {
    let mut options = options(server);
    let (username, realm) = ("user".into(), Some("ZEO".into()));
    options.credentials = Some(Credentials { username, password: password.into(), realm });
    options
}

/// Ours speaks Z5 as well, which has no calls for passwords.
#[test]
fn a_client_and_a_middle_at_servers_with_passwords() {
    let (_dir, servers) = servers_with_password(&["zeo4-py27", "zodb39-py27"]);
    for (name, mut server) in servers {
        let client = Client::open(with_password(&server, "secret")).expect(name);
        let first = commit(&client, &[(Oid(1), Tid::ZERO, "1")]).expect(name).tid;
        assert_eq!(state(&client.view(), Oid(1)), "1", "{name}");

        let middle = middle(&server, "username user\npassword secret\nrealm ZEO");
        let leaves = [leaf(&middle), leaf(&middle)];
        let second = commit(&leaves[0], &[(Oid(1), first, "2")]).expect(name).tid;
        let third = commit(&leaves[1], &[(Oid(2), Tid::ZERO, "2")]).expect(name).tid;
        for reader in leaves.iter().chain([&client]) {
            // Servers of ZEO 4 send nothing about a transaction that only creates objects.
            let mut view = reader.view();
            view.refresh_from_server().expect(name);
            assert!(view.start() > second.max(third), "{name}");
            assert_eq!((state(&view, Oid(1)), state(&view, Oid(2))), ("2".into(), "2".into()), "{name}");
        }

        let mut wrong = with_password(&server, "wrong");
        wrong.wait_timeout = Duration::from_secs(2);
        match Client::open(wrong) {
            Err(StorageError::Disconnected(why)) => assert!(why.contains("password"), "{name}: {why}"),
            other => panic!("{name}: {:?}", other.map(drop)),
        }

        // It comes back.
        if name == "ours" {
            server.kill();
            server.start_again();
            let mut serial = second;
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while serial == second {
                match commit(&leaves[0], &[(Oid(1), second, "3")]) {
                    Ok(done) => serial = done.tid,
                    Err(StorageError::Disconnected(_) | StorageError::ReadOnly) => {
                        assert!(std::time::Instant::now() < deadline, "{name}");
                    }
                    Err(error) => panic!("{name}: {error}"),
                }
            }
        }
    }
}
