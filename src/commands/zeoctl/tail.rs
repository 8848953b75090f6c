//! `zeoctl logtail`: the last lines of a file, and what is added to it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{Timespec, poll};

use crate::commands::subcommand::Trouble;

/// Lines that are shown at first.
const LINES: usize = 10;
/// Upper bound on the bytes of these lines.
const TAIL_LEN: u64 = 64 << 10;
/// Interval between two looks at the file.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows the file until the process is interrupted. A file that another one has replaced is opened again.
pub(super) fn follow(out: &mut dyn Write, path: &Path) -> Result<u8, Trouble> {
    let failed = |error| Trouble::Failed(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let mut pos = file.metadata().map_err(failed)?.len();
    let from = pos.saturating_sub(TAIL_LEN);
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut last = Vec::new();
    Read::by_ref(&mut file).take(pos - from).read_to_end(&mut last).map_err(failed)?;
    out.write_all(last_lines(&last))?;
    out.flush()?;
    loop {
        let _ = poll(&mut [], Timespec::try_from(PAUSE).ok().as_ref());
        let len = file.metadata().map_err(failed)?.len();
        if len < pos {
            writeln!(out, "==> File truncated <==")?;
            pos = 0;
        }
        file.seek(SeekFrom::Start(pos)).map_err(failed)?;
        let mut piece = Read::by_ref(&mut file).take(len - pos);
        pos += std::io::copy(&mut piece, out)?;
        out.flush()?;
        if let (Ok(now), Ok(open)) = (path.metadata(), file.metadata())
            && (now.dev(), now.ino()) != (open.dev(), open.ino())
            && let Ok(next) = File::open(path)
        {
            (file, pos) = (next, 0);
        }
    }
}

fn last_lines(bytes: &[u8]) -> &[u8] {
    let mut starts = bytes.iter().enumerate().rev().skip(1).filter(|(_, byte)| **byte == b'\n');
    let start = starts.nth(LINES - 1).map_or(0, |(index, _)| index + 1);
    bytes.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ten_lines_are_shown() {
        let lines =
            |range: std::ops::Range<u32>| range.map(|number| format!("{number}\n")).collect::<String>();
        assert_eq!(last_lines(lines(0..30).as_bytes()), lines(20..30).as_bytes());
        assert_eq!(last_lines(lines(0..3).as_bytes()), lines(0..3).as_bytes());
        assert_eq!(last_lines(b""), b"");
        assert_eq!(last_lines((lines(0..10) + "half").as_bytes()), (lines(1..10) + "half").as_bytes());
    }
}
