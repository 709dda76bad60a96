//! What browsers ask before, and need to see in, an answer to a page of another origin (the Fetch standard, CORS). Only
//! visitors that the door has let in get here. The two headers about networks are those of the earlier drafts (Private
//! Network Access); today's browsers ask the person instead.

use hyper::{
    StatusCode,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

use super::{Answer, text};
use crate::door::Visitor;

/// What a page asks for and is granted.
const NETWORKS: [(&str, &str); 2] = [
    ("access-control-request-private-network", "access-control-allow-private-network"),
    ("access-control-request-local-network", "access-control-allow-local-network"),
];

/// Headers without which a page cannot read an answer.
pub(super) fn readable_for(visitor: &Visitor) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Visitor::Page(origin) = visitor
        && let Ok(origin) = HeaderValue::try_from(origin.to_string())
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    headers
}

/// The answer to OPTIONS.
pub(super) fn preflight(visitor: &Visitor, asked: &HeaderMap) -> Answer {
    let mut answer = text(StatusCode::NO_CONTENT, "");
    let headers = answer.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    if matches!(visitor, Visitor::Page(_)) {
        headers.extend(readable_for(visitor));
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        for (request, allow) in NETWORKS {
            if asked.get(request).is_some_and(|value| value == "true") {
                headers.insert(HeaderName::from_static(allow), HeaderValue::from_static("true"));
            }
        }
    }
    answer
}
