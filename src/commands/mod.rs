//! The command line programs, which combine all other modules.

mod open;
mod prompt;
pub mod runzeo;
pub mod zeopack;
pub mod zeopasswd;
