//! Raw clients at a server in the middle, or without one.

use super::Kind;
use crate::client::Result;
use crate::outcome::Outcome;
use crate::servers::{self, Running, Server};
use crate::workloads::{COMMIT_OBJECTS, Setting, commit, read};
use std::path::Path;

/// Number of clients.
const CLIENTS: usize = 8;
/// Objects that are loaded: a server in the middle has to load each of them first.
const OBJECTS: usize = 5000;

/// Runs the clients at the root that `setting` names, or at a server in the middle in front of it. `dir`: its
/// directory.
pub fn through(
    setting: &Setting<'_>,
    kind: &Kind,
    loads: bool,
    dir: &Path,
    outcome: &mut Outcome,
) -> Result<()> {
    let address = &setting.target().address;
    let command = match kind {
        Kind::Raw => return run(setting, loads, outcome),
        Kind::Ours => format!("'{}'", env!("CARGO_BIN_EXE_runzeo")),
        Kind::Python(python) => format!("'{}'", python.with_file_name("runzeo").display()),
    };
    // Without a host: ZConfig 3 reads a host as text, and ZEO 4 on Python 2 refuses an address whose host is no bytes.
    let port = address.rsplit(':').next().unwrap_or(address);
    let storage = format!("<zeoclient 1>\n  server {port}\n  cache-size 200MB\n</zeoclient>");
    let server = Server {
        label: servers::OURS.into(),
        command,
        zeo_lines: vec![],
        protocol: None,
        storage: Some(storage),
        further: String::new(),
        is_replica: false,
    };
    let middle = Running::start(&server, dir)?;
    run(&Setting { server: &middle, ..*setting }, loads, outcome)?;
    middle.stop()
}

fn run(setting: &Setting<'_>, loads: bool, outcome: &mut Outcome) -> Result<()> {
    if !loads {
        return commit::commit(setting, CLIENTS, COMMIT_OBJECTS, outcome);
    }
    let some = &setting.oids[..setting.oids.len().min(OBJECTS)];
    let setting = Setting { oids: some, ..*setting };
    read::touch(&setting)?;
    read::read(&setting, CLIENTS, 1, outcome)
}
