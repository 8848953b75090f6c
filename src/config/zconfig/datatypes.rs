//! From text to value: ZConfig's data types, and those of zdaemon.
//!
//! A text that Python's conversions accept is accepted here with the same meaning, including blanks around a number and
//! underscores in it. Integers beyond [`i128`] saturate; all settings have lower bounds. Errors quote the text: "'x' is
//! not ..."; the caller adds key, file and line.

use std::path::{Path, PathBuf};

use super::accounts::home_of;
pub use super::accounts::{group, uid, user};
use super::{is_space, quoted};
use crate::base::address::Address;

/// Python refuses longer decimal numbers too.
const INTEGER_DIGITS_MAX: usize = 4300;

/// A data type in the tables of a schema.
#[derive(Clone, Copy, Debug)]
pub enum Datatype {
    Any,
    Boolean,
    Integer,
    Float,
    ByteSize,
    TimeInterval,
    StringList,
    DottedName,
    InetAddress,
    SocketAddress,
    SocketBindingAddress,
    ExistingPath,
    ExistingDirpath,
    ExistingParentDirectory,
    ExistingParentDirpath,
    IntegerList,
    Octal,
    /// A number within bounds.
    Bounded(&'static Bounds),
    /// A conversion for one schema only.
    Custom(fn(&str) -> Result<(), String>),
}

impl Datatype {
    /// Checks whether the text is valid.
    pub fn check(self, text: &str) -> Result<(), String> {
        match self {
            Datatype::Any | Datatype::StringList => Ok(()),
            Datatype::Boolean => boolean(text).map(drop),
            Datatype::Integer => integer(text).map(drop),
            Datatype::Float => float(text).map(drop),
            Datatype::ByteSize => byte_size(text).map(drop),
            Datatype::TimeInterval => time_interval(text).map(drop),
            Datatype::DottedName => dotted_name(text).map(drop),
            Datatype::InetAddress => inet_address(text).map(drop),
            Datatype::SocketAddress | Datatype::SocketBindingAddress => socket_address(text).map(drop),
            Datatype::ExistingPath => existing_path(text).map(drop),
            Datatype::ExistingDirpath => existing_dirpath(text).map(drop),
            Datatype::ExistingParentDirectory => existing_parent_directory(text).map(drop),
            Datatype::ExistingParentDirpath => existing_parent_dirpath(text).map(drop),
            Datatype::IntegerList => integer_list(text).map(drop),
            Datatype::Octal => octal(text).map(drop),
            Datatype::Bounded(bounds) => bounded(text, bounds).map(drop),
            Datatype::Custom(check) => check(text),
        }
    }
}

impl Datatype {
    /// Whether two valid texts mean the same.
    pub fn is_same(self, one: &str, other: &str) -> bool {
        fn same<T: PartialEq>(convert: impl Fn(&str) -> Result<T, String>, one: &str, other: &str) -> bool {
            matches!((convert(one), convert(other)), (Ok(one), Ok(other)) if one == other)
        }
        let is_same = match self {
            Datatype::Boolean => same(boolean, one, other),
            Datatype::Integer => same(integer, one, other),
            Datatype::Float => same(float, one, other),
            Datatype::ByteSize => same(byte_size, one, other),
            Datatype::TimeInterval => same(time_interval, one, other),
            Datatype::SocketAddress | Datatype::SocketBindingAddress => same(socket_address, one, other),
            Datatype::IntegerList => same(integer_list, one, other),
            Datatype::Octal => same(octal, one, other),
            Datatype::Bounded(bounds) => same(|text| bounded(text, bounds), one, other),
            Datatype::Any
            | Datatype::StringList
            | Datatype::DottedName
            | Datatype::InetAddress
            | Datatype::ExistingPath
            | Datatype::ExistingDirpath
            | Datatype::ExistingParentDirectory
            | Datatype::ExistingParentDirpath
            | Datatype::Custom(_) => false,
        };
        one == other || is_same
    }
}

/// The bounds of a number, and its unit.
#[derive(Debug)]
pub struct Bounds {
    pub unit: Unit,
    pub least: u64,
    pub most: u64,
    /// Whether `none` is permitted.
    pub or_none: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Unit {
    Bytes,
    Seconds,
    /// Written as milliseconds (`200ms`) or as a length of time.
    Milliseconds,
    Count,
}

impl Unit {
    /// The number as written in a file, with the largest unit of which it is a multiple.
    pub fn show(self, number: u64) -> String {
        let units: &[(u64, &str)] = match self {
            Unit::Bytes => &[(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")],
            Unit::Seconds => &[(86400, "d"), (3600, "h"), (60, "m"), (1, "s")],
            Unit::Milliseconds => &[(60_000, "m"), (1000, "s"), (1, "ms")],
            Unit::Count => &[],
        };
        let fits = units.iter().find(|(unit, _)| number > 0 && number.is_multiple_of(*unit));
        fits.map_or_else(|| number.to_string(), |(unit, name)| format!("{}{name}", number / unit))
    }
}

/// A number with a unit, or `none`, which is `None`.
pub fn bounded(text: &str, bounds: &Bounds) -> Result<Option<u64>, String> {
    if bounds.or_none && text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let unit = bounds.unit;
    let number = match unit {
        Unit::Bytes => byte_size(text),
        Unit::Seconds => time_interval(text),
        Unit::Milliseconds => milliseconds(text),
        Unit::Count => integer(text),
    }?;
    match u64::try_from(number) {
        Ok(number) if (bounds.least..=bounds.most).contains(&number) => Ok(Some(number)),
        _ => {
            let (least, most) = (unit.show(bounds.least), unit.show(bounds.most));
            let or_none = if bounds.or_none { ", or none for no limit" } else { "" };
            Err(format!("{} is not between {least} and {most}{or_none}", quoted(text)))
        }
    }
}

/// A number of milliseconds with `ms`, or a length of time.
fn milliseconds(text: &str) -> Result<i128, String> {
    match text.to_lowercase().strip_suffix("ms").and_then(|digits| number(digits.trim(), 10)) {
        Some(millis) => Ok(millis),
        None => time_interval(text)?.checked_mul(1000).ok_or_else(|| format!("{} is too long", quoted(text))),
    }
}

pub fn string(text: &str) -> Result<String, String> {
    Ok(text.into())
}

pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "yes" | "true" | "on" => Ok(true),
        "no" | "false" | "off" => Ok(false),
        _ => Err(format!("{} is not a boolean; use true or false (or yes, no, on, off)", quoted(text))),
    }
}

pub fn integer(text: &str) -> Result<i128, String> {
    number(text, 10).ok_or_else(|| format!("{} is not an integer", quoted(text)))
}

/// A file mode or umask: `22`, `022` or `0o22`.
pub fn octal(text: &str) -> Result<i128, String> {
    number(text, 8).ok_or_else(|| format!("{} is not an octal number", quoted(text)))
}

pub fn integer_list(text: &str) -> Result<Vec<i128>, String> {
    if text.is_empty() { Ok(Vec::new()) } else { text.split(',').map(integer).collect() }
}

/// The value of Python's `int` for a text.
fn number(text: &str, radix: u32) -> Option<i128> {
    let text = text.trim_matches(is_space);
    let (negative, mut digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    if radix == 8
        && let Some(rest) = digits.strip_prefix("0o").or_else(|| digits.strip_prefix("0O"))
    {
        digits = rest.strip_prefix('_').unwrap_or(rest);
    }
    let mut value: i128 = 0;
    let mut count = 0;
    for group in digits.split('_') {
        if group.is_empty() {
            return None;
        }
        for digit in group.chars() {
            let digit = i128::from(digit.to_digit(radix)?);
            value = value.saturating_mul(i128::from(radix)).saturating_add(digit);
            count += 1;
        }
    }
    (count <= INTEGER_DIGITS_MAX).then_some(if negative { -value } else { value })
}

pub fn float(text: &str) -> Result<f64, String> {
    let error = || format!("{} is not a number", quoted(text));
    let trimmed = text.trim_matches(is_space);
    // Underscores are allowed between digits.
    let bytes = trimmed.as_bytes();
    let between_digits = |index: usize| {
        let digit = |index: Option<usize>| index.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_digit);
        digit(index.checked_sub(1)) && digit(index.checked_add(1))
    };
    if trimmed.match_indices('_').any(|(index, _)| !between_digits(index)) {
        return Err(error());
    }
    trimmed.replace('_', "").parse().map_err(|_| error())
}

/// Bytes, or KB, MB, GB (powers of 1024).
pub fn byte_size(text: &str) -> Result<i128, String> {
    with_suffix(text, &[("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30)]).ok_or_else(|| {
        format!("{} is not a size; use a number of bytes, or one with KB, MB or GB", quoted(text))
    })
}

/// Seconds, or with `s`, `m`, `h`, `d`.
pub fn time_interval(text: &str) -> Result<i128, String> {
    with_suffix(text, &[("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]).ok_or_else(|| {
        format!("{} is not a length of time; use a number of seconds, or one with s, m, h or d", quoted(text))
    })
}

fn with_suffix(text: &str, suffixes: &[(&str, i128)]) -> Option<i128> {
    let text = text.to_lowercase();
    for (suffix, multiplier) in suffixes {
        if let Some(amount) = text.strip_suffix(suffix) {
            return Some(number(amount, 10)?.saturating_mul(*multiplier));
        }
    }
    number(&text, 10)
}

/// A name for a key: a letter, then letters, digits, `-`, `.` and `_`. Returned in lower case.
pub fn basic_key(text: &str) -> Result<String, String> {
    let valid = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if valid {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("{} is not a valid key name", quoted(text)))
    }
}

/// A Python name such as `package.module.function`.
pub fn dotted_name(text: &str) -> Result<String, String> {
    let identifier = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if text.split('.').all(identifier) {
        Ok(text.into())
    } else {
        Err(format!("{} is not a dotted name", quoted(text)))
    }
}

/// A path (anything with a slash), or a host and port.
pub fn socket_address(text: &str) -> Result<Address, String> {
    if text.contains('/') {
        return Ok(Address::Unix(text.into()));
    }
    let (host, port) = inet_address(text)?;
    Ok(Address::Tcp { host, port })
}

/// An address to connect to. No host means this machine.
pub fn connection_address(text: &str) -> Result<Address, String> {
    match socket_address(text)? {
        Address::Tcp { port: None | Some(0), .. } => {
            Err(format!("{} has no port to connect to; use HOST:PORT or the path of a socket", quoted(text)))
        }
        Address::Tcp { host: None, port } => Ok(Address::Tcp { host: Some("127.0.0.1".into()), port }),
        address => Ok(address),
    }
}

/// `HOST`, `PORT`, `HOST:PORT` or `[IPV6]:PORT`. A number that is no port is a host name.
pub fn inet_address(text: &str) -> Result<(Option<String>, Option<u16>), String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        if let Ok(port) = port_number(text) {
            return Ok((None, Some(port)));
        }
        let mut words = text.split(is_space).filter(|word| !word.is_empty());
        if words.next().is_none() || words.next().is_some() {
            return Err(format!("{} is neither a port, a host nor HOST:PORT", quoted(text)));
        }
        return Ok((Some(text.to_lowercase()), None));
    };
    let bracketed =
        |host: &str| host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).map(str::to_lowercase);
    let (host, port) = match bracketed(host) {
        Some(inner) => (inner, port),
        // An IPv6 address without a port; its last part is no port.
        None if host.contains(':') => (bracketed(text).unwrap_or_else(|| text.to_lowercase()), ""),
        None => (host.to_lowercase(), port),
    };
    let port = if port.is_empty() { None } else { Some(port_number(port)?) };
    Ok(((!host.is_empty()).then_some(host), port))
}

pub fn port_number(text: &str) -> Result<u16, String> {
    let port = number(text, 10).and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| format!("{} is not a port number (0 to 65535)", quoted(text)))
}

pub fn existing_path(text: &str) -> Result<PathBuf, String> {
    let path = expand_user(text);
    if path.exists() { Ok(path) } else { Err(format!("{} does not exist", quoted(text))) }
}

/// A path whose directory must exist, if it names one.
pub fn existing_dirpath(text: &str) -> Result<PathBuf, String> {
    let path = expand_user(text);
    let directory = directory_of(&path);
    if directory.as_os_str().is_empty() || directory.is_dir() {
        Ok(path)
    } else {
        Err(format!("the directory of {} does not exist; create '{}'", quoted(text), directory.display()))
    }
}

/// A directory that exists, or whose parent exists.
pub fn existing_parent_directory(text: &str) -> Result<PathBuf, String> {
    let path = expand_user(text);
    if path.is_dir() || directory_of(&path).is_dir() {
        Ok(path)
    } else {
        Err(format!("{} is not an existing directory", quoted(text)))
    }
}

/// A path whose directory exists or could be created in an existing one.
pub fn existing_parent_dirpath(text: &str) -> Result<PathBuf, String> {
    let path = expand_user(text);
    let parent = directory_of(&directory_of(&path));
    if parent.as_os_str().is_empty() || parent.is_dir() {
        Ok(path)
    } else {
        Err(format!("the directory of {} does not exist; create '{}'", quoted(text), parent.display()))
    }
}

/// The part before the last slash, which may be empty. (`Path::parent` removes a trailing slash first.)
fn directory_of(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    match text.rsplit_once('/') {
        Some((directory, _)) if directory.trim_end_matches('/').is_empty() => "/".into(),
        Some((directory, _)) => directory.trim_end_matches('/').into(),
        None => PathBuf::new(),
    }
}

/// Replaces `~` and `~user` at the start by the home directory, if it is known.
pub fn expand_user(text: &str) -> PathBuf {
    let Some(rest) = text.strip_prefix('~') else { return text.into() };
    let (user, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let home = if user.is_empty() { std::env::home_dir() } else { home_of(user) };
    match home {
        Some(home) => PathBuf::from(format!("{}{tail}", home.to_string_lossy().trim_end_matches('/'))),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    fn check<T: Debug + PartialEq>(convert: fn(&str) -> Result<T, String>, good: &[(&str, T)], bad: &[&str]) {
        for (text, expected) in good {
            assert_eq!(convert(text).as_ref(), Ok(expected), "{text:?}");
        }
        for text in bad {
            assert!(convert(text).is_err(), "{text:?} gave {:?}", convert(text));
        }
    }

    #[test]
    fn numbers() {
        check(
            integer,
            &[("0", 0), ("+7", 7), (" -07 ", -7), ("1_000", 1000), ("9".repeat(60).as_str(), i128::MAX)],
            &["", " ", "-", "0x10", "1.0", "1__0", "_1", "1_", "- 1", "one", "10L", &"1".repeat(4301)],
        );
        check(octal, &[("22", 18), ("022", 18), ("0o22", 18), ("0O_22", 18)], &["8", "0x1", "0o", ""]);
        check(integer_list, &[("", vec![]), ("0,2", vec![0, 2]), ("1, 3", vec![1, 3])], &["1,", ",", "a"]);
        check(
            float,
            &[
                ("1", 1.0),
                (" 2.5 ", 2.5),
                (".5", 0.5),
                ("1e3", 1000.0),
                ("1_0.0_1", 10.01),
                ("-inf", f64::NEG_INFINITY),
            ],
            &["", "_1", "1_", "1_.0", "1._0", "0x1", "1e", "e5", "x"],
        );
        check(
            byte_size,
            &[("10", 10), ("1KB", 1024), ("2 mb", 2 << 20), ("-1gb", -(1 << 30)), ("0", 0)],
            &["", "KB", "1.5MB", "1TB", "1 k b", "5B"],
        );
        check(
            time_interval,
            &[("10", 10), ("2m", 120), ("1 H", 3600), ("1d", 86400), ("5s", 5)],
            &["", "1w", "1.5h"],
        );
    }

    #[test]
    fn words() {
        check(
            boolean,
            &[("YES", true), ("on", true), ("False", false), ("oFF", false)],
            &["", "1", "0", " yes", "y"],
        );
        check(
            basic_key,
            &[("Read-Only", "read-only".into()), ("a.b_c1", "a.b_c1".into())],
            &["", "1a", "-a", "é", "a$"],
        );
        check(
            dotted_name,
            &[("a.b_1", "a.b_1".into()), ("_", "_".into())],
            &["", ".a", "a.", "a..b", "1a", "a b"],
        );
    }

    #[test]
    fn addresses() {
        let tcp = |host: &str, port: Option<u16>| Address::Tcp {
            host: (!host.is_empty()).then(|| host.into()),
            port,
        };
        check(
            socket_address,
            &[
                ("8100", tcp("", Some(8100))),
                (":8100", tcp("", Some(8100))),
                ("127.0.0.1: 8100", tcp("127.0.0.1", Some(8100))),
                ("LocalHost:8100", tcp("localhost", Some(8100))),
                ("localhost", tcp("localhost", None)),
                ("localhost:", tcp("localhost", None)),
                (":", tcp("", None)),
                ("[::1]:8100", tcp("::1", Some(8100))),
                ("[::1]", tcp("::1", None)),
                ("::1", tcp("::1", None)),
                ("::", tcp("::", None)),
                ("70000", tcp("70000", None)),
                ("0", tcp("", Some(0))),
                ("./sock", Address::Unix("./sock".into())),
                ("/a:1", Address::Unix("/a:1".into())),
            ],
            &["", " ", "two words", "host:port", "host:70000", "host:-1", "[::1]:x", "host: "],
        );
    }

    #[test]
    fn paths() {
        let directory = tempfile::tempdir().unwrap();
        let path = |relative: &str| format!("{}/{relative}", directory.path().display());
        std::fs::write(path("file"), "").unwrap();
        assert!(existing_path(&path("file")).is_ok());
        assert!(existing_path(&path("gone")).is_err());
        assert!(existing_dirpath(&path("gone")).is_ok());
        assert!(existing_dirpath(&path("gone/x")).is_err());
        assert!(existing_dirpath(&path("gone/")).is_err());
        assert!(existing_dirpath("relative").is_ok());
        assert!(existing_dirpath("").is_ok());
        assert!(existing_dirpath("/x").is_ok());
        assert!(existing_parent_directory(&path("")).is_ok());
        assert!(existing_parent_directory(&path("gone")).is_ok());
        assert!(existing_parent_directory(&path("gone/x")).is_err());
        assert!(existing_parent_dirpath(&path("gone/x")).is_ok());
        assert!(existing_parent_dirpath(&path("gone/x/y")).is_err());
        assert!(existing_parent_dirpath("x").is_ok());
        assert_eq!(expand_user("~root/x"), home_of("root").unwrap().join("x"));
        assert_eq!(expand_user("~nobody-at-all/x"), PathBuf::from("~nobody-at-all/x"));
        assert_eq!(expand_user("~"), std::env::home_dir().unwrap());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,20}") {
            for datatype in [
                Datatype::Boolean, Datatype::Integer, Datatype::Float, Datatype::ByteSize, Datatype::TimeInterval,
                Datatype::DottedName, Datatype::SocketAddress, Datatype::IntegerList, Datatype::Octal,
                Datatype::ExistingDirpath, Datatype::ExistingParentDirpath, Datatype::ExistingParentDirectory,
            ] {
                let _ = datatype.check(&text);
            }
        }
    }
}
