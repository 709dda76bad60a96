//! Writer and viewers on threads of their own, in every order in which they can take the lock and be woken (loom):
//! no byte is lost, doubled or overwritten while it is read, and nobody sleeps for ever. A model that deadlocks fails.

use std::ops::Range;

use loom::thread;
use mhnos_keeper::channel::ExitStatus;

use super::*;
use crate::exit::{Reason, Usage};

/// So much that a viewer that has taken nothing holds the writer back after two of them, and that the third
/// overwrites the first.
const CHUNK: usize = 24 * 1024;

/// Longer than any model takes.
const STALL: Duration = Duration::from_secs(3600);

/// What `check` does is tried in all orders with at most `switches` away from a thread that could go on: with more it
/// takes for ever, and most races need one.
fn in_every_order(switches: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(switches);
    model.check(check);
}

/// The byte at a position.
fn byte(position: u64) -> u8 {
    (position % 251) as u8
}

fn chunk(number: usize) -> Vec<u8> {
    let start = (number * CHUNK) as u64;
    (start..start + CHUNK as u64).map(byte).collect()
}

/// A process's task: writes when viewers let it, and tells them.
fn write(bench: &mut Bench, chunks: Range<usize>) {
    for number in chunks {
        let (read, write) = &bench.pipes[0];
        assert_eq!(rustix::io::write(write, &chunk(number)).expect("write"), CHUNK);
        let mut left = CHUNK;
        while left > 0 {
            if let Held::Until(_) = bench.writer.log().held(STALL) {
                bench.writer.log().room.wait();
                continue;
            }
            match bench.writer.move_pipe(Stream::Stdout, read.as_fd(), left).expect("move") {
                Moved::Bytes(moved) => left -= moved,
                Moved::Pinned => thread::yield_now(),
                other => panic!("{other:?}"),
            }
            bench.writer.log().wake_viewers();
        }
    }
}

fn end(log: &OutputLog) {
    log.end_stream(Stream::Stdout);
    log.set_exit(ExitRecord {
        status: ExitStatus::Code(0),
        reason: Reason::Exited,
        runtime_ms: 0,
        ended_ms: 0,
        end_position: log.end(),
        usage: Usage::default(),
    });
    log.wake_viewers();
}

/// Reads until the exit; returns how many bytes it was given.
fn read_to_exit(viewer: &mut Viewer, wake: &Notify) -> u64 {
    let mut at = viewer.position();
    loop {
        let next = viewer.next(64 * 1024, |piece| {
            assert_eq!(piece.from, at);
            let found = (piece.from..).zip(piece.bytes).step_by(997);
            assert!(found.into_iter().all(|(position, found)| byte(position) == *found));
            piece.end
        });
        match next {
            Next::Output(end) => at = end,
            Next::Nothing => wake.wait(),
            Next::Gap { from, to } => panic!("a gap from {from} to {to}"),
            Next::Exit(record) => {
                assert_eq!(record.end_position, at);
                return at;
            }
        }
    }
}

fn attach(bench: &Bench) -> (Viewer, Arc<Notify>) {
    let wake = Arc::new(Notify::new());
    (Viewer::new(bench.log().clone(), Replay::Retained, wake.clone()), wake)
}

#[test]
fn a_viewer_gets_every_byte_and_the_exit() {
    in_every_order(2, || {
        let mut bench = Bench::new(1);
        let (mut viewer, wake) = attach(&bench);
        let reader = thread::spawn(move || read_to_exit(&mut viewer, &wake));
        write(&mut bench, 0..4);
        end(bench.log());
        assert_eq!(reader.join().expect("viewer"), 4 * CHUNK as u64);
    });
}

#[test]
fn two_viewers_get_every_byte() {
    in_every_order(1, || {
        let mut bench = Bench::new(1);
        let readers = [(); 2].map(|()| {
            let (mut viewer, wake) = attach(&bench);
            thread::spawn(move || read_to_exit(&mut viewer, &wake))
        });
        write(&mut bench, 0..2);
        end(bench.log());
        for reader in readers {
            assert_eq!(reader.join().expect("viewer"), 2 * CHUNK as u64);
        }
    });
}

#[test]
fn a_viewer_that_leaves_lets_the_writer_go_on() {
    in_every_order(2, || {
        let mut bench = Bench::new(1);
        let (mut viewer, _) = attach(&bench);
        let leaving = thread::spawn(move || {
            let _ = viewer.next(1000, |piece| assert_eq!(piece.bytes[0], byte(piece.from)));
        });
        write(&mut bench, 0..4);
        leaving.join().expect("viewer");
        assert_eq!(bench.log().end(), 4 * CHUNK as u64);
    });
}

#[test]
fn a_viewer_that_comes_late_misses_nothing_that_is_retained() {
    in_every_order(2, || {
        let mut bench = Bench::new(1);
        write(&mut bench, 0..1);
        let log = bench.log().clone();
        let coming = thread::spawn(move || {
            let wake = Arc::new(Notify::new());
            let mut viewer = Viewer::new(log, Replay::Retained, wake.clone());
            read_to_exit(&mut viewer, &wake)
        });
        write(&mut bench, 1..2);
        end(bench.log());
        assert_eq!(coming.join().expect("viewer"), 2 * CHUNK as u64);
    });
}
