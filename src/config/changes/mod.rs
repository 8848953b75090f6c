//! What differs between two readings of a configuration, key by key, and when each difference takes effect.
//!
//! The readings are trees with everything that is put into them: drop-ins, variables, settings of the command line.
//! Texts with the same meaning are the same, and so are a key with its default and no key. Sections correspond if they
//! have the same type and the same name, or else what tells them apart: the path of a `<logfile>`, for example.
//! [`effects`] has the table of all keys.

pub mod effects;

use self::effects::Effect;
use super::options::Options;
use super::schema::{self, eventlog, runner};
use super::zconfig::matcher::{AddedTypes, Child, SectionType};
use super::zconfig::tree::{Item, Value};
use super::zconfig::{Location, Section};

/// What is shown in place of a password.
const SECRET: &str = "(secret)";
/// What is shown of a key that is not there and has no default.
const NOT_SET: &str = "not set";

/// A difference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The first lines of the sections around the key, such as `<eventlog> <logfile>`.
    pub section: String,
    /// The key; `None`: the section has come or gone.
    pub key: Option<String>,
    /// Of a section, its keys; `None`: there was none.
    pub before: Option<String>,
    /// The same, for now.
    pub after: Option<String>,
    pub effect: Effect,
    /// Where the new value is, or else where the old one was.
    pub location: Location,
}

/// A key or a section whose values are those of the command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Overridden {
    section: &'static str,
    /// `None`: the whole section.
    key: Option<&'static str>,
    option: &'static str,
}

/// What the options of a command line replace, whatever the files say.
pub fn overridden(options: &Options) -> Vec<Overridden> {
    let key = |is_given: bool, section, key, option| {
        is_given.then_some(Overridden { section, key: Some(key), option })
    };
    let whole =
        |is_given: bool, section, option| is_given.then_some(Overridden { section, key: None, option });
    let has_address = options.address.is_some();
    let keys = [
        key(has_address, "zeo", "address", "-a"),
        whole(has_address, "listen", "-a"),
        key(options.timeout.is_some(), "zeo", "transaction-timeout", "-t"),
        key(options.monitor.is_some(), "zeo", "monitor-address", "-m"),
        key(options.pid_file.is_some(), "zeo", "pid-filename", "--pid-file"),
        key(options.auth_protocol.is_some(), "zeo", "authentication-protocol", "--auth-protocol"),
        key(options.auth_database.is_some(), "zeo", "authentication-database", "--auth-database"),
        key(options.auth_realm.is_some(), "zeo", "authentication-realm", "--auth-realm"),
        key(options.http.is_some(), "http", "address", "--http"),
    ];
    let storages = schema::storages::STORAGES.iter();
    let storages = storages.map(|storage| whole(!options.filenames.is_empty(), storage.name, "-f"));
    keys.into_iter().chain(storages).flatten().collect()
}

/// The differences, in the order of the files: what has changed or come, and then what has gone.
pub fn compare(
    before: &Section,
    after: &Section,
    added: &AddedTypes,
    overridden: &[Overridden],
) -> Vec<Change> {
    let mut comparison = Comparison { added, overridden, changes: Vec::new() };
    comparison.section(before, after, &schema::FILE, Nesting::default());
    comparison.changes
}

struct Comparison<'a> {
    added: &'a AddedTypes,
    overridden: &'a [Overridden],
    changes: Vec<Change>,
}

/// The sections around a key.
#[derive(Clone, Default)]
struct Nesting {
    shown: String,
    /// Of everything in it, whatever the table says.
    effect: Option<Effect>,
}

impl Comparison<'_> {
    /// Compares two sections of the same type.
    fn section(&mut self, before: &Section, after: &Section, of: &'static SectionType, nesting: Nesting) {
        for child in of.children() {
            self.key(before, after, of, child, &nesting);
        }
        let mut unpaired: Vec<&Section> = before.sections().collect();
        for inner in after.sections() {
            let at = unpaired.iter().position(|one| identity(one) == identity(inner));
            let Some((inner_type, _)) = of.inner_type(&inner.type_name, self.added) else { continue };
            match at {
                Some(index) => {
                    let nesting = self.inside(&nesting, inner, inner_type);
                    self.section(unpaired.remove(index), inner, inner_type, nesting);
                }
                None => self.whole(None, Some(inner), inner_type, &nesting),
            }
        }
        for inner in unpaired {
            if let Some((inner_type, _)) = of.inner_type(&inner.type_name, self.added) {
                self.whole(Some(inner), None, inner_type, &nesting);
            }
        }
    }

    fn key(
        &mut self,
        before: &Section,
        after: &Section,
        of: &'static SectionType,
        child: &Child,
        nesting: &Nesting,
    ) {
        let Child::Key { name, datatype, default, .. } = *child else { return };
        let values = |section| values_of(section, name);
        let (old, new) = (values(before), values(after));
        let or_default = |values: &[&Value]| -> Vec<String> {
            let texts: Vec<String> = values.iter().map(|value| value.text.clone()).collect();
            if texts.is_empty() { default.map(String::from).into_iter().collect() } else { texts }
        };
        let (one, other) = (or_default(&old), or_default(&new));
        let mut pairs = one.iter().zip(&other);
        if one.len() == other.len() && pairs.all(|(one, other)| datatype.is_same(one, other)) {
            return;
        }
        let option = self.overridden.iter().find(|known| known.section == of.name && known.key == Some(name));
        let effect = option.map(|known| Effect::of_command_line(known.option)).or(nesting.effect);
        let text = |texts: Vec<String>| match texts.is_empty() {
            true => NOT_SET.to_string(),
            false if is_secret(name) => SECRET.to_string(),
            false => texts.join(", "),
        };
        let location = new.first().or(old.first()).map_or(&after.start, |value| &value.location);
        self.changes.push(Change {
            section: nesting.shown.clone(),
            key: Some(name.into()),
            before: Some(text(one)),
            after: Some(text(other)),
            effect: effect.unwrap_or_else(|| effects::of_key(of, name)),
            location: location.clone(),
        });
    }

    /// A section that has come or gone.
    fn whole(
        &mut self,
        before: Option<&Section>,
        after: Option<&Section>,
        of: &'static SectionType,
        outer: &Nesting,
    ) {
        let Some(section) = after.or(before) else { return };
        let nesting = self.inside(outer, section, of);
        self.changes.push(Change {
            section: nesting.shown,
            key: None,
            before: before.map(content),
            after: after.map(content),
            effect: nesting.effect.unwrap_or_else(|| effects::of_section(of)),
            location: section.start.clone(),
        });
    }

    fn inside(&self, outer: &Nesting, inner: &Section, of: &'static SectionType) -> Nesting {
        let shown = match outer.shown.as_str() {
            "" => inner.shown(),
            outer => format!("{outer} {}", inner.shown()),
        };
        // Several of them have no names.
        let told_by = identity_key(inner).and_then(|key| inner.value(key));
        let shown = told_by.map_or_else(|| shown.clone(), |value| format!("{shown} {}", value.text));
        let whole = |known: &&Overridden| known.section == of.name && known.key.is_none();
        let of_options = self.overridden.iter().find(whole).filter(|_| outer.shown.is_empty());
        let of_options = of_options.map(|known| Effect::of_command_line(known.option));
        let is_of_zeoctl = [&runner::RUNNER, &runner::ENVIRONMENT].iter().any(|one| std::ptr::eq(of, *one));
        let of_runner = is_of_zeoctl.then_some(effects::OF_ZEOCTL);
        // Its <ssl> is of the type that <zeo> has, too.
        let is_replication = std::ptr::eq(of, &schema::replication::REPLICATION);
        let of_replication = is_replication.then_some(Effect::Restart);
        Nesting { shown, effect: of_options.or(of_runner).or(of_replication).or(outer.effect) }
    }
}

/// The values of a key, which may be given several times.
fn values_of<'a>(section: &'a Section, key: &str) -> Vec<&'a Value> {
    section.values().filter(|value| value.key.eq_ignore_ascii_case(key)).collect()
}

/// What tells a section from others of its type, beside its name.
fn identity_key(section: &Section) -> Option<&'static str> {
    let is_unnamed = section.name.is_none();
    match section.type_name.as_str() {
        name if name == eventlog::LOGFILE.name => Some("path"),
        name if name == eventlog::SYSLOG.name => Some("address"),
        name if name == eventlog::JOURNAL.name => Some("path"),
        name if name == schema::backup::BACKUP.name => Some("repository"),
        name if name == schema::listen::LISTEN.name && is_unnamed => Some("address"),
        name if name == schema::network::NETWORK.name && is_unnamed => Some("addresses"),
        _ => None,
    }
}

/// Type, name, and the text of [`identity_key`].
fn identity(section: &Section) -> (&str, Option<&str>, Option<&str>) {
    let text = identity_key(section).and_then(|key| section.value(key));
    (&section.type_name, section.name.as_deref(), text.map(|value| &*value.text))
}

/// The keys and sections in a section, in one line.
fn content(section: &Section) -> String {
    let parts = section.items.iter().map(|item| match item {
        Item::Value(value) if is_secret(&value.key) => format!("{} {SECRET}", value.key),
        Item::Value(value) => format!("{} {}", value.key, value.text),
        Item::Section(inner) => format!("{} {}", inner.shown(), content(inner)),
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// Whether the value of a key must not be shown.
fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    // A connection string may have a password in it.
    matches!(&*key, "password" | "dsn")
        || ["-password", "secret", "token"].iter().any(|end| key.ends_with(end))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::base::address::Address;
    use crate::config::zconfig::{Surroundings, load};

    struct Text(RefCell<Option<Vec<u8>>>);

    impl Surroundings for Text {
        fn environment(&self, _: &str) -> Option<String> {
            None
        }

        fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
            self.0.borrow_mut().take().ok_or_else(|| io::Error::other("read twice"))
        }

        fn import(&self, _: &str) -> Result<(), String> {
            Ok(())
        }
    }

    fn tree(text: &str) -> Section {
        load("zeo.conf", &Text(RefCell::new(Some(text.into())))).unwrap()
    }

    /// `SECTION KEY BEFORE -> AFTER EFFECT`, one line for each change.
    fn changes_with(before: &str, after: &str, options: &Options) -> Vec<String> {
        let changes = compare(&tree(before), &tree(after), &AddedTypes::default(), &overridden(options));
        let shown = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let line = |change: Change| {
            let Change { section, key, before, after, effect, location } = change;
            let key = key.map(|key| format!(" {key}")).unwrap_or_default();
            let effect = match effect {
                Effect::Applied(_) => "applied",
                Effect::Restart => "restart",
                Effect::Nothing(_) => "nothing",
            };
            format!("{location} {section}{key}: {} -> {} ({effect})", shown(before), shown(after))
        };
        changes.into_iter().map(line).collect()
    }

    fn changes(before: &str, after: &str) -> Vec<String> {
        changes_with(before, after, &Options::default())
    }

    #[test]
    fn what_means_the_same_has_not_changed() {
        let before = "<zeo>\naddress 1\nread-only off\nmax-unsent 16MB\n</zeo>\n<filestorage a>\npath x\n</filestorage>";
        let after = "<filestorage A>\npath x\ncreate no\n</filestorage>\n# moved\n<zeo>\naddress 1\nread-only FALSE\n\
                     max-unsent 16777216\nhandshake-timeout 30\n</zeo>";
        assert_eq!(changes(before, after), [""; 0]);
    }

    #[test]
    fn keys_are_shown_with_their_places() {
        let before =
            "<zeo>\naddress 1\ntransaction-timeout 30\n</zeo>\n<access>\nrule all everyone\n</access>";
        let after = "<zeo>\naddress 1\naddress 2\nmax-connections 5\n</zeo>\n<access>\nrule read 10.0.0.1\nrule all everyone\n</access>";
        assert_eq!(
            changes(before, after),
            [
                format!("zeo.conf:2 <zeo> address: 1 -> 1, 2 ({})", word(&schema::zeo::ZEO, "address")),
                "zeo.conf:3 <zeo> transaction-timeout: 30 -> not set (applied)".into(),
                "zeo.conf:4 <zeo> max-connections: none -> 5 (applied)".into(),
                format!(
                    "zeo.conf:7 <access> rule: all everyone -> read 10.0.0.1, all everyone ({})",
                    word(&schema::access::ACCESS, "rule")
                ),
            ]
        );
    }

    fn word(of: &'static SectionType, key: &str) -> &'static str {
        match effects::of_key(of, key) {
            Effect::Applied(_) => "applied",
            Effect::Restart => "restart",
            Effect::Nothing(_) => "nothing",
        }
    }

    #[test]
    fn sections_come_and_go_and_hide_passwords() {
        let storage = |password: &str| {
            format!("<zeoclient main>\nserver 1\nusername u\npassword {password}\n</zeoclient>\n")
        };
        assert_eq!(
            changes(&storage("a"), &(storage("b") + "<zeoclient two>\nserver 2\npassword c\n</zeoclient>\n")),
            [
                "zeo.conf:4 <zeoclient main> password: (secret) -> (secret) (restart)",
                "zeo.conf:6 <zeoclient two>: - -> server 2; password (secret) (restart)",
            ]
        );
        let handler = |path: &str| format!("<logfile>\npath {path}\nlevel info\n</logfile>\n");
        let log = |handlers: &[&str]| {
            format!(
                "<eventlog>\n{}</eventlog>",
                handlers.iter().map(|path| handler(path)).collect::<String>()
            )
        };
        assert_eq!(
            changes(
                &log(&["a", "b"]),
                &log(&["c", "b"]).replace("path b\nlevel info", "path b\nlevel debug")
            ),
            [
                "zeo.conf:2 <eventlog> <logfile> c: - -> path c; level info (restart)",
                "zeo.conf:8 <eventlog> <logfile> b level: info -> debug (applied)",
                "zeo.conf:2 <eventlog> <logfile> a: path a; level info -> - (restart)",
            ]
        );
    }

    /// A reload applies certificates of clients, and those of other servers at the restart.
    #[test]
    fn a_cluster_changes_at_a_restart() {
        let section = |of: &str, certificate: &str| {
            format!("<{of}>\npeer a:1\n<ssl>\ncertificate {certificate}\n</ssl>\n</{of}>\n")
        };
        assert_eq!(
            changes(&section("replication", "a"), &section("replication", "b")),
            ["zeo.conf:4 <replication> <ssl> certificate: a -> b (restart)"]
        );
        assert_eq!(
            changes(&section("zeo", "a"), &section("zeo", "b")),
            ["zeo.conf:4 <zeo> <ssl> certificate: a -> b (applied)"]
        );
        assert_eq!(changes("", "<replication>\npeer a:1\npeer b:1\n</replication>").len(), 1);
        assert_eq!(
            changes(
                "<replication>\npeer a:1\n</replication>",
                "<replication>\npeer a:1\npeer b:1\n</replication>"
            ),
            ["zeo.conf:2 <replication> peer: a:1 -> a:1, b:1 (restart)"]
        );
    }

    /// The command line wins, and `<runner>` is for `zeoctl`.
    #[test]
    fn what_has_no_effect_is_named_all_the_same() {
        let before = "<zeo>\naddress 1\ntransaction-timeout 30\n</zeo>\n<runner>\nprogram x\n</runner>\n\
                      <mappingstorage>\n</mappingstorage>";
        let after = "<zeo>\naddress 2\ntransaction-timeout 40\n</zeo>\n<runner>\nprogram y\n</runner>\n\
                     <listen>\naddress 3\n</listen>\n<filestorage>\npath x\n</filestorage>";
        let options = Options {
            address: Some(Address::Tcp { host: None, port: Some(1) }),
            timeout: Some(1.0),
            filenames: vec!["x".into()],
            ..Options::default()
        };
        assert_eq!(
            changes_with(before, after, &options),
            [
                "zeo.conf:2 <zeo> address: 1 -> 2 (nothing)",
                "zeo.conf:3 <zeo> transaction-timeout: 30 -> 40 (nothing)",
                "zeo.conf:6 <runner> program: x -> y (nothing)",
                "zeo.conf:8 <listen> 3: - -> address 3 (nothing)",
                "zeo.conf:11 <filestorage>: - -> path x (nothing)",
                "zeo.conf:8 <mappingstorage>:  -> - (nothing)",
            ]
        );
    }
}
