//! The tables of docs/operations.md and docs/migration.md have exactly the keys and defaults of the schema.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use runzeo::internal::config::changes::{Effect, not_at_a_restart};
use runzeo::internal::config::zconfig::matcher::{Child, Content, KnownTo, SectionType};
use runzeo::internal::config::{Invocation, from_command_line, options, schema};

/// Sections without a table: a logger in `<runner>`, and handlers that are refused.
const WITHOUT_TABLE: [&str; 4] = ["logger", "win32-eventlog", "http-logger", "email-notifier"];

/// Clients have an `<ssl>` of their own.
const OF_A_CLIENT: &str = " of a client";

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// The section types with a table.
fn section_types() -> impl Iterator<Item = &'static SectionType> {
    schema::FILE.inner_types().into_iter().filter(|section| {
        matches!(section.content, Content::Checked(_) | Content::Own(_))
            && !WITHOUT_TABLE.contains(&section.name)
    })
}

/// The name, the cell for the default, and the servers that know the key.
fn keys(section: &SectionType) -> impl Iterator<Item = (&'static str, String, KnownTo)> {
    section.children().iter().filter_map(|child| match *child {
        Child::Key { name, required, default, known, .. } => {
            let default = match default {
                _ if required => "required".into(),
                Some("") => "empty".into(),
                Some(text) => format!("`{text}`"),
                None => "not set".into(),
            };
            Some((name, default, known))
        }
        Child::Slot { .. } => None,
    })
}

/// What a section is called in headings and tables: its name, unless that of another section is the same.
fn title(section: &SectionType) -> String {
    let of_a_client = keys(section).any(|(key, ..)| key == "server-hostname");
    format!("{}{}", section.name, if of_a_client { OF_A_CLIENT } else { "" })
}

/// The cells of a table's row.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix("| `")?.strip_suffix(" |")?;
    Some(format!("`{inner}").split(" | ").map(|cell| cell.trim().to_string()).collect())
}

fn unquoted(cell: &str) -> String {
    cell.replace(['`', '<', '>'], "")
}

/// The tables below headings such as "### `<zeo>`": section -> (key, default, known).
fn tables_by_section(page: &str) -> BTreeMap<String, BTreeSet<(String, String, String)>> {
    let mut tables: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    let mut sections: Vec<String> = Vec::new();
    for line in page.lines() {
        if line.starts_with('#') {
            let names = line.split('`').skip(1).step_by(2);
            let of_a_client = if line.ends_with(OF_A_CLIENT) { OF_A_CLIENT } else { "" };
            let titles = names.filter(|name| name.starts_with('<')).map(|name| unquoted(name) + of_a_client);
            sections = titles.collect();
        } else if let Some(cells) = cells(line) {
            let [key, default, known, meaning] = &cells[..] else { continue };
            for section in &sections {
                assert!(!meaning.is_empty(), "{line}");
                let row = (unquoted(key), default.clone(), known.clone());
                assert!(tables.entry(section.clone()).or_default().insert(row), "twice: {line}");
            }
        }
    }
    tables
}

#[test]
fn operations_has_every_key_with_its_default() {
    let found = tables_by_section(&page("operations.md"));
    let expected: BTreeMap<String, BTreeSet<_>> = section_types()
        .map(|section| {
            let rows = keys(section).map(|(name, default, known)| (name.into(), default, known.to_string()));
            (title(section), rows.collect())
        })
        .collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "sections");
    for (section, rows) in &expected {
        let missing: Vec<_> = rows.difference(&found[section]).collect();
        let wrong: Vec<_> = found[section].difference(rows).collect();
        assert!(missing.is_empty() && wrong.is_empty(), "<{section}>: missing {missing:?}, wrong {wrong:?}");
    }
}

/// An explicit default has the same effect as leaving the key out.
#[test]
fn a_default_is_what_holds_without_the_key() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("passwords"), "").unwrap();
    let path = directory.path().join("zeo.conf");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        match from_command_line("runzeo", &[OsString::from("-C"), path.clone().into()], &|_| None) {
            Ok(Invocation::Serve(config)) => format!("{config:#?}"),
            other => panic!("{text}\n{other:?}"),
        }
    };
    let file = |key: &str| {
        format!(
            "%import ZEO\n%import zc.zlibstorage\n%import zc.beforestorage\n%import tempstorage\n\
             %import relstorage\n<zeo>\naddress 1\n{}</zeo>\n\
             <filestorage a>\npath a.fs\n{}</filestorage>\n<mappingstorage b>\n{}</mappingstorage>\n\
             <zlibstorage c>\n{}<mappingstorage>\n</mappingstorage>\n</zlibstorage>\n\
             <serverzlibstorage d>\n{}<mappingstorage>\n</mappingstorage>\n</serverzlibstorage>\n\
             <before e>\n{}<mappingstorage>\n</mappingstorage>\n</before>\n\
             <temporarystorage f>\n{}</temporarystorage>\n\
             <zeoclient g>\nserver 1\nblob-dir g\nblob-cache-size 1\n{}</zeoclient>\n\
             <clientstorage h>\nserver 1\nblob-dir h\nblob-cache-size 1\n{}\
             <ssl>\ncertificate x\n{}</ssl>\n</clientstorage>\n\
             <relstorage i>\nblob-dir i\nblob-cache-size 1\n{}<postgresql>\n{}</postgresql>\n</relstorage>\n\
             <eventlog>\n{}<logfile>\npath x\n{}</logfile>\n<syslog>\n{}</syslog>\n<journal>\n{}</journal>\n</eventlog>\n",
            // A comment replaces the key, to keep the line numbers.
            key_for("zeo", key),
            key_for("filestorage", key),
            key_for("mappingstorage", key),
            key_for("zlibstorage", key),
            key_for("serverzlibstorage", key),
            key_for("before", key),
            key_for("temporarystorage", key),
            key_for("zeoclient", key),
            key_for("clientstorage", key),
            key_for("ssl", key),
            key_for("relstorage", key),
            key_for("postgresql", key),
            key_for("eventlog", key),
            key_for("logfile", key),
            key_for("syslog", key),
            key_for("journal", key),
        )
    };
    fn key_for(section: &str, key: &str) -> String {
        match key.split_once('/') {
            Some((wanted, line)) if wanted == section => format!("{line}\n"),
            _ => "#\n".into(),
        }
    }
    let without = read(&file(""));
    let mut count = 0;
    for section in section_types() {
        for child in section.children() {
            let Child::Key { name, default: Some(text), .. } = child else { continue };
            assert_eq!(read(&file(&format!("{}/{name} {text}", section.name))), without, "{name} {text}");
            count += 1;
        }
    }
    assert!(count > 40, "{count} defaults");
}

/// Rows `section | key | ...` below a heading, up to the next table.
fn table_after(page: &str, start: &str) -> BTreeSet<(String, String, String)> {
    let (_, rest) = page.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
    let lines =
        rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows = lines
        .filter_map(cells)
        .map(|row| (unquoted(&row[0]), unquoted(&row[1]), row.get(2).cloned().unwrap_or_default()));
    rows.collect()
}

#[test]
fn migration_has_every_key_that_some_python_lacks() {
    let page = page("migration.md");
    let all = || {
        section_types().flat_map(|section| keys(section).map(|(key, _, known)| (title(section), key, known)))
    };
    let own: BTreeSet<_> = all()
        .filter(|(.., known)| *known == KnownTo::Own)
        .map(|(section, key, _)| (section, key.to_string()))
        .collect();
    let found: BTreeSet<_> = table_after(&page, "These keys are our own.")
        .into_iter()
        .map(|(section, key, _)| (section, key))
        .collect();
    assert_eq!(found, own);
    let some: BTreeSet<_> = all()
        .filter(|(.., known)| !matches!(known, KnownTo::Own | KnownTo::Always))
        .map(|(section, key, known)| (section, key.to_string(), known.to_string()))
        .collect();
    assert_eq!(table_after(&page, "These keys are known to some"), some);
}

/// The table below "Reload" has each key that a reload applies, and no other.
#[test]
fn operations_has_every_key_that_a_reload_applies() {
    let page = page("operations.md");
    let (_, rest) = page.split_once("### Reload").unwrap();
    let rows =
        rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let mut found = BTreeSet::new();
    for row in rows.filter_map(cells) {
        let [sections, keys, effect] = &row[..] else { panic!("{row:?}") };
        let quoted =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(unquoted).collect() };
        for section in quoted(sections) {
            for key in quoted(keys) {
                let kind = effect.split([';', ',', ':']).next().unwrap().trim().to_string();
                found.insert((section.clone(), key, kind));
            }
        }
    }
    let expected: BTreeSet<_> = not_at_a_restart()
        .map(|(section, key, effect)| {
            let effect = match effect {
                Effect::Applied("") => "at once",
                Effect::Applied(to) => to,
                Effect::Nothing(_) => "never",
                Effect::Restart => unreachable!("not among them"),
            };
            // The section as a whole.
            let key = if key.is_empty() { section } else { key };
            (section.to_string(), key.to_string(), effect.to_string())
        })
        .collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    let wrong: Vec<_> = found.difference(&expected).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "missing {missing:?}, wrong {wrong:?}");
}

#[test]
fn migration_has_every_option_that_some_python_lacks() {
    let page = page("migration.md");
    let (_, rest) = page.split_once("Options of the command line that some").unwrap();
    let lines =
        rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let found: BTreeSet<_> = lines
        .filter_map(cells)
        .map(|row| {
            let long = row[0].trim_matches('`').rsplit("--").next().unwrap().to_string();
            (long, row[1].starts_with("to ZEO 4"))
        })
        .collect();
    let expected: BTreeSet<_> =
        options::not_everywhere().map(|(long, zeo4)| (long.to_string(), zeo4)).collect();
    assert_eq!(found, expected);
}
