//! The client half: connections to servers of all generations, the cache and its tools.

#[path = "../support/mod.rs"]
mod support;

mod blob_cuts;
mod blob_eviction;
mod blob_library;
mod blob_middle;
mod blob_sharing;
mod blob_transfers;
mod blob_waits;
mod blobs;
mod btrees;
mod cache;
mod cache_crash;
mod cache_damage;
mod cache_live;
mod cache_python;
mod cache_spans;
mod connector;
mod dial;
mod every_call;
mod eviction;
mod extension_methods;
mod golden;
mod history;
#[allow(dead_code)]
#[path = "../server/tls/identities.rs"]
mod identities;
mod library;
mod line;
mod link;
mod load_lanes;
mod lost_votes;
mod middle;
mod middle_commits;
mod passwords;
mod proxy;
mod python_cache;
mod raw_blobs;
mod records;
mod servers;
mod tls;
mod tools;
mod trace;
mod verification;
mod view_restore;
mod zeocache_files;
mod zeocache_simulate;
mod zeocache_stats;
mod zeoup;

/// The example, whose `main` is not called here.
#[allow(dead_code)]
#[path = "../../examples/zeo_client.rs"]
mod zeo_client;

/// The same.
#[allow(dead_code)]
#[path = "../../examples/zeo_objects.rs"]
mod zeo_objects;

use support::pythons;
