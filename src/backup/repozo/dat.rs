//! The dat file of a chain: `PATH START END MD5` for the full and for each delta, in their order.
//!
//! PATH is as the program made it, and may have blanks, so a line is read from its end. Only the last component of PATH
//! counts, because a repository may be moved. Python splits lines at blanks; a path with characters that one of its
//! versions could take for a blank or not decode is therefore written as the last component alone.

use std::fmt::Write as _;
use std::path::Path;

use super::name::DataFile;
use crate::backup::copier::Md5Sum;

/// Upper bound on the bytes of a dat file: half a million lines.
pub const DAT_LEN_MAX: u64 = 64 << 20;

/// One backup of a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DatLine {
    /// PATH as it is in the file.
    pub path: String,
    pub file: DataFile,
    /// The range of bytes in `Data.fs`.
    pub start: u64,
    pub end: u64,
    /// The sum of these bytes.
    pub sum: Md5Sum,
}

/// The lines of a dat file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dat {
    pub lines: Vec<DatLine>,
    /// The last line is not complete: the program that appended it was killed.
    pub is_torn: bool,
}

impl Dat {
    /// Reads a dat file. The error says which line is wrong, and how.
    pub fn parse(bytes: &[u8]) -> Result<Dat, String> {
        let mut dat = Dat::default();
        let mut texts = bytes.split(|byte| *byte == b'\n').peekable();
        let mut number = 0;
        while let Some(text) = texts.next() {
            number += 1;
            let is_last = texts.peek().is_none();
            if is_last && text.is_empty() {
                break;
            }
            match DatLine::parse(text) {
                Ok(line) if is_last => {
                    // The sum has its full length, so the line is complete but for its end.
                    dat.lines.push(line);
                    dat.is_torn = true;
                }
                Ok(line) => dat.lines.push(line),
                Err(_) if is_last => dat.is_torn = true,
                Err(what) => return Err(format!("line {number}: {what}")),
            }
        }
        Ok(dat)
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = String::new();
        for DatLine { path, start, end, sum, .. } in &self.lines {
            let _ = writeln!(text, "{path} {start} {end} {sum}");
        }
        text.into_bytes()
    }
}

impl DatLine {
    /// A new line for a file of the repository `directory`.
    pub fn new(directory: &Path, file: &DataFile, start: u64, end: u64, sum: Md5Sum) -> DatLine {
        let path = directory.join(file.to_string());
        let path = path.to_str().filter(|path| path.bytes().all(|byte| byte.is_ascii_graphic()));
        let path = path.map_or_else(|| file.to_string(), String::from);
        DatLine { path, file: file.clone(), start, end, sum }
    }

    fn parse(line: &[u8]) -> Result<DatLine, String> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.rsplitn(4, |byte| *byte == b' ');
        let mut word = || words.next().map(|word| String::from_utf8_lossy(word).into_owned());
        let (Some(sum), Some(end), Some(start), Some(path)) = (word(), word(), word(), word()) else {
            return Err("it has less than four words".into());
        };
        let sum = Md5Sum::from_hex(&sum).ok_or_else(|| format!("{sum:?} is no MD5 sum"))?;
        let number = |text: String| text.parse().map_err(|_| format!("{text:?} is no position"));
        let (start, end): (u64, u64) = (number(start)?, number(end)?);
        if start > end {
            return Err(format!("the range {start} to {end} is reversed"));
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let file = DataFile::parse(name).ok_or_else(|| format!("{name:?} is no name of a backup"))?;
        Ok(DatLine { path, file, start, end, sum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "236453e37449f9d6b3bff0c5b535ea34";

    fn parse(text: &str) -> Result<Dat, String> {
        Dat::parse(text.as_bytes())
    }

    #[test]
    fn lines_are_read_from_their_end() {
        let text = format!(
            "my repo/2026-11-28-03-14-49.fs 0 53816 {SUM}\n/r/2026-11-28-03-14-51.deltafsz 53816 54141 {SUM}\n"
        );
        let dat = parse(&text).unwrap();
        assert!(!dat.is_torn);
        let ranges: Vec<_> =
            dat.lines.iter().map(|line| (line.file.to_string(), line.start, line.end)).collect();
        assert_eq!(
            ranges,
            [
                ("2026-11-28-03-14-49.fs".into(), 0, 53816),
                ("2026-11-28-03-14-51.deltafsz".into(), 53816, 54141)
            ]
        );
        assert_eq!(String::from_utf8(dat.to_bytes()).unwrap(), text);
    }

    #[test]
    fn a_line_that_was_being_written_is_torn() {
        let whole = format!("r/2026-11-28-03-14-49.fs 0 53816 {SUM}\n");
        let line = format!("r/2026-11-28-03-14-51.deltafs 53816 54141 {SUM}");
        for len in 1..line.len() {
            let dat = parse(&format!("{whole}{}", &line[..len])).unwrap();
            assert_eq!((dat.lines.len(), dat.is_torn), (1, true), "{len}");
        }
        let dat = parse(&format!("{whole}{line}")).unwrap();
        assert_eq!((dat.lines.len(), dat.is_torn), (2, true));
        assert_eq!(parse("").unwrap(), Dat::default());
    }

    #[test]
    fn hostile_lines_are_refused_with_their_number() {
        for (line, expected) in [
            ("", "line 2: it has less than four words"),
            ("r/2026-11-28-03-14-49.fs 0 7", "line 2: it has less than four words"),
            ("r/2026-11-28-03-14-49.fs 0 7 abc", "line 2: \"abc\" is no MD5 sum"),
            (&format!("r/2026-11-28-03-14-49.fs 8 7 {SUM}"), "line 2: the range 8 to 7 is reversed"),
            (&format!("r/2026-11-28-03-14-49.fs -1 7 {SUM}"), "line 2: \"-1\" is no position"),
            (
                &format!("r/2026-11-28-03-14-49.fs 0 99999999999999999999 {SUM}"),
                "line 2: \"99999999999999999999\" is no position",
            ),
            (&format!("../../etc/passwd 0 7 {SUM}"), "line 2: \"passwd\" is no name of a backup"),
            (&format!("2026-11-28-03-14-49.fs/ 0 7 {SUM}"), "line 2: \"\" is no name of a backup"),
        ] {
            let text = format!("r/2026-11-28-03-14-49.fs 0 53816 {SUM}\n{line}\nmore\n");
            assert_eq!(parse(&text).unwrap_err(), expected);
        }
        assert!(Dat::parse(b"\xff\xfe\0\n\n").is_err());
    }

    proptest::proptest! {
        /// What is read is written again as it was, but for the ends of lines; nothing panics.
        #[test]
        fn any_bytes_are_read_or_refused(text in "([a-z0-9 /.-]{0,40}|\\PC{0,10}|r/2026-11-28-03-14-49\\.fs 0 [0-9]{1,20} [0-9a-f]{31,33}|\\n){0,8}") {
            if let Ok(dat) = Dat::parse(text.as_bytes()) {
                let again = Dat::parse(&dat.to_bytes()).unwrap();
                assert_eq!(again.lines, dat.lines);
                assert!(!again.is_torn && dat.lines.iter().all(|line| line.start <= line.end));
            }
        }
    }

    #[test]
    fn a_path_that_python_would_split_is_left_out() {
        let file = DataFile::parse("2026-11-28-03-14-49.fs").unwrap();
        let sum = Md5Sum::from_hex(SUM).unwrap();
        for (directory, expected) in [
            ("repo", "repo/2026-11-28-03-14-49.fs"),
            ("/a/b", "/a/b/2026-11-28-03-14-49.fs"),
            ("my repo", "2026-11-28-03-14-49.fs"),
            ("a\nb", "2026-11-28-03-14-49.fs"),
            ("d\u{e9}p\u{f4}t", "2026-11-28-03-14-49.fs"),
        ] {
            assert_eq!(DatLine::new(Path::new(directory), &file, 0, 7, sum).path, expected);
        }
    }
}
