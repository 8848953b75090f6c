//! The run: one database, filled once, then rounds in which every workload meets every contestant in turn.

use super::cluster::Cluster;
use super::{Contestant, Plan, Workload, relstorage};
use crate::client::Result;
use crate::meter::family_cpu;
use crate::outcome::Outcome;
use crate::results::Results;
use crate::rounds::{fill_through, make_dir};
use crate::servers::{self, Running, Server};
use crate::sys;
use crate::wire::Id8;
use crate::workloads::{COMMIT_OBJECTS, Setting, commit, connect, fanout, read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Objects of the workloads that read from memory: they fit in it.
const WARM_OBJECTS: usize = 5_000;
/// Clients that commit while the sessions are counted.
const BESIDE_CLIENTS: usize = 8;

/// Runs the plan; returns the outcomes, which are also in the plan's results file.
pub fn run(plan: &Plan, scratch: &Path) -> Result<Vec<Outcome>> {
    let Some(cluster) = Cluster::start()? else { return Ok(Vec::new()) };
    let prepared = Prepared::make(plan, scratch, cluster)?;
    let pairs = plan.workloads.iter().flat_map(|(_, w)| prepared.contestants.iter().filter(|c| w.suits(**c)));
    let mut results = Results::create(&plan.results, pairs.count(), plan.rounds)?;
    for round in 1..=plan.rounds {
        prepared.round(round, &mut results)?;
    }
    Ok(results.outcomes)
}

struct Prepared<'a> {
    plan: &'a Plan,
    scratch: &'a Path,
    cluster: Cluster,
    contestants: Vec<Contestant>,
    /// The objects of the database, and those of the file.
    oids: Vec<Id8>,
    file_oids: Vec<Id8>,
}

impl<'a> Prepared<'a> {
    fn make(plan: &'a Plan, scratch: &'a Path, cluster: Cluster) -> Result<Prepared<'a>> {
        let mut contestants = vec![Contestant::Ours, Contestant::Two, Contestant::File];
        if relstorage::is_installed(&plan.python) {
            contestants.insert(0, Contestant::RelStorage);
        } else {
            eprintln!("SKIPPED: RelStorage, which {} does not have", plan.python.display());
        }
        let mut prepared =
            Prepared { plan, scratch, cluster, contestants, oids: Vec::new(), file_oids: Vec::new() };
        for (contestant, dir) in [(Contestant::Ours, "ours-1"), (Contestant::File, "file-1")] {
            let dir = prepared.dir(dir)?;
            let oids =
                fill_through(&prepared.server(contestant, false)?, &dir, plan.objects, plan.object_len)?;
            match contestant {
                Contestant::File => prepared.file_oids = oids,
                _ => prepared.oids = oids,
            }
        }
        prepared.cluster.execute("vacuum analyze")?;
        if prepared.contestants.contains(&Contestant::RelStorage) {
            let mut nothing = Outcome::new(0, "prepare", super::RELSTORAGE);
            relstorage::run(&plan.python, &["prepare", &prepared.cluster.dsn()], &mut nothing)?;
        }
        let path = prepared.oids_path();
        std::fs::write(&path, prepared.oids.concat()).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(prepared)
    }

    fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.scratch.join(name);
        make_dir(&dir)?;
        Ok(dir)
    }

    fn oids_path(&self) -> PathBuf {
        self.scratch.join("oids")
    }

    /// `cold`: it keeps no records in memory.
    fn server(&self, contestant: Contestant, cold: bool) -> Result<Server> {
        let mut server = Server::parse(servers::OURS, self.plan.object_len)?;
        server.label = contestant.label().into();
        if contestant != Contestant::File {
            let cache = if cold { "  cache-local-mb 0\n" } else { "" };
            server.storage = Some(format!(
                "%import relstorage\n<relstorage 1>\n{cache}  <postgresql>\n    dsn {}\n  </postgresql>\n\
                 </relstorage>",
                self.cluster.dsn()
            ));
        }
        Ok(server)
    }

    fn round(&self, round: u32, results: &mut Results) -> Result<()> {
        for (name, workload) in &self.plan.workloads {
            for i in 0..self.contestants.len() {
                let contestant = self.contestants[(i + round as usize - 1) % self.contestants.len()];
                if workload.suits(contestant) {
                    let mut outcome = Outcome::new(round, name, contestant.label());
                    let result = self.measure(*workload, contestant, &mut outcome);
                    results.end(outcome, result)?;
                }
            }
        }
        Ok(())
    }

    fn measure(&self, workload: Workload, contestant: Contestant, outcome: &mut Outcome) -> Result<()> {
        // No measurement has the dirty pages of the one before.
        sys::sync_disks();
        let database = self.cluster.pid()?;
        let before = family_cpu(database);
        let started = Instant::now();
        let result = match contestant {
            Contestant::RelStorage => self.relstorage(workload, outcome),
            _ => self.servers(workload, contestant, outcome),
        };
        if contestant != Contestant::File {
            outcome.set("database_cores", (family_cpu(database) - before) / started.elapsed().as_secs_f64());
        }
        result
    }

    fn relstorage(&self, workload: Workload, outcome: &mut Outcome) -> Result<()> {
        let (dsn, seconds) = (self.cluster.dsn(), self.plan.measured.as_secs_f64().to_string());
        let (length, oids) = (self.plan.object_len.to_string(), self.oids_path());
        let python = &self.plan.python;
        match workload {
            Workload::Commit { clients, objects } => {
                let (clients, objects) = (clients.to_string(), objects.to_string());
                relstorage::run(python, &["commit", &dsn, &clients, &seconds, &objects, &length], outcome)
            }
            Workload::Read { clients, .. } => {
                let oids = oids.display().to_string();
                relstorage::run(python, &["load", &dsn, &clients.to_string(), &seconds, &oids], outcome)
            }
            Workload::Fanout { .. } | Workload::Burst { .. } => Err("it has no server".into()),
        }
    }

    fn servers(&self, workload: Workload, contestant: Contestant, outcome: &mut Outcome) -> Result<()> {
        let server = self.server(contestant, matches!(workload, Workload::Read { cold: true, .. }))?;
        let dirs = [self.dir(&format!("{}-1", server.label))?, self.dir(&format!("{}-2", server.label))?];
        let first = Running::start(&server, &dirs[0])?;
        let second = match contestant {
            Contestant::Two => Some(Running::start(&server, &dirs[1])?),
            _ => None,
        };
        let oids = if contestant == Contestant::File { &self.file_oids } else { &self.oids };
        let setting = Setting {
            server: &first,
            second: second.as_ref(),
            dir: &dirs[0],
            oids,
            object_len: self.plan.object_len,
            measured: self.plan.measured,
        };
        match workload {
            Workload::Commit { clients, objects } => commit::commit(&setting, clients, objects, outcome)?,
            Workload::Read { clients, cold: true } => read::read(&setting, clients, 1, outcome)?,
            Workload::Read { clients, cold: false } => {
                let oids = &oids[..oids.len().min(WARM_OBJECTS)];
                let setting = Setting { oids, ..setting };
                read::touch(&setting)?;
                read::read(&setting, clients, 1, outcome)?;
            }
            Workload::Fanout { listeners } => fanout::fanout(&setting, listeners, outcome)?,
            Workload::Burst { count } => self.burst(&setting, count, outcome)?,
        }
        second.map_or(Ok(()), Running::stop)?;
        first.stop()
    }

    /// Every client of the crowd loads, and some others commit, while the sessions are counted.
    fn burst(&self, setting: &Setting<'_>, count: usize, outcome: &mut Outcome) -> Result<()> {
        let mut clients = connect::connect(setting, count, true, outcome)?;
        let (most, busy) = std::thread::scope(|scope| {
            let busy = scope.spawn(|| commit::run(setting, BESIDE_CLIENTS, COMMIT_OBJECTS));
            let mut most = 0;
            while !busy.is_finished() {
                let mut asked = Vec::with_capacity(clients.len());
                for (client, oid) in clients.iter_mut().zip(setting.oids.iter().cycle()) {
                    asked.push((client.queue_load(oid), oid));
                    client.flush()?;
                }
                most = most.max(self.cluster.sessions()?);
                for (client, (id, oid)) in clients.iter_mut().zip(asked) {
                    client.wait_load(id, oid)?.ok_or("an object has gone")?;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok::<_, String>((most, busy.join()))
        })?;
        busy.map_err(|_| "a client of the benchmark panicked")??;
        outcome.set("sessions", most as f64);
        Ok(())
    }
}
