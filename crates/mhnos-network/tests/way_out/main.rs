//! The way out of a sandbox whose sockets are the test's own, with a resolver that says what the test wants.

#![allow(clippy::disallowed_methods, reason = "the servers of a test end with it")]

mod resolving;
mod upstream;

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use mhnos_network::{Bounds, Egress, Gateway, Outlets, Owner, Resolver, Via};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::OwnedSemaphorePermit,
    task::JoinHandle,
    time::timeout,
};

/// Reached on failure only.
const LONG: Duration = Duration::from_mins(1);

/// Answers each question with the next of a list, the last one for ever.
#[derive(Clone, Default)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<Vec<IpAddr>>>>,
    asked: Arc<AtomicU32>,
}

impl Scripted {
    fn new(answers: &[&[IpAddr]]) -> Self {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        Self { answers: Arc::new(Mutex::new(answers)), asked: Arc::default() }
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolver for Scripted {
    fn resolve<'r>(
        &'r self,
        _name: &'r str,
        _place: OwnedSemaphorePermit,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'r>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().expect("not poisoned");
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(std::future::ready(Ok(answer.unwrap_or_default())))
    }
}

/// A sandbox's way out, served until it is dropped.
struct Sandbox {
    gateway: Arc<Gateway>,
    proxy: SocketAddr,
    names: SocketAddr,
    names_tcp: SocketAddr,
    captured: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn sandbox(egress: &str, resolver: Scripted, bounds: Bounds) -> Sandbox {
    let egress = Egress::parse(egress).expect("a setting");
    serve(Gateway::new(egress, vec![18790]).with(Box::new(resolver), bounds)).await
}

async fn serve(gateway: Gateway) -> Sandbox {
    serve_as(Owner(Some(1000)), &Arc::new(gateway)).await
}

async fn serve_as(owner: Owner, gateway: &Arc<Gateway>) -> Sandbox {
    let proxy = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let captured = TcpListener::bind("127.0.0.6:0").await.expect("bind");
    let names = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let names_tcp = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let at = |address: io::Result<SocketAddr>| address.expect("an address");
    let (proxy_at, names_at, names_tcp_at) =
        (at(proxy.local_addr()), at(names.local_addr()), at(names_tcp.local_addr()));
    let captured_at = at(captured.local_addr());
    let outlets = Outlets {
        proxy: vec![proxy],
        captured: vec![captured],
        names_udp: vec![names],
        names_tcp: vec![names_tcp],
        admits: None,
    };
    let serving = {
        let gateway = Arc::clone(gateway);
        tokio::spawn(async move { gateway.serve(owner, outlets).await })
    };
    Sandbox {
        gateway: Arc::clone(gateway),
        proxy: proxy_at,
        names: names_at,
        names_tcp: names_tcp_at,
        captured: captured_at,
        serving,
    }
}

/// A server outside, on an address of its own, that says its name to whoever connects and then echoes.
async fn outside(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).await.expect("bind");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    at
}

/// An address outside that nothing else of these tests has.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = std::process::id() << 5 | NEXT.fetch_add(1, Ordering::SeqCst) & 0x1f;
    Ipv4Addr::from_bits(0x7f50_0000 | number & 0xf_ffff)
}

/// A server outside that answers the one request of each connection with its name.
async fn hello(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).await.expect("bind");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            until(&mut stream, "\r\n\r\n").await;
            let length = name.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{name}\r\n0\r\n\r\n"
            );
            _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    at
}

/// Sends bytes to the proxy; the connection.
async fn sent(sandbox: &Sandbox, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(sandbox.proxy).await.expect("the proxy");
    stream.write_all(bytes).await.expect("sent");
    stream
}

/// What comes until `end`, or the end.
async fn until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        let mut piece = [0; 4096];
        while !String::from_utf8_lossy(&all).contains(end) {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(length) => all.extend_from_slice(&piece[..length]),
            }
        }
    };
    timeout(LONG, reading).await.expect("an answer or an end");
    String::from_utf8_lossy(&all).into_owned()
}

async fn connect(sandbox: &Sandbox, to: &str) -> (TcpStream, String) {
    let mut stream = sent(sandbox, format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await;
    let head = until(&mut stream, "\r\n\r\n").await;
    (stream, head)
}

/// Nothing more comes, and soon.
async fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it ends");
}

#[tokio::test]
async fn a_name_that_changes_its_address_leads_to_the_one_that_was_judged() {
    let (public, private) = (outside("public").await, outside("private").await);
    let resolver = Scripted::new(&[&[public.ip()], &[private.ip()]]);
    // The rule opens one address; the port is the same for both, as a rebinding server would have it.
    let rule = format!("{}", public.ip());
    let sandbox = sandbox(&rule, resolver.clone(), Bounds::default()).await;
    let to = format!("rebinding.example:{}", public.port());
    let (mut stream, head) = connect(&sandbox, &to).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(until(&mut stream, "public").await, "public");
    assert_eq!(resolver.asked(), 1, "once for a connection");
    let (_, head) = connect(&sandbox, &to).await;
    assert!(head.contains("x-mhnos-egress: loopback"), "{head}");
}

#[tokio::test]
async fn of_a_names_addresses_only_those_are_tried_that_may_be() {
    let open = outside("open").await;
    let closed: IpAddr = "10.1.2.3".parse().expect("an address");
    let metadata: IpAddr = "::ffff:169.254.169.254".parse().expect("an address");
    let resolver = Scripted::new(&[&[closed, metadata, open.ip()], &[closed, metadata]]);
    let sandbox = sandbox(&open.ip().to_string(), resolver, Bounds::default()).await;
    let mut refusals = sandbox.gateway.refusals();
    let to = format!("mixed.example:{}", open.port());
    let (mut stream, _) = connect(&sandbox, &to).await;
    assert_eq!(until(&mut stream, "open").await, "open");
    let (_, head) = connect(&sandbox, &to).await;
    assert!(head.starts_with("HTTP/1.1 403") && head.contains("x-mhnos-egress: private"), "{head}");
    let told = timeout(LONG, refusals.next()).await.expect("soon");
    assert_eq!((told.owner, told.host.as_str(), told.rule), (Owner(Some(1000)), "mixed.example", "private"));
    assert_eq!((told.via, told.count), (Via::Proxy, 1));
}

#[tokio::test]
async fn a_name_that_no_rule_knows_is_not_asked_for() {
    let resolver = Scripted::default();
    let sandbox = sandbox("example.org,*.example.net", resolver.clone(), Bounds::default()).await;
    let (_, head) = connect(&sandbox, "c2VjcmV0.attacker.example:443").await;
    assert!(head.contains("x-mhnos-egress: not-listed"), "{head}");
    assert_eq!(resolver.asked(), 0);
    let (_, head) = connect(&sandbox, "www.example.net:443").await;
    assert!(head.starts_with("HTTP/1.1 502") && head.contains("dns_error"), "{head}");
    assert_eq!(resolver.asked(), 1);
}

#[tokio::test]
async fn socks_says_what_http_says() {
    let open = outside("open").await;
    let resolver = Scripted::new(&[&[open.ip()]]);
    let sandbox = sandbox(&open.ip().to_string(), resolver, Bounds::default()).await;
    let name = |host: &str, command: u8, port: u16| {
        let mut bytes = vec![5, 1, 0, 5, command, 0, 3, host.len() as u8];
        bytes.extend(host.bytes());
        bytes.extend(port.to_be_bytes());
        bytes
    };
    let mut stream = sent(&sandbox, &name("socks.example", 1, open.port())).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer, [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(until(&mut stream, "open").await, "open");
    let code = async |bytes: Vec<u8>| {
        let mut stream = sent(&sandbox, &bytes).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        answer[3]
    };
    assert_eq!(code(name("10.0.0.1", 1, 80)).await, 2, "not allowed");
    assert_eq!(code(name("socks.example", 2, 80)).await, 7, "no listening");
    assert_eq!(code(name("socks.example", 3, 80)).await, 7, "no datagrams");
    assert_eq!(code(name("not a name", 1, 80)).await, 1);
    let metadata = vec![5, 1, 0, 5, 1, 0, 1, 169, 254, 169, 254, 0, 80];
    assert_eq!(code(metadata).await, 2);
    // With credentials only: there is no such method.
    let mut stream = sent(&sandbox, &[5, 1, 2]).await;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer, [5, 0xff]);
}

/// A program that resolves names itself has the address that we gave it, and nothing else to ask the proxy for.
#[tokio::test]
async fn an_address_that_stands_for_a_name_is_the_name_to_the_proxy_too() {
    let open = outside("open").await;
    let resolver = Scripted::new(&[&[open.ip()]]);
    let sandbox = sandbox(&open.to_string(), resolver, Bounds::default()).await;
    // What our addresses are like without a name behind them, before there is one.
    let unknown = format!("198.18.0.16:{}", open.port());
    let (_, head) = connect(&sandbox, &unknown).await;
    assert!(head.contains("x-mhnos-egress: reserved"), "{head}");
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let question = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03own\x07example\x00\x00\x01\x00\x01";
    socket.send_to(question, sandbox.names).await.expect("sent");
    let mut answer = [0; 512];
    let length = timeout(LONG, socket.recv(&mut answer)).await.expect("soon").expect("an answer");
    let address: [u8; 4] = answer[length - 4..length].try_into().expect("four bytes");
    assert_eq!(address[..2], [198, 18]);
    let mut asked = vec![5, 1, 0, 5, 1, 0, 1];
    asked.extend(address);
    asked.extend(open.port().to_be_bytes());
    assert!(until(&mut sent(&sandbox, &asked).await, "open").await.ends_with("open"));
    let [a, b, c, d] = address;
    let to = format!("{a}.{b}.{c}.{d}:{}", open.port());
    let (mut stream, head) = connect(&sandbox, &to).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.ends_with("open") || until(&mut stream, "open").await == "open");
    // A refusal names what was wanted.
    let mut refusals = sandbox.gateway.refusals();
    let (_, head) = connect(&sandbox, &format!("{a}.{b}.{c}.{d}:1")).await;
    assert!(head.contains("x-mhnos-egress: not-listed"), "{head}");
    assert_eq!(timeout(LONG, refusals.next()).await.expect("soon").host, "own.example");
}

#[tokio::test]
async fn one_connection_takes_requests_for_many_hosts() {
    let (one, two) = (hello("one").await, hello("second").await);
    let both = format!("{},{}", one.ip(), two.ip());
    let sandbox = sandbox(&both, Scripted::default(), Bounds::default()).await;
    let get = |at: SocketAddr| format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let mut stream = sent(&sandbox, get(one).as_bytes()).await;
    assert!(until(&mut stream, "one\r\n0\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    stream.write_all(get(two).as_bytes()).await.expect("sent");
    assert!(until(&mut stream, "second\r\n0\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    assert!(until(&mut stream, "URL").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn a_request_asks_the_server_for_what_its_url_says() {
    let listener = TcpListener::bind((own_address(), 0)).await.expect("bind");
    let at = listener.local_addr().expect("an address");
    let sandbox = sandbox(&at.ip().to_string(), Scripted::default(), Bounds::default()).await;
    for (rest, expected) in [("", "/"), ("?x=1", "/?x=1"), ("/a?x=/b", "/a?x=/b"), ("/?", "/?")] {
        let asked = sent(&sandbox, format!("GET http://{at}{rest} HTTP/1.1\r\n\r\n").as_bytes()).await;
        let (mut stream, _) = timeout(LONG, listener.accept()).await.expect("soon").expect("a connection");
        let head = until(&mut stream, "\r\n\r\n").await;
        assert_eq!(head.lines().next(), Some(&*format!("GET {expected} HTTP/1.1")), "{rest}");
        drop(asked);
    }
}

#[tokio::test]
async fn connections_of_a_sandbox_are_bounded() {
    let bounds = Bounds { connections: 2, ..Bounds::default() };
    let sandbox = sandbox("public", Scripted::default(), bounds).await;
    let mut refusals = sandbox.gateway.refusals();
    let held = (sent(&sandbox, b"GET").await, sent(&sandbox, b"GET").await);
    let mut third = TcpStream::connect(sandbox.proxy).await.expect("accepted by the kernel");
    ends(&mut third).await;
    let told = timeout(LONG, refusals.next()).await.expect("soon");
    let proxy = (sandbox.proxy.ip().to_string(), Some(sandbox.proxy.port()));
    assert_eq!((told.rule, told.via, (told.host, told.port)), ("connections", Via::Proxy, proxy));
    let mut fourth = TcpStream::connect(sandbox.captured).await.expect("accepted by the kernel");
    ends(&mut fourth).await;
    let told = timeout(LONG, refusals.next()).await.expect("soon");
    let wanted = (sandbox.captured.ip().to_string(), Some(sandbox.captured.port()));
    assert_eq!((told.rule, told.via, (told.host, told.port)), ("connections", Via::Connection, wanted));
    // A place that is left is free.
    drop(held);
    let answered = async {
        loop {
            let mut stream = sent(&sandbox, b"GET / HTTP/1.1\r\n\r\n").await;
            if until(&mut stream, "URL").await.starts_with("HTTP/1.1 400") {
                return;
            }
        }
    };
    timeout(LONG, answered).await.expect("a place");
}

#[tokio::test]
async fn one_sandboxs_noise_keeps_no_refusal_of_another_from_being_told() {
    let gateway = Arc::new(Gateway::new(Egress::parse("off").expect("a setting"), vec![]));
    let mut refusals = gateway.refusals();
    let noisy = serve_as(Owner(Some(1000)), &gateway).await;
    let quiet = serve_as(Owner(Some(1001)), &gateway).await;
    for number in 0..100 {
        let (_, head) = connect(&noisy, &format!("{number}.example:443")).await;
        assert!(head.contains("x-mhnos-egress: off"), "{head}");
    }
    connect(&quiet, "quiet.example:443").await;
    let mut of_noisy = 0;
    let told = loop {
        let told = timeout(LONG, refusals.next()).await.expect("soon");
        if told.owner == Owner(Some(1001)) {
            break told;
        }
        of_noisy += 1;
    };
    assert_eq!((told.host.as_str(), told.count, told.others), ("quiet.example", 1, 0));
    // The control: there was more than one sandbox may have told.
    assert!(of_noisy < 100, "{of_noisy}");
}

#[tokio::test]
async fn who_does_not_say_where_to_is_cut_off() {
    let bounds = Bounds { ask: Duration::from_millis(100), ..Bounds::default() };
    let sandbox = sandbox("public", Scripted::default(), bounds).await;
    for beginning in [&b""[..], b"CONNECT example.org", &[5], &[5, 1, 0, 5, 1]] {
        ends(&mut sent(&sandbox, beginning).await).await;
    }
    let mut names = TcpStream::connect(sandbox.names_tcp).await.expect("connect");
    names.write_all(&[0, 30, 1]).await.expect("sent");
    ends(&mut names).await;
}

/// What is answered to bytes that may be more than are taken. The proxy ends it: who ends first gets no answer.
async fn answered(sandbox: &Sandbox, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(sandbox.proxy).await.expect("the proxy");
    let (mut read, mut write) = stream.split();
    let sending = async {
        // It fails when the proxy has had enough.
        _ = write.write_all(bytes).await;
    };
    let mut answer = Vec::new();
    let receiving = async {
        // What came before a reset counts.
        _ = read.read_to_end(&mut answer).await;
    };
    timeout(LONG, async { tokio::join!(sending, receiving) }).await.expect("an answer and its end");
    answer
}

/// None of them ends by a deadline.
#[tokio::test]
async fn the_head_of_a_request_is_bounded() {
    let open = hello("open").await;
    let bounds = Bounds { ask: LONG, idle: LONG, ..Bounds::default() };
    let sandbox = sandbox(&open.to_string(), Scripted::default(), bounds).await;
    let check = async |headers: String, expected: &str| {
        let head =
            format!("GET http://{open}/ HTTP/1.1\r\nHost: {open}\r\nConnection: close\r\n{headers}\r\n");
        let answer = answered(&sandbox, head.as_bytes()).await;
        let status = String::from_utf8_lossy(&answer);
        let status = status.split("\r\n").next().unwrap_or_default();
        assert_eq!(status, expected, "{} lines, {} bytes", head.lines().count(), head.len());
    };
    let (granted, too_much) = ("HTTP/1.1 200 OK", "HTTP/1.1 431 Request Header Fields Too Large");
    // Two are there already.
    check("A: b\r\n".repeat(126), granted).await;
    check("A: b\r\n".repeat(127), too_much).await;
    check(format!("A: {}\r\n", "x".repeat(60 * 1024)), granted).await;
    check(format!("A: {}\r\n", "x".repeat(160 * 1024)), too_much).await;
    // One without an end.
    let endless = format!("GET http://{open}/ HTTP/1.1\r\nA: {}", "x".repeat(160 * 1024));
    let answer = answered(&sandbox, endless.as_bytes()).await;
    assert!(answer.starts_with(too_much.as_bytes()), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_closed() {
    let open = outside("open").await;
    let bounds =
        Bounds { idle: Duration::from_millis(100), ask: Duration::from_secs(1), ..Bounds::default() };
    let sandbox = sandbox(&open.ip().to_string(), Scripted::default(), bounds).await;
    let (mut stream, _) = connect(&sandbox, &open.to_string()).await;
    assert_eq!(until(&mut stream, "open").await, "open");
    ends(&mut stream).await;
    // The same for an answer that does not come.
    let get = format!("GET http://{open}/ HTTP/1.1\r\n\r\n");
    ends(&mut sent(&sandbox, get.as_bytes()).await).await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let listener = TcpListener::bind((own_address(), 0)).await.expect("bind");
    let at = listener.local_addr().expect("an address");
    let bounds = Bounds { idle: Duration::from_millis(100), ..Bounds::default() };
    let sandbox = sandbox(&at.ip().to_string(), Scripted::default(), bounds).await;
    let silent = sent(&sandbox, format!("GET http://{at}/ HTTP/1.1\r\n\r\n").as_bytes()).await;
    let (mut stream, _) = listener.accept().await.expect("a connection");
    until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("sent");
    let endless = async { while stream.write_all(&[b'x'; 8 * 1024]).await.is_ok() {} };
    timeout(LONG, endless).await.expect("it is told that nobody wants more");
    drop(silent);
}

/// Two connections at once share the rate; the time they take together is the least it can be, and no bound for a slow machine.
#[tokio::test]
async fn a_sandbox_keeps_its_rate_over_all_its_connections() {
    const BYTES: usize = 256 * 1024;
    let open = outside("open").await;
    let gateway = Gateway::new(Egress::parse(&open.ip().to_string()).expect("a setting"), vec![]);
    let bounded = serve(gateway.at_most(1 << 20)).await;
    let begun = std::time::Instant::now();
    let echo = async || {
        let (mut stream, _) = connect(&bounded, &open.to_string()).await;
        let (mut read, mut write) = stream.split();
        let sent = vec![7; BYTES];
        let mut back = vec![0; BYTES];
        let (wrote, came) = tokio::join!(write.write_all(&sent), read.read_exact(&mut back));
        wrote.and(came.map(drop)).expect("all goes out and comes back");
    };
    timeout(LONG, async { tokio::join!(echo(), echo()) }).await.expect("in time");
    // A mebibyte in all: two times a quarter, out and back. What is in the last pieces may be ahead.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(800), "{took:?}");
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_given_up() {
    // A queue for one that nobody takes from: what comes after is not answered at all.
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let socket: OwnedFd = socket.expect("a socket");
    let address = SocketAddr::from((Ipv4Addr::new(127, 91, 0, 1), 0));
    rustix::net::bind(&socket, &address).expect("bind");
    rustix::net::listen(&socket, 0).expect("listen");
    let silent = std::net::TcpListener::from(socket);
    let at = silent.local_addr().expect("an address");
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(500), TcpStream::connect(at)).await {
        waiting.push(stream);
    }
    let bounds = Bounds { connect: Duration::from_millis(200), ..Bounds::default() };
    let sandbox = sandbox(&at.ip().to_string(), Scripted::default(), bounds).await;
    let (_, head) = connect(&sandbox, &at.to_string()).await;
    assert!(head.starts_with("HTTP/1.1 504") && head.contains("connection_timeout"), "{head}");
}

#[tokio::test]
async fn a_server_on_an_ipv6_address_is_reached_by_a_rule_for_it() {
    let listener = TcpListener::bind("[::1]:0").await.expect("IPv6 on the loopback");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            _ = stream.write_all(b"six").await;
        }
    });
    let six = at.ip();
    let open = sandbox(&format!("[::1]:{}", at.port()), Scripted::new(&[&[six]]), Bounds::default()).await;
    for to in [at.to_string(), format!("six.example:{}", at.port())] {
        let (mut stream, head) = connect(&open, &to).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{to}: {head}");
        assert!(head.ends_with("six") || until(&mut stream, "six").await == "six", "{to}");
    }
    let mut asked = vec![5, 1, 0, 5, 1, 0, 4];
    asked.extend([0; 15]);
    asked.push(1);
    asked.extend(at.port().to_be_bytes());
    assert!(until(&mut sent(&open, &asked).await, "six").await.ends_with("six"));
    let closed = sandbox("public", Scripted::new(&[&[six]]), Bounds::default()).await;
    let (_, head) = connect(&closed, &at.to_string()).await;
    assert!(head.contains("x-mhnos-egress: loopback"), "{head}");
}

#[tokio::test]
async fn names_are_answered_over_both_protocols_and_nothing_is_asked() {
    let resolver = Scripted::default();
    let sandbox = sandbox("example.org", resolver.clone(), Bounds::default()).await;
    let question = |name: &str| {
        let mut message = vec![9, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.bytes());
        }
        message.extend([0, 0, 1, 0, 1]);
        message
    };
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.connect(sandbox.names).await.expect("connect");
    let ask = async |message: Vec<u8>| {
        socket.send(&message).await.expect("sent");
        let mut answer = vec![0; 600];
        let length = timeout(LONG, socket.recv(&mut answer)).await.expect("an answer").expect("received");
        answer.truncate(length);
        answer
    };
    let known = ask(question("example.org")).await;
    assert_eq!(known[known.len() - 4..known.len() - 2], [198, 18]);
    let unknown = ask(question("other.example")).await;
    assert_eq!(unknown[3] & 15, 5, "refused");
    // What is no question gets no answer and harms nobody.
    socket.send(b"\0").await.expect("sent");
    socket.send(&[0xff; 2000]).await.expect("sent");
    assert_eq!(ask(question("localhost")).await[3] & 15, 0);

    let mut stream = TcpStream::connect(sandbox.names_tcp).await.expect("connect");
    let message = question("example.org");
    stream.write_u16(message.len() as u16).await.expect("sent");
    stream.write_all(&message).await.expect("sent");
    let mut answer = vec![0; stream.read_u16().await.expect("an answer").into()];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer, known);
    assert_eq!(resolver.asked(), 0);
}

/// What the names stand for may be reached, on every port: a strange request that is granted would get 200, or 502
/// where nobody listens. What has no end waits for one until the deadline.
#[tokio::test]
async fn no_beginning_of_a_conversation_is_too_strange() {
    let open = hello("open").await;
    let port = open.port();
    let bounds = Bounds { ask: Duration::from_secs(1), ..Bounds::default() };
    let sandbox = sandbox(&open.ip().to_string(), Scripted::new(&[&[open.ip()]]), bounds).await;
    let many = "A: b\r\n".repeat(1000);
    let said = |status: &str| format!("HTTP/1.1 {status}\r\n").into_bytes();
    let bad = said("400 Bad Request");
    for (request, expected) in [
        ("\0".to_owned(), &bad),
        ("\r\n\r\n\r\n".to_owned(), &Vec::new()),
        ("CONNECT HTTP/1.1\r\n\r\n".to_owned(), &bad),
        (format!("CONNECT :{port} HTTP/1.1\r\n\r\n"), &bad),
        ("CONNECT example.org HTTP/1.1\r\n\r\n".to_owned(), &bad),
        ("CONNECT example.org:99999 HTTP/1.1\r\n\r\n".to_owned(), &bad),
        (format!("CONNECT user@example.org:{port} HTTP/1.1\r\n\r\n"), &bad),
        (format!("CONNECT exa%6dple.org:{port} HTTP/1.1\r\n\r\n"), &bad),
        (format!("GET https://example.org:{port}/ HTTP/1.1\r\n\r\n"), &bad),
        (format!("GET ftp://example.org:{port}/ HTTP/1.1\r\n\r\n"), &bad),
        ("GET http:///x HTTP/1.1\r\n\r\n".to_owned(), &bad),
        (format!("GET http://user:secret@example.org:{port}/ HTTP/1.1\r\n\r\n"), &bad),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &Vec::new()),
        ("\x16\x03\x01\x02\0\x01\0\x01".to_owned(), &bad),
        (
            format!("GET http://example.org:{port}/ HTTP/1.1\r\n{many}\r\n"),
            &said("431 Request Header Fields Too Large"),
        ),
        // SOCKS: no method, another version, no kind of address.
        ("\x05\0".to_owned(), &vec![5, 0xff]),
        ("\x05\x01\0\x04\x01\0\x01".to_owned(), &vec![5, 0]),
        ("\x05\x01\0\x05\x01\0\x09\0\0".to_owned(), &vec![5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0]),
    ] {
        let answer = answered(&sandbox, request.as_bytes()).await;
        let shown = String::from_utf8_lossy(&answer);
        let is_http = expected.starts_with(b"HTTP/");
        let holds = if is_http { answer.starts_with(expected) } else { answer == *expected };
        assert!(holds, "{request:?}: {shown:?}");
        assert!(!shown.contains("open"), "{request:?}: {shown:?}");
    }
    // The control: the same names and ports, asked for as it should be.
    let good = format!("GET http://example.org:{port}/ HTTP/1.1\r\nConnection: close\r\n\r\n");
    let answer = answered(&sandbox, good.as_bytes()).await;
    assert!(answer.starts_with(&said("200 OK")), "{}", String::from_utf8_lossy(&answer));
    let (_, head) = connect(&sandbox, &format!("example.org:{port}")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}
