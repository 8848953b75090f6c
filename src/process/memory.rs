//! How much free memory the C library's allocator may keep.
//!
//! By default glibc adapts to large buffers that are freed: after a message of 30 MB, buffers up to 30 MB do not get
//! pages of their own any more, and each arena, of which there are eight per core, keeps twice as much free memory. A
//! server that received large messages on some connections would keep tens of megabytes permanently and use one.
#![allow(unsafe_code)]

/// Buffers from this size on are returned to the system when they are freed, and an arena returns the free memory at
/// its end beyond this size. Most commits and loads are smaller; larger ones wait for the network or the disk anyway.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 1 << 20;

/// Sets fixed limits, which also turns off the adaptation. The allocator of a static program needs none.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for what in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: it sets a number in the allocator, under the allocator's lock; no memory of the program is touched.
        let accepted = unsafe { libc::mallopt(what, LARGE) };
        debug_assert_eq!(accepted, 1, "mallopt takes sizes up to half of an arena");
    }
}
