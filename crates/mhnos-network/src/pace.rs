//! How many bytes a second one sandbox moves to and from the outside, all its connections together
//! (`MHNOS_EGRESS_RATE`).
//!
//! Whoever moves bytes goes into debt with them and waits, before the next, until it is paid: so nothing is cut into pieces for it, and a
//! connection that is alone gets the whole rate.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use crate::limits::PACE_AHEAD;

/// The rate of one sandbox.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes a second; 0 is no bound.
    rate: u64,
    /// Until when what has moved is paid for.
    paid_until: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate, paid_until: Mutex::new(Instant::now()) }
    }

    /// Bytes have moved.
    pub(crate) fn moved(&self, bytes: usize) {
        if self.rate == 0 || bytes == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        // Time in which nothing moved is not saved up.
        *paid_until = (*paid_until).max(Instant::now()) + cost;
    }

    /// When more may move, if not now.
    fn wait(&self) -> Option<Instant> {
        if self.rate == 0 {
            return None;
        }
        let paid_until = *self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let more = paid_until.checked_sub(PACE_AHEAD)?;
        (more > Instant::now()).then_some(more)
    }
}

/// A connection to the outside that keeps its sandbox's pace.
pub(crate) struct Paced {
    stream: TcpStream,
    pace: Arc<Pace>,
    /// Set while it waits.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(crate) fn new(stream: TcpStream, pace: Arc<Pace>) -> Self {
        Self { stream, pace, pause: None }
    }

    /// Ready when more may move.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match self.pace.wait() {
                None => return Poll::Ready(()),
                Some(more) => self.pause = Some(Box::pin(sleep_until(more))),
            }
        }
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_turn(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.pace.moved(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(context));
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.pace.moved(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
