//! One destination of log lines with its level and its format.
//!
//! An entry is formatted before the lock is taken; under the lock there is only the write. If a destination fails, its
//! lines are lost but counted; each later line is tried again, and a notice with the number of lost lines precedes the
//! first one that succeeds.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::base::level;
use crate::base::sync::{Action, Mutex, MutexGuard, assert_permitted, rank};

use super::entry::Entry;
use super::file::LogFile;
use super::format::Formatter;
use super::journal::with_priority;
use super::journald::{self, Journald};
use super::syslog::Syslog;
use super::writer::Writer;

/// The logger's name for messages about logging itself.
const SELF: &str = "runzeo";

/// The encoding of a log file. Characters that it lacks are written as `\x..`, `\u....`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Encoding {
    #[default]
    Utf8,
    Ascii,
    Latin1,
}

static LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// Lines that could not be written since the process began. A line counts for each handler that has lost it.
pub fn lines_lost() -> u64 {
    LINES_LOST.load(Ordering::Relaxed)
}

pub struct Handler {
    /// The level of the handler itself; lines below it are never written here.
    own_level: AtomicU8,
    /// The lowest level that is written: [`Handler::own_level`], or the level of the log if it is higher.
    threshold: AtomicU8,
    form: Form,
    output: Mutex<Output, rank::LogHandler>,
}

/// What becomes of an entry.
pub enum Form {
    /// A line.
    Text { formatter: Formatter, encoding: Encoding },
    /// Fields for the journal, which shows this name.
    Fields { identifier: String },
}

/// Guarded by [`Handler::output`].
struct Output {
    sink: Sink,
    /// Lines lost since the last successful write.
    lost: u64,
    /// The error of the last lost line.
    reason: String,
}

pub enum Sink {
    /// STDOUT or STDERR.
    Stream(Writer),
    /// STDERR, if systemd's journal reads it.
    Journal(Writer),
    File(LogFile),
    Syslog(Syslog),
    /// The journal's own socket.
    Journald(Journald),
}

impl Handler {
    /// [`Handler::set_level`] sets the level of the log.
    pub fn new(own_level: u8, form: Form, sink: Sink) -> Handler {
        let output = Mutex::new(Output { sink, lost: 0, reason: String::new() });
        let [own_level, threshold] = [own_level; 2].map(AtomicU8::new);
        Handler { own_level, threshold, form, output }
    }

    /// The lowest level that is written.
    pub fn threshold(&self) -> u8 {
        self.threshold.load(Ordering::Relaxed)
    }

    /// Sets the level of the log: lines below it are not written.
    pub fn set_level(&self, level: u8) {
        self.threshold.store(self.own_level.load(Ordering::Relaxed).max(level), Ordering::Relaxed);
    }

    /// Sets the handler's own level. [`Handler::set_level`] comes next.
    pub fn set_own_level(&self, level: u8) {
        self.own_level.store(level, Ordering::Relaxed);
    }

    /// Lines that are lost and not reported yet.
    pub fn lost(&self) -> u64 {
        self.output().lost
    }

    /// Reopens a log file; an error has its path and the reason.
    pub fn reopen(&self) -> Result<(), (PathBuf, io::Error)> {
        let _busy = Busy::begin();
        match &mut self.output().sink {
            Sink::File(file) => file.reopen().map_err(|error| (file.path().to_path_buf(), error)),
            Sink::Stream(_) | Sink::Journal(_) | Sink::Syslog(_) | Sink::Journald(_) => Ok(()),
        }
    }

    pub fn emit(&self, entry: &Entry<'_>) {
        // A reader of the log that does not read may delay this thread.
        assert_permitted(Action::Log, "logging");
        let line = self.line(entry);
        let _busy = Busy::begin();
        let mut output = self.output();
        if output.lost > 0 {
            let notice = self.own(
                level::WARNING,
                format_args!("{} log lines were lost here: {}", output.lost, output.reason),
            );
            if output.sink.write(level::WARNING, &notice).is_ok() {
                output.lost = 0;
            }
        }
        if let Err(error) = output.sink.write(entry.level, &line) {
            output.lose();
            output.reason = error.to_string();
        }
        if let Some(trouble) = output.sink.take_trouble() {
            let notice = self.own(level::ERROR, format_args!("{trouble}"));
            if output.sink.write(level::ERROR, &notice).is_err() {
                output.lose();
            }
        }
    }

    fn own(&self, level: u8, message: std::fmt::Arguments<'_>) -> Line {
        self.line(&Entry::now(SELF, level, message))
    }

    fn line(&self, entry: &Entry<'_>) -> Line {
        match &self.form {
            Form::Text { formatter, encoding } => {
                let mut text = formatter.render(entry);
                text.push('\n');
                Line { encoding: *encoding, text, fields: Vec::new() }
            }
            Form::Fields { identifier } => {
                let fields = journald::fields(entry, identifier);
                Line { encoding: Encoding::Utf8, text: String::new(), fields }
            }
        }
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        // Nothing is left half done where it could panic.
        self.output.lock()
    }
}

impl Output {
    fn lose(&mut self) {
        self.lost += 1;
        LINES_LOST.fetch_add(1, Ordering::Relaxed);
    }
}

impl log::Log for Handler {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        level::highest(metadata.level()) >= self.threshold()
    }

    fn log(&self, record: &log::Record<'_>) {
        if level::number(record) >= self.threshold() {
            self.emit(&Entry::from_record(record));
        }
    }

    /// Does nothing: every line is written at once.
    fn flush(&self) {}
}

/// A rendered entry with its line feed.
struct Line {
    encoding: Encoding,
    /// Empty for the journal.
    text: String,
    /// For the journal alone.
    fields: Vec<u8>,
}

impl Line {
    fn for_file(&self) -> std::borrow::Cow<'_, [u8]> {
        let last = match self.encoding {
            Encoding::Ascii => 0x7f,
            Encoding::Latin1 => 0xff,
            Encoding::Utf8 => return self.text.as_bytes().into(),
        };
        if self.text.is_ascii() {
            return self.text.as_bytes().into();
        }
        let mut bytes = Vec::with_capacity(self.text.len());
        for c in self.text.chars() {
            match u8::try_from(u32::from(c)) {
                Ok(byte) if byte <= last => bytes.push(byte),
                Ok(byte) => bytes.extend(format!("\\x{byte:02x}").bytes()),
                Err(_) if u32::from(c) <= 0xffff => bytes.extend(format!("\\u{:04x}", u32::from(c)).bytes()),
                Err(_) => bytes.extend(format!("\\U{:08x}", u32::from(c)).bytes()),
            }
        }
        bytes.into()
    }

    /// The text without the line feed: in a datagram the frame ends the message.
    fn for_syslog(&self) -> &str {
        self.text.strip_suffix('\n').unwrap_or(&self.text)
    }
}

impl Sink {
    fn write(&mut self, level: u8, line: &Line) -> io::Result<()> {
        match self {
            Sink::Stream(writer) => writer.write_line(&line.for_file()),
            Sink::Journal(writer) => writer.write_line(with_priority(level, &line.text).as_bytes()),
            Sink::File(file) => file.write_line(&line.for_file()),
            Sink::Syslog(syslog) => syslog.send(level, line.for_syslog()),
            Sink::Journald(journald) => journald.send(&line.fields),
        }
    }

    fn take_trouble(&mut self) -> Option<String> {
        match self {
            Sink::File(file) => file.take_trouble(),
            Sink::Stream(_) | Sink::Journal(_) | Sink::Syslog(_) | Sink::Journald(_) => None,
        }
    }
}

thread_local!(static BUSY: Cell<bool> = const { Cell::new(false) });

/// Whether this thread holds a handler's lock, so that logging would deadlock.
pub fn is_busy() -> bool {
    BUSY.get()
}

struct Busy;

impl Busy {
    fn begin() -> Busy {
        BUSY.set(true);
        Busy
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.set(false);
    }
}
