//! A `<journal>` handler: entries with fields, in the native protocol of systemd's journal.
//!
//! An entry is a datagram with a field on each line, `NAME=VALUE`; a value with line feeds has its length before it. An
//! entry that is too large for a datagram is sent as a sealed file in memory, as `sd_journal_send` does. A journal that
//! does not listen is no error at the start; each entry tries to reach it again.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::entry::Entry;
use super::format::field::Field;
use super::format::value::FieldValue;
use super::syslog::{send_in_time, severity};
use super::write_timeout::WriteTimeout;

/// The options of a `<journal>` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JournalSetup {
    /// The socket of the journal.
    pub path: PathBuf,
    /// `SYSLOG_IDENTIFIER`.
    pub identifier: String,
}

/// The connection to the journal.
#[derive(Debug)]
pub struct Journald {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    timeout: WriteTimeout,
}

impl Journald {
    pub fn open(setup: &JournalSetup) -> Journald {
        let path = setup.path.clone();
        Journald { socket: connect(&path).ok(), path, timeout: WriteTimeout::default() }
    }

    /// Sends an entry that [`fields`] has made.
    pub fn send(&mut self, fields: &[u8]) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            match send(socket, fields, &mut self.timeout) {
                // The journal may have been restarted.
                Err(error) if error.kind() != io::ErrorKind::TimedOut => self.socket = None,
                other => return other,
            }
        }
        let socket = connect(&self.path)?;
        send(&socket, fields, &mut self.timeout)?;
        self.socket = Some(socket);
        Ok(())
    }
}

fn connect(path: &PathBuf) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn send(socket: &UnixDatagram, fields: &[u8], timeout: &mut WriteTimeout) -> io::Result<()> {
    match send_in_time(socket, timeout, |socket| socket.send(fields)) {
        Err(error) if is_too_large(&error) => {}
        other => return other.map(drop),
    }
    let file = in_memory(fields)?;
    let descriptors = [file.as_fd()];
    send_in_time(socket, timeout, |socket| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("the descriptor of an entry does not fit"));
        }
        Ok(sendmsg(socket, &[IoSlice::new(&[])], &mut control, SendFlags::NOSIGNAL)?)
    })
    .map(drop)
}

fn is_too_large(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| matches!(errno, Errno::MSGSIZE | Errno::NOBUFS))
}

/// A file that nobody can change any more: the journal takes no other.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let file = memfd_create("runzeo-log", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// The fields of an entry. The journal itself adds the time, the process, the unit and more.
pub fn fields(entry: &Entry<'_>, identifier: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    add(&mut fields, "MESSAGE", &text(entry.value(Field::Message)));
    add(&mut fields, "PRIORITY", &severity(entry.level).to_string());
    add(&mut fields, "SYSLOG_IDENTIFIER", identifier);
    // As Python's handlers for the journal call them.
    add(&mut fields, "LOGGER", &text(entry.value(Field::Name)));
    add(&mut fields, "THREAD_NAME", &text(entry.value(Field::ThreadName)));
    if entry.line > 0 {
        add(&mut fields, "CODE_FILE", entry.path);
        add(&mut fields, "CODE_LINE", &entry.line.to_string());
    }
    fields
}

fn text(value: FieldValue<'_>) -> String {
    match value {
        FieldValue::Text(text) => text.into_owned(),
        FieldValue::Integer(number) => number.to_string(),
        FieldValue::Float(number) => number.to_string(),
        FieldValue::Opaque(text) => text.into(),
    }
}

fn add(fields: &mut Vec<u8>, name: &str, value: &str) {
    fields.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        fields.push(b'\n');
        fields.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        fields.push(b'=');
    }
    fields.extend_from_slice(value.as_bytes());
    fields.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::level::{CRITICAL, INFO};

    #[test]
    fn an_entry_has_fields() {
        let entry = Entry { thread_name: "t".into(), ..Entry::now("ZEO.x", CRITICAL, format_args!("one")) };
        let expected = "MESSAGE=one\nPRIORITY=2\nSYSLOG_IDENTIFIER=zeo\nLOGGER=ZEO.x\nTHREAD_NAME=t\n";
        assert_eq!(String::from_utf8(fields(&entry, "zeo")).unwrap(), expected);
        let entry = Entry { path: "src/x.rs", line: 7, ..entry };
        let more = expected.to_string() + "CODE_FILE=src/x.rs\nCODE_LINE=7\n";
        assert_eq!(String::from_utf8(fields(&entry, "zeo")).unwrap(), more);
    }

    /// A line feed would begin another field.
    #[test]
    fn no_value_is_a_field() {
        let entry = Entry::now("ZEO", INFO, format_args!("one\nPRIORITY=0\n"));
        let fields = fields(&entry, "zeo");
        let message = b"one\n  PRIORITY=0\n  ";
        let mut expected = b"MESSAGE\n".to_vec();
        expected.extend_from_slice(&(message.len() as u64).to_le_bytes());
        expected.extend_from_slice(message);
        expected.extend_from_slice(b"\nPRIORITY=6\n");
        assert!(fields.starts_with(&expected), "{:?}", String::from_utf8_lossy(&fields));
    }
}
