//! What the C library's allocator does with memory that is free.

/// Blocks of this size are mappings of their own, which go back to the kernel when they are free.
const MAPPED: i32 = 1 << 20;
/// Free memory at the end of a heap that is kept for the next blocks.
const KEPT: i32 = 2 << 20;

/// Has large blocks go back to the kernel as soon as they are free. By itself the allocator takes the first large block
/// that is given back for a sign that more will come: later ones are cut from heaps, one for every few threads, and up to 64 MiB
/// of each are kept for ever.
pub fn give_large_blocks_back() {
    // SAFETY: mallopt changes numbers of the allocator under its own lock; both are known to it.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED) };
    // SAFETY: as above.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT) };
}
