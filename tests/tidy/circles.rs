//! No circles of files: of two files, at most one may need the other, directly or through further files.
//!
//! A folder's `mod.rs` is a file like the others. It does not need the files below it that it only declares
//! (`mod child;`) and re-exports (`pub use child::Name`), but those that its own code uses. An import of a re-exported
//! name needs the file that defines it, not the `mod.rs` in between.
//!
//! Methods are not seen, since no path names their file: a trait in `mod.rs` that children implement, and whose methods
//! `mod.rs` calls, is no circle. Tests are not counted.

use std::collections::{BTreeMap, BTreeSet};

use crate::exceptions::CIRCLES;
use crate::files::{check_with_exceptions, with_extension};
use crate::paths::{Source, Use};

/// Which files each file needs.
type Needs = BTreeMap<String, BTreeSet<String>>;

/// All files, by the paths of their modules.
struct Crate(BTreeMap<Vec<String>, (String, Source)>);

impl Crate {
    fn read(files: &[(String, String)]) -> Crate {
        let sources = files.iter().map(|(path, text)| {
            let source = Source::read(path, text);
            (source.module.clone(), (path.clone(), source))
        });
        Crate(sources.collect())
    }

    /// A path of a `use` declaration in this file, from the root of the crate; None: of another crate.
    fn absolute(&self, source: &Source, path: &[String]) -> Option<Vec<String>> {
        let mut base = source.module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {}
            child => {
                base.push(child.to_string());
                self.0.get(&base)?;
                rest = &path[1..];
            }
        }
        while let Some("super") = rest.first().map(String::as_str) {
            base.pop();
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// A path in code, which may begin with an imported name.
    fn mentioned(&self, source: &Source, path: &[String]) -> Option<Vec<String>> {
        match source.uses.iter().find(|used| used.name == path[0]) {
            Some(used) => {
                let mut full = self.absolute(source, &used.path)?;
                full.extend_from_slice(&path[1..]);
                Some(full)
            }
            None => self.absolute(source, path),
        }
    }

    /// The module whose file defines the item at this path from the root. None: a module, or an item of another crate.
    fn definer(&self, path: &[String]) -> Option<&Vec<String>> {
        let (module, (_, source)) =
            (1..=path.len()).rev().find_map(|len| self.0.get_key_value(&path[..len]))?;
        let name = path.get(module.len())?;
        let named = |used: &&Use| used.name == *name;
        if source.defined.contains(name) {
            return Some(module);
        }
        if let Some(used) = source.uses.iter().find(named) {
            return self.definer(&self.absolute(source, &used.path)?);
        }
        for used in source.uses.iter().filter(|used| used.name == "*") {
            let Some(mut full) = self.absolute(source, &used.path) else { continue };
            if self.0.get(&full).is_some_and(|(_, other)| other.defined.contains(name)) {
                full.push(name.clone());
                return self.definer(&full);
            }
        }
        // Made by a macro.
        Some(module)
    }

    fn needs(&self) -> Needs {
        let mut needs = Needs::new();
        for (module, (path, source)) in &self.0 {
            let mut need = |other: Option<&Vec<String>>| {
                if let Some(other) = other.filter(|other| *other != module) {
                    needs.entry(path.clone()).or_default().insert(self.0[other].0.clone());
                }
            };
            for used in &source.uses {
                let Some(full) = self.absolute(source, &used.path) else { continue };
                let is_face = used.public && full.starts_with(module);
                match used.name.as_str() {
                    _ if is_face => {}
                    "*" => need(self.0.get_key_value(&full).map(|(other, _)| other)),
                    _ => need(self.definer(&full)),
                }
            }
            for mention in &source.mentions {
                if let Some(full) = self.mentioned(source, mention) {
                    need(self.definer(&full));
                }
            }
        }
        needs
    }
}

/// All files that can be reached.
fn reachable<'a>(from: &'a str, needs: &'a Needs) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(next) = open.pop() {
        for other in needs.get(next).into_iter().flatten() {
            if seen.insert(other.as_str()) {
                open.push(other);
            }
        }
    }
    seen
}

/// The circles, each under the name of its first file, with the needs that form it.
fn circles(needs: &Needs) -> BTreeMap<String, String> {
    let mut circles = BTreeMap::new();
    for path in needs.keys() {
        let circle: Vec<&str> = reachable(path, needs)
            .into_iter()
            .filter(|other| reachable(other, needs).contains(path.as_str()))
            .collect();
        if let Some(first) = circle.first() {
            let edges: Vec<String> = circle
                .iter()
                .flat_map(|from| needs[*from].iter().map(move |to| (from, to)))
                .filter(|(_, to)| circle.contains(&to.as_str()))
                .map(|(from, to)| format!("{from} > {to}"))
                .collect();
            circles.insert((*first).to_string(), edges.join(", "));
        }
    }
    circles
}

#[test]
fn files_form_no_circles() {
    let files: Vec<(String, String)> = with_extension(&["src"], "rs")
        .into_iter()
        .filter(|(path, _)| {
            !path.ends_with("tests.rs") && !path.contains("/tests/") && !path.contains("/bin/")
        })
        .collect();
    let needs = Crate::read(&files).needs();
    assert!(needs.values().map(BTreeSet::len).sum::<usize>() > 500, "the imports are found");
    check_with_exceptions("move what both need into a third file", &circles(&needs), CIRCLES);
}

/// The circles of a made-up crate of these files.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<_> = files.iter().map(|(path, text)| ((*path).to_string(), (*text).to_string())).collect();
    circles(&Crate::read(&files).needs()).into_values().collect()
}

/// The circles of a module `a` with this text and two children, `child` with this text and `sibling`.
fn circles_with(parent: &str, child: &str) -> Vec<String> {
    let sibling = ("src/a/sibling.rs", "pub struct Elsewhere;");
    circles_of(&[("src/a/mod.rs", parent), ("src/a/child.rs", child), sibling])
}

const CIRCLE: [&str; 1] = ["src/a/child.rs > src/a/mod.rs, src/a/mod.rs > src/a/child.rs"];

#[test]
fn a_parent_that_uses_a_child_which_needs_it_is_a_circle() {
    let child = "use super::Own;\npub struct Part(Own);";
    for parent in [
        "mod child;\nuse child::Part;\npub struct Own;\nfn f(part: &Part) {}",
        "mod child;\npub struct Own;\nfn f(part: &child::Part) {}",
        "mod child;\npub struct Own;\nfn f(part: &self::child::Part) {}",
        // The re-export is none, the use of the name is.
        "mod child;\npub use child::Part;\npub struct Own;\nfn f(part: &Part) {}",
        "mod child;\nuse crate::a::child;\npub struct Own;\nfn f() {\n    child::run();\n}",
    ] {
        assert_eq!(circles_with(parent, child), CIRCLE, "{parent}");
    }
    let parent = "mod child;\nuse child::Part;\npub struct Own;\nfn f(part: &Part) {}";
    for child in [
        "pub struct Part(super::Own);",
        "use crate::a::{self, Other};\npub struct Part(a::Own);",
        "use super::*;\npub struct Part(Own);",
        "pub struct Part(crate::a::Own);",
    ] {
        assert_eq!(circles_with(parent, child), CIRCLE, "{child}");
    }
}

#[test]
fn declarations_and_re_exports_are_no_circle() {
    let child = "use super::Own;\npub struct Part(Own);";
    for parent in [
        "mod child;\npub use child::Part;\npub struct Own;",
        "pub mod child;\npub(crate) use self::child::{Part, Other as Renamed};\npub struct Own;",
        "mod child;\npub use child::*;\npub struct Own;",
        "mod child;\npub struct Own;\n// child::Part\nconst TEXT: &str = \"child::Part\";",
        "mod child;\npub struct Own;\nmod tests {\n    use super::child::Part;\n}",
        // Methods are called without a name.
        "mod child;\npub trait Own {\n    fn part(&self);\n}\nfn f(own: &dyn Own) {\n    own.part();\n}",
    ] {
        assert!(circles_with(parent, child).is_empty(), "{parent}");
    }
}

#[test]
fn a_re_exported_name_leads_to_the_file_that_defines_it() {
    let parent =
        "mod child;\nmod sibling;\npub use sibling::Elsewhere;\nuse child::Part;\nfn f(part: &Part) {}";
    for child in
        ["use super::Elsewhere;\npub struct Part(Elsewhere);", "pub struct Part(crate::a::Elsewhere);"]
    {
        assert!(circles_with(parent, child).is_empty(), "{child}");
    }
    let circle = circles_of(&[
        ("src/a/mod.rs", "mod child;\nmod sibling;\npub use child::Part;\npub use sibling::Elsewhere;"),
        ("src/a/child.rs", "use super::Elsewhere;\npub struct Part(Elsewhere);"),
        ("src/a/sibling.rs", "use super::Part;\npub struct Elsewhere(Box<Part>);"),
    ]);
    assert_eq!(circle, ["src/a/child.rs > src/a/sibling.rs, src/a/sibling.rs > src/a/child.rs"]);
}

#[test]
fn circles_through_several_files_are_seen() {
    let circle = circles_of(&[
        ("src/a/mod.rs", "pub mod deep;\npub struct Own;\nfn f() {\n    deep::inner::run();\n}"),
        ("src/a/deep/mod.rs", "pub mod inner;"),
        ("src/a/deep/inner.rs", "pub fn run() {\n    crate::b::g();\n}"),
        ("src/b.rs", "pub fn g() -> crate::a::Own {}"),
    ]);
    let expected =
        "src/a/deep/inner.rs > src/b.rs, src/a/mod.rs > src/a/deep/inner.rs, src/b.rs > src/a/mod.rs";
    assert_eq!(circle, [expected]);
}
