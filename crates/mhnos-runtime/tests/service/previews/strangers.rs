//! Which pages reach a preview, and what a preview's page reaches.

use std::net::TcpListener;

use mhnos_testing::{Wire, WireOptions};
use serde_json::json;

use super::{Preview, SERVER, get, opened, read_until, send};

#[tokio::test]
async fn pages_of_other_previews_and_of_strangers_are_refused() {
    let mut preview = Preview::of(SERVER).await;
    let own = format!("Origin: {}", preview.origin());
    let pid = preview.wire.spawn(json!({"processType": "node", "command": "server.mjs"})).await;
    let other =
        opened(&mut preview.wire, pid).await["url"].as_str().expect("a url").trim_end_matches('/').to_owned();
    let other = format!("Origin: {other}");
    let navigation = "Sec-Fetch-Mode: navigate";
    for (headers, status) in [
        (&[][..], 200),
        (&[own.as_str()][..], 200),
        (&["Origin: http://localhost:5173"], 200),
        (&["Sec-Fetch-Site: same-origin"], 200),
        (&["Sec-Fetch-Site: none", navigation], 200),
        (&["Sec-Fetch-Site: cross-site", navigation], 200),
        (&["Origin: null", "Sec-Fetch-Site: same-origin"], 200),
        (&[other.as_str()], 403),
        (&[other.as_str(), "Sec-Fetch-Site: same-site", navigation], 403),
        (&["Origin: https://evil.example"], 403),
        (&["Origin: http://localhost.evil.example"], 403),
        (&["Origin: null"], 403),
        (&["Origin: null", "Sec-Fetch-Site: cross-site"], 403),
        (&[own.as_str(), other.as_str()], 403),
        (&["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"], 403),
        (&["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors"], 403),
    ] {
        assert_eq!(preview.get("/", headers).status, status, "{headers:?}");
    }
    // Nobody is the preview by another name.
    let port = preview.server.address().port();
    for host in [format!("{}.evil.example", preview.host()), format!("evil.example:{port}")] {
        assert_eq!(get(preview.server.address(), &host, "/", &[]).status, 403, "{host}");
    }
}

#[tokio::test]
async fn a_previews_page_cannot_use_the_service() {
    let preview = Preview::of(SERVER).await;
    let address = preview.server.address();
    for origin in [preview.origin(), format!("http://p{}-1.localhost:9", preview.pid)] {
        let refused = Wire::open(address, WireOptions::modern().header("Origin", &origin)).await;
        assert!(refused.is_err(), "{origin}");
    }
    let service = format!("http://localhost:{}", address.port());
    Wire::open(address, WireOptions::modern().header("Origin", &service))
        .await
        .expect("the control is let in");
    // And the socket is not to be had under the preview's own name: that is the program's.
    let mut stream = preview.connect();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nOrigin: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        preview.host(),
        preview.origin()
    );
    send(&mut stream, &head);
    assert!(read_until(&mut stream, "welcome ").contains("upgrade: mirror"));
}

#[tokio::test]
async fn a_preview_shows_nothing_of_the_host() {
    let preview = Preview::of(SERVER).await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let foreign = listener.local_addr().expect("bound").port();
    for port in [foreign, preview.server.address().port()] {
        let host = format!("p{}-{port}.localhost", preview.pid);
        assert_eq!(get(preview.server.address(), &host, "/", &[]).status, 503, "{port}");
    }
    std::net::TcpStream::connect(("127.0.0.1", foreign)).expect("the control: it does listen");
}

#[tokio::test]
async fn names_cannot_be_revoked_where_they_are_no_secret() {
    let mut preview = Preview::of(SERVER).await;
    let pid = preview.pid;
    let refused = preview.wire.request(json!({"type": "revokePreview", "id": 1, "pid": pid})).await;
    assert_eq!(refused["code"], "NOT_ALLOWED", "{refused}");
}
