//! What the commands do, above everything that they put together.

pub mod open;
mod prompt;
pub mod runzeo;
pub mod zeopack;
pub mod zeopasswd;
