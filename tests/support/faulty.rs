//! A disk in memory that fails on command, and loses unsynced data in a power cut.
//!
//! Unsynced writes are kept block by block; a power cut keeps any of these blocks and any length between the synced one
//! and the last. Names (create, rename, remove) are durable after `sync_dir`; a power cut may keep other ones.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runzeo::internal::storage::media::{
    Access, BOOT_LEN, Entry, Identity, Kind, Media, MediaDir, MediaFile, Readers, TakenOver, Time,
};

const BLOCK: usize = 4096;

/// The fault at the selected call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Part of the call is done, the call fails, later calls succeed.
    Error,
    /// Part of the call is done, and the machine is off: every later call fails too.
    PowerCut,
}

#[derive(Clone)]
pub struct Faulty {
    disk: Arc<Mutex<Disk>>,
}

struct Disk {
    names: Names,
    durable_names: Names,
    /// Number of calls so far that change something.
    calls: u64,
    fail_at: Option<(u64, Fault)>,
    fired: bool,
    /// Called at a call, which then goes on.
    action: Option<(u64, Box<dyn FnOnce() + Send>)>,
    /// Called before the next read.
    before_read: Option<Box<dyn FnOnce() + Send>>,
    dead: bool,
    random: u64,
    /// Number of starts of the machine, and of created files.
    boot: u64,
    files: u64,
    cannot_reserve: bool,
    /// Whether files cannot grow.
    full: bool,
    now: Time,
}

#[derive(Clone)]
struct Content {
    /// Kept over a power cut.
    inode: u64,
    born: Time,
    changed: Time,
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Blocks that may differ from the synced ones.
    dirty: std::collections::BTreeSet<usize>,
}

pub struct FaultyFile {
    disk: Arc<Mutex<Disk>>,
    content: Arc<Mutex<Content>>,
}

impl Disk {
    fn random(&mut self) -> u64 {
        // xorshift, so that the seed determines everything.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Counts a call. `Err`: this is the one that fails.
    fn call(&mut self) -> Result<(), Fault> {
        if self.dead {
            return Err(Fault::PowerCut);
        }
        self.calls += 1;
        if let Some((_, action)) = self.action.take_if(|(n, _)| *n == self.calls) {
            action();
        }
        match self.fail_at {
            Some((n, fault)) if n == self.calls => {
                self.fired = true;
                self.dead = fault == Fault::PowerCut;
                Err(fault)
            }
            _ => Ok(()),
        }
    }
}

fn failed() -> io::Error {
    io::Error::other("a fault that the test asked for")
}

impl Faulty {
    pub fn new(seed: u64, fail_at: Option<(u64, Fault)>) -> Faulty {
        let disk = Disk {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            calls: 0,
            fail_at,
            fired: false,
            action: None,
            before_read: None,
            dead: false,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            boot: 1,
            files: 0,
            cannot_reserve: false,
            full: false,
            now: NOW,
        };
        Faulty { disk: Arc::new(Mutex::new(disk)) }
    }

    pub fn set_now(&self, now: Time) {
        self.disk.lock().unwrap().now = now;
    }

    /// A file system that cannot reserve space.
    pub fn without_reserve(self) -> Faulty {
        self.disk.lock().unwrap().cannot_reserve = true;
        self
    }

    pub fn set_full(&self, full: bool) {
        self.disk.lock().unwrap().full = full;
    }

    /// Whether the fault has happened.
    pub fn fired(&self) -> bool {
        self.disk.lock().unwrap().fired
    }

    /// The n-th call from now on fails.
    pub fn fail_at(&self, n: u64, fault: Fault) {
        let mut disk = self.disk.lock().unwrap();
        disk.fail_at = Some((disk.calls + n, fault));
        disk.fired = false;
    }

    /// At the n-th call from now on, before it does anything, `action` is called. It must not use this disk.
    pub fn call_at(&self, n: u64, action: impl FnOnce() + Send + 'static) {
        let mut disk = self.disk.lock().unwrap();
        disk.action = Some((disk.calls + n, Box::new(action)));
    }

    /// Before the next read of a file `action` is called, by a thread of its own, which the read waits for.
    pub fn call_before_read(&self, action: impl FnOnce() + Send + 'static) {
        self.disk.lock().unwrap().before_read = Some(Box::new(action));
    }

    /// Whether the action of [`Faulty::call_at`] is still to come.
    pub fn is_action_to_come(&self) -> bool {
        self.disk.lock().unwrap().action.is_some()
    }

    pub fn calls(&self) -> u64 {
        self.disk.lock().unwrap().calls
    }

    /// The disk after a power cut, in one of the many possible states.
    pub fn after_power_cut(&self) -> Faulty {
        let mut disk = self.disk.lock().unwrap();
        disk.dead = true;
        let after = Faulty::new(disk.random(), None);
        let mut names = disk.durable_names.clone();
        if disk.random().is_multiple_of(2) {
            names = disk.names.clone();
        }
        let new = copied(&names, |content| {
            let kept = content.after_power_cut(&mut disk);
            Content { now: kept.clone(), synced: kept, dirty: Default::default(), ..*content }
        });
        let mut to = after.disk.lock().unwrap();
        (to.boot, to.files, to.cannot_reserve, to.now) =
            (disk.boot + 1, disk.files, disk.cannot_reserve, disk.now);
        to.names = new.clone();
        to.durable_names = new;
        drop(to);
        after
    }

    /// The same files after the process died, with all writes.
    pub fn after_kill(&self) -> Faulty {
        let disk = self.disk.lock().unwrap();
        let after = Faulty::new(disk.random, None);
        let names = copied(&disk.names, Content::clone);
        let mut to = after.disk.lock().unwrap();
        (to.boot, to.files, to.cannot_reserve, to.now) =
            (disk.boot, disk.files, disk.cannot_reserve, disk.now);
        to.names = names.clone();
        to.durable_names = names;
        drop(to);
        after
    }

    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk.lock().unwrap();
        disk.names.get(path).map(|content| content.lock().unwrap().now.clone())
    }

    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut disk = self.disk.lock().unwrap();
        let content = Arc::new(Mutex::new(Content::new(bytes.to_vec(), &mut disk)));
        disk.names.insert(path.to_owned(), content.clone());
        disk.durable_names.insert(path.to_owned(), content);
    }

    /// Replaces the file of this name by another one with the same inode number.
    pub fn put_in_place(&self, path: &Path, bytes: &[u8]) {
        let inode = self.disk.lock().unwrap().names[path].lock().unwrap().inode;
        self.put(path, bytes);
        self.disk.lock().unwrap().names[path].lock().unwrap().inode = inode;
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk.lock().unwrap().names.keys().cloned().collect()
    }
}

type Names = BTreeMap<PathBuf, Arc<Mutex<Content>>>;

/// Copies of the files with the same names; two names of one file stay two names of one file.
fn copied(names: &Names, mut copy: impl FnMut(&Content) -> Content) -> Names {
    let mut known: Vec<[Arc<Mutex<Content>>; 2]> = Vec::new();
    let mut copied = Names::new();
    for (path, content) in names {
        let new = match known.iter().find(|[old, _]| Arc::ptr_eq(old, content)) {
            Some([_, new]) => new.clone(),
            None => {
                let new = Arc::new(Mutex::new(copy(&content.lock().unwrap())));
                known.push([content.clone(), new.clone()]);
                new
            }
        };
        copied.insert(path.clone(), new);
    }
    copied
}

impl Content {
    fn new(now: Vec<u8>, disk: &mut Disk) -> Content {
        disk.files += 1;
        Content {
            inode: disk.files,
            born: disk.now,
            changed: disk.now,
            synced: now.clone(),
            now,
            dirty: Default::default(),
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            device: 1,
            inode: self.inode,
            born: self.born,
            links: 1,
            len: self.now.len() as u64,
            changed: self.changed,
        }
    }

    fn after_power_cut(&self, disk: &mut Disk) -> Vec<u8> {
        let (a, b) = (self.synced.len(), self.now.len());
        let len = match disk.random() % 4 {
            0 => a,
            // A file grows block by block, but shrinks at once.
            1 if a < b => a + disk.random() as usize % (b - a + 1),
            _ => b,
        };
        let mut bytes = self.synced.clone();
        bytes.resize(len, 0);
        // All, none, or any of the blocks.
        let share = [0, 1, 2, 3, 4][disk.random() as usize % 5];
        for &block in &self.dirty {
            if disk.random() % 4 < share {
                let from = block * BLOCK;
                let to = (from + BLOCK).min(self.now.len()).min(bytes.len());
                if from < to {
                    bytes[from..to].copy_from_slice(&self.now[from..to]);
                }
            }
        }
        bytes
    }
}

impl Media for Faulty {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn MediaFile>> {
        let mut disk = self.disk.lock().unwrap();
        if disk.dead {
            return Err(failed());
        }
        let found = disk.names.get(path).cloned();
        let content = match (found, access) {
            (Some(content), Access::Truncate) => {
                disk.call().map_err(|_| failed())?;
                let mut c = content.lock().unwrap();
                let blocks = c.now.len().div_ceil(BLOCK);
                c.now.clear();
                c.dirty.extend(0..blocks);
                drop(c);
                content
            }
            (Some(content), _) => content,
            (None, Access::Create | Access::Truncate) => {
                disk.call().map_err(|_| failed())?;
                let content = Arc::new(Mutex::new(Content::new(Vec::new(), &mut disk)));
                disk.names.insert(path.to_owned(), content.clone());
                content
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(FaultyFile { disk: self.disk.clone(), content }))
    }

    fn exists(&self, path: &Path) -> bool {
        // A directory exists if it contains a file.
        self.disk.lock().unwrap().names.keys().any(|name| name.starts_with(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.call().map_err(|_| failed())?;
        // A directory is what is below it.
        let below: Vec<_> = disk.names.keys().filter(|name| name.starts_with(from)).cloned().collect();
        for name in &below {
            let rest = name.strip_prefix(from).unwrap();
            let new = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            let content = disk.names.remove(name).unwrap();
            disk.names.insert(new, content);
        }
        if below.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.call().map_err(|_| failed())?;
        let content = disk.names.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        if disk.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.names.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.call().map_err(|_| failed())?;
        disk.names.remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.call().map_err(|_| failed())?;
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    // There are names only: every directory exists.

    fn create_dir(&self, _: &Path) -> io::Result<bool> {
        Ok(false)
    }

    fn dir(&self, path: &Path) -> io::Result<Arc<dyn MediaDir>> {
        Ok(Arc::new(FaultyDir { disk: self.clone(), path: path.to_owned() }))
    }

    fn is_file(&self, path: &Path) -> bool {
        self.exists(path)
    }

    fn identity(&self, path: &Path) -> io::Result<Identity> {
        let content = self.disk.lock().unwrap().names.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(content.lock().unwrap().identity())
    }

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn now(&self) -> Time {
        self.disk.lock().unwrap().now
    }

    fn boot(&self) -> Option<[u8; BOOT_LEN]> {
        Some(u128::from(self.disk.lock().unwrap().boot).to_be_bytes())
    }
}

/// A path, because only files are renamed.
struct FaultyDir {
    disk: Faulty,
    path: PathBuf,
}

impl MediaDir for FaultyDir {
    fn path(&self) -> &Path {
        &self.path
    }

    fn dir(&self, below: &Path) -> io::Result<Arc<dyn MediaDir>> {
        self.disk.dir(&self.path.join(below))
    }

    fn read(&self, below: &Path) -> io::Result<Arc<dyn MediaFile>> {
        self.disk.open(&self.path.join(below), Access::Read)
    }

    fn create(&self, name: &OsStr, _: Readers) -> io::Result<Arc<dyn MediaFile>> {
        let path = self.path.join(name);
        if self.disk.exists(&path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.disk.open(&path, Access::Create)
    }

    fn entry(&self, below: &Path) -> io::Result<Entry> {
        let path = self.path.join(below);
        let (kind, inode) = match self.disk.identity(&path) {
            Ok(identity) => (Kind::File, identity.inode),
            Err(_) if self.disk.exists(&path) => (Kind::Directory, 0),
            Err(error) => return Err(error),
        };
        Ok(Entry { kind, device: 1, inode, age: Duration::ZERO })
    }

    fn readers(&self) -> io::Result<u32> {
        Ok(0o444)
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        let disk = self.disk.disk.lock().unwrap();
        let below = disk.names.keys().filter_map(|path| path.strip_prefix(&self.path).ok());
        // A directory stands there once for each file below it, in a row.
        let mut names: Vec<_> = below.filter_map(|path| path.iter().next()).map(OsString::from).collect();
        names.dedup();
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.path)
    }

    fn create_dir(&self, _: &OsStr) -> io::Result<bool> {
        Ok(false)
    }

    fn remove_dir(&self, _: &OsStr) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        self.disk.remove(&self.path.join(name))
    }

    fn rename(&self, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()> {
        self.disk.rename(&self.path.join(name), &to.path().join(to_name))
    }

    fn link(&self, name: &OsStr, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<()> {
        self.disk.link(&self.path.join(name), &to.path().join(to_name))
    }

    fn is_on_disk_of(&self, _: &dyn MediaDir) -> bool {
        true
    }

    fn take_over(&self, below: &Path, to: &dyn MediaDir, to_name: &OsStr) -> io::Result<TakenOver> {
        let from = self.path.join(below);
        let file = self.disk.open(&from, Access::Read)?;
        self.disk.rename(&from, &to.path().join(to_name))?;
        Ok(TakenOver { file, dir: self.disk.dir(from.parent().unwrap())?, moved: true })
    }
}

/// The time, which does not advance until it is set.
pub const NOW: Time = 1_000_000;

impl MediaFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let action = self.disk.lock().unwrap().before_read.take();
        if let Some(action) = action {
            std::thread::spawn(action).join().unwrap();
        }
        self.content.lock().unwrap().now.read_at(buf, pos)
    }

    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        if disk.dead {
            return Err(failed());
        }
        if disk.full && self.content.lock().unwrap().now.len() < pos as usize + buf.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let fault = disk.call().err();
        let len = match fault {
            // Torn: a part of the write is done.
            Some(_) => disk.random() as usize % (buf.len() + 1),
            None => buf.len(),
        };
        if fault.is_none() || disk.fail_at.is_some_and(|(n, _)| n == disk.calls) {
            let mut content = self.content.lock().unwrap();
            content.changed = disk.now;
            let pos = pos as usize;
            if content.now.len() < pos + len {
                content.now.resize(pos + len, 0);
            }
            content.now[pos..pos + len].copy_from_slice(&buf[..len]);
            content.dirty.extend(pos / BLOCK..(pos + len).div_ceil(BLOCK));
        }
        if fault.is_some() { Err(failed()) } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().now.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.call().map_err(|_| failed())?;
        let mut content = self.content.lock().unwrap();
        content.changed = disk.now;
        let (old, new) = (content.now.len(), len as usize);
        content.now.resize(new, 0);
        content.dirty.extend(old.min(new) / BLOCK..old.max(new).div_ceil(BLOCK));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        match disk.call() {
            Ok(()) => {
                let mut content = self.content.lock().unwrap();
                content.synced = content.now.clone();
                content.dirty.clear();
                Ok(())
            }
            Err(_) => {
                // As in Linux: a part is on the disk, and the rest will not be written again.
                let mut content = self.content.lock().unwrap();
                let kept = content.after_power_cut(&mut disk);
                content.synced = kept;
                content.dirty.clear();
                Err(failed())
            }
        }
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(self.content.lock().unwrap().identity())
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<bool> {
        let mut disk = self.disk.lock().unwrap();
        disk.call().map_err(|_| failed())?;
        Ok(!disk.cannot_reserve)
    }
}
