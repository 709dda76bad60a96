//! What is written to a process: in order, whole, bounded.
//!
//! A write goes straight into the pipe if nothing is waiting, so that an echo costs no task switch. What does
//! not fit is queued and moved on by the process's task as the program reads.

use std::{
    collections::VecDeque,
    future::pending,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use rustix::{
    io::Errno,
    pipe::fcntl_setpipe_size,
    termios::{SpecialCodeIndex, tcgetattr},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use crate::{
    limits::{INPUT_QUEUE, INPUT_STALL, WIDEST_PIPE},
    process::WriteError,
    watched::Watched,
};

/// The input side of one process.
#[derive(Debug)]
pub(crate) struct Input {
    queue: Mutex<Queue>,
    /// Writes that have begun.
    begun: AtomicU64,
    /// One write at a time, in the order of calls.
    turn: tokio::sync::Mutex<()>,
    /// Told when the program has read something, or input is over.
    room: Notify,
    /// Told when the process's task has something to do here.
    task: Arc<Notify>,
    /// The keeper has been told of the end of input.
    end_told: watch::Sender<bool>,
}

type Turn<'i> = tokio::sync::MutexGuard<'i, ()>;

#[derive(Debug)]
struct Queue {
    sink: Sink,
    /// Copies: a piece of a large message would keep all of it in memory.
    waiting: VecDeque<u8>,
    /// Since when there has been no room for what is written, and the program has taken nothing.
    full_since: Option<Instant>,
    /// Close the pipe when the queue is empty.
    closing: bool,
    /// The keeper is to close its duplicate, and does not know yet.
    tell_keeper: bool,
}

/// Where input goes.
#[derive(Clone, Debug)]
pub(crate) enum Sink {
    Pipe(Arc<Watched>),
    Terminal(Arc<Watched>),
    Closed,
    Exited,
}

impl Sink {
    fn fd(&self) -> Option<&Arc<Watched>> {
        match self {
            Self::Pipe(fd) | Self::Terminal(fd) => Some(fd),
            Self::Closed | Self::Exited => None,
        }
    }
}

/// The end-of-file character of a terminal that does not say otherwise: ^D (termios(3)).
const END_OF_FILE: u8 = 4;

impl Input {
    pub(crate) fn new(sink: Sink, task: Arc<Notify>) -> Self {
        let begun = AtomicU64::new(0);
        let waiting = VecDeque::new();
        let queue = Queue { sink, waiting, full_since: None, closing: false, tell_keeper: false };
        Self {
            queue: Mutex::new(queue),
            begun,
            turn: tokio::sync::Mutex::new(()),
            room: Notify::new(),
            task,
            end_told: watch::Sender::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`crate::Process::inputs`].
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// See [`crate::Process::write_unless`].
    pub(crate) async fn write(
        &self,
        data: Bytes,
        given_up: impl Future<Output = ()>,
    ) -> Result<(), WriteError> {
        // Before the program can answer.
        self.begun.fetch_add(1, Ordering::Release);
        let mut given_up = pin!(given_up);
        let turn = tokio::select! {
            biased;
            turn = self.turn.lock() => turn,
            () = &mut given_up => return Err(WriteError::Full { taken: 0 }),
        };
        self.put(data, given_up, &turn).await
    }

    /// Writes, with the turn in hand.
    async fn put(
        &self,
        mut data: Bytes,
        mut given_up: Pin<&mut impl Future<Output = ()>>,
        _turn: &Turn<'_>,
    ) -> Result<(), WriteError> {
        let whole = data.len();
        loop {
            let full_since = self.offer(&mut data).map_err(|sink| sink.error(whole - data.len()))?;
            let Some(full_since) = full_since else { return Ok(()) };
            let room = tokio::select! {
                biased;
                room = timeout_at(full_since + INPUT_STALL, self.room.notified()) => room.is_ok(),
                () = given_up.as_mut() => false,
            };
            if !room {
                return Err(WriteError::Full { taken: whole - data.len() });
            }
        }
    }

    /// Takes what fits of `data`. If that is not all: since when there has been no room.
    fn offer(&self, data: &mut Bytes) -> Result<Option<Instant>, Sink> {
        let mut queue = self.lock();
        let outcome = queue.offer(data);
        if !queue.waiting.is_empty() || queue.tell_keeper {
            self.task.notify_one();
        }
        outcome?;
        Ok((!data.is_empty()).then(|| *queue.full_since.get_or_insert_with(Instant::now)))
    }

    /// See [`crate::Process::close_stdin`].
    pub(crate) async fn close(&self) -> Result<(), WriteError> {
        let turn = self.turn.lock().await;
        let end_of_file = self.lock().end_of_file();
        if let Some(character) = end_of_file {
            return self.put(vec![character].into(), pin!(pending()), &turn).await;
        }
        self.queue_end()?;
        if self.lock().tell_keeper {
            // Until the keeper lets go too the program sees no end, and no other bridge would know of it.
            _ = self.end_told.subscribe().wait_for(|told| *told).await;
        }
        Ok(())
    }

    fn queue_end(&self) -> Result<(), WriteError> {
        let mut queue = self.lock();
        match &queue.sink {
            Sink::Pipe(_) if !queue.closing => queue.closing = true,
            sink => return Err(sink.error(0)),
        }
        queue.flush();
        drop(queue);
        self.task.notify_one();
        Ok(())
    }

    /// The process has ended.
    pub(crate) fn exited(&self) {
        self.lock().end(Sink::Exited);
        self.room.notify_one();
    }

    /// Whether the program has left something unread.
    pub(crate) fn waiting(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Whether something is queued, or the keeper is still to be told of the end.
    pub(crate) fn unfinished(&self) -> bool {
        let queue = self.lock();
        !queue.waiting.is_empty() || queue.tell_keeper
    }

    /// This bridge is about to go: gives the pipe the room it may have at most, so that what waits is handed over although
    /// the program does not read.
    pub(crate) fn hand_over(&self) {
        let mut queue = self.lock();
        if let Sink::Pipe(pipe) = &queue.sink
            && !queue.waiting.is_empty()
            // Where the kernel refuses, it is as before.
            && fcntl_setpipe_size(pipe.get_ref(), WIDEST_PIPE).is_ok()
        {
            queue.flush();
            self.task.notify_one();
        }
    }

    /// Whether the keeper is to close its duplicate now; to be answered with [`Input::closed_told`].
    pub(crate) fn to_be_closed(&self) -> bool {
        self.lock().tell_keeper
    }

    /// The keeper has been told.
    pub(crate) fn closed_told(&self) {
        self.lock().tell_keeper = false;
        self.end_told.send_replace(true);
    }

    /// A new registration of the terminal.
    pub(crate) fn replace_terminal(&self, master: &Arc<Watched>) {
        let mut queue = self.lock();
        if let Sink::Terminal(old) = &mut queue.sink {
            *old = master.clone();
        }
    }

    /// Moves on what is queued; ready when nothing is left, or input is over. For the process's task.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Twice: once to learn that nothing fits, once to be woken when it does. A terminal that was hung up
        // seems ready for ever; the task looks at it at intervals.
        for _ in 0..2 {
            let Some(fd) = self.lock().sink.fd().cloned() else { return Poll::Ready(()) };
            let Ok(mut ready) = ready!(fd.poll_write_ready(cx)) else { return Poll::Ready(()) };
            let mut queue = self.lock();
            let before = queue.waiting.len();
            queue.flush();
            if queue.waiting.len() < before || queue.sink.fd().is_none() {
                self.room.notify_one();
            }
            if queue.waiting.is_empty() {
                return Poll::Ready(());
            }
            ready.clear_ready();
        }
        Poll::Pending
    }
}

impl Queue {
    /// What a terminal takes for the end of input.
    fn end_of_file(&self) -> Option<u8> {
        let Sink::Terminal(master) = &self.sink else { return None };
        let settings = tcgetattr(master.get_ref());
        Some(settings.map_or(END_OF_FILE, |settings| settings.special_codes[SpecialCodeIndex::VEOF]))
    }

    /// Takes from `data` what fits.
    fn offer(&mut self, data: &mut Bytes) -> Result<(), Sink> {
        if self.closing && !data.is_empty() {
            return Err(Sink::Closed);
        }
        if self.sink.fd().is_none() {
            return Err(self.sink.clone());
        }
        if self.waiting.is_empty() {
            let mut rest = &data[..];
            let outcome = self.write_some(&mut rest);
            let left = rest.len();
            data.advance(data.len() - left);
            outcome?;
        }
        let room = INPUT_QUEUE.saturating_sub(self.waiting.len());
        self.waiting.extend(data.split_to(room.min(data.len())));
        Ok(())
    }

    /// Writes what the pipe or terminal takes now.
    fn write_some(&mut self, data: &mut &[u8]) -> Result<(), Sink> {
        while let (Some(fd), false) = (self.sink.fd(), data.is_empty()) {
            match rustix::io::write(fd.get_ref(), data) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                Ok(written) => data.advance(written),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    self.refused(errno);
                    return Err(Sink::Closed);
                }
            }
        }
        Ok(())
    }

    /// EIO: nobody has the terminal open just now. All else (EPIPE): nobody will ever read it.
    fn refused(&mut self, errno: Errno) {
        if errno == Errno::IO && matches!(self.sink, Sink::Terminal(_)) {
            self.forget();
        } else {
            self.end(Sink::Closed);
        }
    }

    fn flush(&mut self) {
        // Taken out: what is refused is not put back.
        let mut waiting = std::mem::take(&mut self.waiting);
        while !waiting.is_empty() {
            let mut first = waiting.as_slices().0;
            let whole = first.len();
            if self.write_some(&mut first).is_err() {
                return;
            }
            let written = whole - first.len();
            waiting.drain(..written);
            if written > 0 {
                self.full_since = None;
            }
            if written < whole {
                self.waiting = waiting;
                return;
            }
        }
        if self.closing {
            self.end(Sink::Closed);
        }
    }

    fn forget(&mut self) {
        self.waiting = VecDeque::new();
        self.full_since = None;
    }

    fn end(&mut self, sink: Sink) {
        self.tell_keeper |= matches!((&self.sink, &sink), (Sink::Pipe(_), Sink::Closed));
        self.sink = sink;
        self.forget();
        self.closing = false;
    }
}

impl Sink {
    fn error(&self, taken: usize) -> WriteError {
        match self {
            Self::Exited => WriteError::Exited { taken },
            _ => WriteError::Closed { taken },
        }
    }
}
