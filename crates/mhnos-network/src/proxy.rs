//! The proxy on the programs' own loopback: `CONNECT`, requests with a whole URL (RFC 9112, 3.2.2), and SOCKS, told
//! apart by the first byte.
//!
//! A request that is passed on goes to the host its URL names and says so in `Host`, whatever it said before. Each takes
//! a connection of its own to the outside: whoever has many requests uses `CONNECT`, as all do for https.

use std::{
    convert::Infallible,
    future::Future,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::Incoming,
    client,
    header::{self, HeaderMap, HeaderName, HeaderValue},
    http::uri::PathAndQuery,
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use self::body::Driven;
use crate::{
    dial::{DialError, Purpose, Reached},
    gateway::Way,
    limits::{Bounds, MAX_HEAD, MAX_HEADERS},
    pace::Paced,
    pipe::{self, Counted},
    report::Via,
    socks,
    target::Target,
    upstream::Declined,
};

mod body;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;
type Answer = Response<Body>;

/// Meant for one hop (RFC 9110, 7.6.1), with those that proxies add to the list.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A `CONNECT` that has been granted: what the connection becomes after the answer.
struct Tunnel<O> {
    upgrade: OnUpgrade,
    outside: O,
}

/// Where connections to the outside come from.
pub(crate) trait Outside: Send + Sync + 'static {
    /// One of them.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn dial(
        &self,
        target: &Target,
        purpose: Purpose,
    ) -> impl Future<Output = Result<Reached<Self::Stream>, DialError>> + Send;
    fn bounds(&self) -> &Bounds;
}

impl Outside for Way {
    type Stream = Paced;

    async fn dial(&self, target: &Target, purpose: Purpose) -> Result<Reached<Paced>, DialError> {
        self.reach(target, purpose, Via::Proxy).await
    }

    fn bounds(&self) -> &Bounds {
        &self.gateway.bounds
    }
}

/// Serves one connection.
pub(crate) async fn serve(stream: TcpStream, way: &Arc<Way>) -> io::Result<()> {
    let mut first = [0];
    let asked = timeout(way.gateway.bounds.ask, stream.peek(&mut first)).await.map_err(io::Error::from)?;
    match (asked?, first[0]) {
        (0, _) => Ok(()),
        (_, socks::VERSION) => socks::serve(stream, way).await,
        _ => http(stream, way).await,
    }
}

pub(crate) async fn http<O: Outside>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    way: &Arc<O>,
) -> io::Result<()> {
    let granted: Arc<Mutex<Option<Tunnel<O::Stream>>>> = Arc::new(Mutex::new(None));
    let exchange = {
        let (way, granted) = (Arc::clone(way), Arc::clone(&granted));
        let Bounds { ask, idle, .. } = *way.bounds();
        let service = service_fn(move |request| {
            let (way, granted) = (Arc::clone(&way), Arc::clone(&granted));
            async move { Ok::<_, Infallible>(answer(request, &*way, &granted).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(ask)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .preserve_header_case(true)
            .serve_connection(TokioIo::new(Counted::with_write_timeout(stream, idle)), service)
            .with_upgrades()
    };
    exchange.await.map_err(io::Error::other)?;
    let tunnel = granted.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Tunnel { upgrade, outside }) = tunnel else { return Ok(()) };
    let inside = upgrade.await.map_err(io::Error::other)?;
    pipe::both_ways(TokioIo::new(inside), outside, way.bounds().idle).await
}

async fn answer<O: Outside>(
    mut request: Request<Incoming>,
    way: &O,
    granted: &Mutex<Option<Tunnel<O::Stream>>>,
) -> Answer {
    if request.method() == Method::CONNECT {
        let Some(target) = authority(request.uri(), None) else {
            return text(StatusCode::BAD_REQUEST, "CONNECT needs a host and a port\n");
        };
        return match way.dial(&target, Purpose::Bytes).await {
            Ok(Reached { stream: outside, .. }) => {
                let upgrade = hyper::upgrade::on(&mut request);
                *granted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tunnel { upgrade, outside });
                Response::new(empty())
            }
            Err(error) => failed(&target, &error),
        };
    }
    let Some(target) = authority(request.uri(), Some(80)).filter(|_| is_http(request.uri())) else {
        let what = "This is the service's proxy for programs. It takes CONNECT, and requests with a whole http:// URL.\n";
        return text(StatusCode::BAD_REQUEST, what);
    };
    match way.dial(&target, Purpose::Request).await {
        Ok(outside) => pass_on(request, outside, way.bounds().idle).await,
        Err(error) => failed(&target, &error),
    }
}

fn is_http(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http")
}

/// The host and port of a request's target; user and password are none.
fn authority(uri: &Uri, default: Option<u16>) -> Option<Target> {
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    // A port that is none is a mistake, not an invitation to take the default.
    let port = match authority.as_str().strip_prefix(authority.host())? {
        "" => default?,
        rest => {
            rest.strip_prefix(':').filter(|port| port.bytes().all(|c| c.is_ascii_digit()))?.parse().ok()?
        }
    };
    Target::parse(authority.host(), port)
}

/// Sends a request on and gives back what is answered, while it is being answered.
async fn pass_on(
    mut request: Request<Incoming>,
    outside: Reached<impl AsyncRead + AsyncWrite + Send + Unpin + 'static>,
    idle: Duration,
) -> Answer {
    let host = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if !outside.whole_url {
        let path = request.uri().path_and_query().cloned();
        // Without a path it is the whole of `?query`, which is sent as `/?query`.
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = path.into();
    }
    *request.version_mut() = Version::HTTP_11;
    strip(request.headers_mut());
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }

    let outside = Counted::new(outside.stream);
    let moves = outside.moves();
    let bad = |error: hyper::Error| {
        text(StatusCode::BAD_GATEWAY, &format!("The server's answer is no HTTP: {error}\n"))
    };
    let handshake = client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .preserve_header_case(true)
        .handshake(TokioIo::new(outside));
    let (mut sender, connection) = match handshake.await {
        Ok(opened) => opened,
        Err(error) => return bad(error),
    };
    let mut connection = Box::pin(connection);
    let mut response = Box::pin(sender.send_request(request));
    let mut stalled = Box::pin(pipe::stalled(moves, idle));
    let answered = tokio::select! {
        biased;
        answered = &mut response => answered,
        // The response is there, or says why there is none.
        _ = &mut connection => response.await,
        () = &mut stalled => return text(StatusCode::GATEWAY_TIMEOUT, "The server does not answer\n"),
    };
    match answered {
        Err(error) => bad(error),
        Ok(answered) => {
            let (mut head, body) = answered.into_parts();
            strip(&mut head.headers);
            head.version = Version::HTTP_11;
            Response::from_parts(head, Driven::new(connection, stalled, body).boxed_unsync())
        }
    }
}

/// Takes out what is meant for one hop, and what `Connection` names as such.
fn strip(headers: &mut HeaderMap) {
    // Of two ends a coding's is the one that counts (RFC 9112, section 6.3), and it ends here.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn failed(target: &Target, error: &DialError) -> Answer {
    let (status, kind, what) = match error {
        DialError::Refused(rule) => {
            let what = format!("{target} is out of reach: MHNOS_EGRESS, rule {}", rule.0);
            let mut answer = told(StatusCode::FORBIDDEN, "destination_ip_prohibited", &what);
            answer.headers_mut().insert("x-mhnos-egress", HeaderValue::from_static(rule.0));
            return answer;
        }
        DialError::NoSuchName => {
            (StatusCode::BAD_GATEWAY, "dns_error", format!("{target}: the name has no address"))
        }
        DialError::TimedOut => {
            (StatusCode::GATEWAY_TIMEOUT, "connection_timeout", format!("{target} does not answer"))
        }
        DialError::Upstream(declined) => {
            let why = match declined {
                Declined::Status(status) => format!("answers {status}"),
                Declined::Broken(error) => format!("does not connect: {error}"),
            };
            (StatusCode::BAD_GATEWAY, "proxy_internal_error", format!("{target}: MHNOS_UPSTREAM_PROXY {why}"))
        }
        DialError::Unreachable(error) => {
            (StatusCode::BAD_GATEWAY, "connection_refused", format!("{target} cannot be reached: {error}"))
        }
    };
    told(status, kind, &what)
}

/// With the machine-readable kind of RFC 9209.
fn told(status: StatusCode, kind: &'static str, what: &str) -> Answer {
    let mut answer = text(status, &format!("{what}\n"));
    if let Ok(value) = HeaderValue::from_str(&format!("mhnos-runtime; error={kind}")) {
        answer.headers_mut().insert("proxy-status", value);
    }
    answer
}

fn text(status: StatusCode, text: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}
