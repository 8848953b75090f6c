//! Opening the file of a full cache. Each opening is a process of its own, so that its memory can be seen.

use super::Kind;
use super::python::{self, Task};
use crate::client::Result;
use crate::meter;
use crate::outcome::Outcome;
use crate::records;
use crate::sys;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::cache::{Cache, CacheOptions};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The name of the command that opens a file, which only this module uses.
pub const COMMAND: &str = "open-cache";

/// Makes a full cache of records of `object_len` bytes.
pub fn make(path: &Path, cache_len: u64, object_len: usize) -> Result<()> {
    let cache = Cache::open(CacheOptions::new(Some(path), cache_len)).map_err(|e| e.to_string())?;
    let mut record = records::mapping(false, object_len, 1);
    for number in 1.. {
        records::retag(&mut record, number);
        cache.store(Oid(number), Tid(number), None, &record);
        if cache.stats().evictions > 0 {
            cache.set_last_tid(Tid(number)).map_err(|e| e.to_string())?;
            break;
        }
    }
    cache.close();
    Ok(())
}

/// Opens the cache `path`, and prints the time and the memory that its index takes.
pub fn open_cache(path: &Path, cache_len: u64) -> Result<()> {
    let before = meter::process_kb(std::process::id(), "RssAnon");
    let (started, cpu) = (Instant::now(), sys::own_cpu());
    let cache = Cache::open(CacheOptions::new(Some(path), cache_len)).map_err(|e| e.to_string())?;
    println!("open_ms {}", started.elapsed().as_secs_f64() * 1e3);
    println!("cpu_ms {}", (sys::own_cpu() - cpu).as_secs_f64() * 1e3);
    let after = meter::process_kb(std::process::id(), "RssAnon");
    println!("revisions {}", cache.count());
    println!("bytes {}", (after - before) * 1024.0 / cache.count().max(1) as f64);
    cache.close();
    Ok(())
}

/// The times of all ways to open the file.
pub fn open(kind: &Kind, path: &Path, cache_len: u64, outcome: &mut Outcome) -> Result<()> {
    match kind {
        Kind::Raw => return Err("it has no cache".into()),
        Kind::Ours => {
            let open = |outcome: &mut Outcome| ours(path, cache_len, outcome);
            // Another client may have used it: from here on it is closed in order, by this one.
            open(&mut Outcome::default())?;
            timed(path, "ended", open, outcome)?;
            let killed = |outcome: &mut Outcome| {
                remove(&beside(path))?;
                open(outcome)
            };
            timed(path, "killed", killed, outcome)?;
        }
        Kind::Python(python) => {
            let open = |outcome: &mut Outcome| {
                let task = Task {
                    workload: "open",
                    address: "-",
                    path,
                    threads: 1,
                    measured: Duration::ZERO,
                    cache_len,
                    object_len: 0,
                };
                python::run(python, &task, outcome)
            };
            timed(path, "ended", open, outcome)?;
            // It makes no difference to it.
            for key in ["ended_ms", "ended_cold_ms", "ended_cpu_ms"] {
                let value = outcome.figures.get(key).copied().unwrap_or(f64::NAN);
                outcome.set(&key.replace("ended", "killed"), value);
            }
        }
    }
    Ok(())
}

/// Opens it with the file in memory, and with the file on the disk only.
fn timed(
    path: &Path,
    how: &str,
    open: impl Fn(&mut Outcome) -> Result<()>,
    outcome: &mut Outcome,
) -> Result<()> {
    for (is_cold, key) in [(false, format!("{how}_ms")), (true, format!("{how}_cold_ms"))] {
        for path in [path.to_path_buf(), beside(path)] {
            if is_cold {
                forget(&path)?;
            } else {
                read(&path)?;
            }
        }
        let mut one = Outcome::default();
        open(&mut one)?;
        let found = |key: &str| one.figures.get(key).copied().unwrap_or(f64::NAN);
        outcome.set(&key, found("open_ms"));
        outcome.set("revisions", found("revisions"));
        if is_cold {
            outcome.set(&format!("{how}_bytes"), found("bytes"));
        } else {
            outcome.set(&format!("{how}_cpu_ms"), found("cpu_ms"));
        }
    }
    Ok(())
}

fn ours(path: &Path, cache_len: u64, outcome: &mut Outcome) -> Result<()> {
    let exe = std::env::current_exe().map_err(|e| format!("own program: {e}"))?;
    let mut command = Command::new(exe);
    command.arg(COMMAND).arg(path).arg(cache_len.to_string()).stdin(Stdio::null());
    sys::tie_to_us(&mut command);
    python::take_figures(command.output().map_err(|e| format!("own program: {e}"))?, outcome)
}

/// The file of checksums and of the index beside a cache file.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sums");
    name.into()
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", path.display())),
        _ => Ok(()),
    }
}

/// Reads a file, so that the system has it in memory.
fn read(path: &Path) -> Result<()> {
    let Ok(mut file) = File::open(path) else { return Ok(()) };
    std::io::copy(&mut file, &mut std::io::sink()).map(drop).map_err(|e| format!("{}: {e}", path.display()))
}

/// Makes the system forget what it has of a file in memory.
fn forget(path: &Path) -> Result<()> {
    let Ok(file) = File::open(path) else { return Ok(()) };
    file.sync_all().and_then(|()| sys::forget_pages(&file)).map_err(|e| format!("{}: {e}", path.display()))
}
