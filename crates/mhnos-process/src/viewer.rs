//! A viewer: a cursor on one process's output that pulls.
//!
//! Nothing is queued for a viewer. It is woken, takes pieces straight out of the log at its own pace, and
//! how far it got is what flow control looks at. What it has to remember is its position and, for each
//! stream, the bytes of a character that is not complete yet; both can be found again from the position
//! alone, so a client that reconnects goes on with [`Replay::After`].

use std::sync::Arc;

use crate::{
    exit::ExitRecord,
    log::{Carry, OutputLog, Slot, Stream, Taken, incomplete_suffix},
    threads::Notify,
};

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
    log: Arc<OutputLog>,
    slot: Slot,
    carry: [Carry; 2],
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
        incomplete_suffix(self.carry, self.bytes)
    }
}

impl Viewer {
    pub(crate) fn new(log: Arc<OutputLog>, replay: Replay, wake: Arc<Notify>) -> Self {
        let position = match replay {
            Replay::Retained => 0,
            Replay::After(position) => position,
            Replay::Nothing => u64::MAX,
        };
        let resumes = matches!(replay, Replay::After(_));
        let (slot, carry) = log.attach(position, resumes, wake);
        Self { log, slot, carry }
    }

    /// Where it is: everything before has been handed out or announced as a gap.
    pub fn position(&self) -> u64 {
        self.log.position(&self.slot).0
    }

    /// Bytes of the log it has not been handed yet.
    pub fn behind(&self) -> u64 {
        self.log.position(&self.slot).1
    }

    /// Hands the next piece of at most `max` bytes (at least 1) to `encode`, which must be quick: the slices
    /// point into the log, and the process is not read past them meanwhile. Moves past it; not if `encode`
    /// panics.
    pub fn next<R>(&mut self, max: usize, encode: impl FnOnce(Piece<'_>) -> R) -> Next<R> {
        self.next_cut(max, <[u8]>::len, encode)
    }

    /// The same, with the piece shortened to what `cut` says (at least 1 byte): the rest comes next.
    pub fn next_cut<R>(
        &mut self,
        max: usize,
        cut: impl FnOnce(&[u8]) -> usize,
        encode: impl FnOnce(Piece<'_>) -> R,
    ) -> Next<R> {
        let incomplete = self.carry.map(|carry| !carry.as_bytes().is_empty());
        match self.log.take(&mut self.slot, max, incomplete) {
            Taken::Nothing => Next::Nothing,
            Taken::Exit(record) => Next::Exit(record),
            Taken::Gap { from, to } => {
                self.carry = [Carry::default(); 2];
                Next::Gap { from, to }
            }
            Taken::Rest { stream, at, late } => {
                let carry = std::mem::take(&mut self.carry[stream.index()]);
                let (carry, bytes) = (carry.as_bytes(), &[][..]);
                Next::Output(encode(Piece {
                    stream,
                    carry,
                    bytes,
                    from: at,
                    end: at,
                    last_of_stream: true,
                    late,
                }))
            }
            Taken::Bytes { stream, from, end, last_of_stream, late } => {
                let mut pin = Pin { log: &self.log, slot: &self.slot, reached: None };
                let carry = &mut self.carry[stream.index()];
                let whole = self.log.bytes(from..end);
                let bytes = &whole[..cut(whole).clamp(1, whole.len())];
                let end = from + bytes.len() as u64;
                let last_of_stream = last_of_stream && bytes.len() == whole.len();
                let piece = Piece { stream, carry: carry.as_bytes(), bytes, from, end, last_of_stream, late };
                let output = encode(piece);
                *carry =
                    if last_of_stream { Carry::default() } else { Carry::after(carry.as_bytes(), bytes) };
                pin.reached = Some(end);
                Next::Output(output)
            }
        }
    }
}

/// Keeps the writer away from what is being read, also if the encoder panics.
struct Pin<'a> {
    log: &'a OutputLog,
    slot: &'a Slot,
    reached: Option<u64>,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.log.advance(self.slot, self.reached);
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.log.detach(&self.slot);
    }
}
