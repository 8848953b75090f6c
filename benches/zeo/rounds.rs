//! The run: databases filled once, then rounds in which every workload runs against every server in turn.
//!
//! All servers of a round run at the same time, but only one is under load. The order of the servers rotates from round
//! to round, so that other activity on the machine affects all of them alike. Every round starts on fresh copies of the
//! databases.

use crate::client::Result;
use crate::outcome::Outcome;
use crate::plan::{Plan, Workload};
use crate::results::Results;
use crate::servers::{Running, Server};
use crate::wire::Id8;
use crate::workloads::{self, Setting};
use crate::{meter, sys};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs the plan; returns the outcomes, which are also in the plan's results file.
pub fn run(plan: &Plan, scratch: &Path) -> Result<Vec<Outcome>> {
    let mut run = Run::new(plan, scratch)?;
    run.fill()?;
    for round in 1..=plan.rounds {
        run.round(round)?;
    }
    Ok(run.results.outcomes)
}

struct Run<'a> {
    plan: &'a Plan,
    scratch: &'a Path,
    /// Per server: the objects to load.
    oids: Vec<Vec<Id8>>,
    /// Per server: the objects in the file of the pack workloads.
    pack_oids: Vec<Vec<Id8>>,
    /// Number of objects in the file of the start workloads.
    start_objects: usize,
    results: Results,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, scratch: &'a Path) -> Result<Run<'a>> {
        let pairs = plan.workloads.iter().flat_map(|(_, w)| plan.servers.iter().filter(|s| w.suits(s)));
        Ok(Run {
            plan,
            scratch,
            oids: vec![],
            pack_oids: vec![],
            start_objects: plan.start_file.map_or(plan.objects, |file| file.objects),
            results: Results::create(&plan.results, pairs.count(), plan.rounds)?,
        })
    }

    fn dir(&self, purpose: &str, server: &Server) -> PathBuf {
        self.scratch.join(purpose).join(&server.label)
    }

    /// Makes every server's database through the server itself.
    fn fill(&mut self) -> Result<()> {
        for server in &self.plan.servers {
            let dir = self.dir("template", server);
            make_dir(&dir)?;
            self.oids.push(if server.is_limit() {
                (1..=self.plan.objects as u64).map(u64::to_be_bytes).collect()
            } else {
                fill_through(server, &dir, self.plan.objects, self.plan.object_len)?
            });
        }
        let starts = self.plan.workloads.iter().any(|(_, w)| matches!(w, Workload::Start { .. }));
        if starts {
            self.make_start_files()?;
        }
        let packs = self.plan.workloads.iter().any(|(_, w)| w.packs());
        if packs { self.make_pack_files() } else { Ok(()) }
    }

    /// Makes the file of the pack workloads: every object has a first revision that is garbage.
    fn make_pack_files(&mut self) -> Result<()> {
        for (server, oids) in self.plan.servers.iter().zip(&self.oids) {
            if server.is_limit() {
                self.pack_oids.push(vec![]);
                continue;
            }
            let (template, dir) = (self.dir("template", server), self.dir("pack", server));
            make_dir(&dir)?;
            let oids = match self.plan.pack_file {
                Some(file) => fill_through(server, &dir, file.objects, file.object_len)?,
                None => copy(&template, &dir, "Data.fs").map(|()| oids.clone())?,
            };
            let failed = |e| format!("{}: {e}", server.label);
            let running = Running::start(server, &dir).map_err(failed)?;
            workloads::age(&running.target, &oids, self.pack_object_len()).map_err(failed)?;
            running.stop().map_err(failed)?;
            self.pack_oids.push(oids);
        }
        Ok(())
    }

    fn pack_object_len(&self) -> usize {
        self.plan.pack_file.map_or(self.plan.object_len, |file| file.object_len)
    }

    /// Makes the file of the start workloads. The first server makes a large one; the others get a copy with their own
    /// magic number, the only difference between Python 2 and 3.
    fn make_start_files(&self) -> Result<()> {
        let mut first: Option<PathBuf> = None;
        for server in self.plan.servers.iter().filter(|server| !server.is_limit()) {
            let (template, dir) = (self.dir("template", server), self.dir("start", server));
            make_dir(&dir)?;
            match (self.plan.start_file, &first) {
                (None, _) => copy(&template, &dir, "Data.fs")?,
                (Some(file), None) => drop(fill_through(server, &dir, file.objects, file.object_len)?),
                (Some(_), Some(first)) => {
                    copy(first, &dir, "Data.fs")?;
                    copy_magic(&template.join("Data.fs"), &dir.join("Data.fs"))?;
                }
            }
            first.get_or_insert(dir);
        }
        Ok(())
    }

    fn round(&mut self, round: u32) -> Result<()> {
        let mut shared = self.start_shared()?;
        let count = self.plan.servers.len();
        for (name, workload) in &self.plan.workloads {
            for i in 0..count {
                let number = (i + round as usize - 1) % count;
                let server = &self.plan.servers[number];
                if !workload.suits(server) {
                    continue;
                }
                let mut outcome = Outcome::new(round, name, &server.label);
                let result = if workload.wants_fresh_server() {
                    self.run_fresh(*workload, number, &mut outcome)
                } else {
                    self.run_shared(*workload, number, &shared[number], &mut outcome)
                };
                self.results.end(outcome, result)?;
            }
        }
        for (server, running) in self.plan.servers.iter().zip(shared.drain(..)) {
            let Ok(running) = running else { continue };
            let mut outcome = Outcome::new(round, "total", &server.label);
            outcome.set("total_cpu_s", meter::process_cpu(running.pid));
            outcome.set("peak_mb", meter::process_kb(running.pid, "VmHWM") / 1024.0);
            let result = running.stop();
            self.results.end(outcome, result)?;
        }
        Ok(())
    }

    /// Starts every server on a fresh copy of its database. If one does not start, its workloads fail.
    fn start_shared(&self) -> Result<Vec<Result<Running>>> {
        if self.plan.workloads.iter().all(|(_, workload)| workload.wants_fresh_server()) {
            return Ok(self.plan.servers.iter().map(|_| Err("not started".into())).collect());
        }
        for server in &self.plan.servers {
            let (template, dir) = (self.dir("template", server), self.dir("run", server));
            if dir.exists() {
                fs::remove_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            }
            make_dir(&dir)?;
            for file in ["Data.fs", "Data.fs.index"] {
                if template.join(file).exists() {
                    copy(&template, &dir, file)?;
                }
            }
        }
        sys::sync_disks();
        Ok(self.plan.servers.iter().map(|server| Running::start(server, &self.dir("run", server))).collect())
    }

    fn run_shared(
        &self,
        workload: Workload,
        number: usize,
        running: &Result<Running>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let running = running.as_ref().map_err(Clone::clone)?;
        let dir = self.dir("run", &self.plan.servers[number]);
        if matches!(workload, Workload::BlobUp | Workload::BlobDown) {
            // Otherwise a server's sync would also write the dirty pages of earlier servers.
            sys::sync_disks();
        }
        let setting = self.setting(number, running, &dir);
        if !workload.is_pinned() {
            return workloads::run(workload, &setting, outcome);
        }
        running.confine(1);
        sys::confine(0, 1).map_err(|e| format!("one core: {e}"))?;
        let result = workloads::run(workload, &setting, outcome);
        running.confine(sys::core_count());
        sys::confine(0, sys::core_count()).map_err(|e| format!("all cores: {e}"))?;
        result
    }

    fn run_fresh(&self, workload: Workload, number: usize, outcome: &mut Outcome) -> Result<()> {
        let server = &self.plan.servers[number];
        if let Workload::Start { indexed } = workload {
            let dir = self.dir("start", server);
            return workloads::start(server, &dir, self.start_objects, indexed, outcome);
        }
        let dir = self.dir("fresh", server);
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        make_dir(&dir)?;
        if workload.packs() {
            copy(&self.dir("pack", server), &dir, "Data.fs")?;
            sys::sync_disks();
        }
        let running = Running::start(server, &dir)?;
        let mut setting = self.setting(number, &running, &dir);
        if workload.packs() {
            (setting.oids, setting.object_len) = (&self.pack_oids[number], self.pack_object_len());
        }
        workloads::run(workload, &setting, outcome)?;
        running.stop()
    }

    fn setting<'s>(&'s self, number: usize, server: &'s Running, dir: &'s Path) -> Setting<'s> {
        let (oids, object_len) = (&self.oids[number], self.plan.object_len);
        Setting { server, second: None, dir, oids, object_len, measured: self.plan.measured }
    }
}

/// Makes a new database in `dir` through `server`.
pub fn fill_through(server: &Server, dir: &Path, objects: usize, object_len: usize) -> Result<Vec<Id8>> {
    let started = Instant::now();
    eprint!("{}: storing {objects} objects of {object_len} bytes ... ", server.label);
    let failed = |e| format!("{}: {e}", server.label);
    let running = Running::start(server, dir).map_err(failed)?;
    let oids = workloads::fill(&running.target, objects, object_len).map_err(failed)?;
    running.stop().map_err(failed)?;
    eprintln!("{:.1} s", started.elapsed().as_secs_f64());
    Ok(oids)
}

pub fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))
}

pub fn copy(from: &Path, to: &Path, name: &str) -> Result<()> {
    fs::copy(from.join(name), to.join(name))
        .map(drop)
        .map_err(|e| format!("{}: {e}", to.join(name).display()))
}

/// Gives the file `to` the first four bytes of the file `from`.
pub fn copy_magic(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let mut magic = [0; 4];
    let read = File::open(from).and_then(|file| file.read_exact_at(&mut magic, 0));
    let written = read.and_then(|()| File::options().write(true).open(to)?.write_all_at(&magic, 0));
    written.map_err(|e| format!("{}: {e}", to.display()))
}
