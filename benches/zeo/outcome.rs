//! The result of one workload for one server: a line of JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The figures of one workload, one server, one round.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub workload: String,
    pub label: String,
    pub round: u32,
    /// Why figures are missing.
    pub failure: Option<String>,
    pub figures: BTreeMap<String, f64>,
}

impl Outcome {
    pub fn new(round: u32, workload: &str, label: &str) -> Outcome {
        Outcome { workload: workload.into(), label: label.into(), round, ..Outcome::default() }
    }

    pub fn set(&mut self, figure: &str, value: f64) {
        if value.is_finite() {
            self.figures.insert(figure.into(), value);
        }
    }

    pub fn to_json(&self) -> String {
        let mut line = format!(
            r#"{{"workload":{},"server":{},"round":{}"#,
            quoted(&self.workload),
            quoted(&self.label),
            self.round
        );
        if let Some(failure) = &self.failure {
            let _ = write!(line, r#","failure":{}"#, quoted(failure));
        }
        for (figure, value) in &self.figures {
            let _ = write!(line, ",{}:{value}", quoted(figure));
        }
        line.push('}');
        line
    }

    /// Parses the output of [`Outcome::to_json`]: one flat object. `None` for any other line.
    pub fn from_json(line: &str) -> Option<Outcome> {
        let mut rest = line.trim().strip_prefix('{')?.strip_suffix('}')?;
        let mut outcome = Outcome::default();
        while !rest.is_empty() {
            let (key, after) = take_quoted(rest)?;
            rest = after.strip_prefix(':')?;
            if rest.starts_with('"') {
                let (text, after) = take_quoted(rest)?;
                rest = after;
                match key.as_str() {
                    "workload" => outcome.workload = text,
                    "server" => outcome.label = text,
                    "failure" => outcome.failure = Some(text),
                    _ => return None,
                }
            } else {
                let end = rest.find(',').unwrap_or(rest.len());
                let value: f64 = rest[..end].parse().ok()?;
                rest = &rest[end..];
                if key == "round" {
                    outcome.round = value as u32;
                } else {
                    outcome.figures.insert(key, value);
                }
            }
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        (!outcome.workload.is_empty() && !outcome.label.is_empty()).then_some(outcome)
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A quoted string at the start of `text`, and the text after it.
fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut taken = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((taken, &text[i + 2..])),
            '\\' => taken.push(chars.next()?.1),
            c => taken.push(c),
        }
    }
    None
}
