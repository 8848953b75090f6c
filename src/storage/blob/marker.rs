//! `.layout`, the file that names how a blob directory distributes blobs.

use std::path::Path;

use log::{debug, info};

use super::layout::{Layout, MARKER};
use super::names::{TARGET, exists};
use crate::storage::media::MediaDir;
use crate::storage::{Refusal, Result, StorageError};

/// The layout of a client's cache. A directory without a marker is made one, as Python does.
pub(super) fn require_cache(root: Option<&dyn MediaDir>, base: &Path) -> Result<Layout> {
    let layout = Layout::Zeocache;
    match root.map(|root| read(root, base)).transpose()?.flatten() {
        // Empty: a client of Python is about to write it.
        Some(found) if !found.is_empty() && found != layout.name() => Err(StorageError::Refused {
            what: Refusal::BlobLayout,
            message: format!(
                "Directory layout `{}` selected for blob directory {}, but marker found for layout `{found}`: a cache \
                 for blobs needs a directory of its own",
                layout.name(),
                base.display()
            ),
        }),
        _ => Ok(layout),
    }
}

/// The word in the marker; `None` if there is none.
fn read(root: &dyn MediaDir, base: &Path) -> Result<Option<String>> {
    let doing = || StorageError::io(format!("reading {}", base.join(MARKER).display()));
    if !exists(root, MARKER.as_ref()).map_err(doing())? {
        return Ok(None);
    }
    let file = root.read(MARKER.as_ref()).map_err(doing())?;
    let mut text = [0; 64];
    let len = file.read_at(&mut text, 0).map_err(doing())?;
    let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default());
    Ok(Some(text.trim().to_owned()))
}

/// The layout according to the marker, or as Python guesses it.
pub(super) fn find_layout(root: Option<&dyn MediaDir>, base: &Path) -> Result<Layout> {
    let doing = || StorageError::io(format!("opening the blob directory {}", base.display()));
    let Some(root) = root else {
        info!(
            target: TARGET,
            "Blob directory {} does not exist. Selected `bushy` layout. ",
            base.display()
        );
        return Ok(Layout::Bushy);
    };
    if let Some(name) = read(root, base)? {
        debug!(
            target: TARGET,
            "Blob directory `{}` has layout marker set. Selected `{name}` layout. ",
            base.display()
        );
        let found = Layout::from_name(&name).filter(|layout| *layout != Layout::Zeocache);
        return found.ok_or_else(|| StorageError::Refused {
            what: Refusal::BlobLayout,
            message: match &*name {
                "zeocache" => format!(
                    "the blob directory {} is a client's cache (layout `zeocache`), not a storage's",
                    base.display()
                ),
                _ => format!(
                    "the blob directory {} has the unknown layout `{name}` (in {MARKER}), not bushy or lawn",
                    base.display()
                ),
            },
        });
    }
    let names = root.list().map_err(doing())?;
    let used = names.iter().any(|name| !name.as_encoded_bytes().starts_with(b"."));
    let layout = if used { Layout::Lawn } else { Layout::Bushy };
    info!(
        target: TARGET,
        "Blob directory `{}` is {} layout marker set. Selected `{}` layout. ",
        base.display(),
        if used { "used but has no" } else { "unused and has no" },
        layout.name()
    );
    Ok(layout)
}
