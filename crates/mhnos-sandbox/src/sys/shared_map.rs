//! Memory that several of our processes share: the mapping of a sealed memfd, whose words are atomics.

use std::{io, os::fd::BorrowedFd, ptr::NonNull, sync::atomic::AtomicU64};

use rustix::mm::{MapFlags, ProtFlags};

/// A shared, writable mapping of a sealed memfd.
#[derive(Debug)]
pub struct SharedMap {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is owned by this value, lives until drop, and all access is by atomics or under the
// documented exclusion of writers.
unsafe impl Send for SharedMap {}
// SAFETY: as above; `&SharedMap` gives out only atomics and shared slices.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Maps the first `len` bytes of `fd`. The file must be at least that long and sealed against shrinking
    /// (`F_SEAL_SHRINK`), else access could fault: both are checked.
    pub fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(fd)?;
        let size = rustix::fs::fstat(fd)?.st_size as u64;
        if !seals.contains(rustix::fs::SealFlags::SHRINK) || size < len as u64 || len == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a sealed memfd of the expected size",
            ));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { start, len })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mapping is empty; it never is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The 64-bit word at byte `offset` (a multiple of 8) as an atomic.
    ///
    /// # Panics
    /// If the word does not lie in the mapping or is not aligned.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset.is_multiple_of(8) && offset + 8 <= self.len,
            "word {offset} outside a map of {}",
            self.len
        );
        // SAFETY: `offset` is inside the mapping (asserted above).
        let word = unsafe { self.start.add(offset) };
        // SAFETY: mmap aligns to pages and `offset` to 8; the mapping lives as long as `self`; words given
        // out here are only ever accessed as atomics.
        unsafe { AtomicU64::from_ptr(word.as_ptr().cast()) }
    }

    /// The bytes of `range`.
    ///
    /// The caller must hold whatever keeps every writer (the kernel's `splice` into this memfd included)
    /// away from `range` while the slice lives; `mhnos_process::log` does so by its lock.
    ///
    /// # Panics
    /// If the range does not lie in the mapping.
    pub fn bytes(&self, range: std::ops::Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} outside a map of {}", self.len);
        // SAFETY: in bounds (asserted above).
        let first = unsafe { self.start.add(range.start) };
        // SAFETY: initialised (a memfd reads as zeros), in bounds, and not written to while borrowed: the
        // documented duty of the caller.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), range.end - range.start) }
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping and nothing borrowed from it can outlive it.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
