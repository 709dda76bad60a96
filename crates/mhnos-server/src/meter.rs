//! Counts the frames a client sends, from their heads alone (RFC 6455, section 5.2): how many fragments a message has,
//! and how many frames come a second. What is wrong with a frame is the WebSocket library's affair.

use std::time::Duration;

use tokio::time::Instant;

use crate::{limits, stream::Excess};

/// Longest head: two bytes, eight of length, four of mask.
const MAX_HEAD: usize = 14;

/// Largest payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL: u64 = 125;

/// Counts over the bytes of one connection, however they are cut.
#[derive(Debug)]
pub(crate) struct FrameMeter {
    head: [u8; MAX_HEAD],
    /// How much of the head is there.
    have: usize,
    /// How much of the frame's payload is still to come.
    payload: u64,
    /// The frame is one that stands for itself, and has the size of one.
    control: bool,
    /// Of the message that has begun.
    fragments: usize,
    /// How many frames may come now; below zero they came too fast.
    level: f64,
    since: Instant,
}

/// What the meter has taken notice of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fed {
    /// So many bytes.
    pub(crate) bytes: usize,
    /// So many of them are a message's: they are held until it is whole, whatever pings come in between.
    pub(crate) held: usize,
}

impl FrameMeter {
    pub(crate) fn new(now: Instant) -> Self {
        let level = limits::FRAME_BURST;
        Self { head: [0; MAX_HEAD], have: 0, payload: 0, control: false, fragments: 0, level, since: now }
    }

    /// Takes notice of bytes that came, up to the payload of a large frame.
    pub(crate) fn feed(&mut self, all: &[u8]) -> Result<Fed, Excess> {
        let (mut bytes, mut held) = (all, 0);
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skip = bytes.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
                self.payload -= skip as u64;
                held += if self.control { 0 } else { skip };
                bytes = &bytes[skip..];
                continue;
            }
            let missing = self.head_length() - self.have;
            let take = missing.min(bytes.len());
            self.head[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have >= 2 && self.have == self.head_length() {
                let head = self.have;
                self.begin_frame()?;
                held += if self.control { 0 } else { head };
                if self.payload > limits::FREE_MESSAGE as u64 {
                    break;
                }
            }
        }
        Ok(Fed { bytes: all.len() - bytes.len(), held })
    }

    /// As long as the first two bytes are not there, those.
    fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.head[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn begin_frame(&mut self) -> Result<(), Excess> {
        let extended = |bytes: &[u8]| bytes.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        self.payload = match self.head[1] & 0x7f {
            126 => extended(&self.head[2..4]),
            127 => extended(&self.head[2..10]),
            short => u64::from(short),
        };
        self.have = 0;
        self.level -= 1.0;
        let (last, opcode) = (self.head[0] & 0x80 != 0, self.head[0] & 0x0f);
        // A larger one is an error, which the library sees when all of it is there.
        self.control = opcode >= 8 && self.payload <= MAX_CONTROL;
        if opcode >= 8 {
            return Ok(());
        }
        self.fragments += 1;
        if self.fragments > limits::MAX_FRAGMENTS {
            return Err(Excess::Fragments);
        }
        if last {
            self.fragments = 0;
        }
        Ok(())
    }

    /// How long to read nothing more, if frames come faster than is allowed.
    pub(crate) fn pause(&mut self, now: Instant) -> Option<Duration> {
        let gained = now.saturating_duration_since(self.since).as_secs_f64() * limits::FRAMES_PER_SECOND;
        self.level = (self.level + gained).min(limits::FRAME_BURST);
        self.since = now;
        (self.level < 0.0).then(|| Duration::from_secs_f64(-self.level / limits::FRAMES_PER_SECOND))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload {
            0..126 => bytes.push(0x80 | payload as u8),
            126..65536 => {
                bytes.push(0xfe);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0xff);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.resize(bytes.len() + payload, b'x');
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_has_a_bounded_number_of_fragments() {
        let mut meter = FrameMeter::new(Instant::now());
        meter.feed(&frame(0x01, 1)).expect("the first");
        for _ in 1..limits::MAX_FRAGMENTS {
            meter.feed(&frame(0x00, 1)).expect("within the bound");
            meter.feed(&frame(0x89, 3)).expect("a ping between is none of them");
        }
        assert_eq!(meter.feed(&frame(0x00, 1)), Err(Excess::Fragments));
    }

    #[tokio::test(start_paused = true)]
    async fn whole_messages_are_no_fragments_but_are_paced() {
        let now = Instant::now();
        let mut meter = FrameMeter::new(now);
        for _ in 0..limits::FRAME_BURST as usize {
            meter.feed(&frame(0x81, 0)).expect("whole");
        }
        assert_eq!(meter.pause(now), None);
        meter.feed(&frame(0x8a, 0)).expect("one more");
        let pause = meter.pause(now).expect("too fast");
        assert!(pause <= Duration::from_secs_f64(1.01 / limits::FRAMES_PER_SECOND));
        assert_eq!(meter.pause(now + pause + Duration::from_micros(1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_holds_its_fragments_and_no_pings() {
        let mut meter = FrameMeter::new(Instant::now());
        let (fragment, ping, too_large) = (frame(0x00, 1000), frame(0x89, 125), frame(0x89, 126));
        let bytes = [&fragment[..], &ping, &fragment, &too_large].concat();
        let held: usize = bytes.chunks(7).map(|piece| meter.feed(piece).expect("no excess").held).sum();
        assert_eq!(held, 2 * fragment.len() + too_large.len());
    }

    proptest! {
        #[test]
        fn frames_are_counted_however_they_are_cut(
            payloads in proptest::collection::vec(prop_oneof![0..200usize, 65_000..70_000usize], 1..6),
            cuts in proptest::collection::vec(1..5000usize, 1..20),
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|payload| frame(0x81, *payload)).collect();
            let mut meter = FrameMeter::new(Instant::now());
            let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let part = &rest[..rest.len().min(cuts.next().unwrap_or(1))];
                let taken = meter.feed(part).expect("no excess").bytes;
                prop_assert!(taken == part.len() || meter.payload > limits::FREE_MESSAGE as u64);
                rest = &rest[taken..];
            }
            prop_assert_eq!((limits::FRAME_BURST - meter.level) as usize, payloads.len());
            prop_assert_eq!((meter.payload, meter.have), (0, 0));
        }

        #[test]
        fn arbitrary_bytes_are_counted_too(bytes: Vec<u8>) {
            let _ = FrameMeter::new(Instant::now()).feed(&bytes);
        }
    }
}
