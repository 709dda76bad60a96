//! Bytes both ways between a program and the outside, until both have ended or nothing has moved for long.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    time::sleep,
};

use crate::limits::PIECE;

/// Moves everything. Ends of either direction are passed on one by one.
pub(crate) async fn both_ways(
    mut inside: impl AsyncRead + AsyncWrite + Unpin,
    outside: impl AsyncRead + AsyncWrite + Unpin,
    idle: Duration,
) -> io::Result<()> {
    let mut outside = Counted::new(outside);
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

/// A connection that counts whenever something moves on it, in either direction.
pub(crate) struct Counted<S> {
    stream: S,
    moves: Arc<AtomicU64>,
}

impl<S> Counted<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, moves: Arc::default() }
    }

    pub(crate) fn moves(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.moves)
    }

    fn count<T>(&self, outcome: Poll<T>) -> Poll<T> {
        if outcome.is_ready() {
            self.moves.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.count(outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
