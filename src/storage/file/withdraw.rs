//! Takes back a durable group that its gate does not let through.

use log::warn;

use super::Core;
use super::bulk::CopyTicket;
use super::log::TARGET;
use super::volume::Volume;
use super::voted::Job;
use crate::storage::StorageError;
use crate::storage::blob::Placement;

impl Core {
    /// Takes back a durable group that must not be published. The storage goes on. Returns the transactions, whose
    /// clients get no answer: they may be elsewhere.
    pub(super) fn withdraw(
        &self,
        volume: &Volume,
        begin: u64,
        blobs: Option<Placement>,
        mut jobs: Vec<Job>,
    ) -> Vec<Job> {
        let path = self.path.display();
        warn!(target: TARGET, "{path}: {} transactions behind {begin} are taken back: others may not have them", jobs.len());
        // For those who read the file. Without it a backup of this moment may be wrong, and that is not worth to keep
        // what others do not have.
        if let Some(Err(error)) = self.note.as_ref().map(|note| note.will_cut()) {
            warn!(target: TARGET, "{path}.tmp: {error}");
        }
        self.take_back(volume, begin, blobs, &mut jobs);
        if self.broken().is_none() {
            match volume.log.file().sync() {
                // The note may know that the group was durable.
                Ok(()) => {
                    if let Some(what) = self.tell_note_of_cut(volume) {
                        warn!(target: TARGET, "{what}");
                    }
                }
                Err(error) => {
                    self.set_broken(format!("a sync failed at {begin}: {error}"));
                    self.doubt();
                }
            }
        }
        for copy in jobs.iter().filter_map(|job| job.ticket.downcast_ref::<CopyTicket>()) {
            copy.failed(StorageError::OutcomeUnknown(format!(
                "{path}: a transaction was taken back before it was published"
            )));
        }
        jobs
    }
}
