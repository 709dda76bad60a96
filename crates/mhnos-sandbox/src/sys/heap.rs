//! What the C library's allocator does with memory that is free.

/// Has all threads share one heap. Each few of them have their own otherwise, of which up to 64 MiB are kept for ever once
/// large blocks were given back, and [`give_back_free_memory`] reaches the end of the first heap only. To be called
/// before there are threads.
pub fn share_one_heap() {
    // SAFETY: mallopt changes a number of the allocator under its own lock; this one is known to it.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives memory that is free, but kept for the next allocations, back to the kernel. Takes milliseconds where there is much.
pub fn give_back_free_memory() {
    // SAFETY: malloc_trim works on the allocator's own lists, under its locks.
    unsafe { libc::malloc_trim(0) };
}
