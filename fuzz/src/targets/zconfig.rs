//! Configuration files: arbitrary bytes give a tree, or an error with its place, with any includes.

use std::io;
use std::path::{Path, PathBuf};

use runzeo::internal::config::schema;
use runzeo::internal::config::zconfig::{Surroundings, load, matcher};

const NAME: &str = "zeo.conf";

/// One file, which may include itself under any name.
struct OneFile<'a>(&'a [u8]);

impl Surroundings for OneFile<'_> {
    fn environment(&self, name: &str) -> Option<String> {
        (name.len() < 4).then(|| "value".to_string())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let is_known = path.file_name().is_some_and(|name| name.len() < 20);
        if is_known { Ok(self.0.to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn import(&self, package: &str) -> Result<(), String> {
        if package == "ZODB" { Ok(()) } else { Err("unknown".into()) }
    }
}

pub fn run(data: &[u8]) {
    let result =
        load(NAME, &OneFile(data)).and_then(|tree| matcher::check(&tree, &schema::FILE, &Default::default()));
    if let Err(error) = result {
        let text = error.to_string();
        assert!(!text.is_empty());
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    read_all(&crate::root().join("compat-tests/config/cases"), &mut seeds);
    seeds
}

fn read_all(dir: &PathBuf, seeds: &mut Vec<Vec<u8>>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            read_all(&path, seeds);
        } else if let Ok(bytes) = std::fs::read(&path) {
            seeds.push(bytes);
        }
    }
}
