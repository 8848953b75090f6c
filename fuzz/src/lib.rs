//! Fuzz targets: the decoders of all data from outside.
//!
//! A target is a file in `targets` with two functions: `run` takes any bytes and panics if a guarantee is violated;
//! `seeds` returns inputs to start from. A new target needs the file, a line in [`TARGETS`], and for cargo-fuzz a bin
//! in `fuzz_targets` and `Cargo.toml`.

pub mod mutate;
pub mod targets;

/// A target of the stable driver.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "answers", run: targets::answers::run, seeds: targets::answers::seeds },
    Target { name: "auth", run: targets::auth::run, seeds: targets::auth::seeds },
    Target { name: "backup", run: targets::backup::run, seeds: targets::backup::seeds },
    Target { name: "cluster", run: targets::cluster::run, seeds: targets::cluster::seeds },
    Target { name: "data_fs", run: targets::data_fs::run, seeds: targets::data_fs::seeds },
    Target { name: "frame", run: targets::frame::run, seeds: targets::frame::seeds },
    Target { name: "index", run: targets::index::run, seeds: targets::index::seeds },
    Target { name: "inspect", run: targets::inspect::run, seeds: targets::inspect::seeds },
    Target { name: "mac", run: targets::mac::run, seeds: targets::mac::seeds },
    Target { name: "message", run: targets::message::run, seeds: targets::message::seeds },
    Target { name: "msgpack", run: targets::msgpack::run, seeds: targets::msgpack::seeds },
    Target { name: "pem", run: targets::pem::run, seeds: targets::pem::seeds },
    Target { name: "pickle", run: targets::pickle::run, seeds: targets::pickle::seeds },
    Target { name: "postgres_dsn", run: targets::postgres_dsn::run, seeds: targets::postgres_dsn::seeds },
    Target {
        name: "postgres_server",
        run: targets::postgres_server::run,
        seeds: targets::postgres_server::seeds,
    },
    Target { name: "resolve", run: targets::resolve::run, seeds: targets::resolve::seeds },
    Target { name: "session", run: targets::session::run, seeds: targets::session::seeds },
    Target { name: "side_files", run: targets::side_files::run, seeds: targets::side_files::seeds },
    Target { name: "sums", run: targets::sums::run, seeds: targets::sums::seeds },
    Target { name: "zconfig", run: targets::zconfig::run, seeds: targets::zconfig::seeds },
    Target { name: "zrs", run: targets::zrs::run, seeds: targets::zrs::seeds },
];

/// The root of the repository, which contains the fixtures.
pub fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
