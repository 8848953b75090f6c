//! System calls that std lacks. The only unsafe code of the benchmark; each call gets plain numbers or memory that
//! outlives it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Kernel clock ticks per second: the unit of CPU times in /proc.
pub fn ticks_per_second() -> f64 {
    // SAFETY: a query without arguments in memory.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

/// All cores of the machine, including those that this process may not use.
pub fn core_count() -> usize {
    // SAFETY: a query without arguments in memory.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }.max(1) as usize
}

/// User and system time that this process has used.
pub fn own_cpu() -> Duration {
    // SAFETY: rusage is plain data, for which zeros are valid; getrusage fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let duration = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// Confines one thread (0: the calling one) to the first `cores` cores.
pub fn confine(thread: u32, cores: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is plain data, for which zeros are valid; the kernel only reads it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in 0..cores {
            libc::CPU_SET(core, &mut set);
        }
        libc::sched_setaffinity(thread as libc::pid_t, size_of::<libc::cpu_set_t>(), &set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the limit of open files to its maximum: a thousand connections need more than the usual 1024.
pub fn raise_open_files() {
    // SAFETY: rlimit is plain data that the two calls fill and read. Failure leaves the limit as it is.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Makes the system forget what it has of a file in memory. What is not on the disk yet stays.
pub fn forget_pages(file: &std::fs::File) -> io::Result<()> {
    // SAFETY: a call without memory.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Ends the process quietly when the reader of its output is gone (`| head`), instead of with a panic.
pub fn end_on_closed_pipe() {
    // SAFETY: restores a default; no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Sends SIGTERM to a process.
pub fn terminate(process: u32) {
    // SAFETY: sends a signal; callers name a child that they have not waited for, so the id is not reused.
    unsafe { libc::kill(process as libc::pid_t, libc::SIGTERM) };
}

/// Writes all dirty pages, so that no measurement includes the copies made before it.
pub fn sync_disks() {
    // SAFETY: no arguments.
    unsafe { libc::sync() };
}

/// Ends the command when this process ends, for any reason.
pub fn tie_to_us(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Waits for many sockets at once (epoll).
pub struct Readiness {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Readiness {
    pub fn new() -> io::Result<Readiness> {
        // SAFETY: only this code owns the new descriptor.
        let epoll = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Readiness { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; 1024] })
    }

    /// Reports `key` whenever `socket` is readable, while it is open.
    pub fn add(&self, socket: RawFd, key: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: key as u64 };
        // SAFETY: the kernel copies the event; a wrong descriptor is an error.
        let result =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket, &mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The keys of the sockets that are readable now; none after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> impl Iterator<Item = usize> {
        // SAFETY: the kernel writes at most as many events as the vector holds.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                timeout.as_millis() as i32,
            )
        };
        self.events.iter().take(count.max(0) as usize).map(|event| event.u64 as usize)
    }
}
