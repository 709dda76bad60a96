//! Bytes both ways between a program and the outside, until both have ended or nothing has moved for long.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    net::TcpStream,
    time::sleep,
};

use crate::{
    gateway::Way,
    limits::PIECE,
    pace::{Pace, Turn},
};

/// Moves everything. Ends of either direction are passed on one by one.
pub(crate) async fn both_ways(
    mut inside: impl AsyncRead + AsyncWrite + Unpin,
    outside: TcpStream,
    way: &Way,
) -> io::Result<()> {
    let idle = way.gateway.bounds.idle;
    let mut outside = Counted::new(outside, Arc::clone(&way.pace));
    let moves = outside.moves();
    tokio::select! {
        moved = copy_bidirectional_with_sizes(&mut inside, &mut outside, PIECE, PIECE) => moved.map(drop),
        () = stalled(moves, idle) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Resolves when nothing has moved for `idle`, at the latest after twice that.
pub(crate) async fn stalled(moves: Arc<AtomicU64>, idle: Duration) {
    let mut seen = moves.load(Ordering::Relaxed);
    loop {
        sleep(idle).await;
        let now = moves.load(Ordering::Relaxed);
        if now == std::mem::replace(&mut seen, now) {
            return;
        }
    }
}

/// A connection to the outside: counts whenever something moves on it, in either direction, and keeps the sandbox's pace.
pub(crate) struct Counted {
    stream: TcpStream,
    moves: Arc<AtomicU64>,
    pace: Arc<Pace>,
    turn: Turn,
}

impl Counted {
    pub(crate) fn new(stream: TcpStream, pace: Arc<Pace>) -> Self {
        Self { stream, moves: Arc::default(), pace, turn: Turn::default() }
    }

    pub(crate) fn moves(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.moves)
    }

    fn moved(&self, bytes: usize) {
        self.moves.fetch_add(1, Ordering::Relaxed);
        self.pace.moved(bytes);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.turn.poll(&this.pace, context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        this.moved(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.turn.poll(&this.pace, context));
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        this.moved(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
