//! The process at the other end of a Unix socket, as the kernel noted it when the connection was made.
//!
//! The kernel is asked here, because `rustix` takes the number of the process for one that is never 0. It is 0 for a
//! process that is not visible in this one's PID namespace, such as `zeoadmin` outside of the server's container.
//!
//! In a user namespace the kernel shows one number, the one of `nobody`, for all users that the namespace does not
//! know. Here it is taken for no user. Otherwise a server that runs as `nobody` would obey all of them.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use socket2::Socket;

/// The number that no user and no group has.
const UNKNOWN: u32 = u32::MAX;
/// The number that the kernel shows for unknown users, unless another one is set.
const OVERFLOW: u32 = 65534;

/// The effective user and group of a process; [`u32::MAX`] if this process's user namespace does not know it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProcessId {
    pub uid: u32,
    pub gid: u32,
}

/// User and group of the process at the other end, and its number; `None`: it is not visible from here.
pub fn peer_process(socket: &Socket) -> io::Result<(ProcessId, Option<i32>)> {
    // No user of this number has rights, should the kernel write nothing.
    let mut found = libc::ucred { pid: 0, uid: UNKNOWN, gid: UNKNOWN };
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
    static STRANGERS: OnceLock<[Option<u32>; 2]> = OnceLock::new();
    let [user, group] = STRANGERS.get_or_init(|| {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        ["uid", "gid"].map(|id| {
            strangers(
                &read(&format!("/proc/self/{id}_map")),
                &read(&format!("/proc/sys/kernel/overflow{id}")),
            )
        })
    });
    let known = |id: u32, strangers: &Option<u32>| if *strangers == Some(id) { UNKNOWN } else { id };
    let process = ProcessId { uid: known(found.uid, user), gid: known(found.gid, group) };
    Ok((process, Some(found.pid).filter(|pid| *pid != 0)))
}

/// The number that strangers have, from the texts of `uid_map` and `overflowuid`. `None`: there are no strangers, as
/// the namespace knows all numbers.
fn strangers(map: &str, overflow: &str) -> Option<u32> {
    let ranges: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    let is_complete = ranges.iter().any(|range| matches!(range.as_slice(), ["0", "0", "4294967295"]));
    // A kernel without user namespaces has no such file.
    let has_namespaces = !ranges.is_empty();
    (has_namespaces && !is_complete).then(|| overflow.trim().parse().unwrap_or(OVERFLOW))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn strangers_have_a_number_where_some_are_not_mapped() {
        assert_eq!(strangers("         0          0 4294967295\n", "65534\n"), None);
        assert_eq!(
            strangers("         0          0          1\n      1000       1000          1\n", "65534\n"),
            Some(65534)
        );
        assert_eq!(strangers("0 100000 65536\n", "99\n"), Some(99));
        assert_eq!(strangers("0 100000 65536\n", ""), Some(65534));
        assert_eq!(strangers("", ""), None);
    }

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
