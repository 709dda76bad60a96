//! A viewer: a cursor on one process's output that pulls.

use crate::{exit::ExitRecord, log::Stream};

/// Where a new viewer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// At the oldest byte retained; a gap says what is missing before it.
    Retained,
    /// Just after this position, as an earlier viewer left it. Beyond the log's end: at the end.
    After(u64),
    /// At the end: live output only.
    Nothing,
}

/// One process's output as one reader sees it. Dropping it detaches.
#[derive(Debug)]
pub struct Viewer {
    _private: (),
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<R> {
    /// Nothing yet: wait for the `Notify`.
    Nothing,
    /// These positions are no longer in the log; the viewer has moved to `to`.
    Gap {
        /// Where the viewer was.
        from: u64,
        /// Where it is now.
        to: u64,
    },
    /// What the encoder made of a piece; the viewer has moved past it.
    Output(R),
    /// The process has ended, and all output until then has been handed out. Told once.
    Exit(ExitRecord),
}

/// Adjacent bytes of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Of which stream.
    pub stream: Stream,
    /// The incomplete UTF-8 character (at most 3 bytes) that this stream's earlier pieces ended with. A
    /// text encoder puts it first and keeps an incomplete end back in turn (as decided by
    /// [`Piece::incomplete_suffix`]), unless `last_of_stream`; others ignore it.
    pub carry: &'a [u8],
    /// The bytes. Empty only when `last_of_stream` and there is a carry.
    pub bytes: &'a [u8],
    /// Position of the first of them.
    pub from: u64,
    /// Position after the last of them: the frame's `seq`.
    pub end: u64,
    /// Nothing of this stream follows: an incomplete character is final.
    pub last_of_stream: bool,
    /// It was written after the exit record was made, by a descendant that lingers.
    pub late: bool,
}

impl Piece<'_> {
    /// How many bytes at the end of `carry` and `bytes` together begin a UTF-8 character that is not
    /// complete yet, 0..=3.
    pub fn incomplete_suffix(&self) -> usize {
        todo!()
    }
}

impl Viewer {
    /// Where it is: everything before has been handed out or announced as a gap.
    pub fn position(&self) -> u64 {
        todo!()
    }

    /// Bytes of the log it has not been handed yet.
    pub fn behind(&self) -> u64 {
        todo!()
    }

    /// Hands the next piece of at most `max` bytes (at least 1) to `encode`, which must be quick: the slices
    /// point into the log, and nothing there is overwritten meanwhile. Moves past it.
    pub fn next<R>(&mut self, max: usize, encode: impl FnOnce(Piece<'_>) -> R) -> Next<R> {
        let _ = (max, encode);
        todo!()
    }
}
