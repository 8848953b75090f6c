//! Whether a file is the one that this server wrote last, and what follows if it is not.
//!
//! Clients keep caches on disk, and object ids that they were given. If an older file has taken the place of the served
//! one (a restored backup), clients know transactions that are not in it and may use states of them, and ids that the
//! older file does not show would be given out twice. Therefore:
//!
//! - A file that is not the one of the note, or was touched since, gets an empty transaction, the *marker*, later than
//!   everything that a client can have seen. A client compares its last transaction with the server's first, and does
//!   not connect to a server that is behind.
//! - Object ids continue with a gap, also if Python's server wrote the file last: its clients keep up to a hundred ids
//!   each over the reconnect. Such a file gets no marker.
//!
//! The note also tells which damage at the end may be due to a power cut. This is believed only for a file that was not
//! touched since, and only if a sync had failed or the operating system was restarted: as long as the system runs,
//! nothing that was written is lost.

use std::io;

use super::format::{DATA_HEADER_LEN, MAGIC_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader};
use super::log::Log;
use super::media::{BOOT_LEN, Identity, Media, MediaFile};
use super::tail_note::{About, DIGEST_LEN, FINGERPRINT_LEN, State, TailNote, fingerprint};
use super::volume::Volume;
use crate::base::ids::Tid;

/// Number of ids that are skipped if clients may have some that the file does not show.
pub const OID_STRIDE: u64 = 1 << 20;

/// The description of the marker, for undo logs and tools.
const MARKER_DESCRIPTION: &[u8] = b"runzeo: this file was restored, copied or moved";

/// The result of comparing a file with the one that this server wrote last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Familiarity {
    /// There was no file before.
    New,
    Same,
    /// Another program wrote it last, or it came from elsewhere: there is no note.
    Unknown,
    /// It has all that was written, but was touched, copied or moved, perhaps together with its note.
    Touched,
    /// Something is missing; the text says what.
    Other(String),
    /// A pack has dropped the last transactions; otherwise the same.
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

/// The note, if it can be believed about damage at the end of this file.
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

/// `end` and `last`: end and tid of the last transaction in the file. `indexed`: end of the saved index, if there is
/// one.
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
        // It is the file before the pack or the one after it; which one, and where it ended, is unknown.
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

/// Whether the file was not written, replaced, renamed or restored since.
fn is_untouched(note: &TailNote, about: &About, identity: &Identity) -> bool {
    about.file == identity.number() && identity.changed <= note.until
}

/// What the note knows and the file does not have.
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

/// The digest of the bytes before `pos`; `None` if they cannot be read.
pub fn digest_before(log: &Log, pos: u64) -> Option<[u8; FINGERPRINT_LEN]> {
    // Without the magic: the first transaction may change it.
    let from = pos.saturating_sub(DIGEST_LEN).max(MAGIC_LEN);
    let mut bytes = vec![0; usize::try_from(pos.saturating_sub(from)).ok()?];
    log.read_exact(&mut bytes, from).ok()?;
    Some(fingerprint(&bytes))
}

/// The note about a volume that is durable. `seen`: the last transaction that clients have seen.
pub fn about(media: &dyn Media, volume: &Volume, seen: Tid, state: State) -> About {
    about_log(media, &volume.log, volume.end_tid(), seen, state)
}

/// The note about a log that ends with transaction `end_tid`.
pub fn about_log(media: &dyn Media, log: &Log, end_tid: Tid, seen: Tid, state: State) -> About {
    let start = log.end();
    About {
        start,
        start_tid: end_tid,
        seen,
        // With 0 the note will not be believed.
        file: log.file().identity().map_or(0, |identity| identity.number()),
        boot: media.boot(),
        digest: digest_before(log, start).unwrap_or_default(),
        state,
        cuts: 0,
    }
}

/// Appends the marker at `pos`; returns where it ends.
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
