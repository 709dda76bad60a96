//! Requests that are no HTTP, no handshake, or more than one.

use mhnos_testing::{Wire, WireOptions, http_get, http_raw};

use crate::{requests::assert_serves, start};

#[tokio::test]
async fn broken_http_is_refused_and_others_are_served_meanwhile() {
    let server = start();
    let address = server.address();
    let mut bystander = Wire::connect(address).await;
    let long_header =
        format!("GET /health HTTP/1.1\r\nHost: {address}\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    for bytes in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        &vec![0xff; 70_000],
        long_header.as_bytes(),
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nx",
    ] {
        let answer = http_raw(address, bytes);
        assert!(answer.is_err() || !answer.expect("checked").starts_with(b"HTTP/1.1 2"), "{bytes:?}");
        assert_serves(&mut bystander).await;
    }
    assert_eq!(server.get("/health").status, 200);
}

#[tokio::test]
async fn one_request_is_answered_and_nothing_is_smuggled_behind_it() {
    let server = start();
    let address = server.address();
    let handshake = |more: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        )
    };
    let health = format!("GET /health HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let answers = |request: String| {
        let answer = http_raw(address, request.as_bytes()).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let plain = answers(health.repeat(50));
    assert_eq!(plain.matches("HTTP/1.1 ").count(), 1, "{plain}");
    // What follows a handshake is frames; another request is none.
    let twice = answers(handshake("") + &handshake(""));
    assert!(twice.starts_with("HTTP/1.1 101 ") && twice.ends_with("WebSocket protocol error"), "{twice}");
    assert_eq!(twice.matches("HTTP/1.1 ").count(), 1, "{twice}");
    for body in [format!("Content-Length: {}\r\n", health.len()), "Transfer-Encoding: chunked\r\n".to_owned()]
    {
        let refused = answers(handshake(&body) + &health);
        assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("no body"), "{refused}");
        assert_eq!(refused.matches("HTTP/1.1 ").count(), 1, "{refused}");
    }
    // Thousands of subprotocols, and tokens among them that are not asked for.
    for (offered, status) in [
        ("x,".repeat(12_000), "101"),
        ("mhnos.token.aaaaaaaaaaaaaaaa,".repeat(1000), "101"),
        ("x,".repeat(20_000), "431"),
    ] {
        let offer = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        let options = [handshake(&offer).into_bytes(), b"\x88\x80\0\0\0\0".to_vec()].concat();
        let answer = http_raw(address, &options).expect("an answer");
        let head = String::from_utf8_lossy(&answer[..answer.len().min(1000)]).into_owned();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && !head.contains("mhnos.token"), "{head}");
    }
    assert_serves(&mut Wire::connect(address).await).await;
}

/// Each rule of RFC 6455, section 4.2.1, broken alone; the texts are the predecessor's.
#[tokio::test]
async fn a_wrong_handshake_is_refused_by_name() {
    let server = start();
    let right = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let host = format!("Host: {}", server.address());
    for (index, wrong, text) in [
        (0, "Connection: close", "Invalid Upgrade header"),
        (1, "Upgrade: h2c", "Invalid Upgrade header"),
        (2, "Sec-WebSocket-Version: 8", "Missing or invalid Sec-WebSocket-Version header"),
        (2, "X: y", "Missing or invalid Sec-WebSocket-Version header"),
        (3, "Sec-WebSocket-Key: short", "Missing or invalid Sec-WebSocket-Key header"),
        (3, "X: y", "Missing or invalid Sec-WebSocket-Key header"),
    ] {
        let mut lines = right;
        lines[index] = wrong;
        let request = format!("GET / HTTP/1.1\r\n{host}\r\n{}\r\n\r\n", lines.join("\r\n"));
        let answer = http_raw(server.address(), request.as_bytes()).expect("an answer");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(text), "{wrong}: {answer}");
    }
    for path in ["/", "/any/path?and=query"] {
        let options = WireOptions::modern().path(path);
        assert_serves(&mut Wire::connect_as(server.address(), options).await).await;
    }
    assert_eq!(http_get(server.address(), "/nothing", &[]).expect("an answer").status, 404);
}
