//! HTTP through a preview: streaming, upgrades, connections that stay, and servers that answer what they should not.

use std::io::{ErrorKind, Read, Write};

use serde_json::{Value, json};

use mhnos_testing::{Exposition, eventually};

use super::{DEADLINE, Preview, SERVER, get, opened, read_until, send};
use crate::{requests::resident_kib, start};

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
async fn a_connection_takes_one_descriptor_and_one_to_the_process() {
    const CLIENTS: u64 = 20;
    let preview = Preview::of(SERVER).await;
    let open = || Exposition::of(preview.server.address()).count("process_open_fds");
    let before = open();
    let clients = (0..CLIENTS).map(|_| {
        let mut stream = preview.connect();
        send(&mut stream, &format!("GET /release HTTP/1.1\r\nHost: {}\r\n\r\n", preview.host()));
        read_until(&mut stream, "released");
        stream
    });
    let clients: Vec<_> = clients.collect();
    // Some come and go meanwhile.
    let taken = open() - before;
    assert!((CLIENTS..2 * CLIENTS + CLIENTS / 2).contains(&taken), "{taken}");
    drop(clients);
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

    let block = block();
    let size = 64 * block.len();
    let head = format!("POST /big HTTP/1.1\r\nHost: {}\r\nContent-Length: {size}\r\n\r\n", preview.host());
    send(&mut stream, &head);
    for _ in 0..64 {
        stream.write_all(&block).expect("the process reads");
    }
    read_until(&mut stream, &format!("{size} true."));
}

/// What `/big` gives and takes, over and over.
fn block() -> Vec<u8> {
    (0..1_000_003_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8).collect()
}

#[tokio::test]
async fn a_large_download_is_what_the_process_sent_byte_for_byte() {
    let preview = Preview::of(SERVER).await;
    let block = block();
    let size = 64 * block.len() + 17;
    let mut stream = preview.connect();
    let host = preview.host();
    send(&mut stream, &format!("GET /big?bytes={size} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let head = read_until(&mut stream, "\r\n\r\n").to_ascii_lowercase();
    assert!(head.contains(&format!("content-length: {size}\r\n")), "{head}");
    let mut got = vec![0; block.len()];
    for _ in 0..64 {
        stream.read_exact(&mut got).expect("more");
        assert!(got == block);
    }
    stream.read_exact(&mut got[..17]).expect("the rest");
    assert_eq!(got[..17], block[..17]);
    // And nothing behind it: the connection is as good as new.
    send(&mut stream, &format!("GET /given HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert!(read_until(&mut stream, &size.to_string()).starts_with("HTTP/1.1 200"));
}

/// The process waits for its client, and nobody in between keeps what it would have sent.
#[tokio::test]
async fn a_client_that_stops_reading_a_download_stops_the_process_and_fills_no_memory() {
    const SIZE: u64 = 1 << 30;
    /// What kernels hold for two connections, each end, and the bridge's buffers.
    const MOST: u64 = 64 << 20;
    let preview = Preview::of(SERVER).await;
    let before = resident_kib(&preview.server);
    let mut stream = preview.connect();
    send(&mut stream, &format!("GET /big?bytes={SIZE} HTTP/1.1\r\nHost: {}\r\n\r\n", preview.host()));
    read_until(&mut stream, "\r\n\r\n");
    let (mut last, mut same) = (0, 0);
    let given = eventually(DEADLINE, "the process waits", || {
        let given: u64 = preview.get("/given", &[]).body.parse().expect("a number");
        same = if given == last { same + 1 } else { 0 };
        last = given;
        (same > 100).then_some(given)
    });
    assert!(given < MOST, "{given} bytes are on their way");
    let grown = resident_kib(&preview.server).saturating_sub(before);
    assert!(grown < MOST / 1024 / 4, "{grown} KiB more than before, with {given} bytes on their way");
    // Read after all, it goes on.
    let mut got = vec![0; usize::try_from(2 * MOST).expect("it fits")];
    stream.read_exact(&mut got).expect("it goes on");
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
    match stream.read(&mut got) {
        Ok(length) => assert_eq!(length, 0, "nothing more was written"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
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
