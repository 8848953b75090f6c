//! The password file: the users that may connect, as `authentication-database` names it and `zeopasswd` writes it.
//!
//! ```text
//! realm My Realm
//! foo: 4f4b1b5cd6c0...
//! ```
//!
//! The line with the realm comes first and may be missing. The text behind the colon is for the authentication protocol
//! alone ([`Kind::hash`](super::Kind::hash)). ZEO 4 has the same format, so its servers and scripts read these files.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::TimeSource;
use crate::base::fs::{dir_of, sync_dir};
use crate::base::sync::{Mutex, rank};

/// Upper bound on what is read: endless devices are refused.
const FILE_LEN_MAX: u64 = 64 << 20;
/// Two changes within a tick of the file system's clock look like one.
const CLOCK_TICK: Duration = Duration::from_secs(2);

/// The content of a password file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Passwords {
    /// The realm of all users; `None`: the file has no such line.
    pub realm: Option<Vec<u8>>,
    users: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Why a user can't be added, changed or removed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum UserError {
    /// There is such a user already.
    Exists,
    /// There is no such user.
    Unknown,
    /// The file could not be read back; with the reason.
    Unwritable(&'static str),
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UserError::Exists => "exists already",
            UserError::Unknown => "does not exist",
            UserError::Unwritable(why) => why,
        })
    }
}

impl Passwords {
    /// From the bytes of a file. An error has the number of the line, from 1, and the reason.
    pub fn parse(text: &[u8]) -> Result<Passwords, (usize, &'static str)> {
        let mut passwords = Passwords::default();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if index == 0
                && let Some(realm) = line.strip_prefix(b"realm ")
            {
                let realm = line.trim_ascii_end().strip_prefix(b"realm ").unwrap_or(realm.trim_ascii());
                passwords.realm = (!realm.is_empty()).then(|| realm.to_vec());
                continue;
            }
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                return Err((index + 1, "there is no colon between user and password hash"));
            };
            let (user, hash) = line.split_at(colon);
            let hash = hash.strip_prefix(b":").unwrap_or(hash).trim_ascii();
            passwords.users.insert(user.to_vec(), hash.to_vec());
        }
        Ok(passwords)
    }

    /// As a file. Sorted by user.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Some(realm) = &self.realm {
            text.extend_from_slice(&[b"realm ", realm.as_slice(), b"\n"].concat());
        }
        for (user, hash) in &self.users {
            text.extend_from_slice(&[user.as_slice(), b": ", hash, b"\n"].concat());
        }
        text
    }

    /// Read a file; `NotFound` is for the caller to judge.
    pub fn load(path: &Path) -> io::Result<Passwords> {
        let mut text = Vec::new();
        File::open(path)?.take(FILE_LEN_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > FILE_LEN_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is larger than a password file may be",
            ));
        }
        Passwords::parse(&text).map_err(|(line, what)| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {line}: {what}"))
        })
    }

    /// The entry of a user.
    pub fn hash(&self, user: &[u8]) -> Option<&[u8]> {
        self.users.get(user).map(Vec::as_slice)
    }

    /// It has no users.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Adds a user with an entry. `Exists`, or `Unwritable` if the name cannot stand in a file.
    pub fn add(&mut self, user: &str, hash: String) -> Result<(), UserError> {
        check_user(user).map_err(UserError::Unwritable)?;
        if self.users.contains_key(user.as_bytes()) {
            return Err(UserError::Exists);
        }
        self.users.insert(user.into(), hash.into());
        Ok(())
    }

    /// Replaces the entry of a user. `Unknown`, if there is none.
    pub fn change(&mut self, user: &str, hash: String) -> Result<(), UserError> {
        let known = self.users.get_mut(user.as_bytes()).ok_or(UserError::Unknown)?;
        *known = hash.into();
        Ok(())
    }

    /// Removes a user. `Unknown`, if there is none.
    pub fn remove(&mut self, user: &str) -> Result<(), UserError> {
        self.users.remove(user.as_bytes()).map(|_| ()).ok_or(UserError::Unknown)
    }

    /// Replaces the file in one step: a server sees the old one or the new one, whole, also after a crash.
    ///
    /// A new file can be read by its owner alone (0600). One that is there keeps owner and group; so does the right of
    /// its group to read, if it was the group's alone (0640).
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let text = self.to_bytes();
        if Passwords::parse(&text).as_ref() != Ok(self) {
            // Written by hand further down in the file, it would come first now.
            let what = "a user's name begins with 'realm ', which would be read as the realm";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        // A link stays one.
        let path = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
            Err(error) => return Err(error),
        };
        let dir = dir_of(&path);
        // Created with mode 0600.
        let mut file = tempfile::Builder::new().prefix(".zeopasswd-").tempfile_in(dir)?;
        if let Ok(old) = fs::metadata(&path) {
            let new = file.as_file().metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
            }
            if old.mode() & 0o047 == 0o040 {
                file.as_file().set_permissions(Permissions::from_mode(0o640))?;
            }
        }
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        sync_dir(dir)
    }
}

/// A user whose line would be read as something else.
fn check_user(user: &str) -> Result<(), &'static str> {
    match user {
        "" => Err("is empty"),
        _ if user.contains(':') => Err("contains a colon, which ends the name in the file"),
        _ if user.contains(char::is_control) => Err("contains a line break or another control character"),
        _ if user.trim() != user => Err("begins or ends with a blank, which would be lost in the file"),
        _ if user.starts_with("realm ") => Err("begins with 'realm ', which would be read as the realm"),
        _ => Ok(()),
    }
}

/// A realm whose line would be read as something else.
pub fn check_realm(realm: &str) -> Result<(), &'static str> {
    match realm {
        "" => Err("is empty"),
        _ if realm.contains(char::is_control) => Err("contains a line break or another control character"),
        _ if realm.trim_end() != realm => Err("ends with a blank, which would be lost in the file"),
        _ => Ok(()),
    }
}

/// The password file of a server, read again when it changes.
#[derive(Debug)]
pub struct PasswordFile {
    path: PathBuf,
    realm: Option<String>,
    /// A leaf: nothing is locked under it. Held while the file is read.
    loaded: Mutex<Loaded, rank::Passwords>,
}

#[derive(Debug)]
struct Loaded {
    passwords: Arc<Passwords>,
    stamp: Option<Stamp>,
    /// The last error that was logged, so that it is logged once.
    trouble: Option<String>,
}

/// What shows that a file has changed. `None` in [`Loaded`]: look again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    device_and_inode: (u64, u64),
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: it was changed so lately that the next change might look the same.
    fn of(metadata: &Metadata) -> Option<Stamp> {
        let modified = metadata.modified().ok()?;
        let settled =
            modified.checked_add(CLOCK_TICK).is_some_and(|until| until < TimeSource::SYSTEM.system_time());
        settled.then(|| Stamp {
            device_and_inode: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl PasswordFile {
    /// Reads the file, which must be of this realm. An error names the file.
    pub fn open(path: &Path, realm: Option<&str>) -> Result<PasswordFile, String> {
        let stamp = fs::metadata(path).ok().and_then(|metadata| Stamp::of(&metadata));
        let passwords = load_of_realm(path, realm)?;
        if fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0) {
            let shown = path.display();
            log::warn!(target: LOG, "everybody on this machine can read the password file {shown}: chmod 600 it");
        }
        let loaded = Mutex::new(Loaded { passwords: Arc::new(passwords), stamp, trouble: None });
        Ok(PasswordFile { path: path.into(), realm: realm.map(String::from), loaded })
    }

    /// The entry of a user in the file as it is now. While it cannot be read, the entries read last stay in force, and
    /// the reason is logged.
    pub fn lookup(&self, user: &[u8]) -> Option<Vec<u8>> {
        self.current().hash(user).map(<[u8]>::to_vec)
    }

    fn current(&self) -> Arc<Passwords> {
        let mut loaded = self.loaded.lock();
        let stamp = fs::metadata(&self.path).ok().and_then(|metadata| Stamp::of(&metadata));
        if stamp.is_some() && stamp == loaded.stamp {
            return Arc::clone(&loaded.passwords);
        }
        match load_of_realm(&self.path, self.realm.as_deref()) {
            Ok(passwords) => {
                if *loaded.passwords != passwords {
                    log::info!(
                        target: LOG,
                        "the password file {} has changed and was read again: {} users",
                        self.path.display(),
                        passwords.users.len()
                    );
                }
                *loaded = Loaded { passwords: Arc::new(passwords), stamp, trouble: None };
            }
            Err(trouble) => {
                if loaded.trouble.as_ref() != Some(&trouble) {
                    log::error!(target: LOG, "{trouble}; the users and passwords that were read before stay valid");
                    loaded.trouble = Some(trouble);
                }
            }
        }
        Arc::clone(&loaded.passwords)
    }
}

const LOG: &str = "ZEO.auth";

fn load_of_realm(path: &Path, realm: Option<&str>) -> Result<Passwords, String> {
    let shown = path.display();
    let passwords = Passwords::load(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; create it with zeopasswd",
            _ => "",
        };
        format!("can't read the password file {shown}: {error}{hint}")
    })?;
    if passwords.realm.as_deref() != realm.map(str::as_bytes) {
        let named = |realm: Option<&[u8]>| match realm {
            Some(realm) => format!("realm '{}'", String::from_utf8_lossy(realm).escape_debug()),
            None => "no realm".into(),
        };
        let of = named(passwords.realm.as_deref());
        let wanted = named(realm.map(str::as_bytes));
        return Err(format!(
            "the password file {shown} is for {of}, but authentication-realm says {wanted}; they must be the same"
        ));
    }
    Ok(passwords)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Passwords, (usize, &'static str)> {
        Passwords::parse(text.as_bytes())
    }

    #[test]
    fn files_as_python_writes_them() {
        let text = "realm Digest Realm\nbar: 0123\nfoo: 4567\n";
        let passwords = parse(text).unwrap();
        assert_eq!(passwords.realm.as_deref(), Some(&b"Digest Realm"[..]));
        assert_eq!(passwords.hash(b"foo"), Some(&b"4567"[..]));
        assert_eq!(passwords.hash(b"realm Digest Realm"), None);
        assert_eq!(passwords.to_bytes(), text.as_bytes());
        let text = "foo:   4567 \r\nfoo bar:1:2\n\n";
        let passwords = parse(text).unwrap();
        assert_eq!(passwords.realm, None);
        assert_eq!(passwords.to_bytes(), b"foo: 4567\nfoo bar: 1:2\n");
        assert_eq!(parse("").unwrap(), Passwords::default());
        assert_eq!(parse("realm \n").unwrap(), Passwords::default());
        assert_eq!(parse("foo: 1\nrealm r\n"), Err((2, "there is no colon between user and password hash")));
    }

    #[test]
    fn users_come_change_and_go() {
        let mut passwords = Passwords::default();
        passwords.add("foo", "1".into()).unwrap();
        assert_eq!(passwords.add("foo", "2".into()), Err(UserError::Exists));
        passwords.change("foo", "2".into()).unwrap();
        assert_eq!(passwords.to_bytes(), b"foo: 2\n");
        assert_eq!(passwords.change("bar", "2".into()), Err(UserError::Unknown));
        passwords.remove("foo").unwrap();
        assert_eq!(passwords.remove("foo"), Err(UserError::Unknown));
        for user in ["", "a:b", "a\nb", "a\rb", " a", "a ", "realm a", "\u{85}a"] {
            let added = passwords.add(user, "1".into());
            assert!(matches!(added, Err(UserError::Unwritable(_))), "{user:?}");
        }
        for realm in ["", "a\nb", "a "] {
            assert!(check_realm(realm).is_err(), "{realm:?}");
        }
        assert!(check_realm("My: Realm").is_ok());

        let dir = tempfile::tempdir().unwrap();
        let by_hand = parse("zoe: 1\nrealm of: 2\n").unwrap();
        assert!(by_hand.save(&dir.path().join("passwords")).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_saved_file_is_private_and_a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let mut passwords = Passwords { realm: Some(b"r".to_vec()), ..Passwords::default() };
        passwords.save(&path).unwrap();
        assert_eq!(mode(), 0o600);
        for (before, after) in [(0o644, 0o600), (0o640, 0o640), (0o660, 0o640), (0o666, 0o600)] {
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            passwords.save(&path).unwrap();
            assert_eq!(mode(), after, "{before:o}");
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("passwords", &link).unwrap();
        passwords.add("foo", "1".into()).unwrap();
        passwords.save(&link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(Passwords::load(&path).unwrap(), passwords);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        fs::write(&path, "realm r\nfoo: 1\n").unwrap();
        let file = PasswordFile::open(&path, Some("r")).unwrap();
        assert_eq!(file.lookup(b"foo"), Some(b"1".to_vec()));
        fs::write(&path, "realm r\nfoo: 2\n").unwrap();
        assert_eq!(file.lookup(b"foo"), Some(b"2".to_vec()));
        // Long ago, so that only what the stamp shows tells the difference.
        let age = |ago| {
            File::open(&path).unwrap().set_modified(std::time::SystemTime::now() - Duration::from_secs(ago))
        };
        age(1000).unwrap();
        assert_eq!(file.lookup(b"bar"), None);
        assert!(file.loaded.lock().stamp.is_some());
        fs::write(&path, "realm r\nbar: 3\n").unwrap();
        age(500).unwrap();
        assert_eq!((file.lookup(b"foo"), file.lookup(b"bar")), (None, Some(b"3".to_vec())));
        // What can't be used changes nothing, until it can be used again.
        for broken in ["realm other\nfoo: 4\n", "realm r\nfoo\n"] {
            fs::write(&path, broken).unwrap();
            assert_eq!(file.lookup(b"bar"), Some(b"3".to_vec()), "{broken}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(file.lookup(b"bar"), Some(b"3".to_vec()));
        fs::write(&path, "realm r\nfoo: 5\n").unwrap();
        assert_eq!((file.lookup(b"foo"), file.lookup(b"bar")), (Some(b"5".to_vec()), None));
    }

    #[test]
    fn the_realm_must_be_the_configured_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        let missing = PasswordFile::open(&path, Some("r")).unwrap_err();
        assert!(missing.ends_with("; create it with zeopasswd"), "{missing}");
        fs::write(&path, "realm mine\nfoo: 1\n").unwrap();
        for realm in [Some("other"), None] {
            let error = PasswordFile::open(&path, realm).unwrap_err();
            assert!(error.contains("is for realm 'mine', but authentication-realm says "), "{error}");
        }
        fs::write(&path, "foo: 1\n").unwrap();
        assert!(PasswordFile::open(&path, None).is_ok());
        assert!(PasswordFile::open(&path, Some("r")).unwrap_err().contains("is for no realm"));
    }
}
