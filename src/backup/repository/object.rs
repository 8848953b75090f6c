//! What is stored in a repository under the SHA-256 sum of its content.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{BackupError, Result};
use crate::backup::zstd::ZstdReader;
use crate::storage::media::{MediaFile, Reading};

/// Bytes of a read.
const BUF_LEN: usize = 256 << 10;

/// The SHA-256 sum of what an object contains.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectId([u8; 32]);

impl ObjectId {
    /// The sum of these bytes.
    pub fn of(bytes: &[u8]) -> ObjectId {
        ObjectId(Sha256::digest(bytes).into())
    }

    /// From 64 hexadecimal digits, as in names of objects.
    pub fn from_hex(text: &str) -> Option<ObjectId> {
        let mut bytes = [0; 32];
        let is_hex = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        is_hex.then_some(ObjectId(bytes))
    }

    /// The first 8 bytes. Different objects may have the same.
    pub fn short(&self) -> u64 {
        self.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for ObjectId {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<ObjectId, String> {
        ObjectId::from_hex(&text).ok_or_else(|| format!("'{text}' is no SHA-256 sum"))
    }
}

/// A sum in the making.
#[derive(Clone, Default)]
pub struct RunningId(Sha256);

impl RunningId {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of all bytes.
    pub fn id(self) -> ObjectId {
        ObjectId(self.0.finalize().into())
    }
}

/// What objects are.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ObjectKind {
    /// The content of a segment, without pointers.
    Data,
    /// The pointers of a segment.
    Pointers,
    /// The list of the blobs of a segment.
    BlobList,
    /// A blob, as it is: most blobs are compressed already, and it may be a second name of the blob's own file.
    Blob,
}

impl ObjectKind {
    pub const ALL: [ObjectKind; 4] =
        [ObjectKind::Data, ObjectKind::Pointers, ObjectKind::BlobList, ObjectKind::Blob];

    /// The end of its name.
    pub fn suffix(self) -> &'static str {
        match self {
            ObjectKind::Data => ".data.zst",
            ObjectKind::Pointers => ".pointers.zst",
            ObjectKind::BlobList => ".blobs.zst",
            ObjectKind::Blob => ".blob",
        }
    }

    /// The kind and the sum in the name of an object.
    pub fn of_name(name: &str) -> Option<(ObjectKind, ObjectId)> {
        ObjectKind::ALL
            .into_iter()
            .find_map(|kind| Some((kind, ObjectId::from_hex(name.strip_suffix(kind.suffix())?)?)))
    }

    pub(super) fn is_compressed(self) -> bool {
        self != ObjectKind::Blob
    }
}

/// Reads the content of an object, and checks it at the end.
pub struct ObjectReader {
    content: Box<dyn Read + Send>,
    sum: RunningId,
    id: ObjectId,
    path: PathBuf,
    /// The length that the content should have, and what was read of it.
    len: u64,
    read: u64,
}

impl ObjectReader {
    pub(super) fn new(
        file: Arc<dyn MediaFile>,
        path: PathBuf,
        kind: ObjectKind,
        id: ObjectId,
        len: u64,
    ) -> io::Result<ObjectReader> {
        // Nothing is decompressed beyond the length.
        let content = Box::new(content_of(file, kind)?.take(len.saturating_add(1)));
        Ok(ObjectReader { content, sum: RunningId::default(), id, path, len, read: 0 })
    }

    /// Reads what is left, and compares length and sum. The error is `Damaged` if they differ.
    pub fn finish(mut self) -> Result<()> {
        let mut rest = vec![0; BUF_LEN];
        let failed = loop {
            match self.read(&mut rest) {
                Ok(0) => break None,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = failed {
            return Err(self.unreadable(error));
        }
        let ObjectReader { sum, id, path, len, read, .. } = self;
        let path = path.display();
        if read != len {
            let read = if read > len { format!("more than {len}") } else { read.to_string() };
            return Err(BackupError::Damaged(format!("{path} has {read} bytes, should have {len}")));
        }
        match sum.id() {
            found if found == id => Ok(()),
            found => Err(BackupError::Damaged(format!("{path} is damaged: its SHA-256 sum is {found}"))),
        }
    }

    /// An error of reading: of the disk or of the decompression.
    pub fn unreadable(&self, error: io::Error) -> BackupError {
        let doing = format!("reading {}", self.path.display());
        match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                BackupError::Damaged(format!("{doing}: {error}"))
            }
            _ => BackupError::Io { doing, error },
        }
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.content.read(buf)?;
        self.sum.update(buf.get(..len).unwrap_or_default());
        self.read += len as u64;
        Ok(len)
    }
}

/// What is in the file of an object.
fn content_of(file: Arc<dyn MediaFile>, kind: ObjectKind) -> io::Result<Box<dyn Read + Send>> {
    let bytes = BufReader::with_capacity(BUF_LEN, Reading::whole(file));
    Ok(if kind.is_compressed() { Box::new(ZstdReader::new(bytes)?) } else { Box::new(bytes) })
}

/// The sum of the content of a file of an object.
pub fn sum_of_file(file: Arc<dyn MediaFile>, kind: ObjectKind) -> io::Result<ObjectId> {
    let mut content = content_of(file, kind)?;
    let (mut sum, mut chunk) = (RunningId::default(), vec![0; BUF_LEN]);
    loop {
        let len = content.read(&mut chunk)?;
        if len == 0 {
            return Ok(sum.id());
        }
        sum.update(chunk.get(..len).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let id = ObjectId::of(b"abc");
        assert_eq!(id.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        for kind in ObjectKind::ALL {
            assert_eq!(ObjectKind::of_name(&format!("{id}{}", kind.suffix())), Some((kind, id)));
        }
        for wrong in [
            "",
            "x.blob",
            &format!("{id}"),
            &format!("{id}.data"),
            &format!("A{}.blob", &id.to_string()[1..]),
        ] {
            assert_eq!(ObjectKind::of_name(wrong), None, "{wrong}");
        }
        assert_eq!(id.short(), 0xba78_16bf_8f01_cfea);
    }
}
