//! The HTTP side over real sockets, with requests as bytes.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Arrival, Front, Guest, Health, HealthProcesses, HealthSandbox, Subprotocol, fuzzing, receive};
use crate::{
    door::{Access, Door, Visitor},
    limits,
    stream::Stream,
};

fn front() -> Arc<Front> {
    let health = || Health {
        status: "ok",
        uptime: 1.5,
        processes: HealthProcesses { total_spawned: 3, total_killed: 1, active: 2 },
        version: "0.1.0",
        sandbox: HealthSandbox { mode: "strict", tier: "T1" },
    };
    let loopback = vec!["127.0.0.1".parse().expect("address")];
    Arc::new(Front {
        door: Door::new(loopback, Vec::new()),
        access: Access::new(tokio::sync::watch::channel(Arc::default()).1, false),
        health: Box::new(health),
        scrape: Box::new(|| "x 1\n".to_owned()),
        ..fuzzing::a_front(false)
    })
}

/// Sends bytes to the HTTP side of a fresh connection and gives what it answered, and the guest it became.
async fn exchange(request: &[u8]) -> (String, Option<Guest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let mut client = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connect");
    let (stream, peer) = listener.accept().await.expect("accept");
    let front = front();
    let talk = async {
        // What is too large is answered, and the connection closed, before all of it is sent.
        let _ = client.write_all(request).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") || !answer.starts_with(b"HTTP/1.1 101") {
            match client.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
            }
        }
        String::from_utf8(answer).expect("text")
    };
    let arrival = Arc::new(Arrival::new(&front, peer));
    let (answer, guest) = tokio::join!(talk, receive(Stream::plain(stream), &front, &arrival));
    (answer, guest)
}

async fn check(request: &str, status: &str, body: &str) {
    let (answer, guest) = exchange(request.as_bytes()).await;
    assert!(guest.is_none());
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer:?}");
    let (_, found) = answer.split_once("\r\n\r\n").expect("a head");
    assert_eq!(found, body, "{request:?}");
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost:18790\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

async fn upgrade(more: &str) -> (String, Option<Guest>) {
    exchange(format!("{UPGRADE}{more}\r\n").as_bytes()).await
}

#[tokio::test]
async fn health_tells_what_it_always_told_and_the_isolation() {
    let health = r#"{"status":"ok","uptime":1.5,"processes":{"totalSpawned":3,"totalKilled":1,"active":2},"version":"0.1.0","sandbox":{"mode":"strict","tier":"T1"}}"#;
    check("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 OK", health).await;
    check("HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 OK", "").await;
    check("GET /health?x=1 HTTP/1.1\r\nHost: 127.0.0.1:18790\r\n\r\n", "200 OK", health).await;
}

#[tokio::test]
async fn metrics_have_the_same_door() {
    check("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 OK", "x 1\n").await;
    check("POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "405", "Method Not Allowed").await;
    let foreign = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let says = "This service does not answer to the host \"evil.example\".\n\
                Use localhost or an address, or have the operator set MHNOS_ALLOWED_ORIGINS to an origin of this host.\n";
    check(foreign, "403", says).await;
    let page = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n";
    let text = "Pages of https://evil.example may not connect to this service.\n\
                The operator of this service can let them in with the setting MHNOS_ALLOWED_ORIGINS.\n";
    check(page, "403", text).await;
}

#[tokio::test]
async fn pages_that_are_let_in_may_read_answers_and_are_told_so_before() {
    const ALLOW: &str = "access-control-allow-";
    let ask = async |method: &str, more: &str| {
        let request = format!("{method} /health HTTP/1.1\r\nHost: localhost:18790\r\n{more}\r\n");
        exchange(request.as_bytes()).await.0.to_ascii_lowercase()
    };
    let page = "Origin: http://localhost:8080\r\n";
    let answer = ask("GET", page).await;
    assert!(answer.starts_with("http/1.1 200") && answer.contains("vary: origin\r\n"), "{answer}");
    assert!(answer.contains(&format!("{ALLOW}origin: http://localhost:8080\r\n")), "{answer}");
    for network in ["private", "local"] {
        let asks = format!("{page}Access-Control-Request-{network}-Network: true\r\n");
        let answer = ask("OPTIONS", &asks).await;
        assert!(answer.starts_with("http/1.1 204"), "{answer}");
        assert!(answer.contains(&format!("{ALLOW}{network}-network: true\r\n")), "{answer}");
        assert!(!ask("OPTIONS", page).await.contains("-network"), "only what is asked for is granted");
    }
    // Who is no page needs nothing of this; a page that is not let in gets none of it.
    assert!(!ask("GET", "").await.contains(ALLOW));
    let foreign = ask("OPTIONS", "Origin: https://evil.example\r\n").await;
    assert!(foreign.starts_with("http/1.1 403") && !foreign.contains(ALLOW), "{foreign}");
}

#[tokio::test]
async fn everything_else_is_not_found() {
    check("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "404", "Not Found").await;
    check("GET /health/ HTTP/1.1\r\nHost: localhost\r\n\r\n", "404", "Not Found").await;
    check("DELETE /x HTTP/1.1\r\nHost: localhost\r\n\r\n", "404", "Not Found").await;
    check("POST /health HTTP/1.1\r\nHost: localhost\r\n\r\n", "405", "Method Not Allowed").await;
}

#[tokio::test]
async fn the_door_comes_before_everything() {
    let text = "This service does not answer to the host \"evil.example\".\n\
                Use localhost or an address, or have the operator set MHNOS_ALLOWED_ORIGINS to an origin of this host.\n";
    check("GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", "403", text).await;
    let text = "Pages of http://evil.example may not connect to this service.\n\
                The operator of this service can let them in with the setting MHNOS_ALLOWED_ORIGINS.\n";
    check(&format!("{UPGRADE}Origin: http://evil.example\r\n\r\n"), "403", text).await;
    let text = "This request has no valid Host header.\nThe request is malformed.\n";
    check("GET /health HTTP/1.1\r\n\r\n", "403", text).await;
    // What the target says counts too.
    check("GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n", "403", text).await;
    check("CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n", "403", text).await;
    check("GET http://localhost/health HTTP/1.1\r\n\r\n", "403", text).await;
    check("CONNECT localhost:1 HTTP/1.1\r\n\r\n", "403", text).await;
    let (answer, _) = exchange(b"GET http://LocalHost:1/health HTTP/1.1\r\nHost: localhost:1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_handshake_opens_a_web_socket_on_any_path() {
    let (answer, guest) = upgrade("").await;
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    // The accept key of RFC 6455, section 1.3.
    assert!(answer.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"));
    assert!(answer.to_ascii_lowercase().contains("connection: upgrade\r\n"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("sec-websocket-protocol"));
    let guest = guest.expect("a guest");
    assert_eq!((guest.visitor, guest.subprotocol), (Visitor::Program, Subprotocol::None));

    let other = UPGRADE.replace("GET / ", "GET /any/path?query ");
    let (_, guest) = exchange(format!("{other}\r\n").as_bytes()).await;
    assert!(guest.is_some());
}

#[tokio::test]
async fn a_page_of_this_machine_is_a_visitor_with_its_origin() {
    let (_, guest) = upgrade("Origin: http://localhost:8080\r\n").await;
    let Some(Guest { visitor: Visitor::Page(origin), .. }) = guest else { panic!("not a page") };
    assert_eq!(origin.to_string(), "http://localhost:8080");
}

#[tokio::test]
async fn the_first_subprotocol_we_speak_is_chosen_and_compression_is_declined() {
    let check = async |offered: &str, chosen: &str, subprotocol| {
        let lines =
            format!("Sec-WebSocket-Protocol: {offered}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n");
        let (answer, guest) = upgrade(&lines).await;
        let answer = answer.to_ascii_lowercase();
        assert!(answer.contains(&format!("sec-websocket-protocol: {chosen}\r\n")), "{offered}: {answer}");
        assert!(!answer.contains("extensions"), "{answer}");
        assert_eq!(guest.expect("a guest").subprotocol, subprotocol);
    };
    check("mhnos.v1", "mhnos.v1", Subprotocol::V1).await;
    check("other, mhnos.v1.binary, mhnos.v1", "mhnos.v1.binary", Subprotocol::V1Binary).await;
    check("other, more", "other", Subprotocol::Unknown).await;
}

#[tokio::test]
async fn a_wrong_handshake_is_told_what_is_wrong() {
    let check = async |from: &str, to: &str, status: &str, text: &str| {
        check(&format!("{}\r\n", UPGRADE.replace(from, to)), status, text).await;
    };
    let key = "Missing or invalid Sec-WebSocket-Key header";
    check("Key: dGhlIHNhbXBsZSBub25jZQ==", "Key: short", "400", key).await;
    check("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", "400", key).await;
    check("Version: 13", "Version: 12", "400", "Missing or invalid Sec-WebSocket-Version header").await;
    check("Upgrade: WebSocket", "Upgrade: h2c", "400", "Invalid Upgrade header").await;
    check("keep-alive, Upgrade", "keep-alive", "400", "Invalid Upgrade header").await;
    check("GET /", "POST /", "405", "Invalid HTTP method").await;
    let body = "A WebSocket handshake has no body";
    for announced in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        check("Upgrade: WebSocket", &format!("Upgrade: websocket\r\n{announced}"), "400", body).await;
    }
    let (_, guest) = upgrade("Content-Length: 0\r\n").await;
    assert!(guest.is_some(), "no body is none");
    let old = format!("{}\r\n", UPGRADE.replace("HTTP/1.1", "HTTP/1.0"));
    let (answer, guest) = exchange(old.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 400 ") && answer.ends_with("Invalid HTTP version"), "{answer}");
    assert!(guest.is_none());
}

#[tokio::test]
async fn a_request_that_is_too_large_or_no_http_is_refused() {
    let long = format!(
        "GET /health HTTP/1.1\r\nHost: localhost\r\nCookie: {}\r\n\r\n",
        "x".repeat(2 * limits::MAX_REQUEST_HEAD)
    );
    check(&long, "431", "").await;
    // The bound is met, not only by what is far beyond it.
    let cookie = "x".repeat(limits::MAX_REQUEST_HEAD);
    let long = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
    let (answer, _) = exchange(long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let most = "x".repeat(limits::MAX_REQUEST_HEAD - 100);
    let most = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nCookie: {most}\r\n\r\n");
    let (answer, _) = exchange(most.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let many = "a: b\r\n".repeat(limits::MAX_REQUEST_HEADERS);
    check(&format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), "431", "").await;
    check("EHLO localhost\r\n\r\n", "400", "").await;
}

#[tokio::test]
async fn bytes_sent_right_behind_the_handshake_are_not_lost() {
    use futures_util::StreamExt;
    // A masked text frame "hi" with the mask 0.
    let request = [format!("{UPGRADE}\r\n").as_bytes(), &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']].concat();
    let (_, guest) = exchange(&request).await;
    let message = guest.expect("a guest").socket.next().await.expect("a message").expect("no error");
    assert_eq!(message.to_text().expect("text"), "hi");
}
