//! The bytes of one connection, plain or through TLS, and the first bounds for what comes in: how much before a token
//! is shown, how many frames a second and fragments a message, how much of messages is in memory over all connections.
//! They stand below the WebSocket library, which knows messages only when they are whole.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;

use crate::{crowd::Share, limits, meter::FrameMeter, pulse::Pulse};

/// A bound that a client has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Excess {
    /// More than a token needs, before there was one.
    #[error("the first message has at most {} bytes where a token is asked for", limits::MAX_AUTH_MESSAGE)]
    BeforeToken,
    /// A message in too many pieces.
    #[error("a message may have at most {} fragments", limits::MAX_FRAGMENTS)]
    Fragments,
}

impl Excess {
    /// The bound behind an error of a [`Stream`].
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Not over any network.
    #[cfg(any(test, fuzzing))]
    Memory(tokio::io::DuplexStream),
}

/// The same, whichever it is.
macro_rules! with_io {
    ($io:expr, $name:ident => $what:expr) => {
        match $io {
            Io::Plain($name) => $what,
            Io::Tls($name) => $what,
            #[cfg(any(test, fuzzing))]
            Io::Memory($name) => $what,
        }
    };
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Stream {
    io: Io,
    /// Read already, by whoever had the connection before.
    early: Bytes,
    /// What may still come before a token is shown.
    allowance: Option<usize>,
    /// Signs of life of the other end.
    pulse: Arc<Pulse>,
    /// Once it is a WebSocket.
    intake: Option<Intake>,
}

#[derive(Debug)]
struct Intake {
    meter: FrameMeter,
    share: Arc<Share>,
    /// Set while the client is ahead of the pace.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(crate) fn plain(io: TcpStream) -> Self {
        Self::new(Io::Plain(io))
    }

    pub(crate) fn tls(io: TlsStream<TcpStream>) -> Self {
        Self::new(Io::Tls(Box::new(io)))
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn memory(io: tokio::io::DuplexStream) -> Self {
        Self::new(Io::Memory(io))
    }

    fn new(io: Io) -> Self {
        Self { io, early: Bytes::new(), allowance: None, pulse: Arc::default(), intake: None }
    }

    /// From now on a WebSocket, which begins with these bytes. `known`: a token was shown, or none is asked for.
    pub(crate) fn into_web_socket(mut self, early: Bytes, share: Arc<Share>, known: bool) -> Self {
        // An empty one holds hyper's buffer.
        self.early = if early.is_empty() { Bytes::new() } else { early };
        self.allowance = (!known).then_some(limits::MAX_AUTH_MESSAGE);
        self.intake = Some(Intake { meter: FrameMeter::new(Instant::now()), share, pause: None });
        self
    }

    /// A token has been shown.
    pub(crate) fn lift_allowance(&mut self) {
        self.allowance = None;
    }

    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    fn poll_io(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.has_remaining() {
            let take = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(take));
            if self.early.is_empty() {
                self.early = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        with_io!(&mut self.io, io => Pin::new(io).poll_read(cx, buf))
    }

    /// Reads at most what is still allowed.
    fn poll_allowed(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(allowance) = self.allowance else { return self.poll_io(cx, buf) };
        if allowance == 0 {
            return Poll::Ready(Err(io::Error::other(Excess::BeforeToken)));
        }
        let mut part = [0; 1024];
        let room = part.len().min(allowance).min(buf.remaining());
        let mut part = ReadBuf::new(&mut part[..room]);
        ready!(self.poll_io(cx, &mut part))?;
        buf.put_slice(part.filled());
        self.allowance = Some(allowance - part.filled().len());
        Poll::Ready(Ok(()))
    }
}

impl Intake {
    /// Waits while the client is ahead of its pace.
    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    /// Takes notice of what has come. How much of it is to be passed on now: a large frame's payload is not to come with
    /// anything before it. So its buffer has just its size, has no room left when it is whole, and goes with it; the
    /// connection would keep it otherwise, for as long as it lives.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fed = self.meter.feed(bytes).map_err(io::Error::other)?;
        self.share.has_read(fed.bytes);
        self.share.received(fed.held);
        self.pause = self.meter.pause(Instant::now()).map(|pause| Box::pin(tokio::time::sleep(pause)));
        Ok(fed.bytes)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(intake) = &mut this.intake {
            if intake.poll_pace(cx).is_pending() {
                intake.share.rest();
                return Poll::Pending;
            }
            ready!(intake.share.poll_turn(cx));
        }
        let before = buf.filled().len();
        let read = this.poll_allowed(cx, buf);
        if let (Poll::Pending, Some(intake)) = (&read, &this.intake) {
            intake.share.rest();
        }
        ready!(read)?;
        if buf.filled().len() > before {
            this.pulse.heard();
        }
        if let Some(intake) = &mut this.intake {
            let now = before + intake.take(&buf.filled()[before..])?;
            if now < buf.filled().len() {
                this.early = [&buf.filled()[now..], &this.early].concat().into();
                buf.set_filled(now);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_io!(&mut self.get_mut().io, io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_io!(&mut self.get_mut().io, io => Pin::new(io).poll_write_vectored(cx, pieces))
    }

    /// Otherwise hyper copies every body into a buffer of its own first.
    fn is_write_vectored(&self) -> bool {
        with_io!(&self.io, io => io.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_io!(&mut self.get_mut().io, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_io!(&mut self.get_mut().io, io => Pin::new(io).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{crowd::Crowd, turnstile::Turnstile};

    #[tokio::test(start_paused = true)]
    async fn whoever_is_ahead_of_its_pace_lets_others_read() {
        let crowd = Crowd::with(limits::MESSAGE_BUDGET, Turnstile::new(1));
        let (mut client, io) = tokio::io::duplex(1 << 20);
        let mut stream = Stream::memory(io).into_web_socket(Bytes::new(), crowd.share(), true);
        let payload = limits::FREE_MESSAGE + 1;
        let head = [&[0x01, 0xff][..], &(payload as u64).to_be_bytes(), &[0; 4]].concat();
        let fragments = b"\0\x80\0\0\0\0".repeat(limits::FRAME_BURST as usize + 5000);
        let sent = [head, vec![b' '; payload], fragments].concat();
        client.write_all(&sent).await.expect("there is room");
        let (mut buf, mut read) = ([0; 4096], 0);
        while let Some(more) = stream.read(&mut buf).now_or_never() {
            read += more.expect("no excess");
        }
        assert!(read > payload && read < sent.len(), "{read} bytes were read before the pause");
        let other = crowd.share();
        other.received(limits::FREE_MESSAGE + 1);
        let turn = std::future::poll_fn(|cx| other.poll_turn(cx));
        assert!(turn.now_or_never().is_some(), "the pause holds the place");
    }
}
