//! The storage server: see `runzeo --help`.

fn main() {}
