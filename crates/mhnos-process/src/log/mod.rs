//! The output log of one process: bounded, with absolute positions, and always recoverable.
//!
//! The log lives in a memfd made by the keeper (`mhnos_keeper::log_file`), of which keeper and bridge hold
//! the same *open file description*. Output is moved with `splice(pipe -> memfd)` at the file position: the
//! kernel takes bytes out of the pipe, puts them into the ring and advances the position in one call, so a
//! bridge killed at any instant has lost and doubled nothing. What the bridge adds is one word a segment:
//!
//! ```text
//! ring      | ...bytes, position p at offset p - lap... |        lap: absolute position of offset 0
//! header    | magic | lap | segments written | stream being read | viewers | from where |
//! segments  | (end position << 1 | stream), ...          |        segment n in slot n % SEGMENTS
//! ```
//!
//! Positions count the bytes of both streams since the start, in the order read. Adjacent bytes of one
//! stream are one segment; extending it is one atomic store, adding one is a store and then the increment
//! of the counter. Whatever was interrupted, [`recover`] ends it: `lap + file position` is where the bytes
//! end, the last segment says up to where they are accounted for, the header of which stream the rest is.
//!
//! The number of viewers is there for the next bridge: what a killed or replaced one showed was being watched, and until
//! they are back ([`RESUME_PATIENCE`](crate::limits::RESUME_PATIENCE)) the program may write no more than half a log,
//! however many bridges that takes. So a flood does not leave behind those who come back to it.
//!
//! In memory, [`OutputLog`] is shared by the one [`LogWriter`] and the viewers. Bytes move outside the
//! lock, on both sides: the writer *reserves* what it may overwrite, a viewer *pins* where it reads, and
//! both are refused what the other holds.

mod cursor;
mod recover;
#[cfg(test)]
mod tests;
mod utf8;
mod writer;

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use mhnos_keeper::log_file::{Layout, SEGMENTS};
use mhnos_sandbox::sys::SharedMap;
use tokio::time::Instant;

pub(crate) use self::{
    cursor::{Slot, Taken},
    recover::recover,
    utf8::{Carry, incomplete_suffix},
    writer::{LogWriter, Moved},
};
use crate::{
    exit::ExitRecord,
    limits::VIEWER_WINDOW,
    threads::{Mutex, MutexGuard, Notify},
};

/// Header words after the magic, as offsets from [`Layout::header`].
const LAP: u64 = 8;
const SEGMENTS_WRITTEN: u64 = 16;
const READING: u64 = 24;
const VIEWERS: u64 = 32;
/// One more than [`Absent::from`]; 0 if nobody is absent.
const ABSENT_FROM: u64 = 40;

/// Which of a process's output streams. A terminal has [`Stream::Stdout`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Descriptor 1, or the terminal.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Stream {
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }

    fn from_bit(bit: u64) -> Self {
        if bit & 1 == 0 { Self::Stdout } else { Self::Stderr }
    }
}

/// The shared part of a log.
#[derive(Debug)]
pub(crate) struct OutputLog {
    map: SharedMap,
    layout: Layout,
    window: Mutex<Window>,
    /// Told when a viewer that held the writer back has moved or gone.
    room: Notify,
}

/// What is in the log, and who reads where.
#[derive(Debug)]
struct Window {
    /// Position after the last byte.
    end: u64,
    /// Position up to which the writer may be writing just now; `end` when it is not.
    reserved: u64,
    /// Segments written since the start.
    written: u64,
    /// Position after the last byte of each stream, 0 if none is retained.
    last_of: [u64; 2],
    /// Whether nothing more of a stream can come.
    ended: [bool; 2],
    /// The process's exit record, once it is made.
    exit: Option<ExitRecord>,
    /// Whether the writer waits for `room`.
    held: bool,
    cursors: Vec<Option<Cursor>>,
    /// Viewers that are expected back.
    absent: Option<Absent>,
    /// Whether who leaves is expected back: this bridge is being replaced.
    leaving: bool,
}

/// Viewers that lost their connection with a bridge.
#[derive(Clone, Copy, Debug)]
struct Absent {
    count: u64,
    /// Where they will go on, as far as is known here.
    from: u64,
    /// Until when they are waited for.
    until: Instant,
}

/// One viewer's place.
#[derive(Debug)]
struct Cursor {
    position: u64,
    /// A slice that starts at `position` is being read.
    pinned: bool,
    /// When it last took something, or was last known to have everything.
    progress: Instant,
    wake: Arc<Notify>,
}

/// What a log holds, in bytes, and how many cursors it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occupancy {
    pub(crate) bytes: u64,
    pub(crate) capacity: u64,
    pub(crate) viewers: u64,
}

/// Whether viewers hold the reading of a process back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// No.
    Free,
    /// Yes, until one of them moves, or at the latest until then.
    Until(Instant),
}

impl OutputLog {
    fn lock(&self) -> MutexGuard<'_, Window> {
        // Nothing panics while it holds the lock with the window half changed.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Position after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.lock().end
    }

    /// How full it is, and who looks at it.
    pub(crate) fn occupancy(&self) -> Occupancy {
        let window = self.lock();
        Occupancy {
            bytes: window.end.saturating_sub(self.oldest(&window)),
            capacity: self.layout.capacity,
            viewers: window.cursors.iter().flatten().count() as u64,
        }
    }

    /// How far a viewer may be behind before it holds the writer back.
    fn viewer_window(&self) -> u64 {
        VIEWER_WINDOW.min(self.layout.capacity / 2)
    }

    /// The most bytes written in one step: so few that nothing within the viewers' window is overwritten.
    fn longest_step(&self) -> u64 {
        self.layout.capacity - self.viewer_window()
    }

    /// Whether viewers hold the writer back. One that has taken nothing for `stall` does not count. If held,
    /// [`OutputLog::room`] tells when to ask again.
    pub(crate) fn held(&self, stall: Duration) -> Held {
        let mut window = self.lock();
        window.held = false;
        if window.cursors.is_empty() && window.absent.is_none() {
            return Held::Free;
        }
        let floor = self.hold_floor(&window);
        let now = Instant::now();
        let absent = self.held_for_absent(&mut window, now);
        let behind = window.cursors.iter().flatten().filter(|cursor| cursor.position < floor);
        let last = behind.map(|cursor| cursor.progress + stall).chain(absent);
        let last = last.filter(|until| *until > now).max();
        window.held = last.is_some();
        last.map_or(Held::Free, Held::Until)
    }

    /// Until when those who are expected back hold the writer.
    fn held_for_absent(&self, window: &mut Window, now: Instant) -> Option<Instant> {
        let absent = window.absent?;
        if absent.until <= now {
            self.forget_absent(window);
            return None;
        }
        (window.end >= absent.from + self.layout.capacity / 2).then_some(absent.until)
    }

    /// Nobody is waited for any more.
    fn forget_absent(&self, window: &mut Window) {
        window.absent = None;
        self.count_viewers(window);
    }

    /// Tells the next bridge how many are viewing, or expected back.
    fn count_viewers(&self, window: &Window) {
        let (absent, from) = window.absent.map_or((0, 0), |absent| (absent.count, absent.from + 1));
        self.set_header(VIEWERS, window.cursors.iter().flatten().count() as u64 + absent);
        self.set_header(ABSENT_FROM, from);
    }

    /// This bridge is being replaced: whoever leaves is expected back.
    pub(crate) fn viewers_will_be_back(&self) {
        self.lock().leaving = true;
    }

    /// Resolves when a viewer that held the writer back has moved or gone.
    pub(crate) async fn room(&self) {
        self.room.notified().await;
    }

    /// Viewers before this position are too far behind, in bytes or in segments.
    fn hold_floor(&self, window: &Window) -> u64 {
        let by_bytes = window.end.saturating_sub(self.viewer_window());
        let by_segments = match window.written.checked_sub(SEGMENTS / 2) {
            Some(segment) => self.segment(segment).0,
            None => 0,
        };
        by_bytes.max(by_segments)
    }

    /// The oldest position retained.
    fn oldest(&self, window: &Window) -> u64 {
        let by_bytes = window.reserved.saturating_sub(self.layout.capacity);
        // The slot that is overwritten next: only its end still counts, as the start of the following one.
        let by_segments = match window.written.checked_sub(SEGMENTS) {
            Some(segment) => self.segment(segment).0,
            None => 0,
        };
        by_bytes.max(by_segments)
    }

    /// End position and stream of segment `number`, one of the last [`SEGMENTS`].
    fn segment(&self, number: u64) -> (u64, Stream) {
        let word =
            self.map.word((self.layout.segments + number % SEGMENTS * 8) as usize).load(Ordering::Acquire);
        (word >> 1, Stream::from_bit(word))
    }

    fn store_segment(&self, number: u64, end: u64, stream: Stream) {
        let word = self.map.word((self.layout.segments + number % SEGMENTS * 8) as usize);
        word.store(end << 1 | stream.index() as u64, Ordering::Release);
    }

    fn header(&self, offset: u64) -> u64 {
        self.map.word((self.layout.header + offset) as usize).load(Ordering::Acquire)
    }

    fn set_header(&self, offset: u64, value: u64) {
        self.map.word((self.layout.header + offset) as usize).store(value, Ordering::Release);
    }

    /// The last `len` bytes have become part of `stream`: accounts for them.
    fn commit(&self, stream: Stream, len: u64) {
        let mut window = self.lock();
        let before = window.end;
        let end = before + len;
        match window.written.checked_sub(1).map(|last| (last, self.segment(last).1)) {
            Some((last, same)) if same == stream => self.store_segment(last, end, stream),
            _ => {
                self.store_segment(window.written, end, stream);
                window.written += 1;
                self.set_header(SEGMENTS_WRITTEN, window.written);
            }
        }
        window.end = end;
        window.reserved = end;
        window.last_of[stream.index()] = end;
        let mut caught_up =
            window.cursors.iter_mut().flatten().filter(|cursor| cursor.position == before).peekable();
        if caught_up.peek().is_some() {
            let now = Instant::now();
            caught_up.for_each(|cursor| cursor.progress = now);
        }
    }

    /// Nothing more of `stream` can come.
    pub(crate) fn end_stream(&self, stream: Stream) {
        self.lock().ended[stream.index()] = true;
    }

    /// The process has ended: viewers are told when they get there.
    pub(crate) fn set_exit(&self, record: ExitRecord) {
        self.lock().exit = Some(record);
    }

    /// Tells all viewers that there is something new.
    pub(crate) fn wake_viewers(&self) {
        for cursor in self.lock().cursors.iter().flatten() {
            cursor.wake.notify_one();
        }
    }
}
