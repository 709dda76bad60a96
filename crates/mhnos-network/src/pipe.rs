//! Bytes both ways between a program and the outside, until both have ended or nothing has moved for long.

use std::{
    future::Future,
    io::{self, IoSlice},
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
    patience: Option<Patience>,
}

/// With what is written and not taken: it fails when nothing has moved for [`stalled`]'s time.
struct Patience {
    idle: Duration,
    /// Set while something is not taken.
    stalled: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S> Counted<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, moves: Arc::default(), patience: None }
    }

    /// A program's, where whoever writes has no other deadline.
    pub(crate) fn with_write_timeout(stream: S, idle: Duration) -> Self {
        Self { patience: Some(Patience { idle, stalled: None }), ..Self::new(stream) }
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

    fn written(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let outcome = self.count(outcome);
        let Some(patience) = &mut self.patience else { return outcome };
        if outcome.is_ready() {
            patience.stalled = None;
            return outcome;
        }
        let idle = patience.idle;
        let stalled =
            patience.stalled.get_or_insert_with(|| Box::pin(stalled(Arc::clone(&self.moves), idle)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
        self.written(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.written(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::timeout,
    };

    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    /// On the paused clock.
    async fn pass(time: Duration) {
        let _ = timeout(time, std::future::pending::<()>()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_fails_unless_something_comes_the_other_way() {
        let (near, mut far) = duplex(1);
        let (mut read, mut write) = tokio::io::split(Counted::with_write_timeout(near, IDLE));
        let sending = async { write.write_all(b"two").await.expect_err("not taken").kind() };
        let begun = tokio::time::Instant::now();
        let coming = async {
            for _ in 0..5 {
                pass(IDLE / 2).await;
                far.write_all(b"x").await.expect("sent");
                read.read_u8().await.expect("it has come");
            }
        };
        let (failed, ()) = tokio::join!(sending, coming);
        assert_eq!(failed, io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= 3 * IDLE, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_slowly_does_not_fail() {
        let (near, mut far) = duplex(1);
        let mut near = Counted::with_write_timeout(near, IDLE);
        let taking = async {
            for _ in 0..5 {
                pass(IDLE * 9 / 10).await;
                far.read_u8().await.expect("a byte");
            }
        };
        let (sent, ()) = tokio::join!(near.write_all(b"slowly"), taking);
        sent.expect("taken");
    }
}
