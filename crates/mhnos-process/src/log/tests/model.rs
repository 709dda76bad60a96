//! Random interleavings of writes, views, interruptions and resumes against a model that knows every byte.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Write(bool, Vec<u8>),
    Flood(bool, u32),
    View {
        viewer: usize,
        max: usize,
    },
    Resume {
        viewer: usize,
    },
    /// A new bridge, after one that was killed at this point of a read.
    Killed(Interruption),
}

/// Where in the writer's sequence of stores the old bridge was killed.
#[derive(Clone, Copy, Debug)]
enum Interruption {
    /// Between two reads.
    Nowhere,
    /// After the header named the stream.
    BeforeSplice(bool),
    /// After the kernel moved bytes.
    AfterSplice(bool, u16),
    /// After the segment's word was stored, before it was counted.
    BeforeCount(bool, u16),
    /// At the end of the ring: after the position went back, before the lap was counted.
    BeforeLap,
}

fn interruption() -> impl Strategy<Value = Interruption> {
    prop_oneof![
        Just(Interruption::Nowhere),
        any::<bool>().prop_map(Interruption::BeforeSplice),
        (any::<bool>(), 1u16..5000).prop_map(|(stream, len)| Interruption::AfterSplice(stream, len)),
        (any::<bool>(), 1u16..5000).prop_map(|(stream, len)| Interruption::BeforeCount(stream, len)),
        Just(Interruption::BeforeLap),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), "[a-zé€😀]{0,40}").prop_map(|(stream, text)| Step::Write(stream, text.into_bytes())),
        2 => (any::<bool>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(s, bytes)| Step::Write(s, bytes)),
        1 => (any::<bool>(), 1u32..100_000).prop_map(|(stream, len)| Step::Flood(stream, len)),
        4 => (0usize..3, prop_oneof![1usize..8, 100usize..200_000]).prop_map(|(viewer, max)| Step::View { viewer, max }),
        1 => (0usize..3).prop_map(|viewer| Step::Resume { viewer }),
        1 => interruption().prop_map(Step::Killed),
    ]
}

fn stream(bit: bool) -> Stream {
    if bit { Stream::Stderr } else { Stream::Stdout }
}

/// Every byte ever written with its stream, and what each viewer must have by now.
struct Model {
    bench: Bench,
    all: Vec<(Stream, u8)>,
    viewers: Vec<(Viewer, Expected)>,
    noise: u32,
}

/// Follows one viewer: checks each piece against the truth.
struct Expected {
    position: u64,
    /// Undecoded bytes of each stream since the last gap, to compare text with.
    since_gap: [Vec<u8>; 2],
    text: [String; 2],
}

impl Expected {
    fn at(position: u64) -> Self {
        Self { position, since_gap: Default::default(), text: Default::default() }
    }

    /// Whatever of a character lies before the oldest byte is lost to one who resumes, and nothing else.
    fn resume(&mut self, all: &[(Stream, u8)], oldest: u64) {
        if self.position < oldest {
            return;
        }
        *self = Self::at(self.position);
        for (stream, byte) in &all[oldest as usize..self.position as usize] {
            self.since_gap[stream.index()].push(*byte);
        }
        for (bytes, text) in self.since_gap.iter().zip(&mut self.text) {
            *text =
                String::from_utf8_lossy(&bytes[..bytes.len() - incomplete_suffix(bytes, &[])]).into_owned();
        }
    }
}

impl Model {
    fn new() -> Self {
        let bench = Bench::new(1);
        let viewers = (0..3).map(|_| (bench.viewer(Replay::Retained), Expected::at(0))).collect();
        Self { bench, all: Vec::new(), viewers, noise: 1 }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Write(bit, bytes) => self.write(stream(bit), &bytes),
            Step::Flood(bit, len) => {
                let bytes = self.bytes(len as usize);
                self.write(stream(bit), &bytes);
            }
            Step::View { viewer, max } => self.view(viewer, max),
            Step::Resume { viewer } => self.resume(viewer),
            Step::Killed(at) => self.kill(at),
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut next = || {
            self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.noise >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.bench.write(stream, bytes);
        self.all.extend(bytes.iter().map(|byte| (stream, *byte)));
    }

    fn view(&mut self, viewer: usize, max: usize) {
        let (viewer, expected) = &mut self.viewers[viewer];
        let all = &self.all;
        let next = viewer.next(max, |piece| {
            assert_eq!(piece.from, expected.position);
            assert!(piece.bytes.len() <= max && !piece.bytes.is_empty());
            let truth = &all[piece.from as usize..piece.end as usize];
            assert!(truth.iter().all(|(stream, _)| *stream == piece.stream));
            assert!(truth.iter().map(|(_, byte)| *byte).eq(piece.bytes.iter().copied()));
            let index = piece.stream.index();
            expected.since_gap[index].extend_from_slice(piece.bytes);
            let joined = [piece.carry, piece.bytes].concat();
            let shown = &joined[..joined.len() - piece.incomplete_suffix()];
            expected.text[index].push_str(&String::from_utf8_lossy(shown));
            piece.end
        });
        match next {
            Next::Nothing => assert_eq!(expected.position, all.len() as u64),
            Next::Output(end) => expected.position = end,
            Next::Gap { from, to } => {
                assert_eq!(from, expected.position);
                assert_eq!(to, all.len() as u64 - self.bench.log().layout.capacity);
                *expected = Expected::at(to);
            }
            Next::Exit(_) => panic!("no exit was set"),
        }
        for (bytes, text) in expected.since_gap.iter().zip(&expected.text) {
            let shown = bytes.len() - incomplete_suffix(bytes, &[]);
            assert_eq!(*text, String::from_utf8_lossy(&bytes[..shown]));
        }
    }

    /// Leaves the file as a bridge killed at that point does, and opens it anew.
    fn kill(&mut self, at: Interruption) {
        let (log, file) = (self.bench.log().clone(), &self.bench.file);
        let capacity = log.layout.capacity;
        let offset = rustix::fs::tell(file).expect("tell");
        match at {
            Interruption::Nowhere => {}
            Interruption::BeforeSplice(bit) => log.set_header(READING, stream(bit).index() as u64),
            Interruption::AfterSplice(bit, len) | Interruption::BeforeCount(bit, len) => {
                let stream = stream(bit);
                log.set_header(READING, stream.index() as u64);
                let bytes = self.bytes((u64::from(len)).min(capacity - offset) as usize);
                assert_eq!(rustix::io::write(&self.bench.file, &bytes).expect("write"), bytes.len());
                self.all.extend(bytes.iter().map(|byte| (stream, *byte)));
                let written = log.header(SEGMENTS_WRITTEN);
                let adds = written == 0 || log.segment(written - 1).1 != stream;
                if matches!(at, Interruption::BeforeCount(..)) && adds && !bytes.is_empty() {
                    log.store_segment(written, self.all.len() as u64, stream);
                }
            }
            Interruption::BeforeLap => {
                let rest = self.bytes((capacity - offset) as usize);
                self.write(Stream::Stdout, &rest);
                rustix::fs::seek(&self.bench.file, rustix::fs::SeekFrom::Start(0)).expect("seek");
            }
        }
        self.bench.reopen();
        (0..self.viewers.len()).for_each(|viewer| self.resume(viewer));
    }

    fn resume(&mut self, viewer: usize) {
        let oldest = (self.all.len() as u64).saturating_sub(self.bench.log().layout.capacity);
        let position = self.viewers[viewer].0.position();
        self.viewers[viewer].0 = self.bench.viewer(Replay::After(position));
        self.viewers[viewer].1.resume(&self.all, oldest);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_viewer_gets_every_byte_once_or_a_gap(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::new();
        for step in steps {
            model.run(step);
        }
        for viewer in 0..3 {
            while model.viewers[viewer].1.position < model.all.len() as u64 {
                model.view(viewer, 70_000);
            }
        }
    }
}
