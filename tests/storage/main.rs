//! Storages through their trait, without a network: FileStorage's file, index, blobs, packs, undo and recovery, and the
//! contract of every kind of storage (`contract`). `exchanged_file` and `full_disk` test the same faults through a
//! server, too.

#[path = "../support/mod.rs"]
mod support;

mod basics;
mod blob_packs;
mod blobs;
mod bulk;
mod conflicts;
mod contract;
mod crash;
mod damage;
mod escapes;
mod exchanged_file;
mod familiar;
mod full_disk;
mod mix;
mod model;
mod pack;
mod pack_again;
mod pack_beside;
mod pack_cancel;
mod pack_crash;
mod pack_damage;
mod pack_limits;
mod postgres_blobs;
mod python;
mod relayout;
mod replicable;
mod rewind;
mod shared_blob_dir;
mod undo;
