//! Repositories of Python's repozo: the same files, so that either program goes on with what the other one wrote.
//!
//! A *repository* is a directory. A *full* is a copy of a `Data.fs` at one moment, a *delta* has the bytes that were
//! appended since the backup before it. A full and the deltas after it are a *chain*; a restore concatenates it. Beside
//! each full is a *dat file*, which lists the chain: name, range in `Data.fs`, MD5 sum.
//!
//! ```text
//! 2026-11-28-03-14-49.fs         full (.fsz: compressed with gzip)
//! 2026-11-28-03-14-49.index      the index of this moment
//! 2026-11-28-03-14-49.dat        one line for the full, one for each delta
//! 2026-11-28-03-14-51.deltafs    delta (.deltafsz)
//! 2026-11-28-03-14-51.index
//! .repozo.lock                   of this program only: one backup at a time
//! ```
//!
//! Files: `name` (names of files), `dat` (the dat file), `repository` (the directory, its lock, reading and writing
//! files), `chain` (which files make a chain, and what is wrong with it), `content` and `concatenation` (the bytes of
//! the files and of a chain), `mend` (brings a chain that a killed program has left in order), `plan` (full, delta or
//! nothing), `backup`, `restore`, `verify`, `progress` (what they report), `error`.
//!
//! Python's repozo has no safe order for its two writes of a delta, so each backup of this program begins with `mend`.
//! A file is written under another name, synced, renamed, and the directory is synced. A full gets its dat file first,
//! so a full without one is never this program's. What is wrong with a chain never makes a backup fail: the backup then
//! is a full, which begins a new chain, and the old files stay.

pub mod backup;
pub mod chain;
mod concatenation;
pub mod content;
pub mod dat;
pub mod error;
pub mod mend;
pub mod name;
pub mod plan;
pub mod progress;
pub mod repository;
pub mod restore;
pub mod verify;
