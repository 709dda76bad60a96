//! The operator's proxy: what goes through it and what does not, and what it is asked.

use std::sync::Mutex;

use super::*;

/// A proxy of the operator's: answers every `CONNECT` with a status and then speaks for the server, notes what it was asked.
#[derive(Clone, Default)]
struct Operator {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Operator {
    async fn start(&self, status: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let at = listener.local_addr().expect("an address");
        let asked = Arc::clone(&self.asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = until(&mut stream, "\r\n\r\n").await;
                let first = head.lines().next().unwrap_or_default().to_owned();
                let is_tunnel = first.starts_with("CONNECT");
                asked.lock().expect("not poisoned").push(first);
                // A server that speaks first is heard in the same packet.
                let answer = if is_tunnel {
                    format!("HTTP/1.1 {status}\r\nVia: operator\r\n\r\nhello")
                } else {
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned()
                };
                _ = stream.write_all(answer.as_bytes()).await;
                _ = stream.shutdown().await;
            }
        });
        at
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("not poisoned"))
    }
}

async fn behind(proxy: &str, egress: &str, resolver: Scripted) -> Sandbox {
    let egress = Egress::parse(egress).expect("a setting");
    let upstream = proxy.parse().expect("a proxy");
    let gateway = Gateway::new(egress, vec![18790]).with(Box::new(resolver), Bounds::default());
    serve(gateway.through(Some(upstream))).await
}

const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 215, 14));
const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

#[tokio::test]
async fn what_is_public_goes_through_the_operators_proxy() {
    let operator = Operator::default();
    let at = operator.start("200 Connection established").await;
    let sandbox = behind(&format!("http://{at}"), "public", Scripted::new(&[&[PUBLIC]])).await;
    let (mut stream, head) = connect(&sandbox, "registry.example.org:443").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let rest = until(&mut stream, "hello").await;
    assert!(head.ends_with("hello") || rest == "hello", "{head} {rest}");
    assert_eq!(operator.asked(), ["CONNECT registry.example.org:443 HTTP/1.1"]);
    // An address, and SOCKS.
    let mut stream = sent(&sandbox, b"\x05\x01\x00\x05\x01\x00\x01\x5d\xb8\xd7\x0e\x01\xbb").await;
    assert!(until(&mut stream, "hello").await.ends_with("hello"));
    assert_eq!(operator.asked(), ["CONNECT 93.184.215.14:443 HTTP/1.1"]);
    // A plain request stays one: many proxies let no CONNECT through to port 80.
    let get = b"GET http://registry.example.org/x?y HTTP/1.1\r\nHost: registry.example.org\r\n\r\n";
    let mut stream = sent(&sandbox, get).await;
    assert!(until(&mut stream, "hello").await.starts_with("HTTP/1.1 200"));
    assert_eq!(operator.asked(), ["GET http://registry.example.org/x?y HTTP/1.1"]);
}

#[tokio::test]
async fn what_a_rule_opens_within_is_reached_directly() {
    let operator = Operator::default();
    let at = operator.start("200 OK").await;
    let inside = outside("inside").await;
    let rule = format!("public,{}", inside.ip());
    let sandbox = behind(&format!("http://{at}"), &rule, Scripted::new(&[&[inside.ip()]])).await;
    let (mut stream, _) = connect(&sandbox, &format!("db.example.org:{}", inside.port())).await;
    assert_eq!(until(&mut stream, "inside").await, "inside");
    assert_eq!(operator.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn the_policy_judges_before_the_operators_proxy_is_asked() {
    let operator = Operator::default();
    let at = operator.start("200 OK").await;
    let proxy = format!("http://{at}");
    let check = async |egress: &str, addresses: &[IpAddr], to: &str, rule: Option<&str>| {
        let sandbox = behind(&proxy, egress, Scripted::new(&[addresses])).await;
        let (_, head) = connect(&sandbox, to).await;
        match rule {
            None => assert!(head.starts_with("HTTP/1.1 200"), "{egress} {to}: {head}"),
            Some(rule) => {
                assert!(head.contains(&format!("x-mhnos-egress: {rule}\r")), "{egress} {to}: {head}");
            }
        }
        assert_eq!(operator.asked().len(), usize::from(rule.is_none()), "{egress} {to}");
    };
    check("public", &[PRIVATE], "db.example.org:443", Some("private")).await;
    // Which address is taken is for the proxy to say, so all must be allowed.
    check("public", &[PUBLIC, PRIVATE], "mixed.example.org:443", Some("private")).await;
    check("public", &[PUBLIC], "169.254.169.254:80", Some("metadata")).await;
    check("public", &[PUBLIC], "mail.example.org:25", Some("port-25")).await;
    check("*.example.org", &[PUBLIC], "www.example.com:443", Some("not-listed")).await;
    // Names that only the proxy can resolve.
    check("public", &[], "registry.example.org:443", None).await;
    check("registry.example.org:443", &[], "registry.example.org:443", None).await;
    check("registry.corp", &[], "registry.corp:443", None).await;
    for name in
        ["intranet", "db.internal", "metadata.google.internal", "router.lan", "2130706433", "127.1", "0x7f.1"]
    {
        check("public", &[], &format!("{name}:443"), Some("unresolved")).await;
    }
    check("10.0.0.0/8", &[], "db.example.org:443", Some("unresolved")).await;
    check("public", &[], "mail.example.org:25", Some("port-25")).await;
    check("public", &[], "me.example.org:18790", Some("service")).await;
}

#[tokio::test]
async fn the_operators_proxy_is_no_destination() {
    let named = "http://proxy.example.org:3128";
    let sandbox = behind(named, "public", Scripted::new(&[&[PUBLIC]])).await;
    for to in ["proxy.example.org:3128", "93.184.215.14:3128", "other-name.example.org:3128"] {
        let (_, head) = connect(&sandbox, to).await;
        assert!(head.contains("x-mhnos-egress: upstream"), "{to}: {head}");
    }
}

/// A rule for its network, or for its very address, opens what else is there.
#[tokio::test]
async fn no_rule_opens_the_operators_proxy_itself() {
    let operator = Operator::default();
    let at = operator.start("200 OK").await;
    let check = async |proxy: &str, egress: &str, address: IpAddr, to: &str| {
        let sandbox = behind(proxy, egress, Scripted::new(&[&[address]])).await;
        let (_, head) = connect(&sandbox, to).await;
        assert!(head.contains("x-mhnos-egress: upstream"), "{proxy} {egress} {to}: {head}");
    };
    let (named, rule) = ("http://proxy.example.org:3128", "public,10.0.0.0/8");
    for to in ["10.1.2.3:3128", "other.example.org:3128", "[::ffff:10.1.2.3]:3128"] {
        check(named, rule, PRIVATE, to).await;
    }
    check("http://10.1.2.3:3128", rule, PRIVATE, "other.example.org:3128").await;
    let (port, rule) = (at.port(), format!("public,{}", at.ip()));
    check(&format!("http://localhost:{port}"), &rule, at.ip(), &at.to_string()).await;
    check(&format!("http://{at}"), &rule, at.ip(), &format!("other.example.org:{port}")).await;
    // Which one it is cannot be said without its address.
    let sandbox = behind(&format!("http://localhost:{port}"), &rule, Scripted::default()).await;
    let (_, head) = connect(&sandbox, &at.to_string()).await;
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");
    assert_eq!(operator.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_operators_proxy_says_is_told() {
    let operator = Operator::default();
    let at = operator.start("407 Proxy Authentication Required").await;
    let sandbox = behind(&format!("http://{at}"), "public", Scripted::new(&[&[PUBLIC]])).await;
    let mut stream = sent(&sandbox, b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let answer = until(&mut stream, "407").await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("MHNOS_UPSTREAM_PROXY answers 407"),
        "{answer}"
    );
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("an address");
    let sandbox = behind(&format!("http://{gone}"), "public", Scripted::new(&[&[PUBLIC]])).await;
    let mut stream = sent(&sandbox, b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let answer = until(&mut stream, "does not connect").await;
    assert!(answer.contains("MHNOS_UPSTREAM_PROXY does not connect"), "{answer}");
}
