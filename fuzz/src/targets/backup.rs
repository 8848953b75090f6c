//! Repositories of backups: any bytes as a data file come back as they were; as what a repository holds, they are
//! refused, or yield no more than they have.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use runzeo::ids::Tid;
use runzeo::internal::backup::ZstdReader;
use runzeo::internal::backup::repository::{Manifest, join, split};
use runzeo::internal::inspect::DataFile;

const MAGIC_LEN: u64 = 4;
const CONTENT_MAX: u64 = 1 << 20;

pub fn run(data: &[u8]) {
    let _ = Manifest::parse(data);
    let middle = data.first().map_or(0, |at| usize::from(*at) % data.len());
    let (mut pointers, mut content) = data.split_at(middle);
    let len = content.len();
    let mut out = Counted(0);
    let _ = join(&mut content, &mut pointers, MAGIC_LEN, Tid(u64::MAX), &mut out);
    assert!(out.0 <= len, "{} bytes of {len}", out.0);
    there_and_back(data);
    decompress(data);
}

/// The file of an object: any bytes are read to their end, or refused, and only as far as is wanted.
fn decompress(data: &[u8]) {
    let mut content = Vec::new();
    if let Ok(reader) = ZstdReader::new(data) {
        let _ = reader.take(CONTENT_MAX).read_to_end(&mut content);
    }
    assert!(content.len() as u64 <= CONTENT_MAX);
}

/// What is a data file comes back as it was, also if it is damaged.
fn there_and_back(data: &[u8]) {
    let Ok(file) = DataFile::of(Path::new("Data.fs"), Arc::new(data.to_vec())) else { return };
    let mut content = Vec::new();
    let stretch = split(&file, MAGIC_LEN, file.end(), u64::MAX, &mut |bytes| {
        content.extend_from_slice(bytes);
        Ok(())
    });
    // A record may lead to a place that cannot be read.
    let Ok(stretch) = stretch else { return };
    let mut back = data[..MAGIC_LEN as usize].to_vec();
    let joined = join(&mut &content[..], &mut &stretch.pointers[..], MAGIC_LEN, Tid(u64::MAX), &mut back)
        .expect("it was split");
    assert_eq!((joined.end, joined.is_cut), (stretch.end, false));
    assert!(back == data[..stretch.end as usize]);
}

struct Counted(usize);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let frame = b"\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello";
    super::data_files("Data.fs").into_iter().chain([frame.to_vec(), [&frame[..], frame].concat()]).collect()
}
