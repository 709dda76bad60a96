//! The file behind an output log: made by the keeper, written and read by the bridge's process crate.
//!
//! Three parts: the data ring at offset 0, so that the file position is an offset in it; one page of header
//! words; a ring of segment words. The keeper holds a duplicate of the descriptor and never looks inside:
//! what the parts hold, and how a new bridge finds the truth in them, is told in `mhnos_process::log`.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};

/// Capacities are multiples of this, and at least this: the capacity of a pipe.
pub const CAPACITY_STEP: u64 = 64 * 1024;

/// The largest capacity; more is lowered. One process's log may not take the machine's memory by a typo.
pub const MAX_CAPACITY: u64 = 4 << 30;

/// Entries of the segment ring: enough for 64 bytes of output a segment in the default log of 4 MiB, when
/// a program alternates between its streams without end. Half a MiB, of which only what is used is memory.
pub const SEGMENTS: u64 = 64 * 1024;

/// First header word of a log: its format, version 1.
pub const MAGIC: u64 = u64::from_be_bytes(*b"mhnoslg1");

/// Bytes of the header, a page.
const HEADER_SIZE: u64 = 4096;

/// Where the parts of a log lie, in bytes from the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Size of the data ring, which starts at 0.
    pub capacity: u64,
    /// The header words, each 8 bytes, native order.
    pub header: u64,
    /// The segment words, [`SEGMENTS`] of them.
    pub segments: u64,
    /// The whole file.
    pub size: u64,
}

/// The layout of a log that keeps about this many bytes: rounded up to [`CAPACITY_STEP`].
pub fn layout(capacity: u64) -> Layout {
    let capacity = capacity.clamp(1, MAX_CAPACITY).next_multiple_of(CAPACITY_STEP);
    let segments = capacity + HEADER_SIZE;
    Layout { capacity, header: capacity, segments, size: segments + SEGMENTS * 8 }
}

/// The layout of an existing log, from its size. `InvalidData` if no log has this size.
pub fn layout_of(file: impl AsFd) -> io::Result<Layout> {
    let size = fstat(file)?.st_size as u64;
    let capacity = size.saturating_sub(layout(0).size - CAPACITY_STEP);
    let found = layout(capacity);
    if capacity == 0 || found.size != size {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not the size of an output log"));
    }
    Ok(found)
}

/// A new, empty log: close-on-exec, its size sealed, its file position 0.
pub fn create(capacity: u64) -> io::Result<OwnedFd> {
    let layout = layout(capacity);
    let file = memfd_create("mhnos-log", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, layout.size)?;
    // pwrite, because the file position is the log's own.
    rustix::io::pwrite(&file, &MAGIC.to_ne_bytes(), layout.header)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_found_again_from_the_file() {
        for capacity in [0, 1, CAPACITY_STEP, CAPACITY_STEP + 1, 4 << 20] {
            let file = create(capacity).expect("create");
            assert_eq!(layout_of(&file).expect("layout"), layout(capacity), "{capacity}");
            assert!(layout(capacity).capacity >= capacity);
        }
    }

    #[test]
    fn a_log_cannot_change_its_size() {
        let file = create(1).expect("create");
        assert!(ftruncate(&file, 0).is_err());
        assert!(ftruncate(&file, 1 << 30).is_err());
        assert_eq!(rustix::fs::tell(&file).expect("tell"), 0);
    }

    #[test]
    fn other_files_are_no_logs() {
        let file = memfd_create("x", MemfdFlags::CLOEXEC).expect("memfd");
        assert!(layout_of(&file).is_err());
        ftruncate(&file, layout(1).size + 1).expect("ftruncate");
        assert!(layout_of(&file).is_err());
    }
}
