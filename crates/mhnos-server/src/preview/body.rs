//! Bodies on their way through: handed on as they come, never gathered.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::patience::InUse;

/// The body of an answer: the service's own, or a preview's. With the latter the connection is in use until it has been
/// sent.
pub(crate) type Body = Either<Full<Bytes>, Passed<InUse>>;

/// The body of a request.
pub(super) type Upload = Passed<Moved>;

/// A body as it comes from the other side, and who is told that it does.
#[derive(Debug)]
pub(crate) struct Passed<W> {
    /// `None`: the request is sent again, and had none.
    pub(super) body: Option<Incoming>,
    pub(super) witness: W,
}

/// Who is there for as long as a body is, and sees it move.
pub(crate) trait Witness {
    /// Something has come, or the end.
    fn moved(&self) {}
}

impl Witness for InUse {}

impl<W: Witness + Unpin> HttpBody for Passed<W> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let passed = self.get_mut();
        let Some(body) = &mut passed.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if frame.is_ready() {
            passed.witness.moved();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// When something of an upload last moved.
#[derive(Clone, Debug)]
pub(super) struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    pub(super) fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness for Moved {
    fn moved(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}
