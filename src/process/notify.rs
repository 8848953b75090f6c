//! Messages to the service manager: sd_notify(3) of systemd, which others speak as well.
//!
//! A message is a datagram with lines `NAME=VALUE` to the socket in `NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Longest wait for a manager that does not read. It is not worth more.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the messages go.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl Notifier {
    /// `name`: the value of `NOTIFY_SOCKET`, a path or, after an `@`, an abstract name.
    pub fn new(name: &OsStr) -> io::Result<Notifier> {
        let manager = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => {
                return Err(io::Error::other(
                    "neither a path that begins with / nor a name that begins with @",
                ));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Notifier { socket, manager })
    }

    /// Sends the lines of one message.
    pub fn send(&self, lines: &[String]) -> io::Result<()> {
        // A line end in a text would begin another assignment.
        let lines: Vec<String> = lines.iter().map(|line| line.replace('\n', " ")).collect();
        self.socket.send_to_addr(lines.join("\n").as_bytes(), &self.manager).map(drop)
    }
}

/// The lines that begin a reload. The manager waits for `READY=1`.
pub fn reloading() -> Vec<String> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let micros = seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000;
    vec!["RELOADING=1".into(), format!("MONOTONIC_USEC={micros}")]
}

/// The time within which a watchdog waits for a sign, from `WATCHDOG_USEC` and `WATCHDOG_PID`. `None`: there is none
/// for this process.
pub fn watchdog(usec: Option<&str>, pid: Option<&str>) -> Result<Option<Duration>, String> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    match usec.filter(|_| is_ours).map(|usec| (usec, usec.parse::<u64>())) {
        None => Ok(None),
        Some((_, Ok(usec))) if usec > 0 => Ok(Some(Duration::from_micros(usec))),
        Some((usec, _)) => Err(format!("WATCHDOG_USEC is '{}', which is no time", usec.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_of_another_process_is_none() {
        let own = std::process::id().to_string();
        let time = Some(Duration::from_millis(1500));
        assert_eq!(watchdog(Some("1500000"), None), Ok(time));
        assert_eq!(watchdog(Some("1500000"), Some(&own)), Ok(time));
        assert_eq!(watchdog(Some("1500000"), Some("1")), Ok(None));
        assert_eq!(watchdog(None, Some(&own)), Ok(None));
        for wrong in ["0", "-1", "", "soon"] {
            assert!(watchdog(Some(wrong), None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_are_sent_to_paths_and_abstract_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("@runzeo-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        for (manager, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str()),
            (UnixDatagram::bind_addr(&address).unwrap(), OsStr::new(&name)),
        ] {
            Notifier::new(name).unwrap().send(&["READY=1".into(), "STATUS=a\nb".into()]).unwrap();
            let mut message = [0; 100];
            let len = manager.recv(&mut message).unwrap();
            assert_eq!(&message[..len], b"READY=1\nSTATUS=a b");
        }
        assert!(Notifier::new(OsStr::new("vsock:2:1")).is_err());
    }
}
