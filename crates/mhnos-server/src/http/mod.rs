//! The HTTP side of a connection: a request for a preview goes there ([`crate::preview`]); any other is the only one of
//! its connection, judged at the door before anything else of it is read, then answered or upgraded to a WebSocket. Until
//! a preview was asked for, the whole exchange has one deadline and one bound for its size, and nothing idles here.

mod arrival;
mod cors;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handshake;
mod head;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderMap, HeaderName},
    server::conn::http1,
    service::service_fn,
    upgrade::{OnUpgrade, Parts},
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde::Serialize;
use tokio::sync::watch;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};
use tracing::{debug, warn};

use crate::{
    crowd::{Crowd, Share},
    door::{Access, Admission, Door, LogPace, Refusal, Shown, Unauthorized, Visitor, one_client},
    limits,
    metrics::{self, Refused},
    neighbours::Programs,
    places::{self, Hall, Place, Places},
    preview::{Base, Body, Client, Name, Previews},
    stream::Stream,
};
pub(crate) use arrival::Arrival;
pub(crate) use handshake::Subprotocol;

/// What the HTTP side needs to know.
pub(crate) struct Front {
    pub(crate) door: Door,
    /// `None` in tests of the door alone.
    pub(crate) previews: Option<Arc<Previews>>,
    pub(crate) access: Access,
    /// Those who may not connect, where nothing else keeps them from it.
    pub(crate) strangers: Option<Programs>,
    /// Of log lines about refusals.
    pub(crate) pace: LogPace,
    /// Who is not through the handshake.
    pub(crate) hall: Arc<Hall>,
    pub(crate) places: Arc<Places<IpAddr>>,
    /// What messages may hold, all together.
    pub(crate) crowd: Arc<Crowd>,
    /// How https and wss are spoken, if they are.
    pub(crate) tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// Computes the answer to `/health`.
    pub(crate) health: Box<dyn Fn() -> Health + Send + Sync>,
    /// Computes the answer to `/metrics`.
    pub(crate) scrape: Box<dyn Fn() -> String + Send + Sync>,
    /// Told of everybody who is turned away.
    pub(crate) refused: Box<dyn Fn(TurnedAway<'_>) + Send + Sync>,
}

/// Somebody who does not get a WebSocket, or an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnedAway<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) cause: Refused,
    /// The sentence for a person; it may quote a Host or an Origin.
    pub(crate) why: &'a str,
}

/// The answer to `/health`, its first three fields as the predecessor gave them.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    pub(crate) status: &'static str,
    /// Seconds since the service started.
    pub(crate) uptime: f64,
    pub(crate) processes: HealthProcesses,
    pub(crate) version: &'static str,
    pub(crate) sandbox: HealthSandbox,
}

/// What whoever has shown no token is told, where one is asked for: enough for a probe.
#[derive(Debug, Serialize)]
struct ShortHealth {
    status: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthProcesses {
    pub(crate) total_spawned: u64,
    pub(crate) total_killed: u64,
    pub(crate) active: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct HealthSandbox {
    pub(crate) mode: &'static str,
    pub(crate) tier: &'static str,
}

/// A client whose WebSocket is open.
pub(crate) struct Guest {
    pub(crate) socket: WebSocketStream<Stream>,
    /// Its part of what messages may hold.
    pub(crate) share: Arc<Share>,
    pub(crate) place: Place<IpAddr>,
    pub(crate) visitor: Visitor,
    /// `None` if a token is asked for and has not been shown yet.
    pub(crate) admission: Option<Admission>,
    pub(crate) subprotocol: Subprotocol,
    /// How it reaches previews.
    pub(crate) base: Base,
}

/// An upgrade that has been promised to the client.
struct Promised {
    upgrade: OnUpgrade,
    place: Place<IpAddr>,
    visitor: Visitor,
    admission: Option<Admission>,
    subprotocol: Subprotocol,
    base: Base,
}

type Answer = Response<Full<Bytes>>;

impl Front {
    pub(crate) fn turn_away(&self, peer: SocketAddr, cause: Refused, why: &str) {
        (self.refused)(TurnedAway { peer, cause, why });
    }
}

/// Serves the one request of a connection, or as many as it likes if they are for previews. Gives the WebSocket if
/// that is what it became. Has no deadline of its own.
pub(crate) async fn receive(stream: Stream, front: &Arc<Front>, arrival: &Arc<Arrival>) -> Option<Guest> {
    let peer = arrival.peer;
    let promised: Arc<Mutex<Option<Promised>>> = Arc::default();
    let exchange = {
        let (front, promised, arrival) = (Arc::clone(front), Arc::clone(&promised), Arc::clone(arrival));
        let client = Client { peer, secure: front.tls.is_some() };
        let service = service_fn(move |request| {
            let (front, promised, arrival) =
                (Arc::clone(&front), Arc::clone(&promised), Arc::clone(&arrival));
            async move {
                if let Some(answer) = head::beyond_bound(&front, &request, peer) {
                    return Ok::<_, Infallible>(answer.map(Body::Left));
                }
                let Some((previews, name)) = preview(&front, &request) else {
                    return Ok(answer(&front, request, peer, &promised).map(Body::Left));
                };
                Ok(match arrival.stay(&front) {
                    Ok(()) => {
                        let turn_away = |why: &str| front.turn_away(peer, Refused::Preview, why);
                        previews.answer(&name, request, client, &arrival.exchanges, turn_away).await
                    }
                    Err(full) => no_place(&front, peer, full).map(Body::Left),
                })
            }
        });
        reading().serve_connection(TokioIo::new(stream), service).with_upgrades()
    };
    if let Err(error) = exchange.await {
        debug!(%peer, %error, "HTTP exchange failed");
        if error.is_parse() {
            front.turn_away(peer, Refused::Http, &error.to_string());
        }
    }
    let promised = promised.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    match promised.upgrade.await {
        Ok(upgraded) => {
            let parts: Parts<TokioIo<Stream>> = upgraded.downcast().ok()?;
            let Promised { place, visitor, admission, subprotocol, base, .. } = promised;
            let share = front.crowd.share();
            let stream = parts.io.into_inner();
            let stream = stream.into_web_socket(parts.read_buf, Arc::clone(&share), admission.is_some());
            let socket = web_socket(stream).await;
            Some(Guest { socket, share, place, visitor, admission, subprotocol, base })
        }
        Err(error) => {
            debug!(%peer, %error, "the client left before its WebSocket was open");
            None
        }
    }
}

/// How requests are read.
pub(crate) fn reading() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(limits::MAX_REQUEST_HEAD).max_headers(limits::MAX_REQUEST_HEADERS);
    builder
}

async fn web_socket(stream: Stream) -> WebSocketStream<Stream> {
    let config = WebSocketConfig::default()
        .read_buffer_size(limits::READ_BUFFER)
        .write_buffer_size(limits::WRITE_BUFFER)
        .max_message_size(Some(limits::MAX_MESSAGE))
        .max_frame_size(Some(limits::MAX_MESSAGE));
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
}

fn answer(
    front: &Front,
    request: Request<Incoming>,
    peer: SocketAddr,
    promised: &Mutex<Option<Promised>>,
) -> Answer {
    let headers = request.headers();
    let mut hosts = all(headers, &header::HOST);
    // A target with a host of its own counts for more than the header (RFC 9112, section 3.2.2): two are one too many.
    // It does not stand in for the header, without which a request is not to be answered.
    if let (Some(target), [host]) = (request.uri().authority(), hosts.as_slice())
        && !host.eq_ignore_ascii_case(target.as_str().as_bytes())
    {
        hosts.push(target.as_str().as_bytes());
    }
    let judgement = front.door.judge(&hosts, &all(headers, &header::ORIGIN));
    let visitor = match judgement {
        Ok(visitor) => visitor,
        Err(refusal) => return refused(front, peer, &refusal),
    };
    if request.method() == Method::OPTIONS {
        return cors::preflight(&visitor, headers);
    }
    let page = cors::readable_for(&visitor);
    let mut answer = judged(front, request, peer, visitor, promised);
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().extend(page);
    }
    answer
}

/// The answer to a visitor whose Host and Origin are fine.
fn judged(
    front: &Front,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    visitor: Visitor,
    promised: &Mutex<Option<Promised>>,
) -> Answer {
    let headers = request.headers();
    let offered = handshake::items(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    let shown = Shown::of(&all(headers, &header::AUTHORIZATION), offered);
    let upgrades = headers.contains_key(header::UPGRADE);
    let admission = match front.access.judge(peer.ip(), shown) {
        Ok(admission) => Some(admission),
        // It may still come as the first message.
        Err(Unauthorized::Missing) if upgrades || is_open(&request, peer) => None,
        Err(unauthorized) => return not_let_in(front, peer, unauthorized),
    };
    if !upgrades {
        return plain(front, &request, admission.is_some());
    }
    match handshake::accept(&request) {
        Err(mistake) => {
            front.turn_away(peer, Refused::Handshake, mistake.says());
            mistake.answer()
        }
        Ok((answer, subprotocol)) => {
            let place = match front.places.take(one_client(peer.ip())) {
                Ok(place) => place,
                Err(full) => return no_place(front, peer, full),
            };
            let upgrade = hyper::upgrade::on(&mut request);
            let base = Base::of(request.headers(), front.tls.is_some());
            let promise = Promised { upgrade, place, visitor, admission, subprotocol, base };
            *promised.lock().unwrap_or_else(PoisonError::into_inner) = Some(promise);
            answer
        }
    }
}

/// The preview a request is for.
fn preview(front: &Front, request: &Request<Incoming>) -> Option<(Arc<Previews>, Name)> {
    let previews = front.previews.as_ref()?;
    Some((Arc::clone(previews), previews.addressed(request)?))
}

/// Whether something is answered without a token: a probe, and a scraper on this machine. What a proxy passes on
/// comes from elsewhere.
fn is_open(request: &Request<Incoming>, peer: SocketAddr) -> bool {
    let from = [header::ORIGIN, header::FORWARDED, HeaderName::from_static("x-forwarded-for")];
    match request.uri().path() {
        "/health" => true,
        "/metrics" => {
            peer.ip().to_canonical().is_loopback()
                && !from.iter().any(|name| request.headers().contains_key(name))
        }
        _ => false,
    }
}

fn refused(front: &Front, peer: SocketAddr, refusal: &Refusal) -> Answer {
    if let Some(left_out) = front.pace.next() {
        warn!(%peer, reason = %refusal, remedy = refusal.remedy(), left_out, "refused a request");
    }
    front.turn_away(peer, Refused::by(refusal), &refusal.to_string());
    text(StatusCode::FORBIDDEN, &format!("{refusal}\n{}\n", refusal.advice()))
}

fn no_place(front: &Front, peer: SocketAddr, full: places::Full) -> Answer {
    if let Some(left_out) = front.pace.next() {
        warn!(%peer, reason = %full, left_out, "refused a connection");
    }
    front.turn_away(peer, Refused::Full, &full.to_string());
    let status = match full {
        places::Full::All => StatusCode::SERVICE_UNAVAILABLE,
        places::Full::Own => StatusCode::TOO_MANY_REQUESTS,
    };
    let mut answer = text(status, &format!("{full}\n"));
    answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
    answer
}

fn not_let_in(front: &Front, peer: SocketAddr, unauthorized: Unauthorized) -> Answer {
    if let Some(left_out) = front.pace.next() {
        warn!(%peer, reason = %unauthorized, left_out, "refused a token");
    }
    front.turn_away(peer, Refused::Token, &unauthorized.to_string());
    let said = format!("{unauthorized}\n");
    if unauthorized == Unauthorized::TooMany {
        let mut answer = text(StatusCode::TOO_MANY_REQUESTS, &said);
        answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("10"));
        return answer;
    }
    let mut answer = text(StatusCode::UNAUTHORIZED, &said);
    let challenge = header::HeaderValue::from_static("Bearer realm=\"mhnos-runtime\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    answer
}

/// `admitted`: what is asked for may be told in full.
fn plain(front: &Front, request: &Request<Incoming>, admitted: bool) -> Answer {
    let known: fn(&Front) -> Answer = match request.uri().path() {
        "/health" if admitted => health,
        "/health" => short_health,
        "/metrics" => metrics,
        _ => return text(StatusCode::NOT_FOUND, "Not Found"),
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    known(front)
}

fn health(front: &Front) -> Answer {
    let health = serde_json::to_vec(&(front.health)()).unwrap_or_default();
    with_type(StatusCode::OK, "application/json", health.into())
}

fn short_health(front: &Front) -> Answer {
    let health = serde_json::to_vec(&ShortHealth { status: (front.health)().status }).unwrap_or_default();
    with_type(StatusCode::OK, "application/json", health.into())
}

fn metrics(front: &Front) -> Answer {
    with_type(StatusCode::OK, metrics::CONTENT_TYPE, (front.scrape)().into())
}

fn text(status: StatusCode, text: &str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(text.as_bytes()))
}

fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    // Said here and not by hyper's `keep_alive(false)`, which would say it in a 101 as well.
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    answer
}

/// All values of a header, as they were sent.
fn all<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Vec<&'r [u8]> {
    headers.get_all(name).iter().map(header::HeaderValue::as_bytes).collect()
}

#[cfg(test)]
mod tests;
