//! No circles of files: of two files, at most one may need the other, directly or through further files.
//!
//! A folder's `mod.rs` and the files below it count as one: children use the parent's declarations, and the parent uses
//! and re-exports its children. So arrows between a file and its parent modules are not counted. Tests are not counted
//! either.

use std::collections::{BTreeMap, BTreeSet};

use crate::exceptions::CIRCLES;
use crate::files::{check_with_exceptions, with_extension};

/// The module of a file below `src`, as a path: `src/storage/file/mod.rs` is storage, file.
fn module(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = path.split('/').map(String::from).collect();
    if ["mod", "lib"].contains(&parts.last().expect("a name").as_str()) {
        parts.pop();
    }
    parts
}

/// The code without comments and unit tests.
fn code(text: &str) -> String {
    let end = text.find("mod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths that begin with `crate` or `super`, with braces expanded, as paths from the root of the crate.
fn paths(text: &str, own: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' || text[..at].ends_with("::") {
                continue;
            }
            let mut rest = &text[at..];
            let mut base = if start == "crate::" { Vec::new() } else { own.to_vec() };
            if start == "crate::" {
                rest = &rest[start.len()..];
            }
            while let Some(further) = rest.strip_prefix("super::") {
                base.pop();
                rest = further;
            }
            tree(&mut rest, &base, &mut found);
        }
    }
    found
}

/// One branch of a use declaration, or a path in code.
fn tree(rest: &mut &str, base: &[String], found: &mut Vec<Vec<String>>) {
    let mut path = base.to_vec();
    loop {
        *rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix('{') {
            *rest = inner;
            loop {
                *rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
                match rest.strip_prefix('}') {
                    Some(behind) => {
                        *rest = behind;
                        return;
                    }
                    None if rest.is_empty() => return,
                    None => tree(rest, &path, found),
                }
            }
        }
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if len == 0 {
            // `*`, or something that is no path: skips one character, so that the loop ends.
            *rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
            break;
        }
        path.push(rest[..len].to_string());
        *rest = &rest[len..];
        if let Some(renamed) = rest.trim_start().strip_prefix("as ") {
            *rest = renamed.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            break;
        }
        match rest.strip_prefix("::") {
            Some(further) => *rest = further,
            None => break,
        }
    }
    found.push(path);
}

/// All files that can be reached.
fn reachable<'a>(from: &'a str, arrows: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(next) = open.pop() {
        for other in arrows.get(next).into_iter().flatten() {
            if seen.insert(other.as_str()) {
                open.push(other);
            }
        }
    }
    seen
}

#[test]
fn files_form_no_circles() {
    let files: Vec<(String, String)> = with_extension(&["src"], "rs")
        .into_iter()
        .filter(|(path, _)| {
            !path.ends_with("tests.rs") && !path.contains("/tests/") && !path.contains("/bin/")
        })
        .collect();
    let modules: BTreeMap<Vec<String>, &str> =
        files.iter().map(|(path, _)| (module(path), path.as_str())).collect();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in &files {
        let own = module(path);
        for target in paths(&code(text), &own) {
            let file = (1..=target.len()).rev().find_map(|len| modules.get_key_value(&target[..len]));
            let Some((other, other_path)) = file else { continue };
            if !own.starts_with(other) && !other.starts_with(&own) {
                arrows.entry(path.clone()).or_default().insert((*other_path).to_string());
            }
        }
    }
    assert!(arrows.values().map(BTreeSet::len).sum::<usize>() > 500, "the imports are found");
    let mut circles = BTreeMap::new();
    for (path, _) in &files {
        let circle: Vec<&str> = reachable(path, &arrows)
            .into_iter()
            .filter(|other| reachable(other, &arrows).contains(path.as_str()))
            .collect();
        if let Some(first) = circle.first() {
            let edges: Vec<String> = circle
                .iter()
                .flat_map(|from| arrows[*from].iter().map(move |to| (from, to)))
                .filter(|(_, to)| circle.contains(&to.as_str()))
                .map(|(from, to)| format!("{from} > {to}"))
                .collect();
            circles.insert((*first).to_string(), edges.join(", "));
        }
    }
    check_with_exceptions("move what both need into a third file", &circles, CIRCLES);
}

#[test]
fn paths_are_read() {
    let own = ["a".to_string(), "b".to_string()];
    let text = "use crate::x::{self, y::Z, w::*};\nuse super::c::D;\nlet v = crate::q::f();";
    let got: Vec<String> = paths(text, &own).iter().map(|path| path.join(".")).collect();
    assert_eq!(got, ["x.self", "x.y.Z", "x.w", "q.f", "a.c.D"]);
}
