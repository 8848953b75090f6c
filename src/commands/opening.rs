//! How far the opening of the storages has come, for the service manager.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::{NamedStorage, files};
use crate::storage::OpenProgress;

/// The storages of a start, in the order in which they are opened.
#[derive(Debug)]
pub(super) struct Opening {
    storages: Vec<OneOpening>,
    /// Number of storages that are open.
    open: AtomicUsize,
}

#[derive(Debug)]
struct OneOpening {
    name: String,
    /// A storage may have several files.
    files: Vec<(PathBuf, OpenProgress)>,
}

impl Opening {
    pub(super) fn new(storages: &[NamedStorage]) -> Opening {
        let one = |named: &NamedStorage| {
            let files = files(&named.storage);
            let files = files.iter().map(|file| (file.options.path.clone(), file.options.progress.clone()));
            OneOpening { name: named.name.clone(), files: files.collect() }
        };
        Opening { storages: storages.iter().map(one).collect(), open: AtomicUsize::new(0) }
    }

    /// The next storage is open.
    pub(super) fn has_opened_one(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// What is done now, such as "opening 1: 43 % of Data.fs". `None`: all storages are open.
    pub(super) fn shown(&self) -> Option<String> {
        let storage = self.storages.get(self.open.load(Ordering::Relaxed))?;
        let mut shown = format!("opening {}", storage.name);
        let mut scanned = storage.files.iter().filter_map(|(path, progress)| Some((path, progress.get()?)));
        // The last one that was begun.
        if let Some((path, (done, total))) = scanned.next_back() {
            let name = path.file_name().unwrap_or(path.as_os_str()).display();
            // Writing to a String cannot fail.
            let _ = write!(shown, ": {} % of {name}", u128::from(done) * 100 / u128::from(total.max(1)));
        }
        Some(shown)
    }

    /// Changes as long as something is done, unlike the percentage of a large file.
    pub(super) fn position(&self) -> (usize, u64) {
        let open = self.open.load(Ordering::Relaxed);
        let files = self.storages.get(open).map(|storage| storage.files.as_slice()).unwrap_or_default();
        let done = files.iter().filter_map(|(_, progress)| progress.get()).map(|(done, _)| done);
        (open, done.fold(0, u64::wrapping_add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FileStorageConfig, StorageConfig};
    use crate::storage::file::FileStorageOptions;

    #[test]
    fn shows_the_storage_and_the_part_of_its_file() {
        let file = |name: &str| {
            let options = FileStorageOptions::new(format!("/srv/{name}.fs"));
            let storage = StorageConfig::File(FileStorageConfig::of_command_line(options.clone()));
            (NamedStorage { name: name.into(), storage }, options.progress)
        };
        let ((main, main_progress), (other, _)) = (file("main"), file("other"));
        let opening = Opening::new(&[main, other]);
        assert_eq!(opening.shown().as_deref(), Some("opening main"));
        main_progress.begin(4, 1000);
        main_progress.reach(439);
        assert_eq!(opening.shown().as_deref(), Some("opening main: 43 % of main.fs"));
        assert_eq!(opening.position(), (0, 439));
        opening.has_opened_one();
        assert_eq!(opening.shown().as_deref(), Some("opening other"));
        opening.has_opened_one();
        assert_eq!(opening.shown(), None);
    }
}
