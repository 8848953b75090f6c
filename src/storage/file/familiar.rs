//! Whether a file is the one that this server wrote last, and what follows if it is not.
//!
//! Clients keep caches on disk and object ids that they were given. If an older file was put in the place of the one
//! that was served (a backup was restored), they know transactions that never were, and may go on with states of them;
//! and ids that the older file has not used yet would be given out twice. So
//!
//! - a file that is not the one of the note, or that somebody has touched since, gets an empty transaction, the
//!   *marker*, later than whatever a client can have seen: a client compares its last transaction with the server's
//!   before it asks anything, and does not connect to one that is behind;
//! - object ids go on at a distance, also if Python's server wrote the file last: its clients keep up to a hundred ids
//!   each over the reconnect. Nothing is written into a file that Python's server has continued.
//!
//! The note also tells which damage at the end may be put down to a power cut. That is believed only about a file that
//! nobody has touched since, and only after the operating system was started anew: in the same run nothing is lost that
//! was written.

use std::io;

use super::format::{DATA_HEADER_LEN, MAGIC_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader};
use super::log::Log;
use super::media::{BOOT_LEN, Identity, Media, MediaFile};
use super::tail_note::{About, DIGEST_LEN, FINGERPRINT_LEN, State, TailNote, fingerprint};
use super::volume::Volume;
use crate::base::ids::Tid;

/// Ids that are left out when clients may have some that the file does not show.
pub const OID_STRIDE: u64 = 1 << 20;

/// What the marker says in undo logs and to tools.
const MARKER_DESCRIPTION: &[u8] = b"runzeo: this file was restored, copied or moved";

/// How a file compares with the one that this server wrote last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Familiarity {
    /// There was nothing before.
    New,
    Same,
    /// Another program wrote it last, or it came from elsewhere: there is no note.
    Unknown,
    /// It holds all that was written, but was touched, copied or moved, perhaps together with its note.
    Touched,
    /// It lacks something; what.
    Other(String),
    /// A pack has dropped the last transactions: all else is well.
    Shortened,
}

impl Familiarity {
    /// Whether clients may know transactions that are not in the file.
    pub fn needs_marker(&self) -> bool {
        matches!(self, Familiarity::Touched | Familiarity::Other(_) | Familiarity::Shortened)
    }

    /// Whether clients may have object ids that the file does not show.
    pub fn needs_stride(&self) -> bool {
        matches!(self, Familiarity::Unknown | Familiarity::Touched | Familiarity::Other(_))
    }
}

/// What the note says about the end of the file, if it can be believed about this one.
pub fn about_the_tail<'n>(
    note: &'n TailNote,
    log: &Log,
    identity: &Identity,
    boot: Option<[u8; BOOT_LEN]>,
) -> Option<&'n TailNote> {
    let about = note.about.as_ref()?;
    let may_have_lost = match about.state {
        State::Open => about.boot.is_some() && boot.is_some() && about.boot != boot,
        State::Doubt => true,
        State::Closed | State::Switching => false,
    };
    let believed = may_have_lost && is_untouched(note, about, identity) && lacks(note, about, log).is_none();
    believed.then_some(note)
}

/// `end` and `last`: what was found in the file. `indexed`: up to where there is a saved index.
pub fn judge(
    note: Option<&TailNote>,
    log: &Log,
    identity: &Identity,
    end: u64,
    last: Tid,
    indexed: Option<u64>,
) -> Familiarity {
    let Some(TailNote { about: Some(about), .. }) = note else {
        return match indexed {
            Some(indexed) if indexed > end => {
                Familiarity::Other(format!("it ends at {end}, its saved index at {indexed}"))
            }
            _ if end <= MAGIC_LEN && note.is_none() => Familiarity::New,
            _ => Familiarity::Unknown,
        };
    };
    let Some(note) = note else { return Familiarity::Unknown };
    let as_left = if last < about.seen { Familiarity::Shortened } else { Familiarity::Same };
    if about.state == State::Switching {
        // The file before the pack, or that after it: which, and where it ended, is not known.
        return match identity.changed <= note.until {
            true if last <= about.seen => as_left,
            _ => Familiarity::Touched,
        };
    }
    if note.synced > end.max(MAGIC_LEN) {
        return Familiarity::Other(format!(
            "it ends at {end}, transaction {last}, and was written up to {}, transaction {}",
            note.synced, note.synced_tid
        ));
    }
    match lacks(note, about, log) {
        Some(what) => Familiarity::Other(what),
        None if note.until == 0 => Familiarity::Unknown,
        None if is_untouched(note, about, identity) => as_left,
        None => Familiarity::Touched,
    }
}

/// Nobody has written, replaced, renamed or restored it since.
fn is_untouched(note: &TailNote, about: &About, identity: &Identity) -> bool {
    about.file == identity.number() && identity.changed <= note.until
}

/// What of that which the note knows is not in the file.
fn lacks(note: &TailNote, about: &About, log: &Log) -> Option<String> {
    let ends = [(about.start, about.start_tid), (note.synced, note.synced_tid)];
    if let Some((pos, tid)) = ends.iter().find(|(pos, tid)| !ends_at(log, *pos, *tid)) {
        return Some(format!("no transaction {tid} ends at {pos}"));
    }
    match digest_before(log, about.start) {
        Some(digest) if digest == about.digest => None,
        _ => Some(format!("what is before {} has changed", about.start)),
    }
}

fn ends_at(log: &Log, pos: u64, tid: Tid) -> bool {
    match log.txn_before(pos) {
        Ok(Some((_, header))) => header.tid == tid,
        Ok(None) => tid == Tid::ZERO,
        Err(_) => false,
    }
}

/// Of the bytes before `pos`; `None` if they cannot be read.
pub fn digest_before(log: &Log, pos: u64) -> Option<[u8; FINGERPRINT_LEN]> {
    // Not of the magic: the first transaction may change it.
    let from = pos.saturating_sub(DIGEST_LEN).max(MAGIC_LEN);
    let mut bytes = vec![0; usize::try_from(pos.saturating_sub(from)).ok()?];
    log.read_exact(&mut bytes, from).ok()?;
    Some(fingerprint(&bytes))
}

/// What a note says of a volume, all of which is durable. `seen`: the last transaction that clients were told of.
pub fn about(media: &dyn Media, volume: &Volume, seen: Tid, state: State) -> About {
    about_log(media, &volume.log, volume.end_tid(), seen, state)
}

/// The same of a log that ends with transaction `end_tid`.
pub fn about_log(media: &dyn Media, log: &Log, end_tid: Tid, seen: Tid, state: State) -> About {
    let start = log.end();
    About {
        start,
        start_tid: end_tid,
        seen,
        // With none of these the note will not be believed.
        file: log.file().identity().map_or(0, |identity| identity.number()),
        boot: media.boot(),
        digest: digest_before(log, start).unwrap_or_default(),
        state,
    }
}

/// Appends the marker at `pos`; where it ends.
pub fn append_marker(file: &dyn MediaFile, pos: u64, tid: Tid) -> io::Result<u64> {
    const _: () = assert!(TXN_HEADER_LEN + MARKER_DESCRIPTION.len() + TRAILER_LEN > DATA_HEADER_LEN);
    let header = TxnHeader {
        tid,
        len: (TXN_HEADER_LEN + MARKER_DESCRIPTION.len()) as u64,
        status: b' ',
        user_len: 0,
        description_len: MARKER_DESCRIPTION.len() as u16,
        extension_len: 0,
    };
    let bytes = [&header.encode()[..], MARKER_DESCRIPTION, &header.len.to_be_bytes()].concat();
    file.write_at(&bytes, pos)?;
    file.sync()?;
    Ok(pos + bytes.len() as u64)
}
