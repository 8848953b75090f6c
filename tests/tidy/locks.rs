//! Locks are those of `base::sync`, which have ranks and do not poison.

use std::fs;

use crate::{rust_files, source};

/// The types of `std::sync` without ranks.
const WITHOUT_RANK: &[&str] = &["Mutex", "RwLock", "Condvar", "PoisonError"];

#[test]
fn every_lock_has_a_rank() {
    let mut wrong = Vec::new();
    for file in rust_files(&source()) {
        let name = file.strip_prefix(source()).expect("below src").to_string_lossy().into_owned();
        if name.starts_with("base/sync/") || name.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("readable");
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in product.lines().enumerate() {
            let of_std = line.contains("std::sync") && WITHOUT_RANK.iter().any(|lock| line.contains(lock));
            if of_std || line.contains("thread::sleep") && !MAY_SLEEP.contains(&name.as_str()) {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "use the locks of base::sync and give them a rank there; wait at a condition variable:\n{}",
        wrong.join("\n")
    );
}

/// Files that pause after an error of the system, whose end no condition variable reports; or that are a delay.
const MAY_SLEEP: &[&str] = &[
    "backup/repozo/backup.rs",
    "server/acceptor.rs",
    "server/monitor.rs",
    "storage/file/pack/pace.rs",
    "storage/load_delayed.rs",
    "storage/postgres/pack/session.rs",
    "commands/zeoadmin/top.rs",
    "commands/zeofs/layout.rs",
    "commands/zeopack.rs",
];
