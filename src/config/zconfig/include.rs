//! The path in `-C` or `%include`.
//!
//! ZConfig treats both as URLs; only files are supported. A relative reference starts from the directory of the
//! including file. Paths are normalised as text, as URLs are.

use std::path::{Component, Path, PathBuf};

/// The file of `-C`: a path, or a `file:` URL.
pub fn top_level(reference: &str) -> Result<PathBuf, String> {
    match scheme(reference) {
        None => Ok(normalise(Path::new(reference))),
        Some(scheme) if scheme.eq_ignore_ascii_case("file") => {
            from_url(without_host(&reference[scheme.len() + 1..])?).map(|path| normalise(&path))
        }
        Some(scheme) => Err(unsupported(scheme, reference)),
    }
}

/// The file of an `%include` in `base`.
pub fn relative_to(base: &Path, reference: &str) -> Result<PathBuf, String> {
    let rest = match scheme(reference) {
        Some(scheme) if scheme.eq_ignore_ascii_case("file") => &reference[scheme.len() + 1..],
        Some(scheme) => return Err(unsupported(scheme, reference)),
        None => reference,
    };
    let path = from_url(without_host(rest)?)?;
    if path.as_os_str().is_empty() {
        return Ok(base.to_path_buf()); // the empty reference is the file itself
    }
    let directory = base.parent().unwrap_or(Path::new(""));
    Ok(normalise(&directory.join(path)))
}

/// The scheme of a URL. In ZConfig a single letter is a Windows drive, so it is no scheme.
fn scheme(reference: &str) -> Option<&str> {
    let (scheme, _) = reference.split_once(':')?;
    let well_formed = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (well_formed && scheme.len() > 1).then_some(scheme)
}

fn unsupported(scheme: &str, reference: &str) -> String {
    format!(
        "cannot read '{reference}': only files are supported, not '{scheme}:' URLs; fetch it into a file first"
    )
}

/// Removes `//` and an empty or local host.
fn without_host(rest: &str) -> Result<&str, String> {
    let Some(after) = rest.strip_prefix("//") else { return Ok(rest) };
    let path = after.find('/').map_or("", |slash| &after[slash..]);
    let host = &after[..after.len() - path.len()];
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
        Ok(path)
    } else {
        Err(format!("cannot read a file from host '{host}': only local files are supported"))
    }
}

/// Decodes `%XX`; refuses a fragment, as ZConfig does.
fn from_url(text: &str) -> Result<PathBuf, String> {
    if let Some((_, fragment)) = text.split_once('#')
        && !fragment.is_empty()
    {
        return Err(format!("a fragment ('#{fragment}') is not supported in the name of a file"));
    }
    let text = text.split_once('#').map_or(text, |(path, _)| path);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = tail;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).map(PathBuf::from).map_err(|_| format!("'{text}' does not decode to UTF-8"))
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// The path without `.` and, where possible, `..`.
fn normalise(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match result.components().next_back() {
                Some(Component::Normal(_)) => {
                    result.pop();
                }
                Some(Component::RootDir) => {}
                _ => result.push(".."),
            },
            other => result.push(other),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_level_references() {
        for (reference, expected) in [
            ("zeo.conf", Some("zeo.conf")),
            ("./etc/../zeo.conf", Some("zeo.conf")),
            ("/etc/zeo.conf", Some("/etc/zeo.conf")),
            ("a%20b#c.conf", Some("a%20b#c.conf")),
            ("file:///etc/a%20b.conf", Some("/etc/a b.conf")),
            ("FILE://localhost/etc/zeo.conf", Some("/etc/zeo.conf")),
            ("file:/etc/zeo.conf", Some("/etc/zeo.conf")),
            ("file:zeo.conf", Some("zeo.conf")),
            ("file://elsewhere/etc/zeo.conf", None),
            ("file:///etc/zeo.conf#part", None),
            ("http://example.com/zeo.conf", None),
            ("dir/with:colon", Some("dir/with:colon")),
            ("C:zeo.conf", Some("C:zeo.conf")),
        ] {
            assert_eq!(top_level(reference).ok().as_deref(), expected.map(Path::new), "{reference}");
        }
    }

    #[test]
    fn included_references() {
        for (reference, expected) in [
            ("more.conf", Some("etc/more.conf")),
            ("sub/more.conf", Some("etc/sub/more.conf")),
            ("../more.conf", Some("more.conf")),
            ("../../more.conf", Some("../more.conf")),
            ("/etc/more.conf", Some("/etc/more.conf")),
            ("/../more.conf", Some("/more.conf")),
            ("a%2fb", Some("etc/a/b")),
            ("100%", Some("etc/100%")),
            ("file:more.conf", Some("etc/more.conf")),
            ("file:///x/more.conf", Some("/x/more.conf")),
            ("///x/more.conf", Some("/x/more.conf")),
            ("//host/more.conf", None),
            ("", Some("etc/zeo.conf")),
            ("more.conf#", Some("etc/more.conf")),
            ("more.conf#x", None),
            ("ftp://host/x", None),
        ] {
            let got = relative_to(Path::new("etc/zeo.conf"), reference);
            assert_eq!(got.ok().as_deref(), expected.map(Path::new), "{reference}");
        }
    }
}
