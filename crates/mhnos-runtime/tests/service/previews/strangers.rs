//! Which pages reach a preview, and what a preview's page reaches.

use std::net::TcpListener;

use mhnos_testing::{Exposition, Scratch, Server, Wire, WireOptions, eventually};
use serde_json::{Value, json};

use super::{DEADLINE, Preview, SERVER, get, opened, read_until, send};
use crate::options;

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
    let refused = Exposition::of(preview.server.address());
    assert_eq!(refused.count("mhnos_refusals_total{cause=\"preview\"}"), 9);
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

/// Who lets all pages of a domain in, and has previews below it, means the pages.
#[tokio::test]
async fn no_pattern_lets_a_previews_page_in_or_show_another_preview() {
    let server = options()
        .env("MHNOS_PREVIEW_DOMAIN", "run.example.org")
        .env("MHNOS_ALLOWED_ORIGINS", "http://*.example.org,https://os.example.com");
    let server = Server::start(server);
    let address = server.address();
    server.write("server.mjs", SERVER);
    let mut wire = Wire::connect_as(address, WireOptions::modern()).await;
    let pid = wire.spawn(json!({"processType": "node", "command": "server.mjs"})).await;
    let port = opened(&mut wire, pid).await["port"].clone();
    let host = format!("p{pid}-{port}.run.example.org");
    for (origin, let_in) in [
        (format!("http://{host}"), false),
        ("http://p1-1.run.example.org".to_owned(), false),
        (format!("http://p{pid}-{port}-abcdefgh12345678.run.example.org"), false),
        ("http://os.example.org".to_owned(), true),
        ("http://os.run.example.org".to_owned(), true),
        ("https://os.example.com".to_owned(), true),
    ] {
        let opened = Wire::open(address, WireOptions::modern().header("Origin", &origin)).await;
        assert_eq!(opened.is_ok(), let_in, "{origin}");
        let seen = get(address, &host, "/", &[&format!("Origin: {origin}")]).status;
        assert_eq!(
            seen,
            if let_in || origin.ends_with(&format!("//{host}")) { 200 } else { 403 },
            "{origin}"
        );
    }
    let answer = get(address, &host, "/", &[]);
    let framers = answer.header("content-security-policy").expect("a policy");
    assert!(framers.contains(" https://os.example.com") && !framers.contains("example.org"), "{framers}");
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

#[tokio::test]
async fn where_a_token_is_asked_for_names_are_secrets_that_can_be_revoked() {
    const TOKEN: &str = "a-token-that-nobody-guesses";
    let scratch = Scratch::new();
    let log = scratch.path().join("audit.jsonl");
    let audited = options().env("MHNOS_AUDIT_LOG", log.display().to_string());
    let server = Server::start(audited.env("MHNOS_AUTH_TOKEN", TOKEN));
    server.write("server.mjs", SERVER);
    let address = server.address();
    let shown = WireOptions::modern().header("Authorization", &format!("Bearer {TOKEN}"));
    let mut wire = Wire::connect_as(address, shown).await;
    let pid = wire.spawn(json!({"processType": "node", "command": "server.mjs"})).await;
    let told = opened(&mut wire, pid).await;
    let host = |url: &Value| url.as_str().expect("a url")["http://".len()..].trim_end_matches('/').to_owned();
    let named = host(&told["url"]);
    let plain = format!("p{pid}-{}", told["port"]);
    let key =
        named.strip_prefix(&format!("{plain}-")).and_then(|rest| rest.split('.').next()).expect("a key");
    assert!(key.len() == 16 && key.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{key}");

    // Who has the name needs no token, and the service's own token goes no further than the service.
    let answer = get(address, &named, "/", &[&format!("Authorization: Bearer {TOKEN}")]);
    assert_eq!((answer.status, answer.header("referrer-policy")), (200, Some("same-origin")));
    assert!(!answer.body.contains(TOKEN), "{answer:?}");
    assert!(get(address, &named, "/", &["Authorization: Bearer another"]).body.contains("Bearer another"));
    let wrong = format!("{plain}-{}.localhost", "a".repeat(16));
    for name in [format!("{plain}.localhost"), wrong, format!("{plain}-.localhost")] {
        assert_eq!(get(address, &name, "/", &[]).status, 404, "{name}");
    }

    wire.send(&json!({"type": "revokePreview", "id": 1, "pid": pid})).await;
    let closed = wire.next_where(|message| message["type"] == "port" && message["state"] == "closed").await;
    assert_eq!(closed["url"], told["url"]);
    let renamed = opened(&mut wire, pid).await["url"].clone();
    assert_eq!(get(address, &named, "/", &[]).status, 404);
    assert_eq!(get(address, &host(&renamed), "/", &[]).status, 200);
    assert_eq!(wire.request(json!({"type": "ports", "id": 2})).await["ports"][0]["url"], renamed);
    // Both are written down, and no name: it is a secret.
    let written = eventually(DEADLINE, "four refusals", || {
        let written = std::fs::read_to_string(&log).unwrap_or_default();
        (written.matches("\"cause\":\"preview\"").count() == 4).then_some(written)
    });
    assert!(written.contains(&format!("\"event\":\"revokePreview\",\"pid\":{pid}")), "{written}");
    assert!(!written.contains(key), "{written}");
}

/// However many come: a program gets as many connections by way of the service as that has places for.
#[tokio::test]
async fn connections_to_a_program_are_limited_and_the_limit_is_named() {
    const PLACES: usize = 20;
    let server = Server::start(options().env("MHNOS_MAX_CONNECTIONS", PLACES.to_string()));
    let mut preview = Preview::on(server, SERVER).await;
    let request = format!("GET /chunks HTTP/1.1\r\nHost: {}\r\n\r\n", preview.host());
    // One place has the client that started the program.
    let mut held: Vec<_> = (1..PLACES)
        .map(|_| {
            let mut stream = preview.connect();
            send(&mut stream, &request);
            read_until(&mut stream, "data: first\n\n\r\n");
            stream
        })
        .collect();
    for _ in 0..1000 {
        let refused = preview.get("/x", &[]);
        assert!(refused.status == 503 && refused.body.contains("MHNOS_MAX_CONNECTIONS"), "{}", refused.body);
    }
    let program =
        preview.server.descendants().into_iter().find(|process| process.command.contains("server.mjs"));
    let program = program.expect("it runs").os_pid;
    let files = std::fs::read_dir(format!("/proc/{program}/fd")).expect("its files").flatten();
    let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    let sockets = links.filter(|link| link.to_string_lossy().starts_with("socket:")).count();
    assert!(
        (PLACES..PLACES + 3).contains(&sockets),
        "{sockets}: a listening one and those that were let through"
    );
    assert_eq!(preview.wire.request(json!({"type": "ping", "id": 1})).await["type"], "pong");
    held.pop();
    eventually(DEADLINE, "a place is free again", || (preview.get("/x", &[]).status == 200).then_some(()));
}
