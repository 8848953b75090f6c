//! Backups: repositories of zeobackup and of repozo, what killed programs leave in them, and files that take the place
//! of a `Data.fs`. `compat-tests/repozo/run` compares with Python's repozo.

#[path = "../support/mod.rs"]
mod support;

mod beside;
mod chains;
mod crash;
mod faults;
mod program;
mod replace;
mod repository;
mod rewound;
mod world;
