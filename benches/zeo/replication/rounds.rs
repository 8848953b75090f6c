//! The run: one file, filled once, then rounds in which every workload meets every contestant in turn.

use super::{Contestant, Plan, Workload};
use crate::client::{Client, Result};
use crate::outcome::Outcome;
use crate::results::Results;
use crate::rounds::{fill_through, make_dir};
use crate::servers::{self, Running, Server, free_address};
use crate::sys;
use crate::wire::Id8;
use crate::workloads::{Setting, commit};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time until a replica has everything.
const CATCH_UP_MAX: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(2);

/// Runs the plan; returns the outcomes, which are also in the plan's results file.
pub fn run(plan: &Plan, scratch: &Path) -> Result<Vec<Outcome>> {
    let template = scratch.join("template");
    make_dir(&template)?;
    let oids = fill_through(&server(Contestant::Alone, None)?, &template, plan.objects, plan.object_len)?;
    let run = Run { plan, scratch, template, oids };
    let pairs = plan.workloads.iter().flat_map(|(_, w)| Contestant::ALL.iter().filter(|c| w.suits(**c)));
    let mut results = Results::create(&plan.results, pairs.count(), plan.rounds)?;
    for round in 1..=plan.rounds {
        for (name, workload) in &plan.workloads {
            for i in 0..Contestant::ALL.len() {
                let contestant = Contestant::ALL[(i + round as usize - 1) % Contestant::ALL.len()];
                if workload.suits(contestant) {
                    let mut outcome = Outcome::new(round, name, contestant.label());
                    let result = run.measure(*workload, contestant, &mut outcome);
                    results.end(outcome, result)?;
                }
            }
        }
    }
    Ok(results.outcomes)
}

struct Run<'a> {
    plan: &'a Plan,
    scratch: &'a Path,
    /// The directory with the filled file, and its objects.
    template: PathBuf,
    oids: Vec<Id8>,
}

/// A server of the contestant. `own` and `other`: where it and its peer listen for each other; `None`: it is alone.
fn server(contestant: Contestant, replication: Option<(&str, [&str; 2])>) -> Result<Server> {
    let mut server = Server::parse(servers::OURS, 0)?;
    server.label = contestant.label().into();
    let Some((role, [own, other])) = replication else { return Ok(server) };
    server.is_replica = role == "replica";
    let waits = match contestant {
        Contestant::Synchronous => "  synchronous-replicas 1\n  on-timeout block\n",
        _ => "",
    };
    server.further = format!(
        "<replication>\n  name {role}\n  role {role}\n  listen {own}\n  peer {other}\n{waits}</replication>\n"
    );
    Ok(server)
}

impl Run<'_> {
    /// An empty directory of this name.
    fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.scratch.join(name);
        // It may not be there.
        let _ = fs::remove_dir_all(&dir);
        make_dir(&dir)?;
        Ok(dir)
    }

    fn measure(&self, workload: Workload, contestant: Contestant, outcome: &mut Outcome) -> Result<()> {
        let dirs = [self.dir("primary")?, self.dir("replica")?];
        if workload == Workload::CatchUp {
            copy(&self.template.join("Data.fs"), &dirs[0].join("Data.fs"))?;
        }
        // No measurement has the dirty pages of the one before.
        sys::sync_disks();
        match (workload, contestant) {
            (Workload::CatchUp, Contestant::Copy) => copied(&dirs, outcome),
            (_, Contestant::Copy) => Err("it has no server".into()),
            (Workload::CatchUp, _) => self.catch_up(contestant, &dirs, outcome),
            (Workload::Commit { clients, objects }, Contestant::Alone) => {
                let alone = Running::start(&server(contestant, None)?, &dirs[0])?;
                self.commit(&alone, None, &dirs[0], (clients, objects), outcome)?;
                alone.stop()
            }
            (Workload::Commit { clients, objects }, _) => {
                let [primary, replica] = pair(contestant, &dirs)?;
                self.commit(&primary, Some(&replica), &dirs[0], (clients, objects), outcome)?;
                replica.stop()?;
                primary.stop()
            }
        }
    }

    fn commit(
        &self,
        server: &Running,
        second: Option<&Running>,
        dir: &Path,
        (clients, objects): (usize, usize),
        outcome: &mut Outcome,
    ) -> Result<()> {
        // The processor time of both is counted, and only the first one has clients.
        let setting = Setting {
            server,
            second: None,
            dir,
            oids: &self.oids,
            object_len: self.plan.object_len,
            measured: self.plan.measured,
        };
        let before = second.map(|second| crate::meter::process_cpu(second.pid));
        commit::commit(&setting, clients, objects, outcome)?;
        if let (Some(before), Some(second)) = (before, second) {
            let used = crate::meter::process_cpu(second.pid) - before;
            outcome.set("replica_cores", used / self.plan.measured.as_secs_f64());
        }
        Ok(())
    }

    fn catch_up(&self, contestant: Contestant, dirs: &[PathBuf; 2], outcome: &mut Outcome) -> Result<()> {
        let [own, other] = [free_address()?, free_address()?];
        let primary = server(contestant, Some(("primary", [&own, &other])))?;
        let primary = Running::start(&primary, &dirs[0])?;
        let wanted = Client::open(&primary.target)?.last_transaction()?;
        let started = Instant::now();
        let replica = Running::start(&server(contestant, Some(("replica", [&other, &own])))?, &dirs[1])?;
        let mut client = Client::open(&replica.target)?;
        while client.last_transaction()? != wanted {
            if started.elapsed() > CATCH_UP_MAX {
                return Err("the replica has not caught up".into());
            }
            std::thread::sleep(POLL);
        }
        report_rate(&dirs[1].join("Data.fs"), started.elapsed(), outcome)?;
        replica.stop()?;
        primary.stop()
    }
}

/// A primary, and a replica that follows it.
fn pair(contestant: Contestant, dirs: &[PathBuf; 2]) -> Result<[Running; 2]> {
    let [own, other] = [free_address()?, free_address()?];
    let primary = Running::start(&server(contestant, Some(("primary", [&own, &other])))?, &dirs[0])?;
    let replica = Running::start(&server(contestant, Some(("replica", [&other, &own])))?, &dirs[1])?;
    let log = dirs[1].join("log");
    let started = Instant::now();
    while !fs::read_to_string(&log).unwrap_or_default().contains("following primary") {
        if started.elapsed() > CATCH_UP_MAX {
            return Err("the replica does not follow".into());
        }
        std::thread::sleep(POLL);
    }
    Ok([primary, replica])
}

fn copied(dirs: &[PathBuf; 2], outcome: &mut Outcome) -> Result<()> {
    let started = Instant::now();
    let to = dirs[1].join("Data.fs");
    copy(&dirs[0].join("Data.fs"), &to)?;
    report_rate(&to, started.elapsed(), outcome)
}

/// Copies a file, durably.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let copy = || {
        fs::copy(from, to)?;
        File::open(to)?.sync_all()
    };
    copy().map_err(|e| format!("copying {}: {e}", from.display()))
}

fn report_rate(file: &Path, took: Duration, outcome: &mut Outcome) -> Result<()> {
    let len = fs::metadata(file).map_err(|e| format!("{}: {e}", file.display()))?.len();
    outcome.set("mb_s", len as f64 / 1e6 / took.as_secs_f64());
    Ok(())
}
