//! Repositories of zeobackup: every state comes back byte for byte, with its blobs, and no stop at any call of the disk
//! loses a backup or the file that a restore replaces.

mod crash;
mod damage;
mod moments;
mod program;
mod sent;
mod site;
mod streams;
