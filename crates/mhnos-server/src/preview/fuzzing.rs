//! What must hold for any request for a preview, and any answer of a process to it: both are strangers, and between
//! them nothing is understood in two ways. The target of `fuzz/` calls this, and so does a test with the corpus and
//! simple changes of it.

use std::{cell::Cell, convert::Infallible};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode, Uri, Version, body::Incoming, client::conn::http1, header::HeaderValue,
    http::uri::PathAndQuery, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{
    Client,
    body::{Moved, Upload},
    headers::{Names, toward_client, toward_process},
    judge::judge,
    name::Name,
};
use crate::{
    door::{Door, fuzzing::is_loopback_page},
    fuzzing::{
        reference::{Message, answer_one, both_sides},
        run, status,
    },
    http::reading,
};

/// Requests of one connection that are looked at.
const REQUESTS: u32 = 4;
const FRAMERS: HeaderValue = HeaderValue::from_static("frame-ancestors 'self'");
const CLIENT: Client = Client {
    peer: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9),
    secure: false,
};

/// A client's connection, and what the process answers to each of its requests.
pub fn preview(bytes: &[u8]) {
    let (sent, answer) = both_sides(bytes);
    run(async {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let left = Cell::new(REQUESTS);
        let service = service_fn(|request| async {
            left.set(left.get().saturating_sub(1));
            let answered = if left.get() == 0 { None } else { pass(request, answer).await };
            let nothing = || {
                let mut nothing = Response::new(Full::default());
                *nothing.status_mut() = StatusCode::BAD_GATEWAY;
                nothing
            };
            Ok::<_, Infallible>(answered.unwrap_or_else(nothing))
        });
        let serve = async {
            let connection = reading().half_close(true).serve_connection(TokioIo::new(near), service);
            let _ = connection.await;
        };
        let talk = async {
            let _ = far.write_all(sent).await;
            let _ = far.shutdown().await;
            let mut answers = Vec::new();
            let _ = far.read_to_end(&mut answers).await;
            answers
        };
        let (answers, ()) = tokio::join!(talk, serve);
        check_answers(&answers, sent);
    });
}

/// The way of one request to the process and back.
async fn pass(mut request: Request<Incoming>, answer: &[u8]) -> Option<Response<Full<Bytes>>> {
    let name = Name::of(request.headers(), "localhost")?;
    let door = Door::new(vec![[127, 0, 0, 1].into()], Vec::new()).but_for_previews_of("localhost");
    let page = judge(&request, &door).ok()?;
    if let Some(origin) = request.headers().get("origin") {
        assert!(is_loopback_page(origin.as_bytes()) || origin == "null" || is_own(origin, &request));
    }
    let names = Names::of(request.headers(), name.port, CLIENT.secure);
    toward_process(request.headers_mut(), &names, page, CLIENT, name.port);
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let request = request.map(|body| Upload { body: Some(body), witness: Moved::now() });
    let (sent, response) = tokio::join!(answer_one(far, answer), ask(near, request));
    check_request(&sent, name.port);
    let (mut head, body) = response?.into_parts();
    head.version = Version::HTTP_11;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    toward_client(&mut head.headers, &names, true, &FRAMERS);
    Some(Response::from_parts(head, Full::new(body)))
}

/// An origin that is the preview's own.
fn is_own(origin: &HeaderValue, request: &Request<Incoming>) -> bool {
    let own = request.headers()["host"].as_bytes().to_ascii_lowercase();
    let origin = origin.as_bytes().to_ascii_lowercase();
    let host = |text: &[u8]| text.strip_suffix(b":80").map_or(text.to_vec(), <[u8]>::to_vec);
    [&b"http://"[..], b"https://"].iter().any(|scheme| {
        origin.strip_prefix(*scheme).is_some_and(|rest| host(rest) == host(&own) || own.starts_with(rest))
    })
}

async fn ask(stream: DuplexStream, request: Request<Upload>) -> Option<Response<Bytes>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let answered = async {
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        drop(sender);
        Some(Response::from_parts(head, body))
    };
    let mut connection = std::pin::pin!(connection);
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answered = &mut answered => answered,
        _ = &mut connection => answered.await,
    }
}

/// One request, in one hop's words, to this process.
fn check_request(sent: &[u8], port: u16) {
    let Some(request) = Message::read(sent) else { return };
    assert_eq!(request.all("host"), [format!("localhost:{port}").as_bytes()]);
    assert_eq!(request.all("x-forwarded-for"), [b"127.0.0.1"]);
    assert_eq!(request.all("x-forwarded-host").len(), 1);
    for gone in ["keep-alive", "proxy-connection", "proxy-authorization", "te", "expect", "forwarded"] {
        assert!(request.all(gone).is_empty(), "{gone}");
    }
    let upgrades = request.all("connection");
    assert!(upgrades.is_empty() || upgrades == [b"upgrade"], "{upgrades:?}");
    assert!(request.all("upgrade").len() == upgrades.len());
    if let Some(rest) = request.after_body(false) {
        assert!(rest.is_empty(), "bytes behind the end of a request: {rest:?}");
    }
}

/// As many answers as there may be, each with an end that is told once.
fn check_answers(mut answers: &[u8], sent: &[u8]) {
    // Which answer is to a HEAD is not known here.
    if sent.windows(4).any(|word| word == b"HEAD") {
        return;
    }
    while let Some(answer) = Message::read(answers) {
        let status = status(answers);
        assert!(answer.all("alt-svc").is_empty());
        for cookie in answer.all("set-cookie") {
            let lower = String::from_utf8_lossy(cookie).to_ascii_lowercase();
            let attributes =
                lower.split(';').skip(1).map(|one| one.split('=').next().unwrap_or("").trim().to_owned());
            assert!(attributes.into_iter().all(|name| name != "domain"), "{cookie:?}");
        }
        let Some(rest) = answer.after_body(matches!(status, 100..=199 | 204 | 304)) else { return };
        if rest.len() == answers.len() {
            return;
        }
        answers = rest;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_exchange_surprises() {
        mhnos_testing::replay("preview", super::preview);
    }
}
