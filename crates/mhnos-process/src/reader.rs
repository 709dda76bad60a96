//! What a program writes, on its way into the log: up to two pipes or one terminal, and its report pipe.
//!
//! A turn reads until nothing is left or [`READ_TURN`] is reached; then the task tells the viewers. Nothing
//! sleeps to collect more: when viewers lag, the log itself joins what comes meanwhile.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    task::{Context, Poll},
};

use rustix::{io::Errno, pipe::fcntl_setpipe_size};
use tokio::{io::Interest, time::Instant};

use crate::{
    limits::{EXIT_BACKLOG, HANGUP_RETRY, PLENTY, READ_PATIENCE, READ_TURN, REPORT_BYTES, WIDE_PIPE},
    log::{LogWriter, Moved, OutputLog, Stream},
    watched::{Inlet, Watched, watch},
};

/// All reading of one process.
#[derive(Debug)]
pub(crate) struct Reader {
    writer: LogWriter,
    sources: Vec<Source>,
    report: Option<Watched>,
    program_exited: bool,
}

#[derive(Debug)]
struct Source {
    kind: Kind,
    inlet: Inlet,
    /// Nobody has the terminal open, or reading failed: look again then.
    retry_at: Option<Instant>,
    /// Since when reading has failed, each time.
    failing_since: Option<Instant>,
    /// Nobody had the terminal open when we looked last. The runtime takes it for closed from then on.
    hung_up: bool,
    /// The pipe has been given more room.
    widened: bool,
    /// Read now, whatever epoll has said: its word may be on the way.
    forced: bool,
    /// Bytes read since the program's exit.
    since_exit: usize,
    /// All that was written before the exit has been read.
    caught_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pipe(Stream),
    Terminal,
}

/// What one turn brought.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// There is new output, or a stream has ended.
    pub(crate) news: bool,
    /// There is probably more, or a viewer was in the way: come back after others had their turn.
    pub(crate) more: bool,
    /// [`Reader::retry_at`] or [`Reader::caught_up`] has changed.
    pub(crate) later: bool,
    /// The terminal that all had closed is open again: see [`Reader::reopen_terminal`].
    pub(crate) reopened: bool,
    /// What came out of the report pipe: bytes, or nothing at its end.
    pub(crate) report: Option<Vec<u8>>,
}

impl Reader {
    pub(crate) fn new(writer: LogWriter) -> Self {
        Self { writer, sources: Vec::new(), report: None, program_exited: false }
    }

    /// The log it fills.
    pub(crate) fn log(&self) -> &Arc<OutputLog> {
        self.writer.log()
    }

    pub(crate) fn add_pipe(&mut self, stream: Stream, pipe: OwnedFd) -> io::Result<()> {
        self.sources.push(Source::new(Kind::Pipe(stream), Inlet::new(pipe)?));
        Ok(())
    }

    pub(crate) fn add_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        self.sources.push(Source::new(Kind::Terminal, Inlet::new(master)?));
        Ok(())
    }

    pub(crate) fn add_report(&mut self, pipe: OwnedFd) -> io::Result<()> {
        self.report = Some(watch(pipe, Interest::READABLE)?);
        Ok(())
    }

    /// Streams without a source have ended.
    pub(crate) fn end_missing(&self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.sources.iter().any(|source| source.kind.stream() == stream) {
                self.writer.log().end_stream(stream);
            }
        }
    }

    /// Nothing more can come.
    pub(crate) fn is_ended(&self) -> bool {
        self.sources.is_empty()
    }

    /// The program has ended: what it wrote is there to be read now, and a terminal without programs is final.
    pub(crate) fn program_exited(&mut self) {
        self.program_exited = true;
        for source in &mut self.sources {
            source.forced = true;
            source.retry_at = None;
        }
    }

    /// All that was written before the program's exit is in the log.
    pub(crate) fn caught_up(&self) -> bool {
        self.program_exited && self.sources.iter().all(|source| source.caught_up)
    }

    /// When to take a turn although nothing is ready.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.sources.iter().filter_map(|source| source.retry_at).min()
    }

    /// Lets sources whose time has come be read again.
    pub(crate) fn retry_due(&mut self) {
        let now = Instant::now();
        for source in &mut self.sources {
            source.retry_at = source.retry_at.filter(|at| *at > now);
        }
    }

    /// The terminal is to be read as if it were a new one.
    pub(crate) fn reopen_terminal(&mut self) {
        for source in self.sources.iter_mut().filter(|source| source.kind == Kind::Terminal) {
            source.inlet.hush();
            (source.retry_at, source.hung_up, source.caught_up) = (None, false, false);
        }
    }

    /// One turn, when there is something to read.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let mut turn = Turn { report: self.poll_report(cx), ..Turn::default() };
        let mut budget = READ_TURN;
        let mut index = 0;
        while index < self.sources.len() {
            let source = &mut self.sources[index];
            if source.poll(&mut self.writer, self.program_exited, &mut budget, &mut turn, cx) {
                let ended = self.sources.remove(index).kind.stream();
                self.writer.log().end_stream(ended);
                turn.news = true;
            } else {
                index += 1;
            }
        }
        if budget == 0 && !self.sources.is_empty() {
            // The other stream comes first next time, or a flood of one would keep it waiting.
            self.sources.rotate_left(1);
        }
        let nothing = !turn.news && !turn.more && !turn.later && turn.report.is_none();
        if nothing { Poll::Pending } else { Poll::Ready(turn) }
    }

    fn poll_report(&mut self, cx: &mut Context<'_>) -> Option<Vec<u8>> {
        while let Some(report) = &self.report {
            let ready = report.poll_read_ready(cx);
            if ready.is_pending() {
                return None;
            }
            match read_report(report) {
                Ok(bytes) => {
                    if bytes.is_empty() {
                        self.report = None;
                    }
                    return Some(bytes);
                }
                Err(_) => {
                    if let Poll::Ready(Ok(mut ready)) = ready {
                        ready.clear_ready();
                    }
                }
            }
        }
        None
    }

    /// What is in the report pipe now, a piece at a time.
    pub(crate) fn rest_of_report(&self) -> Option<Vec<u8>> {
        read_report(self.report.as_ref()?).ok().filter(|bytes| !bytes.is_empty())
    }
}

/// Bytes, or none at the pipe's end; an error if there is nothing now.
fn read_report(pipe: &Watched) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; REPORT_BYTES];
    loop {
        match rustix::io::read(pipe.get_ref(), &mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(Errno::AGAIN),
            // A pipe that cannot be read has nothing more to say.
            Err(_) => return Ok(Vec::new()),
        }
    }
}

impl Kind {
    fn stream(self) -> Stream {
        match self {
            Self::Pipe(stream) => stream,
            Self::Terminal => Stream::Stdout,
        }
    }
}

impl Source {
    fn new(kind: Kind, inlet: Inlet) -> Self {
        Self {
            kind,
            inlet,
            retry_at: None,
            failing_since: None,
            hung_up: false,
            widened: false,
            forced: false,
            since_exit: 0,
            caught_up: false,
        }
    }

    /// Reads until nothing is left or the budget is used. Returns whether it has ended.
    fn poll(
        &mut self,
        writer: &mut LogWriter,
        program_exited: bool,
        budget: &mut usize,
        turn: &mut Turn,
        cx: &mut Context<'_>,
    ) -> bool {
        if self.retry_at.is_some() {
            return false;
        }
        let mut reads = 0;
        loop {
            if reads == PLENTY {
                self.inlet.hush();
            }
            // Asked even if forced, so that this task is woken by what comes later.
            let told = self.inlet.told();
            let ready = told.as_ref().map(|told| told.poll_read_ready(cx));
            if ready.as_ref().is_some_and(Poll::is_pending) && !self.forced {
                return false;
            }
            if *budget == 0 {
                turn.more = true;
                return false;
            }
            let moved = match self.move_some(writer, *budget) {
                Ok(moved) => moved,
                Err(error) => return self.failed(&error, turn),
            };
            self.failing_since = None;
            if let Moved::Bytes(bytes) = moved {
                reads += 1;
                *budget -= bytes.min(*budget);
                turn.news = true;
                self.moved_after_exit(program_exited, bytes);
                if *budget == 0 {
                    self.inlet.hush();
                    self.widen();
                }
            }
            match moved {
                Moved::Bytes(_) => {}
                Moved::Empty => {
                    reads = 0;
                    self.forced = false;
                    turn.later |= program_exited && !self.caught_up;
                    self.caught_up |= program_exited;
                    if self.inlet.told().is_none() {
                        if let Err(error) = self.inlet.tell_anew() {
                            return self.failed(&error, turn);
                        }
                    } else if let Some(Poll::Ready(Ok(mut ready))) = ready {
                        ready.clear_ready();
                    }
                }
                Moved::Pinned => {
                    turn.more = true;
                    return false;
                }
                Moved::Ended if self.kind == Kind::Terminal && !program_exited => {
                    self.hung_up = true;
                    self.retry_later(turn);
                    return false;
                }
                Moved::Ended => return true,
            }
            if self.hung_up {
                // Somebody has opened it again.
                self.retry_later(turn);
                turn.reopened = true;
                return false;
            }
        }
    }

    /// Gives a pipe that is full again as soon as it has been emptied more room, so that its writer and this task need not
    /// wait for each other at every write. Where the kernel refuses, they do.
    fn widen(&mut self) {
        if matches!(self.kind, Kind::Pipe(_)) && !self.widened {
            self.widened = true;
            let _ = fcntl_setpipe_size(&self.inlet, WIDE_PIPE);
        }
    }

    /// Tries again, but not for ever: the exit waits for the end of output. Returns whether this is the end.
    fn failed(&mut self, error: &io::Error, turn: &mut Turn) -> bool {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= READ_PATIENCE {
            tracing::error!(%error, "cannot read a program's output; what it still writes is lost");
            return true;
        }
        tracing::warn!(%error, "cannot read a program's output; trying again");
        self.retry_later(turn);
        false
    }

    fn retry_later(&mut self, turn: &mut Turn) {
        self.retry_at = Some(Instant::now() + HANGUP_RETRY);
        turn.later = true;
    }

    fn move_some(&self, writer: &mut LogWriter, max: usize) -> io::Result<Moved> {
        match self.kind {
            Kind::Pipe(stream) => writer.move_pipe(stream, self.inlet.as_fd(), max),
            Kind::Terminal => writer.move_terminal(self.inlet.as_fd(), max),
        }
    }

    fn moved_after_exit(&mut self, program_exited: bool, moved: usize) {
        if program_exited {
            self.since_exit += moved;
            self.caught_up |= self.since_exit >= EXIT_BACKLOG;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use mhnos_keeper::log_file;
    use rustix::{
        io::{ioctl_fionread, write},
        pipe::{PipeFlags, pipe_with},
    };

    use super::*;
    use crate::log::recover;

    #[tokio::test(start_paused = true)]
    async fn what_can_never_be_read_has_ended_after_some_seconds() {
        let log = log_file::create(1 << 20).expect("a log");
        let mut reader = Reader::new(recover(log, None).expect("a new one"));
        // The end that is written to cannot be read.
        let (_other, writable) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).expect("a pipe");
        reader.add_pipe(Stream::Stdout, writable).expect("registered");
        reader.program_exited();
        let begun = Instant::now();
        while !reader.is_ended() {
            poll_fn(|cx| reader.poll_turn(cx)).await;
            tokio::time::sleep_until(reader.retry_at().unwrap_or(begun)).await;
            reader.retry_due();
        }
        assert!((READ_PATIENCE..2 * READ_PATIENCE).contains(&begun.elapsed()) && reader.caught_up());
    }

    #[tokio::test]
    async fn a_stream_that_is_always_full_does_not_keep_the_other_waiting() {
        let log = log_file::create(1 << 20).expect("a log");
        let mut reader = Reader::new(recover(log, None).expect("a new one"));
        let [(out, fill), (err, say)] =
            [(); 2].map(|()| pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).expect("a pipe"));
        let unread = err.try_clone().expect("a descriptor");
        reader.add_pipe(Stream::Stdout, out).expect("registered");
        reader.add_pipe(Stream::Stderr, err).expect("registered");
        write(&say, b"a word").expect("room");
        for left in [6, 0] {
            while write(&fill, &vec![b'x'; READ_TURN]).is_ok() {}
            let before = reader.log().end();
            poll_fn(|cx| reader.poll_turn(cx)).await;
            assert_eq!(reader.log().end() - before, READ_TURN as u64, "a turn reads no more than it may");
            assert_eq!(ioctl_fionread(&unread), Ok(left));
        }
    }
}
