//! Changes the layout of a blob directory in place.
//!
//! Each blob gets a second name at its path of the new layout; then the marker names the new layout; then the former
//! names are removed. So the layout that the marker names is complete at each moment, and the storage can be served
//! between two attempts. `.relayout` says what is under way:
//!
//! | `.relayout` | marker | state |
//! |---|---|---|
//! | none | any | nothing is under way |
//! | `link FROM TO` | FROM | names are added. What is in TO and not in FROM is gone from the storage, and is removed |
//! | `link FROM TO` | TO | all names are there |
//! | `remove FROM TO` | TO | names of FROM are removed |
//!
//! Invariant: the names of TO are durable before the marker changes, and the marker is before the first name of FROM is
//! removed. Without `.relayout` no name is removed.
//!
//! Nothing else may change the directory at the same time; the caller ensures it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::{self, Layout, MARKER};
use super::marker::find_layout;
use super::names::{below, exists, make_dirs, remove_if_there};
use crate::base::ids::{Oid, Tid};
use crate::storage::media::{Kind, Media, MediaDir, Readers};
use crate::storage::{Refusal, Result, StorageError};

/// Gets the directory of an object. Returns the number of names that it has looked at.
type EachHome<'a> = dyn FnMut(Oid, &Arc<dyn MediaDir>) -> io::Result<u64> + 'a;

/// What is under way.
const STATE: &str = ".relayout";
/// The list of what a pack has taken out; see `sweep`.
const REMOVED: &str = ".removed";
/// Levels of the bushy layout.
const BUSHY_LEVELS: usize = 8;

/// A change that was begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Underway {
    /// The layout that the directory had.
    pub from: Layout,
    /// The layout that it gets.
    pub to: Layout,
    /// The marker has the new layout.
    is_switched: bool,
    /// Names are being removed.
    is_removing: bool,
}

/// What is in a blob directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LayoutSums {
    /// The layout that counts.
    pub layout: Layout,
    /// The directory says so; otherwise it is concluded from what is in it.
    pub has_marker: bool,
    /// Objects with blobs.
    pub objects: u64,
    /// Their files.
    pub blobs: u64,
    /// A change that was interrupted.
    pub underway: Option<Underway>,
}

/// The blob directory whose layout is looked at or changed.
pub struct Relayout<'a> {
    base: PathBuf,
    root: Arc<dyn MediaDir>,
    /// Gets the number of names that were looked at.
    progress: &'a mut dyn FnMut(u64),
    done: u64,
}

impl<'a> Relayout<'a> {
    /// Opens the directory. `progress` gets the number of names that were looked at.
    ///
    /// Errors: `Io`.
    pub fn open(media: &dyn Media, base: &Path, progress: &'a mut dyn FnMut(u64)) -> Result<Relayout<'a>> {
        let opened = media.dir(base);
        let root =
            opened.map_err(StorageError::io(format!("opening the blob directory {}", base.display())))?;
        Ok(Relayout::of(base, root, progress))
    }

    /// As [`Relayout::open`], for a directory that is open.
    pub fn of(base: &Path, root: Arc<dyn MediaDir>, progress: &'a mut dyn FnMut(u64)) -> Relayout<'a> {
        Relayout { base: base.to_owned(), root, progress, done: 0 }
    }

    /// Counts what is there.
    ///
    /// Errors: `Refused` if it is no blob directory of a storage; `Io`.
    pub fn sums(&mut self) -> Result<LayoutSums> {
        let layout = find_layout(Some(&*self.root), &self.base)?;
        let underway = self.underway(layout)?;
        let doing = self.doing("reading");
        let (mut objects, mut blobs) = (0, 0);
        self.each_home(layout, &mut |_, dir| {
            let found = revisions(dir)?.len() as u64;
            objects += u64::from(found > 0);
            blobs += found;
            Ok(found)
        })
        .map_err(StorageError::io(doing))?;
        let has_marker =
            exists(&*self.root, MARKER.as_ref()).map_err(StorageError::io(self.doing("reading")))?;
        Ok(LayoutSums { layout, has_marker, objects, blobs, underway })
    }

    /// Gives the directory this layout, or ends what was begun. Returns the number of blobs that have new names.
    ///
    /// Errors: `Refused` if it cannot be told what belongs to the storage; `Io`. In both cases the storage can be
    /// served, and the change be begun again.
    pub fn change(&mut self, target: Layout) -> Result<u64> {
        if exists(&*self.root, REMOVED.as_ref()).map_err(StorageError::io(self.doing("reading")))? {
            return Err(
                self.refused("a pack has not yet removed all blobs that it took out: start the server once")
            );
        }
        let layout = find_layout(Some(&*self.root), &self.base)?;
        if let Some(underway) = self.underway(layout)? {
            if underway.is_switched {
                self.end(underway)?;
            } else if underway.from == target {
                // Back to where it began.
                self.clear(underway.to)?;
                self.remove_state()?;
            }
        }
        let layout = find_layout(Some(&*self.root), &self.base)?;
        if layout == target {
            self.write(MARKER, target.name())?;
            return Ok(0);
        }
        let underway = Underway { from: layout, to: target, is_switched: false, is_removing: false };
        if self.underway(layout)?.is_none() {
            self.require_none(target)?;
            self.write(STATE, &format!("link {} {}", layout.name(), target.name()))?;
        }
        let blobs = self.link(underway)?;
        self.write(MARKER, target.name())?;
        self.end(underway)?;
        Ok(blobs)
    }

    /// What was begun, according to the marker, which names `layout`.
    fn underway(&self, layout: Layout) -> Result<Option<Underway>> {
        let Some(text) = self.read_state().map_err(StorageError::io(self.doing("reading")))? else {
            return Ok(None);
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let named = |name: &str| Layout::from_name(name).filter(|layout| *layout != Layout::Zeocache);
        let underway =
            match *words.as_slice() {
                [word @ ("link" | "remove"), from, to] => named(from).zip(named(to)).map(|(from, to)| {
                    Underway { from, to, is_switched: layout == to, is_removing: word == "remove" }
                }),
                _ => None,
            };
        match underway.filter(|underway| [underway.from, underway.to].contains(&layout)) {
            Some(underway) if underway.is_removing && !underway.is_switched => Err(self.refused(&format!(
                "a change from {} to {} was begun and has removed former names, but {MARKER} names {} again: \
                 write {} into it",
                underway.from.name(),
                underway.to.name(),
                layout.name(),
                underway.to.name()
            ))),
            None => {
                Err(self.refused(&format!("{STATE} in it cannot be understood: {}", text.escape_debug())))
            }
            some => Ok(some),
        }
    }

    fn read_state(&self) -> io::Result<Option<String>> {
        if !exists(&*self.root, STATE.as_ref())? {
            return Ok(None);
        }
        let mut text = [0; 64];
        let len = self.root.read(STATE.as_ref())?.read_at(&mut text, 0)?;
        Ok(Some(String::from_utf8_lossy(text.get(..len).unwrap_or_default()).into_owned()))
    }

    /// Names of the new layout that no run has begun may be the only ones of their blobs.
    fn require_none(&mut self, target: Layout) -> Result<()> {
        let doing = self.doing("reading");
        let mut found = 0;
        self.each_home(target, &mut |_, dir| {
            found += revisions(dir)?.len() as u64;
            Ok(0)
        })
        .map_err(StorageError::io(doing))?;
        if found == 0 {
            return Ok(());
        }
        Err(self.refused(&format!(
            "{found} files in it have names of the layout {} already, and it is not known whether they are needed: \
             move them away",
            target.name()
        )))
    }

    /// Gives all blobs their new names, durably.
    fn link(&mut self, underway: Underway) -> Result<u64> {
        let Underway { from, to, .. } = underway;
        let root = Arc::clone(&self.root);
        let doing = self.doing("linking the blobs in");
        let mut blobs = 0;
        self.each_home(from, &mut |oid, dir| {
            let found = revisions(dir)?;
            if found.is_empty() {
                return Ok(0);
            }
            let (home, _) = make_dirs(&root, &to.oid_path(oid))?;
            for (name, tid) in &found {
                link_one(&**dir, name, &*home, to.file_name(oid, *tid).as_ref())?;
            }
            blobs += found.len() as u64;
            Ok(found.len() as u64)
        })
        .map_err(StorageError::io(doing))?;
        // An attempt before a pack may have linked what the pack has taken out.
        let doing = self.doing("removing names in");
        self.each_home(to, &mut |oid, dir| {
            let found = revisions(dir)?;
            for (name, tid) in &found {
                let mut former = from.oid_path(oid);
                former.push(from.file_name(oid, *tid));
                if !is_there(&*root, &former)? {
                    dir.remove(name)?;
                }
            }
            dir.sync()?;
            Ok(found.len() as u64)
        })
        .map_err(StorageError::io(doing))?;
        sync_above(&root, to, Path::new(""), 0).map_err(StorageError::io(self.doing("syncing")))?;
        Ok(blobs)
    }

    /// Removes the former names.
    fn end(&mut self, underway: Underway) -> Result<()> {
        self.write(STATE, &format!("remove {} {}", underway.from.name(), underway.to.name()))?;
        self.clear(underway.from)?;
        self.remove_state()
    }

    /// Removes all blobs' names of a layout, and directories that are empty then, durably.
    fn clear(&mut self, layout: Layout) -> Result<()> {
        let doing = self.doing("removing names in");
        self.each_home(layout, &mut |_, dir| {
            let found = revisions(dir)?;
            for (name, _) in &found {
                dir.remove(name)?;
            }
            // The directory may stay: other files are in it, or it is one of the other layout, too.
            dir.sync()?;
            Ok(found.len() as u64)
        })
        .map_err(StorageError::io(doing))?;
        let root = Arc::clone(&self.root);
        remove_empty(&root, layout, Path::new(""), 0).map_err(StorageError::io(self.doing("removing")))?;
        Ok(())
    }

    fn remove_state(&self) -> Result<()> {
        let removed = remove_if_there(&*self.root, STATE.as_ref()).and_then(|()| self.root.sync());
        removed.map_err(StorageError::io(self.doing("writing")))
    }

    /// Writes a small file, whole and durably. One that has this text is left alone.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let write = || -> io::Result<()> {
            if exists(&*self.root, name.as_ref())? {
                let mut found = [0; 64];
                let len = self.root.read(name.as_ref())?.read_at(&mut found, 0)?;
                if found.get(..len) == Some(text.as_bytes()) {
                    return self.root.sync();
                }
            }
            let aside = OsString::from(format!("{name}.tmp"));
            remove_if_there(&*self.root, &aside)?;
            let file = self.root.create(&aside, Readers::ByUmask)?;
            file.write_at(text.as_bytes(), 0)?;
            file.sync()?;
            self.root.rename(&aside, &*self.root, name.as_ref())?;
            self.root.sync()
        };
        write().map_err(StorageError::io(format!("writing {}", self.base.join(name).display())))
    }

    /// Calls `each` with the directory of each object.
    fn each_home(&mut self, layout: Layout, each: &mut EachHome<'_>) -> io::Result<()> {
        let root = Arc::clone(&self.root);
        homes_below(&root, layout, Path::new(""), 0, &mut |path| {
            let Some(oid) = path.to_str().and_then(|path| layout.oid_of(path)) else { return Ok(()) };
            self.done += each(oid, &root.dir(path)?)?;
            (self.progress)(self.done);
            Ok(())
        })
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} {}", self.base.display())
    }

    fn refused(&self, why: &str) -> StorageError {
        StorageError::Refused {
            what: Refusal::BlobLayout,
            message: format!("the blob directory {}: {why}", self.base.display()),
        }
    }
}

/// Levels of directories above the blobs.
fn levels(layout: Layout) -> usize {
    if layout == Layout::Bushy { BUSHY_LEVELS } else { 1 }
}

/// The directories in one of a layout that may be on the way to blobs: those with the name of a number.
fn children(dir: &dyn MediaDir, layout: Layout) -> io::Result<Vec<OsString>> {
    let is_level = |name: &OsString| {
        name.to_str().is_some_and(|name| match layout {
            Layout::Bushy => name.len() == 4 && Layout::Lawn.oid_of(name).is_some(),
            _ => Layout::Lawn.oid_of(name).is_some(),
        })
    };
    let mut names: Vec<OsString> = dir.list()?.into_iter().filter(is_level).collect();
    names.sort();
    Ok(names)
}

/// Calls `each` with the path of each directory of an object. Paths are one behind the other, so that few directories
/// are open.
fn homes_below(
    root: &Arc<dyn MediaDir>,
    layout: Layout,
    path: &Path,
    level: usize,
    each: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if level == levels(layout) {
        return each(path);
    }
    let names = match below(root, path).and_then(|dir| children(&*dir, layout)) {
        // A file, or a link of another user: nothing of a storage.
        Err(error) if is_no_dir(&error) => return Ok(()),
        names => names?,
    };
    for name in names {
        let child = path.join(name);
        match root.dir(&child) {
            Err(error) if is_no_dir(&error) => {}
            Err(error) => return Err(error),
            Ok(_) => homes_below(root, layout, &child, level + 1, each)?,
        }
    }
    Ok(())
}

fn is_no_dir(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput)
}

/// The blobs of an object: names and transactions.
fn revisions(dir: &Arc<dyn MediaDir>) -> io::Result<Vec<(OsString, Tid)>> {
    let mut found = Vec::new();
    for name in dir.list()? {
        if let Some(tid) = name.to_str().and_then(layout::tid_of)
            && dir.entry(name.as_ref())?.kind == Kind::File
        {
            found.push((name, tid));
        }
    }
    Ok(found)
}

fn is_there(root: &dyn MediaDir, path: &Path) -> io::Result<bool> {
    match root.entry(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Gives a blob its new name, unless it has it.
fn link_one(from: &dyn MediaDir, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()> {
    match from.link(name, to, to_name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if from.entry(name.as_ref())?.is_same_file(&to.entry(to_name.as_ref())?) {
                return Ok(());
            }
            let (name, other) = (from.path().join(name), to.path().join(to_name));
            Err(io::Error::other(format!("{} and {} are different files", name.display(), other.display())))
        }
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Err(io::Error::new(
            error.kind(),
            format!("{} is on another disk: move it to one disk before", from.path().display()),
        )),
        linked => linked,
    }
}

/// Makes the directories above those of objects durable.
fn sync_above(root: &Arc<dyn MediaDir>, layout: Layout, path: &Path, level: usize) -> io::Result<()> {
    let dir = match below(root, path) {
        Err(error) if is_no_dir(&error) => return Ok(()),
        dir => dir?,
    };
    if level + 1 < levels(layout) {
        for name in children(&*dir, layout)? {
            sync_above(root, layout, &path.join(name), level + 1)?;
        }
    }
    dir.sync()
}

/// Removes the empty directories of a layout, durably.
fn remove_empty(root: &Arc<dyn MediaDir>, layout: Layout, path: &Path, level: usize) -> io::Result<()> {
    if level == levels(layout) {
        return Ok(());
    }
    let dir = match below(root, path) {
        Err(error) if is_no_dir(&error) => return Ok(()),
        dir => dir?,
    };
    for name in children(&*dir, layout)? {
        remove_empty(root, layout, &path.join(&name), level + 1)?;
        match dir.remove_dir(&name) {
            // Not empty: of the other layout, or with other files. A link to a part on another disk.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty || is_no_dir(&error) => {}
            removed => removed?,
        }
    }
    dir.sync()
}
