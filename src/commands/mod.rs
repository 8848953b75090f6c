//! What the commands do, above everything that they put together.

pub mod log_setup;
pub mod open;
mod prompt;
pub mod runzeo;
mod tls;
pub mod zeopack;
pub mod zeopasswd;
