//! HTTP through a preview: streaming, upgrades, connections that stay, and servers that answer what they should not.

use std::io::{Read, Write};

use serde_json::{Value, json};

use super::{Preview, SERVER, get, opened, read_until, send};
use crate::start;

#[tokio::test]
async fn the_process_sees_the_request_and_who_sent_it() {
    let preview = Preview::of(SERVER).await;
    let origin = format!("Origin: {}", preview.origin());
    let answer =
        preview.get("/a%20b?c=d&e", &["Cookie: x=y", &origin, "X-Own: kept", "Authorization: Bearer own"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen: Value = serde_json::from_str(&answer.body).expect("JSON");
    let own = format!("http://localhost:{}", preview.port);
    for (field, expected) in [
        ("host", own.trim_start_matches("http://")),
        ("origin", &own),
        ("cookie", "x=y"),
        ("x-own", "kept"),
        ("authorization", "Bearer own"),
        ("x-forwarded-host", &preview.host()),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(seen["headers"][field], expected, "{seen}");
    }
    assert_eq!((&seen["method"], &seen["url"]), (&json!("GET"), &json!("/a%20b?c=d&e")));

    let answer = preview.get("/rewritten", &[]);
    assert_eq!(answer.header("location"), Some(format!("{}/there", preview.origin()).as_str()));
    let cookies: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "set-cookie").collect();
    assert_eq!(cookies[0].1, "a=b; Path=/");
    assert!(
        answer.header("content-security-policy").is_some_and(|policy| policy.contains("frame-ancestors"))
    );
}

#[tokio::test]
async fn answers_come_as_they_are_written() {
    let preview = Preview::of(SERVER).await;
    for path in ["/chunks", "/events"] {
        let mut stream = preview.connect();
        send(&mut stream, &format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", preview.host()));
        read_until(&mut stream, "data: first\n\n");
        // Only now is the rest written.
        assert_eq!(preview.get("/release", &[]).body, "released");
        read_until(&mut stream, "data: second\n\n");
    }
}

#[tokio::test]
async fn uploads_of_any_size_go_through_as_they_are_sent() {
    let preview = Preview::of(SERVER).await;
    let mut stream = preview.connect();
    let head = format!(
        "POST /mirror HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        preview.host()
    );
    send(&mut stream, &head);
    assert_eq!(read_until(&mut stream, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    for round in 0..3 {
        send(&mut stream, &format!("6\r\nround{round}\r\n"));
        // Echoed before the next is sent.
        read_until(&mut stream, &format!("round{round}\r\n"));
    }
    send(&mut stream, "0\r\n\r\n");
    read_until(&mut stream, "0\r\n\r\n");

    let size = 64 << 20;
    let head = format!("POST /x HTTP/1.1\r\nHost: {}\r\nContent-Length: {size}\r\n\r\n", preview.host());
    send(&mut stream, &head);
    let block = vec![7; 1 << 20];
    for _ in 0..size / block.len() {
        stream.write_all(&block).expect("the process reads");
    }
    read_until(&mut stream, &format!("\"bytes\":{size}}}"));
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let mut preview = Preview::of(SERVER).await;
    let mut stream = preview.connect();
    let head = format!(
        "GET /socket HTTP/1.1\r\nHost: {}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: mirror\r\nOrigin: {}\r\n\r\n",
        preview.host(),
        preview.origin()
    );
    send(&mut stream, &head);
    let answer = read_until(&mut stream, "welcome ").to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101 ") && answer.contains("upgrade: mirror\r\n"), "{answer}");
    let block: Vec<u8> = (0..1 << 20).map(|at| at as u8).collect();
    let mut writer = stream.try_clone().expect("a second handle");
    let sent = block.clone();
    let writing = std::thread::spawn(move || (0..8).for_each(|_| writer.write_all(&sent).expect("it reads")));
    let mut got = vec![0; block.len()];
    for _ in 0..8 {
        stream.read_exact(&mut got).expect("it writes");
        assert!(got == block);
    }
    writing.join().expect("all was sent");
    // It ends with the process.
    let pid = preview.pid;
    preview.wire.request(json!({"type": "kill", "id": 1, "pid": pid, "signal": "SIGKILL"})).await;
    assert_eq!(stream.read(&mut got).unwrap_or(0), 0);
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other_even_if_the_process_closes_its_own() {
    let preview = Preview::of(SERVER).await;
    let mut stream = preview.connect();
    for path in ["/1", "/close", "/3", "/close", "/5"] {
        send(&mut stream, &format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", preview.host()));
        let end = if path == "/close" { "closing" } else { "\"bytes\":0}" };
        let answer = read_until(&mut stream, end);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    // Two at once are answered in order.
    let two =
        format!("GET /a HTTP/1.1\r\nHost: {0}\r\n\r\nHEAD /b HTTP/1.1\r\nHost: {0}\r\n\r\n", preview.host());
    send(&mut stream, &two);
    read_until(&mut stream, "\"bytes\":0}");
    assert!(!read_until(&mut stream, "\r\n\r\n").contains("{\"method\""));
}

#[tokio::test]
async fn an_old_server_is_served_too() {
    let server = start();
    server.write("index.html", "<p>from python</p>\n");
    let mut wire =
        mhnos_testing::Wire::connect_as(server.address(), mhnos_testing::WireOptions::modern()).await;
    let pid =
        wire.spawn(json!({"processType": "python", "command": "-m", "args": ["http.server", "0"]})).await;
    let port = opened(&mut wire, pid).await["port"].clone();
    let host = format!("p{pid}-{port}.localhost");
    let answer = get(server.address(), &host, "/", &[]);
    assert_eq!((answer.status, answer.body.as_str()), (200, "<p>from python</p>\n"));
}

#[tokio::test]
async fn where_nothing_listens_a_page_says_so_and_waits() {
    let mut preview = Preview::of(SERVER).await;
    let (address, pid) = (preview.server.address(), preview.pid);
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let host = format!("p{pid}-{free}.localhost");
    let answer = get(address, &host, "/", &["Accept: text/html,*/*"]);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(
        answer.body.contains("location.reload()") && answer.body.contains(&free.to_string()),
        "{answer:?}"
    );
    let answer = get(address, &host, "/", &[]);
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));

    let pid = preview
        .wire
        .request(json!({"type": "spawn", "id": 1, "processType": "node", "command": "server.mjs",
        "args": [free.to_string()]}))
        .await["pid"]
        .as_u64()
        .expect("spawned");
    opened(&mut preview.wire, pid).await;
    assert_eq!(get(address, &format!("p{pid}-{free}.localhost"), "/", &[]).status, 200);
    // Each process has its own: what another listens on is not this one's.
    assert_eq!(get(address, &host, "/", &[]).status, 503);

    preview.wire.request(json!({"type": "kill", "id": 2, "pid": pid, "signal": "SIGKILL"})).await;
    for name in [format!("p{pid}-{free}"), "p1-80".to_owned(), "p999999-80".to_owned()] {
        let answer = get(address, &format!("{name}.localhost"), "/", &["Accept: text/html"]);
        assert_eq!(answer.status, 404, "{name}");
        assert!(answer.body.contains("No such preview"));
    }
}

#[tokio::test]
async fn a_hostile_server_harms_nobody_but_itself() {
    let preview = Preview::of(include_str!("hostile.mjs")).await;
    for path in ["/garbage", "/nothing", "/huge", "/many", "/endless", "/two-lengths", "/unasked"] {
        let answer = preview.get(path, &["Accept: text/html"]);
        assert_eq!(answer.status, 502, "{path} {answer:?}");
        assert!(answer.body.contains("No valid answer"), "{path}");
    }
    // What ends too early must not look whole.
    assert_eq!(preview.get("/short", &[]).body, "short");
    assert_eq!(preview.get("/short", &[]).header("content-length"), Some("100"));
    assert_eq!(preview.get("/", &[]).body, "fine");
}
