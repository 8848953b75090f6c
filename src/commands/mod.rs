//! What the commands do, above everything that they put together.

pub mod log_setup;
pub mod open;
pub mod runzeo;
