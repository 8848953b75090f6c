//! A real disk that holds calls to the data file, or lets them fail, on command.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use runzeo::internal::storage::media::{
    Access, BOOT_LEN, Identity, Media, MediaDir, MediaFile, RealMedia, Time,
};

/// Which calls are held, and which fail.
#[derive(Debug, Default)]
pub struct Orders {
    pub hold_reads: bool,
    /// Data before this position is not in memory: reads of whole records there wait for the disk, and are held.
    pub cold_before: u64,
    pub hold_syncs: bool,
    /// This number of syncs succeed, all later ones fail.
    pub good_syncs: Option<usize>,
    pub fail_writes: bool,
    /// Bytes that are said to be free.
    pub free: Option<u64>,
    /// Reservations fail as on a full disk.
    pub fail_reserve: bool,
    /// A reservation panics, as a bug would.
    pub panic_at_reserve: bool,
    /// Number of calls that are held.
    held: usize,
}

/// The test's control of the disk.
#[derive(Clone, Default)]
pub struct Hand(Arc<(Mutex<Orders>, Condvar)>);

impl Hand {
    pub fn orders(&self) -> MutexGuard<'_, Orders> {
        self.0.0.lock().expect("orders")
    }

    pub fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders());
        self.0.1.notify_all();
    }

    /// Waits until a call is held.
    pub fn wait_for_held(&self) {
        self.wait_for_so_many_held(1);
    }

    /// Waits until this number of calls are held at the same time.
    pub fn wait_for_so_many_held(&self, count: usize) {
        let timeout = Duration::from_secs(60);
        let waiting = self.0.1.wait_timeout_while(self.orders(), timeout, |orders| orders.held < count);
        let (orders, timeout) = waiting.expect("orders");
        assert!(!timeout.timed_out(), "{} came to the disk, {count} were expected", orders.held);
    }

    /// Number of calls that are held.
    pub fn held(&self) -> usize {
        self.orders().held
    }

    fn pass(
        &self,
        is_held: impl Fn(&Orders) -> bool,
        fails: impl FnOnce(&mut Orders) -> bool,
        error: io::ErrorKind,
    ) -> io::Result<()> {
        let mut orders = self.orders();
        if is_held(&orders) {
            orders.held += 1;
            self.0.1.notify_all();
            orders = self.0.1.wait_while(orders, |orders| is_held(orders)).expect("orders");
            orders.held -= 1;
        }
        if fails(&mut orders) { Err(error.into()) } else { Ok(()) }
    }
}

pub struct Disk(pub Hand);

struct DataFile {
    file: Arc<dyn MediaFile>,
    hand: Hand,
}

impl Media for Disk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn MediaFile>> {
        let file = RealMedia.open(path, access)?;
        if !path.ends_with("Data.fs") {
            return Ok(file);
        }
        Ok(Arc::new(DataFile { file, hand: self.0.clone() }))
    }

    fn exists(&self, path: &Path) -> bool {
        RealMedia.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealMedia.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealMedia.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealMedia.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealMedia.sync_dir(dir)
    }

    fn dir(&self, path: &Path) -> io::Result<Arc<dyn MediaDir>> {
        RealMedia.dir(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<bool> {
        RealMedia.create_dir(dir)
    }

    fn is_file(&self, path: &Path) -> bool {
        RealMedia.is_file(path)
    }

    fn identity(&self, path: &Path) -> io::Result<Identity> {
        RealMedia.identity(path)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let free = self.0.orders().free;
        free.map_or_else(|| RealMedia.free_space(dir), Ok)
    }

    fn now(&self) -> Time {
        RealMedia.now()
    }

    fn boot(&self) -> Option<[u8; BOOT_LEN]> {
        RealMedia.boot()
    }
}

/// Whether a read is for a record, not only for a header.
fn is_record(buf: &[u8]) -> bool {
    buf.len() > 50
}

impl MediaFile for DataFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let is_cold = |orders: &Orders| is_record(buf) && pos < orders.cold_before;
        self.hand.pass(|orders| orders.hold_reads || is_cold(orders), |_| false, io::ErrorKind::Other)?;
        self.file.read_at(buf, pos)
    }

    fn read_at_now(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        if is_record(buf) && pos < self.hand.orders().cold_before {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.read_at(buf, pos)
    }

    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
        self.hand.pass(|_| false, |orders| orders.fail_writes, io::ErrorKind::StorageFull)?;
        self.file.write_at(buf, pos)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.file.identity()
    }

    fn sync(&self) -> io::Result<()> {
        let is_last = |orders: &mut Orders| match &mut orders.good_syncs {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        };
        self.hand.pass(|orders| orders.hold_syncs, is_last, io::ErrorKind::Other)?;
        self.file.sync()
    }

    fn reserve(&self, pos: u64, len: u64) -> io::Result<bool> {
        assert!(!self.hand.orders().panic_at_reserve, "a bug that the test asked for");
        self.hand.pass(|_| false, |orders| orders.fail_reserve, io::ErrorKind::StorageFull)?;
        self.file.reserve(pos, len)
    }
}
