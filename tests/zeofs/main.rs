//! `zeofs`: what it says of files that ZODB has made, whole, in use and damaged; and under the names of ZODB's tools,
//! that it prints what they print.

#[path = "../support/mod.rs"]
mod support;

#[path = "../client/servers.rs"]
#[allow(dead_code)] // by other programs
mod servers;

mod copy;
mod damage;
mod diff;
mod dump;
mod files;
mod follow;
mod gc;
mod layout;
mod pack_plan;
mod random;
mod recover;
mod refs;
mod served;
mod served_follow;
mod served_hostile;
mod stats;
mod tools;
mod trees;
