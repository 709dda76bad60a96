//! The reading side: where viewers are, what comes next for them, and what was incomplete before.

use std::{ops::Range, sync::Arc};

use mhnos_keeper::log_file::SEGMENTS;
use tokio::time::Instant;

use super::{Absent, Carry, Cursor, OutputLog, Stream, Window, utf8::MAX_CARRY};
use crate::{exit::ExitRecord, limits::RESUME_PATIENCE, threads::Notify};

/// A viewer's place in a log. Given back with [`OutputLog::detach`].
#[derive(Debug)]
pub(crate) struct Slot {
    index: usize,
    /// The segment of the cursor's position, or an earlier one: where to look first.
    segment: u64,
    /// Whether the exit has been told.
    exit_told: bool,
}

/// What comes next at a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing yet.
    Nothing,
    /// The bytes between are gone; the cursor has moved.
    Gap { from: u64, to: u64 },
    /// Bytes, which are pinned until [`OutputLog::advance`].
    Bytes { stream: Stream, from: u64, end: u64, last_of_stream: bool, late: bool },
    /// The stream has ended, and the caller has an incomplete character of it.
    Rest { stream: Stream, at: u64, late: bool },
    /// The process has ended.
    Exit(ExitRecord),
}

impl OutputLog {
    /// A new cursor at `position`, or at the end if that is beyond it. The carries of both streams there. Who `resumes` is
    /// one of those that are waited for; others may be new.
    pub(crate) fn attach(&self, position: u64, resumes: bool, wake: Arc<Notify>) -> (Slot, [Carry; 2]) {
        let mut window = self.lock();
        let position = position.min(window.end);
        let carries = self.carries_before(&window, position);
        let cursor = Cursor { position, pinned: false, progress: Instant::now(), wake };
        let index = window.cursors.iter().position(Option::is_none).unwrap_or(window.cursors.len());
        if index == window.cursors.len() {
            window.cursors.push(None);
        }
        window.cursors[index] = Some(cursor);
        if let Some(absent) = window.absent.as_mut().filter(|_| resumes) {
            absent.count -= 1;
            if absent.count == 0 {
                window.absent = None;
                self.tell_room(&mut window);
            }
        }
        self.count_viewers(&window);
        (Slot { index, segment: 0, exit_told: false }, carries)
    }

    pub(crate) fn detach(&self, slot: &Slot) {
        let mut window = self.lock();
        let cursor = window.cursors[slot.index].take();
        if let Some(cursor) = cursor.filter(|_| window.leaving) {
            let before = window.absent.map_or((0, cursor.position), |absent| (absent.count, absent.from));
            let (count, from) = (before.0 + 1, before.1.min(cursor.position));
            window.absent = Some(Absent { count, from, until: Instant::now() + RESUME_PATIENCE });
        }
        self.count_viewers(&window);
        while let Some(None) = window.cursors.last() {
            window.cursors.pop();
        }
        self.tell_room(&mut window);
    }

    /// The cursor's position and how many bytes are after it.
    pub(crate) fn position(&self, slot: &Slot) -> (u64, u64) {
        let window = self.lock();
        let position = window.cursor(slot).position;
        (position, window.end - position)
    }

    /// Decides what comes next, and pins it if it is bytes. `carry` says of which streams the viewer keeps an
    /// incomplete character.
    pub(crate) fn take(&self, slot: &mut Slot, max: usize, carry: [bool; 2]) -> Taken {
        let mut window = self.lock();
        let oldest = self.oldest(&window);
        let position = window.cursor(slot).position;
        if position < oldest {
            window.cursor_mut(slot).position = oldest;
            return Taken::Gap { from: position, to: oldest };
        }
        let late = window.exit.is_some_and(|exit| position >= exit.end_position);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let index = stream.index();
            if carry[index] && window.ended[index] && window.last_of[index] <= position {
                return Taken::Rest { stream, at: position, late: slot.exit_told };
            }
        }
        if let Some(exit) = window.exit.filter(|_| late && !slot.exit_told) {
            slot.exit_told = true;
            return Taken::Exit(exit);
        }
        if position == window.end {
            return Taken::Nothing;
        }
        let (number, segment_end, stream) = self.segment_at(&window, slot.segment, position);
        slot.segment = number;
        let mut end = segment_end.min(position.saturating_add(max.max(1) as u64));
        // Neither over the ring's end nor over the exit.
        end = end.min(position - position % self.layout.capacity + self.layout.capacity);
        if let Some(exit) = window.exit.filter(|_| !late) {
            end = end.min(exit.end_position);
        }
        let last_of_stream = window.ended[stream.index()] && end >= window.last_of[stream.index()];
        window.cursor_mut(slot).pinned = true;
        Taken::Bytes { stream, from: position, end, last_of_stream, late: slot.exit_told }
    }

    /// The bytes of a range that is pinned (or held still by the lock): inside one lap of the ring.
    pub(crate) fn bytes(&self, range: Range<u64>) -> &[u8] {
        let start = range.start % self.layout.capacity;
        self.map.bytes(start as usize..(start + (range.end - range.start)) as usize)
    }

    /// Ends a pin; moves the cursor if `to` is given.
    pub(crate) fn advance(&self, slot: &Slot, to: Option<u64>) {
        let mut window = self.lock();
        let cursor = window.cursor_mut(slot);
        cursor.pinned = false;
        if let Some(to) = to {
            cursor.position = to;
            cursor.progress = Instant::now();
            if window.held && to >= self.hold_floor(&window) {
                self.tell_room(&mut window);
            }
        }
    }

    fn tell_room(&self, window: &mut Window) {
        if std::mem::take(&mut window.held) {
            self.room.notify_one();
        }
    }

    /// The segment that holds `position` (which must be retained and before the end): its number, end and stream.
    fn segment_at(&self, window: &Window, hint: u64, position: u64) -> (u64, u64, Stream) {
        // The oldest slot's segment is no longer whole: see `oldest`.
        let mut low = hint.max((window.written + 1).saturating_sub(SEGMENTS));
        for number in [low, low + 1] {
            if number >= window.written {
                break;
            }
            let (end, stream) = self.segment(number);
            if end > position {
                return (number, end, stream);
            }
        }
        let mut high = window.written - 1;
        while low < high {
            let middle = low + (high - low) / 2;
            if self.segment(middle).0 > position { high = middle } else { low = middle + 1 }
        }
        let (end, stream) = self.segment(low);
        (low, end, stream)
    }

    /// What each stream's bytes before `position` end with, as far as they are retained.
    fn carries_before(&self, window: &Window, position: u64) -> [Carry; 2] {
        let oldest = self.oldest(window);
        let mut carries = [Carry::default(); 2];
        // The bytes found so far of each stream, last ones first found; `None` when nothing more is needed.
        let mut found = [Some(Vec::new()), Some(Vec::new())];
        let mut upper = position;
        if position <= oldest || window.written == 0 {
            return carries;
        }
        let mut number = self.segment_at(window, 0, position - 1).0;
        while upper > oldest && found.iter().any(Option::is_some) {
            let stream = self.segment(number).1;
            let lower = self.segment_start(window, number).max(oldest);
            let index = stream.index();
            if let Some(tail) = &mut found[index] {
                let from = upper.saturating_sub(MAX_CARRY as u64).max(lower);
                let mut joined = self.bytes_over_laps(from..upper);
                joined.append(tail);
                *tail = joined;
                carries[index] = Carry::after(&[], tail);
                if tail.len() >= MAX_CARRY || tail.iter().any(|byte| byte & 0xC0 != 0x80) {
                    found[index] = None;
                }
            }
            upper = lower;
            match number.checked_sub(1) {
                Some(before) if before + SEGMENTS > window.written => number = before,
                _ => break,
            }
        }
        carries
    }

    fn segment_start(&self, window: &Window, number: u64) -> u64 {
        match number.checked_sub(1) {
            Some(before) if before + SEGMENTS >= window.written => self.segment(before).0,
            _ => 0,
        }
    }

    fn bytes_over_laps(&self, range: Range<u64>) -> Vec<u8> {
        range.map(|position| self.bytes(position..position + 1)[0]).collect()
    }
}

impl Window {
    fn cursor(&self, slot: &Slot) -> &Cursor {
        self.cursors[slot.index].as_ref().expect("a slot's cursor lives until it is detached")
    }

    fn cursor_mut(&mut self, slot: &Slot) -> &mut Cursor {
        self.cursors[slot.index].as_mut().expect("a slot's cursor lives until it is detached")
    }
}
