//! What the system knows of this process: the metrics that Prometheus' own libraries have, too.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::text::FamilyKind::{Counter, Gauge};
use super::text::MetricsText;

/// Adds them. `began`: when the process began.
pub fn add(out: &mut MetricsText, began: SystemTime) {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    out.family(Counter, "process_cpu_seconds", "Processor time of the process.").add(&[], cpu);
    let began = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    out.family(Gauge, "process_start_time_seconds", "When the process began.").add(&[], began);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = |key| field(&status, key).map(|kilobytes| kilobytes.saturating_mul(1024));
    out.family(Gauge, "process_resident_memory_bytes", "Memory of the process.")
        .add_if_known(&[], memory("VmRSS:"));
    out.family(Gauge, "process_virtual_memory_bytes", "Address space of the process.")
        .add_if_known(&[], memory("VmSize:"));
    out.family(Gauge, "process_threads", "Threads of the process.")
        .add_if_known(&[], field(&status, "Threads:"));
    // One of them is of the directory.
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1));
    out.family(Gauge, "process_open_fds", "Open files of the process.").add_if_known(&[], open);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    out.family(Gauge, "process_max_fds", "Limit of open files.").add_if_known(&[], limit);
}

/// A number in `/proc/self/status`.
fn field(status: &str, key: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}
