//! The directory of an object while a blob of it is staged and placed.

use std::io;
use std::sync::Arc;

use super::descriptors::KeptDir;
use super::dir::BlobDir;
use crate::base::ids::Oid;
use crate::storage::media::MediaDir;

/// The directory of one object, open or to be opened.
#[derive(Clone)]
pub struct Home {
    oid: Oid,
    /// `None`: it is opened when it is needed.
    kept: Option<Arc<KeptDir>>,
}

impl Home {
    /// Keeps the directory open for finish. If too many are open, holds a descriptor back for it instead.
    pub fn keep(blobs: &BlobDir, oid: Oid, dir: &Arc<dyn MediaDir>) -> io::Result<Home> {
        let kept = blobs.descriptors.keep(dir).map(Arc::new);
        if kept.is_none() {
            blobs.fill_reserve()?;
        }
        Ok(Home { oid, kept })
    }

    /// The object.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    pub fn open(&self, blobs: &BlobDir) -> io::Result<Arc<dyn MediaDir>> {
        match &self.kept {
            Some(kept) => Ok(Arc::clone(&kept.dir)),
            None => blobs.descriptors.in_need(|| blobs.home(self.oid)),
        }
    }

    /// Makes the directory again after a pack has removed it, because it was empty.
    pub fn make_again(&mut self, blobs: &BlobDir) -> io::Result<Arc<dyn MediaDir>> {
        self.kept = None;
        let (dir, _) = blobs.descriptors.in_need(|| blobs.make_home(self.oid))?;
        blobs.descriptors.in_need(|| blobs.sync_above(self.oid))?;
        Ok(dir)
    }
}
