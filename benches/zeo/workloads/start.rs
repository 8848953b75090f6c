//! From the start of the process until it answers a request, with and without an index; memory per object.

use crate::client::Result;
use crate::meter::{process_cpu, process_kb};
use crate::outcome::Outcome;
use crate::servers::{Running, Server};
use std::path::Path;

/// Measures `server` on `dir/Data.fs`, which contains `objects`. The scan writes the index for the start with an index,
/// so every server is measured with its own index.
pub fn start(
    server: &Server,
    dir: &Path,
    objects: usize,
    indexed: bool,
    outcome: &mut Outcome,
) -> Result<()> {
    let data_path = dir.join("Data.fs");
    let index_path = dir.join("Data.fs.index");
    let data_len = std::fs::metadata(&data_path).map_err(|e| format!("{}: {e}", data_path.display()))?.len();
    if indexed && !index_path.exists() {
        Running::start(server, dir)?.stop()?;
        if !index_path.exists() {
            return Err("the server saves no index when it stops".into());
        }
    } else if !indexed && index_path.exists() {
        std::fs::remove_file(&index_path).map_err(|e| format!("{}: {e}", index_path.display()))?;
    }
    let empty_kb = anonymous_kb_when_empty(server, &dir.join("empty"))?;
    let running = Running::start(server, dir)?;
    let answering_s = running.answering_after.as_secs_f64();
    outcome.set("answer_ms", answering_s * 1e3);
    outcome.set("listen_ms", running.listening_after.as_secs_f64() * 1e3);
    outcome.set("start_cpu_s", process_cpu(running.pid));
    if !indexed {
        outcome.set("scan_mb_s", data_len as f64 / 1e6 / answering_s);
    }
    outcome.set("rss_mb", process_kb(running.pid, "VmRSS") / 1024.0);
    outcome.set("peak_mb", process_kb(running.pid, "VmHWM") / 1024.0);
    let for_objects_kb = process_kb(running.pid, "RssAnon") - empty_kb;
    outcome.set("object_bytes", for_objects_kb * 1024.0 / objects as f64);
    running.stop()
}

/// The memory of the same server with an empty storage, without the pages of the program file, which are shared and
/// vary.
fn anonymous_kb_when_empty(server: &Server, dir: &Path) -> Result<f64> {
    std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let running = Running::start(server, dir)?;
    let kb = process_kb(running.pid, "RssAnon");
    running.stop()?;
    Ok(kb)
}
