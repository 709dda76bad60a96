//! The body of an answer that is still coming, together with the connection it comes over: whoever takes the body
//! moves the connection. So a request that is passed on needs no task of its own, and ends when nobody wants it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

pub(super) struct Driven<C> {
    /// `None` once it has ended: what it has delivered is with `body`.
    connection: Option<Pin<Box<C>>>,
    stalled: Pin<Box<dyn Future<Output = ()> + Send>>,
    body: Incoming,
}

impl<C> Driven<C> {
    pub(super) fn new(
        connection: Pin<Box<C>>,
        stalled: Pin<Box<dyn Future<Output = ()> + Send>>,
        body: Incoming,
    ) -> Self {
        Self { connection: Some(connection), stalled, body }
    }
}

impl<C: Future<Output = hyper::Result<()>>> Body for Driven<C> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        if let Some(connection) = &mut this.connection
            && connection.as_mut().poll(context).is_ready()
        {
            // Why it ended is told by the body, if it is not whole.
            this.connection = None;
        }
        if this.connection.is_some() && this.stalled.as_mut().poll(context).is_ready() {
            // The body ends with an error for want of its connection.
            this.connection = None;
        }
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
