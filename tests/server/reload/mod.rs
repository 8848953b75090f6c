//! `zeoadmin reload`: what it applies, what it leaves to a restart, and that a configuration that cannot be used
//! changes nothing.

mod access;
mod doors;
mod limits;
mod mistakes;
mod schedules;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::http::{get, section};
use crate::pack_cancel::text;
use crate::support::process::{Server, free_address};

pub const STORAGE: &str = "<filestorage 1>\npath Data.fs\n</filestorage>";

/// A server whose configuration is written again and again.
pub struct Site {
    pub server: Server,
}

impl Site {
    pub fn start(zeo: &str, more: &str) -> Site {
        Site::start_prepared(zeo, more, |_| ())
    }

    /// `prepare` may put files into its directory.
    pub fn start_prepared(zeo: &str, more: &str, prepare: impl FnOnce(&Path)) -> Site {
        let server = Server::start_any(&with_admin(zeo), more, prepare);
        let site = Site { server };
        site.wait_until_ready();
        site
    }

    /// Waits until the storages are open: only then a reload is done.
    pub fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.zeoadmin(&["status", "--json"]).stdout.windows(9).all(|part| part != b"\"serving\"") {
            assert!(Instant::now() < deadline, "{}", self.server.talk());
        }
    }

    /// Writes the configuration: lines for `<zeo>`, and the sections beside it.
    pub fn write(&self, zeo: &str, more: &str) {
        self.write_logging("info", zeo, more);
    }

    pub fn write_logging(&self, level: &str, zeo: &str, more: &str) {
        let (address, log) = (self.server.address, self.server.directory().join("zeo.log"));
        self.write_raw(&format!(
            "<zeo>\naddress {address}\n{}\n</zeo>\n{more}\n<eventlog>\nlevel {level}\n<logfile>\npath {}\n</logfile>\n\
             </eventlog>\n",
            with_admin(zeo),
            log.display()
        ));
    }

    pub fn write_raw(&self, text: &str) {
        fs::write(self.server.directory().join("zeo.conf"), text).expect("it is written");
    }

    pub fn zeoadmin(&self, arguments: &[&str]) -> Output {
        zeoadmin(self.server.directory(), arguments)
    }

    /// Reloads: the exit code and what is printed.
    pub fn reload(&self, arguments: &[&str]) -> (i32, String) {
        reload_of(self.server.directory(), arguments)
    }

    /// Writes the configuration and reloads it; all of it is applied.
    pub fn apply(&self, zeo: &str, more: &str) -> String {
        self.write(zeo, more);
        let (code, said) = self.reload(&[]);
        assert_eq!(code, 0, "{said}\n{}", self.server.talk());
        said
    }

    pub fn status(&self) -> Json {
        let output = self.zeoadmin(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

/// Runs zeoadmin for the server whose socket is in a directory.
fn zeoadmin(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zeoadmin"));
    command.args(arguments).arg("-s").arg(directory.join("admin"));
    command.env_remove("RUNZEO_ADMIN_SOCKET").output().expect("it runs")
}

/// Reloads: the exit code and what is printed.
pub fn reload_of(directory: &Path, arguments: &[&str]) -> (i32, String) {
    let output = zeoadmin(directory, &[&["reload"], arguments].concat());
    (output.status.code().expect("it ends"), text(&output.stdout) + &text(&output.stderr))
}

fn with_admin(zeo: &str) -> String {
    format!("admin-socket admin\n{zeo}")
}

/// `zeoadmin status`, `/status.json` and `/metrics` have how the last reload has ended.
#[test]
fn monitoring_sees_reloads() {
    let address = free_address();
    let more = |zeo: &str| section(&format!("{STORAGE}\n{zeo}"), address);
    let site = Site::start("", &more(""));
    let metric = |name: &str| {
        let text = get(address, "/metrics").body;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name)).expect(name).to_string();
        line.split(' ').nth(1).expect("a value").parse::<f64>().expect("a number")
    };
    let (good, when) =
        ("zeo_config_last_reload_successful", "zeo_config_last_reload_success_timestamp_seconds");
    let first = metric(when);
    assert_eq!((metric(good), metric("zeo_config_changes_waiting")), (1.0, 0.0));
    site.write("max-conections 1", &more(""));
    assert_eq!(site.reload(&[]).0, 4);
    assert_eq!((metric(good), metric(when)), (0.0, first));
    let output = site.zeoadmin(&["status"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(4));
    assert!(said.contains("WARNING the last reload of the configuration has failed: "), "{said}");
    assert!(said.contains("zeo.conf:4: unknown key 'max-conections'"), "{said}");
    let reloads = &site.status()["reloads"];
    assert!(reloads["failed"].as_f64() > reloads["read"].as_f64(), "{reloads}");
    site.write("read-only true", &more(""));
    assert_eq!(site.reload(&[]).0, 3);
    assert_eq!((metric(good), metric("zeo_config_changes_waiting")), (1.0, 1.0));
    assert!(metric(when) > first);
    assert_eq!(site.status()["reloads"]["waiting"][0], "<zeo> read-only: false -> true");
    let said = text(&site.zeoadmin(&["status"]).stdout);
    assert!(said.contains("configuration: 1 changes wait for a restart"), "{said}");
}

#[test]
fn what_needs_a_restart_is_said_until_the_restart() {
    let mut site = Site::start("", STORAGE);
    assert_eq!(site.reload(&[]), (0, "the configuration is the one that is in use\n".into()));
    let zeo = "invalidation-queue-size 50\nmax-undo-log 5";
    let more =
        "<filestorage 1>\npath Data.fs\nquota 1GB\n</filestorage>\n<mappingstorage 2>\n</mappingstorage>";
    let expected = |applied: &str| {
        format!(
            "{applied}waits for a restart:\n  <zeo> invalidation-queue-size: 100 -> 50\n  <filestorage 1> quota: not set -> 1GB\n  \
             <mappingstorage 2> has come: \n"
        )
    };
    site.write(zeo, more);
    let applied = "a reload would apply:\n  <zeo> max-undo-log: 10000 -> 5\n";
    assert_eq!(site.reload(&["--dry-run"]), (3, expected(applied)));
    assert_eq!(site.reload(&["--dry-run", "--partly"]), (0, expected(applied)), "nothing was applied");
    assert_eq!(site.reload(&[]), (3, expected("applied:\n  <zeo> max-undo-log: 10000 -> 5\n")));
    assert_eq!(site.reload(&[]), (3, expected("")), "what waits is said again");
    assert_eq!(site.reload(&["--partly"]), (0, expected("")));
    site.server.wait_for_log("<zeo> max-undo-log: 10000 -> 5\n");
    site.server.wait_for_log(
        "zeo.conf:4: <zeo> invalidation-queue-size: 100 -> 50: this takes effect at the next start",
    );
    // Taken back.
    site.write("max-undo-log 5", STORAGE);
    assert_eq!(site.reload(&[]), (0, "the configuration is the one that is in use\n".into()));
    site.write(zeo, more);
    site.server.restart();
    site.wait_until_ready();
    assert_eq!(site.reload(&[]), (0, "the configuration is the one that is in use\n".into()));
}
