//! How much free memory the C library's allocator may keep.
//!
//! Left alone, glibc learns from large buffers that were freed: a message of 30 MB raises the size from which buffers
//! get pages of their own to 30 MB, and lets each of its arenas, of which there are eight for a core, keep twice as
//! much. A server that met large messages on some connections then keeps tens of megabytes for good, of which it uses
//! one.
#![allow(unsafe_code)]

/// Buffers from this size on go back to the system when they are freed, and an arena gives back what is free at its
/// end beyond that. A commit or a load is smaller; what is larger waits for the network or the disk anyway.
const LARGE: i32 = 1 << 20;

/// Keeps to a fixed limit, from here on.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for what in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: it sets a number inside of the allocator, under the allocator's lock; no memory of ours is touched.
        let accepted = unsafe { libc::mallopt(what, LARGE) };
        debug_assert_eq!(accepted, 1, "mallopt takes sizes up to half of an arena");
    }
}
