//! The writing side: moves bytes from a pipe or terminal into the ring. One per log, owned by the process's
//! task.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
    pipe::{SpliceFlags, splice},
};

use super::{LAP, OutputLog, READING, Stream};

/// The pipe between a terminal and the log: the kernel splices only from or into pipes. The keeper holds it
/// too, so that what is in it survives the bridge.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
    /// Bytes in it.
    pub(super) filled: usize,
}

/// The one writer of a log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    pub(super) file: OwnedFd,
    pub(super) scratch: Option<Scratch>,
    pub(super) log: Arc<OutputLog>,
    /// Absolute position of ring offset 0.
    pub(super) lap: u64,
    /// The file position.
    pub(super) offset: u64,
    /// The stream the header names.
    pub(super) reading: Stream,
}

/// What one step achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// So many bytes were moved; there may be more.
    Bytes(usize),
    /// There is nothing now.
    Empty,
    /// There is nothing, and no one has the other end open.
    Ended,
    /// A viewer is reading what would be overwritten; it will be done in microseconds.
    Pinned,
}

impl LogWriter {
    /// The log it writes.
    pub(crate) fn log(&self) -> &Arc<OutputLog> {
        &self.log
    }

    /// Moves at most `max` bytes from the non-blocking read end of a pipe.
    pub(crate) fn move_pipe(
        &mut self,
        stream: Stream,
        pipe: BorrowedFd<'_>,
        max: usize,
    ) -> io::Result<Moved> {
        let len = self.space(max)?;
        if !self.log.reserve(len) {
            return Ok(Moved::Pinned);
        }
        if self.reading != stream {
            self.log.set_header(READING, stream.index() as u64);
            self.reading = stream;
        }
        match splice_some(pipe, self.file.as_fd(), len) {
            Ok(0) => {
                self.log.unreserve();
                Ok(Moved::Ended)
            }
            Ok(moved) => {
                self.offset += moved as u64;
                self.log.commit(stream, moved as u64);
                Ok(Moved::Bytes(moved))
            }
            Err(Errno::AGAIN) => {
                self.log.unreserve();
                Ok(Moved::Empty)
            }
            Err(errno) => {
                self.log.unreserve();
                Err(errno.into())
            }
        }
    }

    /// Moves at most `max` bytes from the non-blocking master of a terminal, through the scratch pipe.
    /// [`Moved::Ended`] means that no program has the terminal open just now.
    pub(crate) fn move_terminal(&mut self, master: BorrowedFd<'_>, max: usize) -> io::Result<Moved> {
        let Some(scratch) = &mut self.scratch else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a terminal without a scratch pipe"));
        };
        if scratch.filled == 0 {
            match splice_some(master, scratch.write.as_fd(), max) {
                Ok(moved) => scratch.filled = moved,
                Err(Errno::AGAIN) => return Ok(Moved::Empty),
                // The kernel's word for a master whose slave nobody has open (pty(7) leaves it out).
                Err(Errno::IO) => return Ok(Moved::Ended),
                Err(errno) => return Err(errno.into()),
            }
            if scratch.filled == 0 {
                return Ok(Moved::Ended);
            }
        }
        self.empty_scratch()
    }

    /// Moves what is in the scratch pipe.
    pub(super) fn empty_scratch(&mut self) -> io::Result<Moved> {
        let Some(mut scratch) = self.scratch.take() else { return Ok(Moved::Empty) };
        let mut total = 0;
        let outcome = loop {
            if scratch.filled == 0 {
                break Ok(Moved::Bytes(total));
            }
            match self.move_pipe(Stream::Stdout, scratch.read.as_fd(), scratch.filled) {
                Ok(Moved::Bytes(moved)) => {
                    scratch.filled -= moved;
                    total += moved;
                }
                Ok(Moved::Pinned) if total > 0 => break Ok(Moved::Bytes(total)),
                Ok(Moved::Pinned) => break Ok(Moved::Pinned),
                // Cannot be: this process holds the write end, and knows what it put in.
                Ok(Moved::Empty | Moved::Ended) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => break Err(error),
            }
        };
        self.scratch = Some(scratch);
        outcome
    }

    /// How many of `max` bytes fit before the ring's end; begins a new lap when none would.
    fn space(&mut self, max: usize) -> io::Result<usize> {
        let capacity = self.log.layout.capacity;
        if self.offset == capacity {
            // In this order: `recover` knows a position that went back before the lap was counted.
            seek(&self.file, SeekFrom::Start(0))?;
            self.offset = 0;
            self.lap += capacity;
            self.log.set_header(LAP, self.lap);
        }
        Ok(self.log.longest_step().min(capacity - self.offset).min(max as u64) as usize)
    }
}

/// One splice at the files' own positions, never waiting.
fn splice_some(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> rustix::io::Result<usize> {
    loop {
        match splice(from, None, to, None, len, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

impl OutputLog {
    /// Announces that the `len` bytes after the end may be written. Refused while a viewer reads bytes that
    /// would be overwritten.
    fn reserve(&self, len: usize) -> bool {
        let mut window = self.lock();
        let reserved = window.end + len as u64;
        let floor = reserved.saturating_sub(self.layout.capacity);
        if window.cursors.iter().flatten().any(|cursor| cursor.pinned && cursor.position < floor) {
            return false;
        }
        window.reserved = reserved;
        true
    }

    fn unreserve(&self) {
        let mut window = self.lock();
        window.reserved = window.end;
    }
}
