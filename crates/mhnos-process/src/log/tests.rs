//! The log at its boundaries: wrapping, segments, characters, pins, flow control. `model` compares random
//! histories with the truth; `killed` really kills a writer.

mod killed;
mod model;
#[cfg(feature = "model-threads")]
mod threads;

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use mhnos_keeper::log_file;
use rustix::pipe::{PipeFlags, pipe_with};

use super::*;
use crate::{
    limits::RESUME_PATIENCE,
    viewer::{Next, Replay, Viewer},
};

/// A log with a pipe for each stream, as the process's task sees them.
struct Bench {
    file: OwnedFd,
    writer: LogWriter,
    pipes: [(OwnedFd, OwnedFd); 2],
}

fn nonblocking_pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("pipe")
}

impl Bench {
    fn new(capacity: u64) -> Self {
        let file = log_file::create(capacity).expect("create");
        let writer = recover(file.try_clone().expect("dup"), None).expect("open");
        Self { file, writer, pipes: [nonblocking_pipe(), nonblocking_pipe()] }
    }

    /// What the program writes, and the task reads at once.
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        for chunk in bytes.chunks(16 * 1024) {
            let (read, write) = &self.pipes[stream.index()];
            assert_eq!(rustix::io::write(write, chunk).expect("write"), chunk.len());
            let mut left = chunk.len();
            while left > 0 {
                match self.writer.move_pipe(stream, read.as_fd(), left).expect("move") {
                    Moved::Bytes(moved) => left -= moved,
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// A new bridge: nothing but the file is left.
    fn reopen(&mut self) {
        self.writer = recover(self.file.try_clone().expect("dup"), None).expect("recover");
    }

    fn log(&self) -> &Arc<OutputLog> {
        self.writer.log()
    }

    fn viewer(&self, replay: Replay) -> Viewer {
        Viewer::new(self.log().clone(), replay, Arc::new(Notify::new()))
    }
}

/// Everything a viewer gets now: bytes of each stream as text and raw, and gaps.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    raw: [Vec<u8>; 2],
    text: [String; 2],
    gaps: Vec<(u64, u64)>,
    exits: usize,
}

fn drain(viewer: &mut Viewer, max: usize, seen: &mut Seen) {
    loop {
        let next = viewer.next(max, |piece| {
            let index = piece.stream.index();
            seen.raw[index].extend_from_slice(piece.bytes);
            let mut joined = piece.carry.to_vec();
            joined.extend_from_slice(piece.bytes);
            let keep = if piece.last_of_stream { 0 } else { piece.incomplete_suffix() };
            seen.text[index].push_str(&String::from_utf8_lossy(&joined[..joined.len() - keep]));
            assert_eq!(piece.end - piece.from, piece.bytes.len() as u64);
        });
        match next {
            Next::Nothing => return,
            Next::Gap { from, to } => seen.gaps.push((from, to)),
            Next::Output(()) => {}
            Next::Exit(_) => seen.exits += 1,
        }
    }
}

fn seen(mut viewer: Viewer) -> Seen {
    let mut seen = Seen::default();
    drain(&mut viewer, 1000, &mut seen);
    seen
}

#[test]
fn replay_reports_a_gap_when_the_log_wrapped() {
    let mut bench = Bench::new(1);
    let capacity = bench.log().layout.capacity;
    let all: Vec<u8> = (0..capacity * 3 + 77).map(|i| (i % 251) as u8).collect();
    bench.write(Stream::Stdout, &all);
    let seen = seen(bench.viewer(Replay::Retained));
    assert_eq!(seen.gaps, [(0, capacity * 2 + 77)]);
    assert!(seen.raw[0] == all[all.len() - capacity as usize..]);
}

#[test]
fn more_segments_than_fit_drop_the_oldest_output_with_a_gap() {
    let mut bench = Bench::new(log_file::SEGMENTS * 4);
    let total = log_file::SEGMENTS + 1000;
    for n in 0..total {
        bench.write(if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr }, &[n as u8]);
    }
    for _ in 0..2 {
        let seen = seen(bench.viewer(Replay::Retained));
        assert_eq!(seen.gaps, [(0, 1001)]);
        assert_eq!((seen.raw[0].len() + seen.raw[1].len()) as u64, log_file::SEGMENTS - 1);
        assert_eq!((seen.raw[0][0], seen.raw[1][0]), (1002_u64 as u8, 1001_u64 as u8));
        bench.reopen();
    }
}

#[test]
fn characters_interleaved_over_both_streams_stay_whole_at_every_resume() {
    let mut bench = Bench::new(1);
    let (out, err) = ("aé€😀z".as_bytes(), "😀€éx".as_bytes());
    for i in 0..out.len().max(err.len()) {
        if let Some(byte) = out.get(i) {
            bench.write(Stream::Stdout, &[*byte]);
        }
        if let Some(byte) = err.get(i) {
            bench.write(Stream::Stderr, &[*byte]);
        }
    }
    let end = bench.log().end();
    for cut in 0..=end {
        let mut all = Seen::default();
        let mut first = bench.viewer(Replay::Retained);
        while first.position() < cut {
            let mut one = Seen::default();
            let before = first.position();
            first.next(1, |piece| {
                let index = piece.stream.index();
                let joined = [piece.carry, piece.bytes].concat();
                let keep = piece.incomplete_suffix();
                one.text[index].push_str(&String::from_utf8_lossy(&joined[..joined.len() - keep]));
            });
            assert_eq!(first.position(), before + 1);
            all.text[0].push_str(&one.text[0]);
            all.text[1].push_str(&one.text[1]);
        }
        drop(first);
        drain(&mut bench.viewer(Replay::After(cut)), 2, &mut all);
        assert_eq!(all.text, ["aé€😀z".to_string(), "😀€éx".to_string()], "resumed after {cut}");
        assert_eq!(all.gaps, []);
    }
}

#[test]
fn an_incomplete_character_is_told_when_its_stream_ends() {
    let mut bench = Bench::new(1);
    bench.write(Stream::Stdout, &[b'a', 0xE2, 0x82]);
    let mut viewer = bench.viewer(Replay::Retained);
    let mut all = Seen::default();
    drain(&mut viewer, 1000, &mut all);
    assert_eq!(all.text[0], "a");
    bench.log().end_stream(Stream::Stdout);
    drain(&mut viewer, 1000, &mut all);
    drain(&mut viewer, 1000, &mut all);
    assert_eq!(all.text[0], "a\u{FFFD}");
}

#[test]
fn a_pinned_piece_is_not_overwritten() {
    let mut bench = Bench::new(1);
    let capacity = bench.log().layout.capacity as usize;
    bench.write(Stream::Stdout, &vec![b'x'; capacity]);
    let mut viewer = bench.viewer(Replay::Retained);
    let (read, write) = nonblocking_pipe();
    rustix::io::write(&write, b"yy").expect("write");
    let writer = &mut bench.writer;
    let next = viewer.next(10, |piece| {
        assert_eq!(writer.move_pipe(Stream::Stdout, read.as_fd(), 2).expect("move"), Moved::Pinned);
        piece.bytes.to_vec()
    });
    assert_eq!(next, Next::Output(b"xxxxxxxxxx".to_vec()));
    assert_eq!(bench.writer.move_pipe(Stream::Stdout, read.as_fd(), 2).expect("move"), Moved::Bytes(2));
    assert_eq!(seen(viewer).gaps, []);
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_is_behind_holds_the_writer_until_it_moves_or_stalls() {
    let stall = std::time::Duration::from_secs(10);
    let mut bench = Bench::new(4 << 20);
    let mut viewer = bench.viewer(Replay::Retained);
    tokio::time::advance(stall * 2).await;
    bench.write(Stream::Stdout, &vec![0; VIEWER_WINDOW as usize]);
    assert_eq!(bench.log().held(stall), Held::Free);
    bench.write(Stream::Stdout, &[0]);
    assert_eq!(bench.log().held(stall), Held::Until(Instant::now() + stall));
    let log = bench.log().clone();
    viewer.next(1000, |_| ());
    log.room().await;
    assert_eq!(bench.log().held(stall), Held::Free);
    bench.write(Stream::Stdout, &[0; 2000]);
    assert!(matches!(bench.log().held(stall), Held::Until(_)));
    tokio::time::advance(stall).await;
    assert_eq!(bench.log().held(stall), Held::Free);
    viewer.next(1, |_| ());
    assert_eq!(bench.log().held(stall), Held::Until(Instant::now() + stall));
    drop(viewer);
    log.room().await;
    assert_eq!(bench.log().held(stall), Held::Free);
}

#[tokio::test(start_paused = true)]
async fn viewers_of_a_killed_bridge_are_waited_for_within_half_a_log() {
    let stall = std::time::Duration::from_secs(10);
    let mut bench = Bench::new(4 << 20);
    let half = vec![0; 2 << 20];
    // Killed: nothing of this bridge is dropped.
    let (one, two) = (bench.viewer(Replay::Retained), bench.viewer(Replay::Retained));
    drop(bench.viewer(Replay::Retained));
    std::mem::forget((one, two));
    bench.reopen();
    bench.write(Stream::Stdout, &half[1..]);
    assert_eq!(bench.log().held(stall), Held::Free);
    bench.write(Stream::Stdout, &half[..1]);
    assert_eq!(bench.log().held(stall), Held::Until(Instant::now() + RESUME_PATIENCE));
    let log = bench.log().clone();
    let first = bench.viewer(Replay::After(u64::MAX));
    assert!(matches!(bench.log().held(stall), Held::Until(_)), "one of two");
    for _ in 0..2 {
        // At the end, so that it holds nothing back itself.
        drop(bench.viewer(Replay::Nothing));
        assert!(
            matches!(bench.log().held(stall), Held::Until(_)),
            "who comes for the first time is none of them"
        );
    }
    let second = bench.viewer(Replay::After(u64::MAX));
    log.room().await;
    assert_eq!(bench.log().held(stall), Held::Free);
    std::mem::forget((first, second));
    bench.reopen();
    bench.write(Stream::Stdout, &half);
    let leaving = bench.viewer(Replay::After(u64::MAX));
    std::mem::forget(leaving);
    // A bridge that is killed before all are back gives no more room than was left.
    bench.reopen();
    assert!(matches!(bench.log().held(stall), Held::Until(_)));
    // Those who do not come back in time are not waited for, nor by the bridge after this one.
    tokio::time::advance(RESUME_PATIENCE).await;
    assert_eq!(bench.log().held(stall), Held::Free);
    bench.reopen();
    bench.write(Stream::Stdout, &half);
    assert_eq!(bench.log().held(stall), Held::Free);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_bridge_that_is_replaced_is_waited_for() {
    let stall = std::time::Duration::from_secs(10);
    let mut bench = Bench::new(4 << 20);
    let (viewer, gone) = (bench.viewer(Replay::Retained), bench.viewer(Replay::Retained));
    drop(gone);
    bench.log().viewers_will_be_back();
    drop(viewer);
    bench.write(Stream::Stdout, &vec![0; 2 << 20]);
    assert_eq!(bench.log().held(stall), Held::Until(Instant::now() + RESUME_PATIENCE));
    bench.reopen();
    assert!(matches!(bench.log().held(stall), Held::Until(_)), "by the next bridge too");
    let back = bench.viewer(Replay::After(0));
    assert_eq!(seen(back).gaps, []);
    assert_eq!(bench.log().held(stall), Held::Free);
}

#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let file = log_file::create(1).expect("create");
    let layout = log_file::layout(1);
    rustix::io::pwrite(&file, &77_u64.to_ne_bytes(), layout.header + LAP).expect("pwrite");
    rustix::io::pwrite(&file, &1_u64.to_ne_bytes(), layout.header + SEGMENTS_WRITTEN).expect("pwrite");
    rustix::io::pwrite(&file, &u64::MAX.to_ne_bytes(), layout.segments).expect("pwrite");
    assert!(recover(file, None).is_err());
}
