//! A program whose system calls fail on command.
//!
//! The kernel asks the test about each call of certain kinds before it executes it (seccomp's user notification), and
//! the test answers "go on" or with an error. So calls by all code fail, including the standard library, and the n-th
//! call can fail for each n.
//!
//! `unsafe`: there is no library for this part of the kernel's interface.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

/// Calls that fail for one reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// No thread can be started.
    Threads,
    /// No descriptor is left.
    Descriptors,
    /// The disk is full, or broken.
    Disk,
    /// Large allocations fail.
    Memory,
}

/// The size of a "large" allocation.
const LARGE: u64 = 1 << 20;
const CLONE: &[libc::c_long] = &[libc::SYS_clone, libc::SYS_clone3];
const OPEN: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_accept4,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_memfd_create,
    libc::SYS_epoll_create1,
];
const WRITE: &[libc::c_long] = &[
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_copy_file_range,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
];
const SYNC: &[libc::c_long] = &[libc::SYS_fsync, libc::SYS_fdatasync];
const MAP: &[libc::c_long] = &[libc::SYS_mmap, libc::SYS_mremap];

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Threads, Kind::Descriptors, Kind::Disk, Kind::Memory];

    /// The kind of a call, and the error with which it fails.
    fn of(call: &libc::seccomp_data) -> Option<(Kind, i32)> {
        let number = libc::c_long::from(call.nr);
        let is_any = |calls: &[libc::c_long]| calls.contains(&number);
        let is_large = call.args[if number == libc::SYS_mremap { 2 } else { 1 }] >= LARGE;
        // A thread's stack belongs to the thread's kind.
        let is_stack = number == libc::SYS_mmap && call.args[3] & libc::MAP_STACK as u64 != 0;
        match () {
            () if is_any(CLONE) => Some((Kind::Threads, libc::EAGAIN)),
            () if is_any(OPEN) => Some((Kind::Descriptors, libc::EMFILE)),
            () if is_any(WRITE) => Some((Kind::Disk, libc::ENOSPC)),
            () if is_any(SYNC) => Some((Kind::Disk, libc::EIO)),
            () if is_any(MAP) && is_large && !is_stack => Some((Kind::Memory, libc::ENOMEM)),
            () => None,
        }
    }
}

/// Which calls fail.
#[derive(Debug, Default)]
struct Orders {
    kind: Option<Kind>,
    /// Number of the first call that fails.
    first: u64,
    /// Number of calls that fail.
    count: u64,
    /// They do not fail: they return when the order ends.
    hang: bool,
    /// Number of calls since the order.
    seen: u64,
}

/// What becomes of a call.
enum Verdict {
    Fails(i32),
    Hangs,
}

/// The test's control of a program.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Orders>>);

impl Faults {
    /// From now on the calls of this kind are counted, and `count` of them fail, beginning with number `first` (1 is
    /// the next one).
    pub fn order(&self, kind: Kind, first: u64, count: u64) {
        *self.0.lock().unwrap() = Orders { kind: Some(kind), first, count, hang: false, seen: 0 };
    }

    /// From now on the calls of this kind hang, beginning with number `first`, until [`Faults::end`].
    #[allow(dead_code)] // by another program
    pub fn order_to_hang(&self, kind: Kind, first: u64) {
        let orders = Orders { kind: Some(kind), first, count: u64::MAX, hang: true, seen: 0 };
        *self.0.lock().unwrap() = orders;
    }

    /// The number of calls of the ordered kind so far.
    #[allow(dead_code)] // by another program
    pub fn seen(&self) -> u64 {
        self.0.lock().unwrap().seen
    }

    /// All calls succeed, also those that hang. Returns the number of counted calls.
    pub fn end(&self) -> u64 {
        mem::take(&mut *self.0.lock().unwrap()).seen
    }

    fn verdict(&self, call: &libc::seccomp_data) -> Option<Verdict> {
        let (kind, error) = Kind::of(call)?;
        let mut orders = self.0.lock().unwrap();
        if orders.kind != Some(kind) {
            return None;
        }
        orders.seen += 1;
        let nth = orders.seen.checked_sub(orders.first)?;
        let verdict = if orders.hang { Verdict::Hangs } else { Verdict::Fails(error) };
        (nth < orders.count).then_some(verdict)
    }

    /// Starts a program. `None`, with a message, if the kernel does not support this.
    pub fn spawn(&self, mut command: Command) -> Option<Child> {
        let faults = self.clone();
        let (listener, is_installed) = mpsc::channel();
        // Started before the filter: its own calls must not be filtered.
        thread::spawn(move || is_installed.recv().iter().for_each(|listener| answer(listener, &faults)));
        // The filter belongs to the thread that starts the program, which inherits it.
        let starter = thread::spawn(move || {
            let installed = install_filter()?;
            listener.send(installed).expect("the thread that answers");
            command.spawn()
        });
        match starter.join().expect("the thread that starts the program") {
            Ok(child) => Some(child),
            Err(error) => {
                eprintln!("SKIPPED: calls of a program cannot be made to fail here: {error}");
                None
            }
        }
    }
}

/// From here on the kernel asks about this thread's calls, and those of the programs that it starts.
fn install_filter() -> io::Result<File> {
    let numbers: Vec<libc::c_long> = [CLONE, OPEN, WRITE, SYNC, MAP].concat();
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    let mut program = vec![step(load, 0, 0, mem::offset_of!(libc::seccomp_data, nr) as u32)];
    for (at, number) in numbers.iter().enumerate() {
        let to_the_end = (numbers.len() - at) as u8;
        program.push(step(equal, to_the_end, 0, *number as u32));
    }
    program.push(step(give, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(step(give, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program outlives the call, which copies it; what is returned is a new descriptor.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        let listener = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &program,
        );
        if listener < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(listener as i32)) }
    }
}

/// Pause between two looks whether calls that hang may return.
const HANG_PAUSE_MS: i32 = 20;

/// Answers the kernel until no filtered process is left.
fn answer(listener: &File, faults: &Faults) {
    let fd = listener.as_raw_fd();
    let mut hanging: Vec<u64> = Vec::new();
    loop {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, which is open.
        let ready = unsafe { libc::poll(&mut poll, 1, if hanging.is_empty() { -1 } else { HANG_PAUSE_MS }) };
        if ready > 0 && poll.revents & libc::POLLIN == 0 {
            return;
        }
        if !hanging.is_empty() && faults.0.lock().unwrap().kind.is_none() {
            hanging.drain(..).for_each(|id| reply(fd, id, 0));
        }
        if ready <= 0 {
            continue;
        }
        // SAFETY: plain numbers, for which zero is what the kernel demands.
        let mut asked: libc::seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: the structure that this request fills.
        if unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &mut asked) } != 0 {
            // The calling process was killed.
            continue;
        }
        match faults.verdict(&asked.data) {
            None => reply(fd, asked.id, 0),
            Some(Verdict::Fails(error)) => reply(fd, asked.id, error),
            Some(Verdict::Hangs) => hanging.push(asked.id),
        }
    }
}

/// Lets a call go on, or fail with `error`.
fn reply(fd: i32, id: u64, error: i32) {
    let flags = if error == 0 { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 };
    let reply = libc::seccomp_notif_resp { id, val: 0, error: -error, flags };
    // SAFETY: the structure that this request reads. An error means that the calling process was killed.
    unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &reply) };
}
