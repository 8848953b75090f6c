//! Shared code of the tests. Each test program includes it once.
//!
//! Server processes (`process`), raw clients that see the byte stream (`client`, with its own `pickle` and `msgpack`),
//! failing system calls (`faults`), storages through their trait (`storage`), disks that fail (`faulty`) or wait
//! (`disk`), logs (`log`), and test programs that run themselves again (`child`).
//!
//! The client shares no code with the server, and interprets only what its test needs. `RUNZEO_TEST_BINARY` names
//! another server to test (any command that takes `-a` and `-f`).
#![allow(dead_code)] // each test program uses its own part

pub mod child;
pub mod client;
pub mod dice;
pub mod disk;
pub mod faults;
pub mod faulty;
pub mod log;
pub mod msgpack;
pub mod pickle;
pub mod postgres;
pub mod process;
pub mod pythons;
pub mod storage;
