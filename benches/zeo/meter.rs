//! The cost of a server: CPU time and memory, from /proc; and the load of the rest of the machine.

use crate::outcome::Outcome;
use crate::sys;
use std::time::{Duration, Instant};

/// CPU seconds (user and system) that a process has used.
pub fn process_cpu(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The command's name, in parentheses, may contain blanks: fields are counted after it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / sys::ticks_per_second()
}

/// CPU seconds of a process and of all its children, those that have ended among them.
pub fn family_cpu(process: u32) -> f64 {
    let parent_of = |name: &str| -> Option<(u32, u32)> {
        let id = name.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        Some((id, stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?))
    };
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let children = all.filter_map(|entry| parent_of(entry.file_name().to_str()?));
    let living: f64 = children.filter(|(_, of)| *of == process).map(|(id, _)| process_cpu(id)).sum();
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let own: f64 = fields.skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
    living + own / sys::ticks_per_second()
}

/// A value in kB from /proc/PID/status: VmRSS, VmHWM (its peak), RssAnon. 0 if the process is gone.
pub fn process_kb(process: u32, key: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|kb| kb.parse().ok()).unwrap_or(0.0)
}

/// Busy CPU seconds of the whole machine.
fn machine_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    // user nice system [idle iowait] irq softirq steal
    let busy = first.split_whitespace().skip(1).take(8).enumerate().filter(|(i, _)| *i != 3 && *i != 4);
    busy.filter_map(|(_, ticks)| ticks.parse::<f64>().ok()).sum::<f64>() / sys::ticks_per_second()
}

/// CPU use from [`Meter::start`] to [`Meter::read`].
pub struct Meter {
    servers: Vec<u32>,
    started: Instant,
    server_cpu: f64,
    own_cpu: Duration,
    machine_cpu: f64,
}

impl Meter {
    pub fn start(server: u32) -> Meter {
        Meter::start_all(&[server])
    }

    /// Of several servers together.
    pub fn start_all(servers: &[u32]) -> Meter {
        Meter {
            servers: servers.to_vec(),
            started: Instant::now(),
            server_cpu: sum_of_cpu(servers),
            own_cpu: sys::own_cpu(),
            machine_cpu: machine_cpu(),
        }
    }

    pub fn read(&self) -> Usage {
        Usage {
            elapsed: self.started.elapsed().as_secs_f64(),
            server_cpu: sum_of_cpu(&self.servers) - self.server_cpu,
            own_cpu: (sys::own_cpu() - self.own_cpu).as_secs_f64(),
            machine_cpu: machine_cpu() - self.machine_cpu,
        }
    }
}

fn sum_of_cpu(processes: &[u32]) -> f64 {
    processes.iter().map(|process| process_cpu(*process)).sum()
}

/// All values are in seconds.
pub struct Usage {
    pub elapsed: f64,
    pub server_cpu: f64,
    own_cpu: f64,
    machine_cpu: f64,
}

impl Usage {
    /// Cores that all programs and the kernel kept busy.
    pub fn machine_cores(&self) -> f64 {
        self.machine_cpu / self.elapsed
    }

    /// CPU of server and client per operation, of the server in cores, and the part of the machine used by other
    /// programs.
    pub fn report(&self, outcome: &mut Outcome, operations: u64) {
        if operations > 0 {
            outcome.set("server_us", self.server_cpu * 1e6 / operations as f64);
            outcome.set("client_us", self.own_cpu * 1e6 / operations as f64);
        }
        outcome.set("server_cores", self.server_cpu / self.elapsed);
        let others = self.machine_cpu - self.own_cpu - self.server_cpu;
        outcome.set("others", (others / self.elapsed / sys::core_count() as f64).max(0.0));
    }
}
