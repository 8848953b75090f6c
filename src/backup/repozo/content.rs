//! The bytes of the backups in a repository, decompressed.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::error::{RepozoError, Result};
use super::name::DataFile;
use super::repository::Repository;
use crate::backup::copier::fill;
use crate::storage::media::Reading;

/// Bytes of one read.
const BUF_LEN: usize = 256 * 1024;

/// The content of a backup.
pub fn reader(repository: &Repository, file: &DataFile) -> Result<Box<dyn Read>> {
    let raw = Reading::whole(repository.open(file)?);
    if file.gzip {
        return Ok(Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUF_LEN, raw))));
    }
    Ok(Box::new(raw))
}

/// The error of a backup that cannot be read: damage if it cannot be decompressed.
pub fn unreadable(repository: &Repository, file: &DataFile, error: io::Error) -> RepozoError {
    let path = repository.join(file);
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            RepozoError::Damaged(format!("{} cannot be decompressed: {error}", path.display()))
        }
        _ => RepozoError::Io { doing: format!("reading {}", path.display()), error },
    }
}

/// Number of bytes of the content.
pub fn content_len(repository: &Repository, file: &DataFile) -> Result<u64> {
    if !file.gzip {
        let doing = RepozoError::io(format!("reading the length of {}", repository.join(file).display()));
        return repository.open(file)?.len().map_err(doing);
    }
    io::copy(&mut reader(repository, file)?, &mut io::sink())
        .map_err(|error| unreadable(repository, file, error))
}

/// Whether the content can have this length, by the lengths in the file alone. A compressed file has it modulo 2^32 at
/// its end; if that is another one, the file may be of several parts, and is decompressed.
pub fn has_len(repository: &Repository, file: &DataFile, len: u64) -> Result<bool> {
    if file.gzip {
        let open = repository.open(file)?;
        let doing = || RepozoError::io(format!("reading {}", repository.join(file).display()));
        let end = open.len().map_err(doing())?;
        let mut last = [0; 4];
        let read = open.read_at(&mut last, end.saturating_sub(4)).map_err(doing())?;
        if read == 4 && end >= 18 && u64::from(u32::from_le_bytes(last)) == len & 0xffff_ffff {
            return Ok(true);
        }
    }
    Ok(content_len(repository, file)? == len)
}

/// Whether `a` is what `b` begins with.
pub fn begins_with(repository: &Repository, b: &DataFile, a: &DataFile) -> Result<bool> {
    let (mut whole, mut beginning) = (reader(repository, b)?, reader(repository, a)?);
    let (mut bufs, mut other) = (vec![0; BUF_LEN], vec![0; BUF_LEN]);
    loop {
        let len = fill(&mut *beginning, &mut bufs).map_err(|error| unreadable(repository, a, error))?;
        let other = other.get_mut(..len).unwrap_or_default();
        let found = fill(&mut *whole, other).map_err(|error| unreadable(repository, b, error))?;
        if found < len || bufs.get(..len) != Some(&*other) {
            return Ok(false);
        }
        if len < BUF_LEN {
            return Ok(true);
        }
    }
}
