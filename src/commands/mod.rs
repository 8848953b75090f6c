//! The command line programs, which combine all other modules: each is a function that a program's `main` calls.
//!
//! `run_with` is for programs that add something of their own, see [`Extensions`].

mod admin_socket;
mod backups;
mod cluster;
mod doors;
mod extensions;
mod failure;
mod given;
mod holder;
mod http;
mod keepers;
mod listening;
mod open;
mod opening;
mod pack_time;
mod progress;
mod prompt;
mod reload;
pub mod runzeo;
mod scrubs;
mod subcommand;
mod supervised;
mod time_argument;
pub mod zeo_nagios;
pub mod zeoadmin;
pub mod zeobackup;
pub mod zeocache;
pub mod zeoctl;
pub mod zeofs;
pub mod zeopack;
pub mod zeopasswd;
pub mod zeoup;
pub mod zrs_nagios;

pub use self::extensions::Extensions;
