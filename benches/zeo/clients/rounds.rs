//! The run: a database and caches made once, then rounds in which every workload meets every client in turn.

use super::python::Task;
use super::{Contestant, Kind, Missed, Plan, Workload, library, open, python, reconnect, through};
use crate::client::Result;
use crate::outcome::Outcome;
use crate::results::Results;
use crate::rounds::{copy, copy_magic, fill_through, make_dir};
use crate::servers::{self, Running, Server};
use crate::sys;
use crate::wire::Id8;
use crate::workloads::{COMMIT_OBJECTS, Setting, commit, fill, read};
use std::fs;
use std::path::{Path, PathBuf};

const CACHE_FILE: &str = "client-1.zec";
/// Objects of the warm workloads.
const WARM_OBJECTS: usize = 5_000;
/// Size of a cache in which every object fits is this, and the database once more.
const ROOM: u64 = 8 << 20;
/// What a record takes in a cache beside its data.
const OVERHEAD: usize = 64;

/// Runs the plan; returns the outcomes, which are also in the plan's results file.
pub fn run(plan: &Plan, scratch: &Path) -> Result<Vec<Outcome>> {
    let pairs = plan.workloads.iter().flat_map(|(_, w)| plan.contestants.iter().filter(|c| w.suits(c)));
    let mut results = Results::create(&plan.results, pairs.count(), plan.rounds)?;
    let prepared = Prepared::make(plan, scratch)?;
    for round in 1..=plan.rounds {
        prepared.round(round, &mut results)?;
    }
    Ok(results.outcomes)
}

struct Prepared<'a> {
    plan: &'a Plan,
    scratch: &'a Path,
    server: Server,
    /// All objects of the database.
    oids: Vec<Id8>,
}

impl<'a> Prepared<'a> {
    fn make(plan: &'a Plan, scratch: &'a Path) -> Result<Prepared<'a>> {
        let server = Server::parse(servers::OURS, plan.object_len)?;
        let dir = scratch.join("template");
        make_dir(&dir)?;
        let oids = fill_through(&server, &dir, plan.objects, plan.object_len)?;
        let prepared = Prepared { plan, scratch, server, oids };
        let wants = |wanted: fn(&Workload) -> bool| plan.workloads.iter().any(|(_, w)| wanted(w));
        if wants(|w| matches!(w, Workload::Reconnect(_))) {
            let running = Running::start(&prepared.server, &dir)?;
            let path = dir.join(CACHE_FILE);
            reconnect::fill_cache(&running.target.address, &prepared.oids, &path, prepared.large_cache())?;
            running.stop()?;
        }
        if wants(|w| *w == Workload::Reconnect(Missed::ManyAtOldServer)) {
            prepared.make_old_file(&dir)?;
        }
        if wants(|w| *w == Workload::Open) {
            eprintln!("a cache file of {} MB ...", plan.cache_len >> 20);
            open::make(&scratch.join(CACHE_FILE), plan.cache_len, plan.object_len)?;
        }
        Ok(prepared)
    }

    /// A file of the old server with the same objects, of which only the magic number differs.
    fn make_old_file(&self, template: &Path) -> Result<()> {
        let dir = self.scratch.join("old");
        make_dir(&dir)?;
        let server = self.old_server()?;
        let running = Running::start(&server, &dir)?;
        fill(&running.target, 1, self.plan.object_len)?;
        running.stop()?;
        let own = dir.join("own");
        make_dir(&own)?;
        copy(&dir, &own, "Data.fs")?;
        copy(template, &dir, "Data.fs")?;
        copy_magic(&own.join("Data.fs"), &dir.join("Data.fs"))?;
        let index = dir.join("Data.fs.index");
        fs::remove_file(&index).map_err(|e| format!("{}: {e}", index.display()))
    }

    fn old_server(&self) -> Result<Server> {
        let command = self.plan.old_server.clone().ok_or("reconnect-verify needs --old-server")?;
        Ok(Server { label: "old".into(), command, ..self.server.clone() })
    }

    /// Room for all objects.
    fn large_cache(&self) -> u64 {
        ((self.plan.object_len + OVERHEAD) * self.plan.objects) as u64 + ROOM
    }

    /// Room for a quarter of them, at most the default of Python's client.
    fn small_cache(&self) -> u64 {
        ((self.plan.object_len * self.plan.objects / 4) as u64).min(20 << 20)
    }

    fn round(&self, round: u32, results: &mut Results) -> Result<()> {
        let dir = self.fresh_copy("template", "run")?;
        let running = Running::start(&self.server, &dir)?;
        let contestants = &self.plan.contestants;
        for (name, workload) in &self.plan.workloads {
            for i in 0..contestants.len() {
                let contestant = &contestants[(i + round as usize - 1) % contestants.len()];
                if workload.suits(contestant) {
                    let mut outcome = Outcome::new(round, name, &contestant.label);
                    let result = self.measure(*workload, contestant, &running, &dir, &mut outcome);
                    results.end(outcome, result)?;
                }
            }
        }
        running.stop()
    }

    fn measure(
        &self,
        workload: Workload,
        contestant: &Contestant,
        running: &Running,
        dir: &Path,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let kind = &contestant.kind;
        let setting = self.setting(running, dir);
        match workload {
            Workload::Warm { threads, from_file } => {
                let some = &self.oids[..self.oids.len().min(WARM_OBJECTS)];
                let setting = Setting { oids: some, ..setting };
                match kind {
                    Kind::Raw => Err("it has no cache".into()),
                    Kind::Ours => library::warm(&setting, threads, from_file, self.large_cache(), outcome),
                    Kind::Python(path) => self.python(path, "warm", threads, &setting, outcome),
                }
            }
            Workload::Cold { threads } => match kind {
                Kind::Raw => read::read(&setting, threads, 1, outcome),
                Kind::Ours => library::cold(&setting, threads, false, self.small_cache(), outcome),
                Kind::Python(path) => self.python(path, "cold", threads, &setting, outcome),
            },
            Workload::ColdMany => match kind {
                Kind::Raw => read::read(&setting, 1, 8, outcome),
                _ => library::cold(&setting, 1, true, self.small_cache(), outcome),
            },
            Workload::Commits { threads } => match kind {
                Kind::Raw => commit::commit(&setting, threads, COMMIT_OBJECTS, outcome),
                Kind::Ours => library::commits(&setting, threads, self.small_cache(), outcome),
                Kind::Python(path) => self.python(path, "commits", threads, &setting, outcome),
            },
            Workload::Reconnect(missed) => self.reconnect(kind, missed, outcome),
            Workload::Open => open::open(kind, &self.scratch.join(CACHE_FILE), self.plan.cache_len, outcome),
            Workload::ThroughLoads | Workload::ThroughCommits => {
                let middle = self.scratch.join("middle");
                remove_dir(&middle)?;
                make_dir(&middle)?;
                through::through(&setting, kind, workload == Workload::ThroughLoads, &middle, outcome)
            }
        }
    }

    fn setting<'s>(&'s self, server: &'s Running, dir: &'s Path) -> Setting<'s> {
        let (oids, object_len, measured) = (&self.oids, self.plan.object_len, self.plan.measured);
        Setting { server, second: None, dir, oids, object_len, measured }
    }

    fn python(
        &self,
        path: &Path,
        workload: &str,
        threads: usize,
        setting: &Setting<'_>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let oids = self.scratch.join("oids");
        fs::write(&oids, setting.oids.concat()).map_err(|e| format!("{}: {e}", oids.display()))?;
        let cache_len = if workload == "warm" { self.large_cache() } else { self.small_cache() };
        let task = Task {
            workload,
            address: &setting.target().address,
            path: self.scratch,
            threads,
            measured: setting.measured,
            cache_len,
            object_len: setting.object_len,
        };
        python::run(path, &task, outcome)
    }

    /// On a database of its own, because of what it changes.
    fn reconnect(&self, kind: &Kind, missed: Missed, outcome: &mut Outcome) -> Result<()> {
        let is_old = missed == Missed::ManyAtOldServer;
        let (from, server) =
            if is_old { ("old", self.old_server()?) } else { ("template", self.server.clone()) };
        let dir = self.fresh_copy(from, "reconnect")?;
        copy(&self.scratch.join("template"), &dir, CACHE_FILE)?;
        let running = Running::start(&server, &dir)?;
        let setting = self.setting(&running, &dir);
        reconnect::reconnect(&setting, kind, missed, &dir, self.large_cache(), outcome)?;
        running.stop()
    }

    /// A copy of a database.
    fn fresh_copy(&self, from: &str, to: &str) -> Result<PathBuf> {
        let (from, to) = (self.scratch.join(from), self.scratch.join(to));
        remove_dir(&to)?;
        make_dir(&to)?;
        for file in ["Data.fs", "Data.fs.index"] {
            if from.join(file).exists() {
                copy(&from, &to, file)?;
            }
        }
        sys::sync_disks();
        Ok(to)
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", dir.display())),
        _ => Ok(()),
    }
}
