//! An open `Data.fs`.

use std::path::Path;
use std::sync::Arc;

use crate::base::ids::Oid;
use crate::storage::file::FileFormat;
use crate::storage::file::format::{DataHeader, MAGIC_LEN, POS_MAX};
use crate::storage::file::log::Log;
use crate::storage::media::{Access, Media, MediaFile, RealMedia};
use crate::storage::{Refusal, Result, StorageError};

/// A file of transactions that is read up to the end that it had when it was opened.
pub struct DataFile {
    log: Log,
    format: FileFormat,
}

impl DataFile {
    /// Opens the file for reading.
    ///
    /// Errors: `Io`; `Refused` if it does not begin as a FileStorage does.
    pub fn open(path: &Path) -> Result<DataFile> {
        let file = RealMedia.open(path, Access::Read);
        DataFile::of(path, file.map_err(StorageError::io(format!("opening {}", path.display())))?)
    }

    /// As [`DataFile::open`], for a file that is open already, or in memory.
    pub fn of(path: &Path, file: Arc<dyn MediaFile>) -> Result<DataFile> {
        let doing = || StorageError::io(format!("reading {}", path.display()));
        let end = file.len().map_err(doing())?.min(POS_MAX);
        DataFile::up_to(path, file, end)
    }

    /// As [`DataFile::of`], read up to `end` only.
    pub fn up_to(path: &Path, file: Arc<dyn MediaFile>, end: u64) -> Result<DataFile> {
        let doing = || StorageError::io(format!("reading {}", path.display()));
        let mut magic = [0; 4];
        let read = file.read_at(&mut magic, 0).map_err(doing())?;
        let Some(format) = FileFormat::from_magic(magic) else {
            let found = magic.get(..read).unwrap_or_default().escape_ascii();
            return Err(StorageError::Refused {
                what: Refusal::FileFormat,
                message: format!(
                    "{} is no FileStorage: it begins with \"{found}\" instead of FS21 or FS30",
                    path.display()
                ),
            });
        };
        Ok(DataFile { log: Log::new(path.to_owned(), file, end), format })
    }

    /// Whether Python 2 or Python 3 can open the file.
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// The records by position.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The length in bytes when the file was opened.
    pub fn end(&self) -> u64 {
        self.log.end()
    }

    /// The header of the record of `oid` that the back-pointer of the record at `pos` leads to.
    ///
    /// Errors: `Corrupt` if there is none.
    pub fn behind(&self, pos: u64, oid: Oid, back: u64) -> Result<DataHeader> {
        if back < MAGIC_LEN || back >= pos {
            return Err(self.log.corrupt(pos, format!("the back-pointer {back} leads to no earlier record")));
        }
        Ok(self.log.read_record(back, Some(oid))?.header)
    }

    /// The data of the record at `pos`: its own, or what its back-pointer leads to. `None`: there is no data, because
    /// the object was deleted or its creation undone. `out` is emptied first.
    ///
    /// Errors: `Corrupt` if a record on the way is not what it should be.
    pub fn data_of(
        &self,
        pos: u64,
        header: &DataHeader,
        back: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>> {
        out.clear();
        let place = match (header.data_len, back) {
            (0, 0) => None,
            (0, back) => {
                self.behind(pos, header.oid, back)?;
                self.log.follow(header.oid, back)?
            }
            _ => Some((pos, *header)),
        };
        let Some((at, header)) = place else { return Ok(None) };
        self.log.read_data(at, &header, out)?;
        Ok(Some(at))
    }
}
