//! The bound of a request's head. The reader takes a head in pieces that are as large as all of it may be, and judges what
//! is not whole by then; so one that is whole is judged here.

use std::net::SocketAddr;

use hyper::{
    Request, StatusCode,
    header::{HeaderName, HeaderValue},
};

use super::{Answer, Front, text};
use crate::{limits, metrics::Refused};

/// The refusal, if a head is too large.
pub(super) fn beyond_bound<B>(front: &Front, request: &Request<B>, peer: SocketAddr) -> Option<Answer> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let bytes = target + request.headers().iter().map(line).sum::<usize>();
    if bytes <= limits::MAX_REQUEST_HEAD {
        return None;
    }
    let what = format!("The head of a request may have {} bytes.", limits::MAX_REQUEST_HEAD);
    front.turn_away(peer, Refused::Http, &what);
    Some(text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &format!("{what}\n")))
}
