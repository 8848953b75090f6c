//! Whether the format of a log line can be used with every record.
//!
//! Python tries the format on a sample record when the configuration is read; so a wrong field or a
//! conversion that does not suit it is an error of the configuration and not of the first log line.

use crate::config::FormatStyle;
use crate::config::zconfig::quoted;

/// What a field holds, as far as conversions care.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Text,
    Integer,
    Float,
    /// `None` or a tuple: anything that only `str` can deal with.
    Other,
}

/// The fields of a record.
const FIELDS: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("levelname", Kind::Text),
    ("levelno", Kind::Integer),
    ("message", Kind::Text),
    ("asctime", Kind::Text),
    ("created", Kind::Float),
    ("msecs", Kind::Float),
    ("relativeCreated", Kind::Float),
    ("process", Kind::Integer),
    ("processName", Kind::Text),
    ("thread", Kind::Integer),
    ("threadName", Kind::Text),
    ("pathname", Kind::Text),
    ("filename", Kind::Text),
    ("module", Kind::Text),
    ("funcName", Kind::Text),
    ("lineno", Kind::Integer),
    ("msg", Kind::Text),
    ("args", Kind::Other),
    ("exc_info", Kind::Other),
    ("exc_text", Kind::Other),
    ("stack_info", Kind::Other),
];

/// Put in the control characters for `\n`, `\t`, `\b`, `\f` and `\r`.
pub fn unescape(text: &str) -> String {
    text.replace("\\n", "\n")
        .replace("\\t", "\t")
        .replace("\\b", "\x08")
        .replace("\\f", "\x0c")
        .replace("\\r", "\r")
}

/// What an empty format stands for.
pub fn default_format(style: FormatStyle) -> &'static str {
    match style {
        FormatStyle::Classic => "%(message)s",
        FormatStyle::Format => "{message}",
        FormatStyle::Template | FormatStyle::SafeTemplate => "${message}",
    }
}

/// Whether every record can be shown in this format.
pub fn check(format: &str, style: FormatStyle, arbitrary_fields: bool) -> Result<(), String> {
    let kind_of = |name: &str| match FIELDS.iter().find(|(field, _)| *field == name) {
        Some((_, kind)) => Ok(*kind),
        None if arbitrary_fields => Ok(Kind::Integer),
        None => Err(format!("there is no field {} in a log record", quoted(name))),
    };
    match style {
        FormatStyle::Classic => check_classic(format, &kind_of),
        FormatStyle::Format => check_format(format, &kind_of),
        FormatStyle::Template => check_template(format, &kind_of),
        // What cannot be replaced stays as it is.
        FormatStyle::SafeTemplate => Ok(()),
    }
}

type KindOf<'a> = &'a dyn Fn(&str) -> Result<Kind, String>;

/// `%(name)-10.3s`
fn check_classic(format: &str, kind_of: KindOf<'_>) -> Result<(), String> {
    let mut rest = format;
    while let Some((_, after)) = rest.split_once('%') {
        let (name, after) = match after.strip_prefix('(') {
            Some(inner) => {
                let end = closing_parenthesis(inner).ok_or("a '%(' lacks its ')'")?;
                (Some(&inner[..end]), &inner[end + 1..])
            }
            None => (None, after),
        };
        let after = after.trim_start_matches(['#', '0', '+', ' ', '-']);
        let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
        let after = match after.strip_prefix('.') {
            Some(precision) => precision.trim_start_matches(|c: char| c.is_ascii_digit()),
            None => after,
        };
        let after = after.strip_prefix(['h', 'l', 'L']).unwrap_or(after);
        let mut characters = after.chars();
        let conversion =
            characters.next().ok_or("it ends within a '%' conversion; write '%%' for a per cent sign")?;
        rest = characters.as_str();
        let suits = |kind: Kind| match conversion {
            's' | 'r' | 'a' => true,
            'd' | 'i' | 'u' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                matches!(kind, Kind::Integer | Kind::Float)
            }
            'o' | 'x' | 'X' | 'c' => kind == Kind::Integer,
            _ => false,
        };
        match name {
            _ if conversion == '%' => {}
            _ if !"sradiueEfFgGoxXc".contains(conversion) => {
                return Err(format!("'%{conversion}' is no conversion; write '%%' for a per cent sign"));
            }
            None => {
                return Err(format!(
                    "'%{conversion}' names no field; write '%(message){conversion}' or the like"
                ));
            }
            Some(name) if !suits(kind_of(name)?) => {
                return Err(format!("'%({name}){conversion}' does not suit this field; use '%({name})s'"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Where the parenthesis that is already open is closed; pairs inside count.
fn closing_parenthesis(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Some(index),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// `{name!r:>10}`
fn check_format(format: &str, kind_of: KindOf<'_>) -> Result<(), String> {
    let mut rest = format;
    while let Some(brace) = rest.find(['{', '}']) {
        let (_, from_brace) = rest.split_at(brace);
        if let Some(after) = from_brace.strip_prefix("{{").or_else(|| from_brace.strip_prefix("}}")) {
            rest = after;
            continue;
        }
        let (field, after) = from_brace
            .strip_prefix('{')
            .ok_or("a '}' stands alone; write '}}' for a brace")?
            .split_once('}')
            .ok_or("a '{' lacks its '}'; write '{{' for a brace")?;
        rest = after;
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = match field.split_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (field, None),
        };
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("'{{{field}}}' does not name its field; write '{{message}}' or the like"));
        }
        let kind = match conversion {
            None => kind_of(name)?,
            Some("r" | "s" | "a") => kind_of(name).map(|_| Kind::Text)?,
            Some(other) => return Err(format!("'!{other}' is no conversion; use !r, !s or !a")),
        };
        if !spec_suits(spec, kind) {
            return Err(format!("':{spec}' does not suit the field '{name}'"));
        }
    }
    Ok(())
}

/// `[[fill]align][sign][#][0][width][,_][.precision][type]`
fn spec_suits(spec: &str, kind: Kind) -> bool {
    const ALIGNMENTS: [char; 4] = ['<', '>', '^', '='];
    let mut characters = spec.chars();
    let (first, second) = (characters.next(), characters.next());
    let (alignment, rest) = match (first, second) {
        (Some(fill), Some(align)) if ALIGNMENTS.contains(&align) => {
            (Some(align), &spec[fill.len_utf8() + align.len_utf8()..])
        }
        (Some(align), _) if ALIGNMENTS.contains(&align) => (Some(align), &spec[align.len_utf8()..]),
        _ => (None, spec),
    };
    let is_digit = |c: char| c.is_ascii_digit();
    let signless = rest.strip_prefix(['+', '-', ' ']).unwrap_or(rest);
    let plain = signless.strip_prefix('#').unwrap_or(signless);
    let zeroless = plain.strip_prefix('0').unwrap_or(plain);
    let width_less = zeroless.trim_start_matches(is_digit);
    let ungrouped = width_less.strip_prefix([',', '_']).unwrap_or(width_less);
    let (precise, presentation) = match ungrouped.strip_prefix('.') {
        Some(precision) if precision.starts_with(is_digit) => (true, precision.trim_start_matches(is_digit)),
        Some(_) => return false,
        None => (false, ungrouped),
    };
    let numeric_flags =
        signless.len() < rest.len() || plain.len() < signless.len() || ungrouped.len() < width_less.len();
    match kind {
        Kind::Text => matches!(presentation, "" | "s") && alignment != Some('=') && !numeric_flags,
        Kind::Integer => match presentation {
            "" | "d" | "b" | "o" | "x" | "X" | "n" | "c" => !precise,
            _ => matches!(presentation, "e" | "E" | "f" | "F" | "g" | "G" | "%"),
        },
        Kind::Float => matches!(presentation, "" | "e" | "E" | "f" | "F" | "g" | "G" | "n" | "%"),
        Kind::Other => spec.is_empty(),
    }
}

/// `$name` or `${name}`
fn check_template(format: &str, kind_of: KindOf<'_>) -> Result<(), String> {
    let mut rest = format;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(escaped) = after.strip_prefix('$') {
            rest = escaped;
            continue;
        }
        let (inner, braced) = match after.strip_prefix('{') {
            Some(inner) => (inner, true),
            None => (after, false),
        };
        let len = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
        let (name, after) = inner.split_at(len);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("a '$' is not followed by the name of a field; write '$$' for a dollar sign".into());
        }
        rest = match braced {
            true => after.strip_prefix('}').ok_or_else(|| format!("'${{{name}' lacks its '}}'"))?,
            false => after,
        };
        kind_of(name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_all(style: FormatStyle, good: &[&str], bad: &[&str]) {
        for format in good {
            assert_eq!(check(format, style, false), Ok(()), "{format}");
        }
        for format in bad {
            assert!(check(format, style, false).is_err(), "{format}");
        }
    }

    #[test]
    fn classic() {
        check_all(
            FormatStyle::Classic,
            &[
                "%(asctime)s %(message)s",
                "plain",
                "100%%",
                "%(levelno)02d",
                "%(levelname)-8.3s|",
                "%(created).3f %(msecs)d %(lineno)5ld",
                "%(process)x",
                "%(exc_info)s",
                "%(name)%",
            ],
            &[
                "100%",
                "%(message)",
                "%(message",
                "%(nothing)s",
                "%(message)d",
                "%(created)x",
                "%s",
                "%(message)y",
                "%(a(b)s",
            ],
        );
        assert!(check("%(nothing)d", FormatStyle::Classic, true).is_ok());
    }

    #[test]
    fn format() {
        check_all(
            FormatStyle::Format,
            &[
                "{asctime} {message}",
                "{{}}",
                "{levelno:05d}",
                "{name!r:>20}",
                "{message:.10}",
                "{created:,.2f}",
                "{levelno:*^9x}",
            ],
            &[
                "{}",
                "{0}",
                "{",
                "}",
                "{message",
                "{nothing}",
                "{message:d}",
                "{message!x}",
                "{levelno:.2}",
                "{name:=5}",
                "{exc_info:5}",
            ],
        );
    }

    #[test]
    fn template() {
        check_all(
            FormatStyle::Template,
            &["$asctime ${message}x", "$$", "plain"],
            &["$", "$ x", "${message", "$nothing", "${1}", "$1"],
        );
        check_all(FormatStyle::SafeTemplate, &["$", "$nothing", "${"], &[]);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape("a\\n\\tb\\\\x\\r"), "a\n\tb\\\\x\r");
    }

    proptest! {
        #[test]
        fn no_format_panics(format in "[%(){}$a.:!#0-9é]{0,12}") {
            for style in [FormatStyle::Classic, FormatStyle::Format, FormatStyle::Template, FormatStyle::SafeTemplate] {
                let _ = check(&format, style, true);
            }
        }
    }
}
