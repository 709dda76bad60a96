//! Opening a log: a new one, or one whose writer was killed at any instant.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use mhnos_keeper::log_file::{MAGIC, SEGMENTS, layout_of};
use mhnos_sandbox::sys::{SharedMap, bytes_readable};
use rustix::fs::tell;
use tokio::time::Instant;

use super::{
    ABSENT_FROM, Absent, LAP, OutputLog, READING, SEGMENTS_WRITTEN, Stream, VIEWERS, Window,
    writer::{LogWriter, Moved, Scratch},
};
use crate::{
    limits::RESUME_PATIENCE,
    threads::{Mutex, Notify},
};

/// Takes over the log in `file`, accounting for what its last writer moved but did not tell. `scratch` is the
/// read and write end of the scratch pipe of a process with a terminal; what is left in it is moved first.
///
/// `InvalidData` if this is no log, or one that no interruption of its writer can explain.
pub(crate) fn recover(file: OwnedFd, scratch: Option<(OwnedFd, OwnedFd)>) -> io::Result<LogWriter> {
    let layout = layout_of(&file)?;
    let map = SharedMap::new(file.as_fd(), layout.size as usize)?;
    let log = OutputLog { map, layout, window: Mutex::new(Window::empty()), room: Notify::new() };
    if log.header(0) != MAGIC {
        return Err(invalid("not an output log"));
    }
    let offset = tell(&file)?;
    let written = log.header(SEGMENTS_WRITTEN);
    let told = written.checked_sub(1).map_or(0, |last| log.segment(last).0);
    let mut lap = log.header(LAP);
    if offset == 0 && told == lap + layout.capacity {
        // The file position went back to the ring's start, and the lap was not counted any more.
        lap = told;
        log.set_header(LAP, lap);
    }
    let moved = (lap + offset).checked_sub(told).filter(|moved| *moved <= layout.capacity);
    let (Some(moved), true) = (moved, offset <= layout.capacity) else {
        return Err(invalid("positions that contradict each other"));
    };
    log.restore(written, told);
    let reading = Stream::from_bit(log.header(READING));
    if moved > 0 {
        log.commit(reading, moved);
    }
    let scratch = match scratch {
        None => None,
        Some((read, write)) => Some(Scratch { filled: bytes_readable(&read)? as usize, read, write }),
    };
    let mut writer = LogWriter { file, scratch, log: Arc::new(log), lap, offset, reading };
    match writer.empty_scratch()? {
        Moved::Bytes(_) | Moved::Empty => Ok(writer),
        Moved::Pinned | Moved::Ended => Err(invalid("a scratch pipe that cannot be read")),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Window {
    fn empty() -> Self {
        Self {
            end: 0,
            reserved: 0,
            written: 0,
            last_of: [0; 2],
            ended: [false; 2],
            exit: None,
            held: false,
            cursors: Vec::new(),
            absent: None,
            leaving: false,
        }
    }
}

impl OutputLog {
    /// Fills the window from the file.
    fn restore(&self, written: u64, end: u64) {
        let mut window = self.lock();
        window.written = written;
        window.end = end;
        window.reserved = end;
        let viewers = self.header(VIEWERS);
        let until = Instant::now() + RESUME_PATIENCE;
        let from = self.header(ABSENT_FROM).checked_sub(1).map_or(end, |from| from.min(end));
        window.absent = (viewers > 0).then_some(Absent { count: viewers, from, until });
        for number in (written.saturating_sub(SEGMENTS)..written).rev() {
            let (end, stream) = self.segment(number);
            let last = &mut window.last_of[stream.index()];
            *last = end.max(*last);
            if window.last_of.iter().all(|last| *last > 0) {
                break;
            }
        }
    }
}
