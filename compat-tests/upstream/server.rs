//! `runzeo`, with what the test suites of ZODB and ZEO configure and no released program has.
//!
//! - `%import ZODB.tests`: `<hexstorage>` and `<serverhexstorage>` keep records in hexadecimal
//! - `%import ZEO.tests`: `<loaddelayed_storage>`, whose loads take 10 ms, to provoke races between loads and
//!   invalidations
//! - `<answering>`: the extension method that Python's FileStorage has for its tests; `external_server.py` puts it around
//!   the storages of the test that calls it
//! - `authentication-protocol plaintext`: the client sends its password

use std::borrow::Cow;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use runzeo::auth::{
    self, Exchange, PasswordFile, Protocol, PyException, Settings, Value, Verdict, arguments, for_log, string,
};
use runzeo::commands::Extensions;
use runzeo::ids::{Oid, Tid};
use runzeo::storage::{
    Codec, Commit, ExtensionMethods, History, Load, Loaded, Result, Storage, StorageError, StorageKind,
    StorageSettings, Transform, forward,
};
use sha1::{Digest, Sha1};

/// Records in hexadecimal, behind `.h`.
struct Hex;

impl Codec for Hex {
    fn encode<'a>(&self, record: &'a [u8]) -> Cow<'a, [u8]> {
        let digit = |half: u8| char::from_digit(half.into(), 16).map_or(b'0', |digit| digit as u8);
        let digits = record.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        Cow::Owned(b".h".iter().copied().chain(digits).collect())
    }

    fn decode<'a>(&self, kept: &'a [u8], _: usize) -> io::Result<Cow<'a, [u8]>> {
        let digits = kept.strip_prefix(b".h").ok_or_else(|| io::Error::other("it does not begin with .h"))?;
        let half = |digit: &u8| char::from(*digit).to_digit(16).ok_or("it is not hexadecimal");
        let byte = |pair: &[u8]| match pair {
            [high, low] => Ok((half(high)? << 4 | half(low)?) as u8),
            _ => Err("it has an odd number of digits"),
        };
        let record: std::result::Result<Vec<u8>, &str> = digits.chunks(2).map(byte).collect();
        record.map(Cow::Owned).map_err(io::Error::other)
    }
}

/// The storage `base` with slow loads.
struct LoadDelayed {
    base: Arc<dyn Storage>,
}

const DELAY: Duration = Duration::from_millis(10);

impl Storage for LoadDelayed {
    forward!(
        base: name, is_read_only, object_count, size, interfaces, last_transaction, new_oids, close, iteration, undo,
        packing, blobs, extension_methods, cache_counts, sync_counts, failure, pulse, save_index, catch_up
    );
}

impl Load for LoadDelayed {
    forward!(base: expect_read, get_tid);

    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        let loaded = self.base.load_before(oid, before, headroom, out);
        sleep(DELAY);
        loaded
    }

    /// As if every record came from a slow disk.
    fn load_before_now(
        &self,
        _oid: Oid,
        _before: Tid,
        _headroom: usize,
        _out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        None
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        let loaded = self.base.load_serial(oid, serial, headroom, out);
        sleep(DELAY);
        loaded
    }
}

impl History for LoadDelayed {
    forward!(base: revisions, record_iternext, last_invalidations);
}

impl Commit for LoadDelayed {
    forward!(base: tids_after, vote, finish, abort, set_publisher, set_resolver);
}

/// The storage `base` with an extension method.
struct Answering {
    base: Arc<dyn Storage>,
}

const QUESTION: &str = "answer_to_the_ultimate_question";

impl ExtensionMethods for Answering {
    fn names(&self) -> Vec<String> {
        vec![QUESTION.into()]
    }

    fn call(&self, name: &str, _arguments: &[u8]) -> Result<Vec<u8>> {
        match name {
            QUESTION => Ok(b"I42\n.".to_vec()),
            _ => Err(StorageError::Unsupported(format!("no extension method {name}"))),
        }
    }
}

impl Storage for Answering {
    forward!(
        base: name, is_read_only, object_count, size, interfaces, last_transaction, new_oids, close, iteration, undo,
        packing, blobs, cache_counts, sync_counts, failure, pulse, save_index, catch_up
    );

    fn extension_methods(&self) -> Option<&dyn ExtensionMethods> {
        Some(self)
    }
}

impl Load for Answering {
    forward!(base: expect_read, load_before, load_before_now, load_serial, get_tid);
}

impl History for Answering {
    forward!(base: revisions, record_iternext, last_invalidations);
}

impl Commit for Answering {
    forward!(base: tids_after, vote, finish, abort, set_publisher, set_resolver);
}

/// The protocol `plaintext`, which protects nothing on the network.
struct Plaintext {
    passwords: Arc<PasswordFile>,
    realm: Option<String>,
}

fn open_plaintext(settings: &Settings) -> std::result::Result<Arc<dyn Protocol>, String> {
    let passwords = Arc::new(PasswordFile::open(&settings.database, settings.realm.as_deref())?);
    Ok(Arc::new(Plaintext { passwords, realm: settings.realm.clone() }))
}

fn hex_digest(text: &[u8]) -> String {
    Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Protocol for Plaintext {
    fn methods(&self) -> &[&str] {
        &["auth"]
    }

    fn begin(&self) -> Box<dyn Exchange> {
        Box::new(Attempt { passwords: Arc::clone(&self.passwords), realm: self.realm.clone() })
    }
}

struct Attempt {
    passwords: Arc<PasswordFile>,
    realm: Option<String>,
}

impl Exchange for Attempt {
    fn call(&mut self, method: &str, args: &[Value]) -> std::result::Result<Verdict, PyException> {
        let [user, password] = arguments(method, args)?;
        let (user, password) = (string(method, user)?, string(method, password)?);
        if self.passwords.lookup(user) != Some(hex_digest(password).into_bytes()) {
            return Ok(Verdict::Failed { user: for_log(user), reply: Value::Bool(false) });
        }
        let realm = self.realm.as_deref().unwrap_or("None").as_bytes();
        let session_key = hex_digest(&[user, realm, password].join(&b':')).into_bytes();
        Ok(Verdict::Passed { user: for_log(user), reply: Value::Bool(true), session_key: Some(session_key) })
    }
}

/// The storage inside the section of a layer.
fn base(settings: &StorageSettings) -> std::result::Result<Arc<dyn Storage>, String> {
    settings.base.clone().ok_or_else(|| "there is no storage in it".into())
}

fn layer(
    name: &'static str,
    package: Option<&'static str>,
    open: fn(&StorageSettings) -> std::result::Result<Arc<dyn Storage>, String>,
) -> StorageKind {
    StorageKind { name, package, keys: &[], is_layer: true, open }
}

fn main() -> ExitCode {
    let mut extensions = Extensions::default();
    let layers = [
        layer("hexstorage", Some("ZODB.tests"), |settings| {
            Ok(Arc::new(Transform::new(base(settings)?, Arc::new(Hex), false)))
        }),
        layer("serverhexstorage", Some("ZODB.tests"), |settings| {
            Ok(Arc::new(Transform::new(base(settings)?, Arc::new(Hex), true)))
        }),
        layer("loaddelayed_storage", Some("ZEO.tests"), |settings| {
            Ok(Arc::new(LoadDelayed { base: base(settings)? }))
        }),
        layer("answering", None, |settings| Ok(Arc::new(Answering { base: base(settings)? }))),
    ];
    layers.into_iter().for_each(|kind| extensions.storages.register(kind));
    extensions.protocols.register(auth::Kind {
        name: "plaintext",
        open: open_plaintext,
        hash: |_, _, password| hex_digest(password.as_bytes()),
    });
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    runzeo::commands::runzeo::run_with(&extensions, "runzeo", &arguments)
}
