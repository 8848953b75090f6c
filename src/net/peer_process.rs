//! The process at the other end of a Unix socket, as the kernel noted it when the connection was made.
//!
//! The kernel is asked here, because `rustix` takes the number of the process for one that is never 0. It is 0 for a
//! process that is not visible in this one's PID namespace, such as `zeoadmin` outside of the server's container.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use socket2::Socket;

/// The effective user and group of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProcessId {
    pub uid: u32,
    pub gid: u32,
}

/// User and group of the process at the other end, and its number; `None`: it is not visible from here.
pub fn peer_process(socket: &Socket) -> io::Result<(ProcessId, Option<i32>)> {
    // No user of this number has rights, should the kernel write nothing.
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let size = size_of::<libc::ucred>();
    let mut len = libc::socklen_t::try_from(size).unwrap_or_default();
    // SAFETY: the socket is open during the call. The kernel writes at most `len` bytes to `found`, which consists of
    // plain numbers, and their count to `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if usize::try_from(len) != Ok(size) {
        return Err(io::Error::other("the kernel's answer has another length"));
    }
    Ok((ProcessId { uid: found.uid, gid: found.gid }, Some(found.pid).filter(|pid| *pid != 0)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_pair_of_sockets_has_this_process_at_both_ends() {
        let (one, other) = UnixStream::pair().unwrap();
        let own =
            ProcessId { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let pid = i32::try_from(std::process::id()).ok();
        for socket in [one, other] {
            assert_eq!(peer_process(&Socket::from(socket)).unwrap(), (own, pid));
        }
    }
}
