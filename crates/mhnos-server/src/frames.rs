//! Encoded output frames, shared between the viewers of a process.
//!
//! A hundred people who watch one process would otherwise cost a hundred encodings of the same bytes.
//! Viewers pull independently, so two of them seldom stand at the same place by chance; frames therefore end
//! at fixed positions (multiples of [`limits::FRAME_BYTES`]), and viewers that are behind get equal ones. A
//! process with one viewer keeps nothing here.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use mhnos_process::{Pid, Piece, Stream};
use mhnos_protocol::{binary, output};

use crate::limits;

/// How output is written into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON, the bytes as text.
    Text,
    /// JSON, the bytes in base64.
    Base64,
    /// A binary frame.
    Binary,
}

impl Format {
    /// Whether a frame goes out as a WebSocket text message.
    pub(crate) fn is_text(self) -> bool {
        !matches!(self, Self::Binary)
    }
}

/// What makes two frames equal. The carry does not follow from the position alone: a viewer that stands
/// there after a gap has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    format: Format,
    stream: Stream,
    from: u64,
    end: u64,
    carry: u32,
    last_of_stream: bool,
    late: bool,
}

impl Key {
    fn of(piece: &Piece<'_>, format: Format) -> Self {
        // At most three bytes; a leading one keeps carries of different lengths apart.
        let carry = piece.carry.iter().fold(1, |word: u32, byte| word << 8 | u32::from(*byte));
        let (stream, from, end, last_of_stream) = (piece.stream, piece.from, piece.end, piece.last_of_stream);
        Self { format, stream, from, end, carry, last_of_stream, late: piece.late }
    }
}

/// The frames of one process.
#[derive(Debug)]
struct ProcessFrames {
    pid: Pid,
    recent: Mutex<VecDeque<(Key, Bytes)>>,
    viewers: AtomicUsize,
}

/// A viewer's hold on the frames of its process; it is counted as long as it lives.
#[derive(Debug)]
pub(crate) struct Seat(Arc<ProcessFrames>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seat {
    fn of(frames: Arc<ProcessFrames>) -> Self {
        frames.viewers.fetch_add(1, Ordering::Relaxed);
        Self(frames)
    }

    /// The frame for a piece; `None` if the piece holds no whole character.
    pub(crate) fn frame(&self, piece: &Piece<'_>, format: Format) -> Option<Bytes> {
        let alone = self.0.viewers.load(Ordering::Relaxed) == 1;
        self.0.frame(piece, format, !alone)
    }
}

impl ProcessFrames {
    /// `shared`: somebody else may want it too.
    fn frame(&self, piece: &Piece<'_>, format: Format, shared: bool) -> Option<Bytes> {
        if !shared {
            return encode(self.pid, piece, format);
        }
        let key = Key::of(piece, format);
        // Held while encoding (some microseconds), so that of several viewers one encodes and the others
        // find its frame.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = recent.iter().rev().find(|(other, _)| *other == key) {
            return Some(frame.clone());
        }
        let frame = encode(self.pid, piece, format)?;
        if recent.len() == limits::CACHED_FRAMES {
            recent.pop_front();
        }
        recent.push_back((key, frame.clone()));
        Some(frame)
    }
}

/// How many raw bytes the next frame of a viewer at `position` may hold.
pub(crate) fn room_at(position: u64) -> usize {
    (limits::FRAME_BYTES - position % limits::FRAME_BYTES) as usize
}

fn encode(pid: Pid, piece: &Piece<'_>, format: Format) -> Option<Bytes> {
    let stream = match piece.stream {
        Stream::Stdout => mhnos_protocol::Stream::Stdout,
        Stream::Stderr => mhnos_protocol::Stream::Stderr,
    };
    let mut frame = Vec::new();
    match format {
        Format::Text => {
            let (carry, bytes, flush) = (piece.carry, piece.bytes, piece.last_of_stream);
            output::encode_text(&mut frame, stream, pid, piece.end, carry, bytes, flush).then_some(())?;
        }
        _ if piece.bytes.is_empty() => return None,
        Format::Base64 => output::encode_base64(&mut frame, stream, pid, piece.end, piece.bytes),
        Format::Binary => binary::encode_output(&mut frame, stream, pid, piece.end, piece.bytes),
    }
    if piece.late && format.is_text() {
        // A binary frame has no room to say so; its position behind the exit's does.
        frame.pop();
        frame.extend_from_slice(b",\"late\":true}");
    }
    Some(frame.into())
}

/// The frames of all processes that are being viewed.
#[derive(Debug, Default)]
pub(crate) struct FrameShelf {
    processes: Mutex<HashMap<Pid, Weak<ProcessFrames>>>,
}

impl FrameShelf {
    /// A seat before a process. The frames are forgotten when the last viewer leaves.
    pub(crate) fn seat(&self, pid: Pid) -> Seat {
        Seat::of(frames_of(&mut self.lock(), pid))
    }

    /// The same, if fewer than `most` are taken.
    pub(crate) fn seat_below(&self, most: usize, pid: Pid) -> Option<Seat> {
        let mut processes = self.lock();
        let frames = frames_of(&mut processes, pid);
        (frames.viewers.load(Ordering::Relaxed) < most).then(|| Seat::of(frames))
    }

    /// While it is held no seat is taken.
    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, Weak<ProcessFrames>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn frames_of(processes: &mut HashMap<Pid, Weak<ProcessFrames>>, pid: Pid) -> Arc<ProcessFrames> {
    if let Some(frames) = processes.get(&pid).and_then(Weak::upgrade) {
        return frames;
    }
    processes.retain(|_, frames| frames.strong_count() > 0);
    let frames = Arc::new(ProcessFrames { pid, recent: Mutex::default(), viewers: AtomicUsize::new(0) });
    processes.insert(pid, Arc::downgrade(&frames));
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(from: u64, bytes: &[u8]) -> Piece<'_> {
        Piece {
            stream: Stream::Stdout,
            carry: &[],
            bytes,
            from,
            end: from + bytes.len() as u64,
            last_of_stream: false,
            late: false,
        }
    }

    #[test]
    fn equal_pieces_share_one_encoding() {
        let shelf = FrameShelf::default();
        let one = shelf.seat(1000);
        let alone = one.frame(&piece(0, b"hello\n"), Format::Text).expect("a frame");
        let two = shelf.seat(1000);
        let first = one.frame(&piece(0, b"hello\n"), Format::Text).expect("a frame");
        let second = two.frame(&piece(0, b"hello\n"), Format::Text).expect("a frame");
        assert_eq!(first.as_ptr(), second.as_ptr());
        let raw = two.frame(&piece(0, b"hello\n"), Format::Binary).expect("a frame");
        assert_ne!(first, raw);
        let carried = Piece { carry: &[0xe2, 0x82], ..piece(0, b"\xac\n") };
        assert_ne!(
            one.frame(&carried, Format::Text),
            two.frame(&piece(0, b"\xac\n"), Format::Text),
            "a viewer after a gap has no carry"
        );
        assert_eq!(first, alone);
        assert_ne!(first.as_ptr(), alone.as_ptr());
    }

    #[test]
    fn the_shelf_forgets_processes_nobody_views() {
        let shelf = FrameShelf::default();
        let kept = shelf.seat(1000);
        drop(shelf.seat(1001));
        let _ = shelf.seat(1002);
        assert_eq!(shelf.processes.lock().unwrap().len(), 2);
        drop(kept);
    }

    #[test]
    fn seats_are_counted_and_free_again() {
        let shelf = FrameShelf::default();
        let (one, two) = (shelf.seat(1000), shelf.seat_below(2, 1000));
        assert!(two.is_some() && shelf.seat_below(2, 1000).is_none());
        assert!(shelf.seat_below(2, 1001).is_some(), "another process has its own");
        drop(one);
        assert!(shelf.seat_below(2, 1000).is_some());
    }

    #[test]
    fn frames_end_at_fixed_positions() {
        let whole = limits::FRAME_BYTES as usize;
        assert_eq!((room_at(0), room_at(1), room_at(limits::FRAME_BYTES)), (whole, whole - 1, whole));
    }
}
