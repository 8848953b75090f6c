//! Lengths of files and functions, and the width of comments.

use std::collections::BTreeMap;

use crate::exceptions::{LONG_FILES, LONG_FUNCTIONS, WIDE_COMMENTS};
use crate::files::{RUST, check_with_exceptions, with_extension};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 80;
/// Columns, indentation included.
const COMMENT_WIDTH_MAX: usize = 120;

#[test]
fn files_are_about_one_thing() {
    let mut files = with_extension(&RUST, "rs");
    files.extend(with_extension(&["compat-tests", "scripts", "python-fixtures"], "py"));
    let long = files.into_iter().filter_map(|(path, text)| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| (path.clone(), format!("{path}: {lines} lines")))
    });
    check_with_exceptions("split by subject what has more than 600 lines", &long.collect(), LONG_FILES);
}

/// Name and number of lines of each function. rustfmt puts the closing brace under the `fn`.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indentation = &line[..line.len() - code.len()];
        let Some((before, after)) = code.split_once("fn ") else { continue };
        if !before.split_whitespace().all(|word| {
            ["pub", "const", "unsafe", "extern", "async"].contains(&word) || word.starts_with("pub(")
        }) {
            continue;
        }
        let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = format!("{indentation}}}");
        let body = lines[start..].iter().take_while(|line| **line != end).count();
        // A declaration, or a function in one line, ends sooner.
        let declaration = lines[start..start + body.min(lines.len() - start)]
            .iter()
            .position(|line| line.ends_with(';') || line.ends_with('}') || line.ends_with('{'))
            .is_some_and(|at| !lines[start + at].ends_with('{'));
        if !declaration {
            found.push((name, body + 1));
        }
    }
    found
}

#[test]
fn functions_fit_a_screen() {
    let mut long = BTreeMap::new();
    for (path, text) in with_extension(&RUST, "rs") {
        for (name, lines) in functions(&text).into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX) {
            let key = format!("{path}::{name}");
            long.insert(key.clone(), format!("{key}: {lines} lines"));
        }
    }
    check_with_exceptions("split what has more than 80 lines and is no table", &long, LONG_FUNCTIONS);
}

#[test]
fn comments_are_no_wider_than_a_page() {
    let mut wide: BTreeMap<String, String> = BTreeMap::new();
    for (path, text) in with_extension(&RUST, "rs") {
        let lines: Vec<_> = text
            .lines()
            .enumerate()
            .filter(|(_, line)| {
                line.trim_start().starts_with("//") && line.chars().count() > COMMENT_WIDTH_MAX
            })
            .map(|(number, _)| (number + 1).to_string())
            .collect();
        if !lines.is_empty() {
            // An exception is a directory of `src`, or one of the others.
            let depth = if path.starts_with("src/") { 2 } else { 1 };
            let dir = path.split('/').take(depth).collect::<Vec<_>>().join("/");
            let hint: &mut String = wide.entry(dir).or_default();
            *hint += &format!("scripts/wrap-comments {path}   # lines {}\n", lines.join(", "));
        }
    }
    check_with_exceptions("wrap comments at 120 columns", &wide, WIDE_COMMENTS);
}

#[test]
fn functions_are_measured() {
    let text = "impl A {\n    fn one(&self) {\n        x;\n    }\n\n    fn two();\n    fn three() {}\n}\n";
    assert_eq!(functions(text), [("one".to_string(), 3)]);
}
