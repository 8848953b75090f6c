//! What a Rust file names: its `use` declarations, the paths in its code, and the items that it defines. Read without a
//! parser, from code that rustfmt has laid out: items begin in the first column.

use std::collections::BTreeSet;

/// One file of the crate, without comments, strings and unit tests.
pub struct Source {
    /// The path of its module from the root of the crate: `src/storage/file/mod.rs` is storage, file.
    pub module: Vec<String>,
    pub uses: Vec<Use>,
    /// The paths in the code besides `use` declarations, as written.
    pub mentions: Vec<Vec<String>>,
    /// The items that the file itself defines; no modules.
    pub defined: BTreeSet<String>,
}

/// One branch of a `use` declaration.
pub struct Use {
    /// As written, without a last `self` and without `*`.
    pub path: Vec<String>,
    /// The name in this file; `*` for all names.
    pub name: String,
    /// `pub use`, with any visibility.
    pub public: bool,
}

impl Source {
    pub fn read(path: &str, text: &str) -> Source {
        let (uses, body) = uses(&code(text));
        Source { module: module(path), uses, mentions: mentions(&body), defined: defined(&body) }
    }
}

fn module(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = path.split('/').map(String::from).collect();
    if ["mod", "lib"].contains(&parts.last().expect("a name").as_str()) {
        parts.pop();
    }
    parts
}

/// The code without comments, the contents of strings, and unit tests.
fn code(text: &str) -> String {
    let mut rest = &text[..text.find("mod tests {").unwrap_or(text.len())];
    let mut code = String::new();
    while let Some(c) = rest.chars().next() {
        let raw = rest.strip_prefix('r').map(|behind| behind.trim_start_matches('#'));
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[2..].find('\'').map_or(1, |end| end + 3)
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let is_end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                is_end
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if raw.is_some_and(|raw| raw.starts_with('"')) && !code.ends_with(is_part_of_name) {
            let hashes = rest.len() - 1 - raw.map_or(0, str::len);
            let (start, end) = (hashes + 2, format!("\"{}", "#".repeat(hashes)));
            rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len())
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        rest = &rest[skipped..];
    }
    code
}

fn is_part_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The `use` declarations, and the code without them.
fn uses(code: &str) -> (Vec<Use>, String) {
    let (mut uses, mut body) = (Vec::new(), String::new());
    let mut lines = code.lines();
    let mut for_tests = false;
    while let Some(line) = lines.next() {
        let words = line.trim();
        let public = words.starts_with("pub");
        let behind = if public { words.split_once(' ').map_or("", |(_, behind)| behind) } else { words };
        let Some(tree) = behind.strip_prefix("use ") else {
            for_tests = words == "#[cfg(test)]";
            if !for_tests {
                body.push_str(line);
                body.push('\n');
            }
            continue;
        };
        let mut tree = tree.to_string();
        while !tree.contains(';') {
            let Some(further) = lines.next() else { break };
            tree.push_str(further.trim());
        }
        if !for_tests {
            branches(tree.split(';').next().unwrap_or_default(), &[], public, &mut uses);
        }
        for_tests = false;
    }
    (uses, body)
}

fn branches(tree: &str, base: &[String], public: bool, found: &mut Vec<Use>) {
    let (head, inner) = match tree.split_once('{') {
        Some((head, rest)) => (head, rest.rsplit_once('}').map(|(inner, _)| inner)),
        None => (tree, None),
    };
    let (path, renamed) = head.split_once(" as ").map_or((head, None), |(path, name)| (path, Some(name)));
    let mut full = base.to_vec();
    full.extend(path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(String::from));
    let Some(inner) = inner else {
        let is_glob = full.last().is_some_and(|last| last == "*");
        if is_glob || (full.len() > 1 && full.last().is_some_and(|last| last == "self")) {
            full.pop();
        }
        let own = if is_glob { "*" } else { full.last().map_or("", String::as_str) };
        let name = renamed.map_or(own, str::trim).to_string();
        found.push(Use { path: full, name, public });
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    branches(&inner[start..at], &full, public, found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Names and paths in code: not fields and methods. Of single names only types, constants and called functions, since
/// the others are mostly variables.
fn mentions(body: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(start) = rest.find(is_part_of_name) {
        let before = &rest[..start];
        let mut path = Vec::new();
        rest = &rest[start..];
        loop {
            let len = rest.find(|c| !is_part_of_name(c)).unwrap_or(rest.len());
            path.push(rest[..len].to_string());
            rest = &rest[len..];
            match rest.strip_prefix("::") {
                Some(further) if further.starts_with(is_part_of_name) => rest = further,
                _ => break,
            }
        }
        let is_member = (before.ends_with('.') && !before.ends_with("..")) || before.ends_with("::");
        let is_item = path.len() > 1 || path[0].starts_with(char::is_uppercase) || rest.starts_with('(');
        if !is_member && is_item {
            found.push(path);
        }
    }
    found
}

fn defined(body: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in body.lines().filter(|line| line.starts_with(char::is_alphabetic)) {
        let mut words = line
            .split(' ')
            .skip_while(|word| word.starts_with("pub") || ["unsafe", "async", "extern"].contains(word));
        let kind = words.next().unwrap_or_default();
        let kinds = ["struct", "enum", "union", "trait", "type", "const", "static", "fn", "macro_rules!"];
        if kinds.contains(&kind) {
            let name = words.find(|word| !["fn", "mut", "unsafe"].contains(word)).unwrap_or_default();
            names.insert(name.chars().take_while(|c| is_part_of_name(*c)).collect());
        }
    }
    names
}

#[test]
fn a_file_is_read() {
    let text = r##"//! crate::not::This
use crate::x::{self, y::{Z, W as V}, w::*};
pub(crate) use self::child::{
    A, B,
};
#[cfg(test)]
use super::for_tests::T;

pub struct Own(field::Type);
const fn call() -> &'static str {
    let value = self.name.other(Q::new(), '"', "crate::in_string::S \" T");
    crate::q::f(r#"no " P"#, value, super::CONST) // crate::comment::C
}
mod tests {
    use crate::late::L;
}
"##;
    let source = Source::read("src/a/b.rs", text);
    let uses: Vec<String> = source
        .uses
        .iter()
        .map(|used| format!("{} {} {}", used.path.join("."), used.name, used.public))
        .collect();
    let expected = [
        "crate.x x false",
        "crate.x.y.Z Z false",
        "crate.x.y.W V false",
        "crate.x.w * false",
        "self.child.A A true",
        "self.child.B B true",
    ];
    assert_eq!(uses, expected);
    let mentions: Vec<String> = source.mentions.iter().map(|path| path.join(".")).collect();
    assert_eq!(mentions, ["Own", "field.Type", "call", "Q.new", "crate.q.f", "super.CONST"]);
    assert_eq!(source.defined.into_iter().collect::<Vec<_>>(), ["Own", "call"]);
    assert_eq!(source.module, ["a", "b"]);
}

#[test]
fn the_modules_of_files_are_known() {
    assert_eq!(module("src/a/mod.rs"), ["a"]);
    assert!(module("src/lib.rs").is_empty());
}
