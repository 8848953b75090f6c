//! What may be believed of a cache file that is being opened, from what is beside it.
//!
//! While the operating system runs, everything that was written counts, also if a process was killed. After a power cut
//! any part of what was written since the last sync may be missing. Then only blocks count that are as they were at
//! some sync, and the last tid in the header, which is written after the sync of all that belongs to it.
//!
//! ZEO's own client may have used the file in between. It sets the last tid in the header whenever it has learned
//! something, and changes the time of the file. What is beside the file is then not believed.

use super::sums::{FileState, Head, TidNote};
use crate::base::ids::Tid;
use crate::storage::media::{BOOT_LEN, Identity};

/// How a file is to be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    /// Nobody has used it since it was closed: the saved index counts.
    Untouched,
    /// All blocks count; the last tid is this one.
    LastTid(Tid),
    /// All blocks count. The last tid is this one at least: the header is half written, or ZEO's own client was quick.
    AtLeast(Tid),
    /// All blocks and the header count, as for ZEO's own client. Of which database it is is unknown.
    AsItIs,
    /// Only blocks that are as the log says count.
    AfterPowerCut,
    /// Nothing counts: after a power cut, another program used the file.
    Nothing,
}

/// The cache file that is being opened.
#[derive(Clone, Copy, Debug)]
pub struct PresentFile {
    pub identity: Identity,
    /// The last tid in its header.
    pub header: Tid,
    /// The run of the operating system.
    pub boot: Option<[u8; BOOT_LEN]>,
}

/// `head` and `note`: what is beside the file.
pub fn judge(file: &PresentFile, head: &Head, note: Option<TidNote>) -> Trust {
    if head.file != file.identity.number() {
        return Trust::AsItIs;
    }
    let is_known_header = head.header.contains(&file.header);
    match head.state {
        FileState::Closed(changed) if is_known_header && changed == file.identity.changed => Trust::Untouched,
        FileState::Closed(_) => Trust::AsItIs,
        FileState::Open if file.boot.is_none_or(|boot| boot != head.boot) => {
            if is_known_header {
                Trust::AfterPowerCut
            } else {
                Trust::Nothing
            }
        }
        FileState::Open => match note.filter(|note| file.identity.changed <= note.until) {
            Some(note) if is_known_header && note.last_tid >= file.header => Trust::LastTid(note.last_tid),
            // An earlier one is never wrong.
            Some(_) => Trust::AtLeast(head.header.iter().copied().fold(file.header, Tid::min)),
            None => Trust::AsItIs,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::sums::SavedIndex;
    use super::*;

    #[test]
    fn what_is_believed() {
        let identity = Identity { inode: 5, changed: 100, ..Identity::default() };
        let file = PresentFile { identity, header: Tid(20), boot: Some([1; BOOT_LEN]) };
        let open = Head {
            number: 1,
            state: FileState::Open,
            boot: [1; BOOT_LEN],
            file: identity.number(),
            header: [Tid(10), Tid(20)],
            log_len: 0,
            turn_at: 0,
            index: SavedIndex::default(),
            identity: Vec::new(),
        };
        let note = |last_tid, until| Some(TidNote { last_tid: Tid(last_tid), until });
        assert_eq!(judge(&file, &open, note(30, 100)), Trust::LastTid(Tid(30)), "killed");
        assert_eq!(
            judge(&PresentFile { header: Tid(10), ..file }, &open, note(30, 100)),
            Trust::LastTid(Tid(30))
        );
        assert_eq!(judge(&file, &open, note(30, 99)), Trust::AsItIs, "changed since");
        assert_eq!(judge(&file, &open, None), Trust::AsItIs);
        let used = PresentFile { header: Tid(40), ..file };
        assert_eq!(judge(&used, &open, note(30, 100)), Trust::AtLeast(Tid(10)), "used at once");
        assert_eq!(judge(&used, &open, note(30, 99)), Trust::AsItIs, "used since");
        let later = PresentFile { boot: Some([2; BOOT_LEN]), ..file };
        assert_eq!(judge(&later, &open, note(30, 100)), Trust::AfterPowerCut);
        assert_eq!(judge(&PresentFile { boot: None, ..file }, &open, note(30, 100)), Trust::AfterPowerCut);
        assert_eq!(judge(&PresentFile { header: Tid(40), ..later }, &open, None), Trust::Nothing);
        let closed = Head { state: FileState::Closed(100), ..open.clone() };
        assert_eq!(judge(&later, &closed, None), Trust::Untouched);
        assert_eq!(judge(&PresentFile { header: Tid(40), ..file }, &closed, None), Trust::AsItIs);
        let touched = Head { state: FileState::Closed(99), ..open.clone() };
        assert_eq!(judge(&later, &touched, None), Trust::AsItIs);
        let other = Head { file: 7, ..open };
        assert_eq!(judge(&later, &other, note(30, 100)), Trust::AsItIs);
    }
}
