//! The WebSocket opening handshake (RFC 6455, section 4.2). Mistakes are answered with 400 and a sentence,
//! in the predecessor's words, since a person debugging a client is who reads them. Extensions are
//! declined: compression would cost more than it saves on loopback.

use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body as _, Incoming},
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use mhnos_protocol::{SUBPROTOCOL, SUBPROTOCOL_BINARY, SUBPROTOCOL_TOKEN_PREFIX};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Answer, text};

/// Which dialect a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subprotocol {
    /// It offered none.
    None,
    /// It offered only ones we do not know.
    Unknown,
    /// Version 1, output as text frames.
    V1,
    /// Version 1, output as binary frames.
    V1Binary,
}

/// What is wrong with a handshake.
pub(super) enum Mistake {
    Method,
    /// The HTTP of the request knows no upgrade.
    Old,
    /// It says that something follows which is no frame: whoever stands in front may see another request in it.
    Body,
    Upgrade,
    Key,
    Version,
}

impl Mistake {
    pub(super) fn says(&self) -> &'static str {
        match self {
            Self::Method => "Invalid HTTP method",
            Self::Old => "Invalid HTTP version",
            Self::Body => "A WebSocket handshake has no body",
            Self::Upgrade => "Invalid Upgrade header",
            Self::Key => "Missing or invalid Sec-WebSocket-Key header",
            Self::Version => "Missing or invalid Sec-WebSocket-Version header",
        }
    }

    pub(super) fn answer(&self) -> Answer {
        match self {
            Self::Method => text(StatusCode::METHOD_NOT_ALLOWED, self.says()),
            Self::Old | Self::Body | Self::Upgrade | Self::Key => text(StatusCode::BAD_REQUEST, self.says()),
            Self::Version => {
                let mut answer = text(StatusCode::BAD_REQUEST, self.says());
                answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                answer
            }
        }
    }
}

/// Checks a handshake; any path will do. Gives the 101 answer and the dialect.
pub(super) fn accept(request: &Request<Incoming>) -> Result<(Answer, Subprotocol), Mistake> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(Mistake::Method);
    }
    if request.version() < Version::HTTP_11 {
        return Err(Mistake::Old);
    }
    if !request.body().is_end_stream() {
        return Err(Mistake::Body);
    }
    if !lists(headers, &header::UPGRADE, "websocket") || !lists(headers, &header::CONNECTION, "upgrade") {
        return Err(Mistake::Upgrade);
    }
    let key = single(headers, &header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).ok_or(Mistake::Key)?;
    single(headers, &header::SEC_WEBSOCKET_VERSION)
        .filter(|version| *version == b"13")
        .ok_or(Mistake::Version)?;

    let (subprotocol, name) = choose(headers);
    let mut answer: Answer = Response::default();
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = answer.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(derive_accept_key(key)).map_err(|_| Mistake::Key)?;
    out.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(name) = name {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok((answer, subprotocol))
}

/// The first offered subprotocol that we speak. If there is none the first offered is echoed, as browsers
/// fail a connection whose offer is not answered.
fn choose(headers: &HeaderMap) -> (Subprotocol, Option<HeaderValue>) {
    let mut first = None;
    for name in items(headers, &header::SEC_WEBSOCKET_PROTOCOL) {
        // A secret goes one way only. Without another offer a browser then fails the connection, as it must.
        if name.starts_with(SUBPROTOCOL_TOKEN_PREFIX) {
            continue;
        }
        let known = match name {
            SUBPROTOCOL => Subprotocol::V1,
            SUBPROTOCOL_BINARY => Subprotocol::V1Binary,
            _ => {
                first = first.or_else(|| HeaderValue::from_str(name).ok());
                continue;
            }
        };
        return (known, HeaderValue::from_str(name).ok());
    }
    if first.is_some() { (Subprotocol::Unknown, first) } else { (Subprotocol::None, None) }
}

/// The items of a comma-separated header, over all its lines.
pub(super) fn items<'r>(headers: &'r HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'r str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    items(headers, name).any(|item| item.eq_ignore_ascii_case(wanted))
}

/// The value of a header that must stand there exactly once.
fn single<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Option<&'r [u8]> {
    let mut lines = headers.get_all(name).iter();
    let value = lines.next()?;
    lines.next().is_none().then_some(value.as_bytes())
}

/// Sixteen bytes in base64: 22 digits and two signs of padding.
fn is_key(key: &[u8]) -> bool {
    let digit = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(digit)
}
