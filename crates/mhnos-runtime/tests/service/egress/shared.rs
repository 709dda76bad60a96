//! Programs that share the host's network (T3+, T3): kept from it but for the proxy, which is theirs alone.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use mhnos_testing::{Options, Server, Wire, waived::kept};
use serde_json::json;

use super::{assert_outcome, attempts, outside::Outside, programs, said, shell};
use crate::{abuse::strict_hosts, options};

/// Hosts without namespaces whose kernel knows rules for ports, unless they are waived by name.
pub(super) fn hosts() -> impl Iterator<Item = &'static str> {
    kept(&["container", "one-user"]).into_iter()
}

pub(super) fn policy(host: &str, egress: &str) -> Options {
    options().env("MHNOS_EGRESS", egress).on(host)
}

#[tokio::test]
async fn without_a_network_of_their_own_programs_get_out_by_the_proxy_alone() {
    for host in hosts() {
        let (outside, other) = (Outside::start(), Outside::start());
        let server = Server::start(policy(host, &outside.rule()));
        let url = outside.url();
        for script in [
            format!("curl -sS {url}/x"),
            format!("curl -sS --socks5-hostname ${{HTTP_PROXY#http://}} {url}/x"),
            format!("curl -sS --proxytunnel {url}/x"),
            programs::node_fetch(&url),
            programs::node_get(&url),
            format!(
                "python3 -c \"import urllib.request as r; print(r.urlopen('{url}/x').read().decode(), end='')\""
            ),
        ] {
            assert_eq!(said(&server, &script).await, "GET /x", "{host}: {script}");
        }
        let refused = format!("curl -sS -w '%{{http_code}}' {}/x", other.url());
        let (stdout, stderr, _) = shell(&server, &refused).await;
        assert!(stdout.ends_with("rule not-listed\n403"), "{host}: {stdout} {stderr}");
        assert_eq!(other.requests(), 0, "{host}");
    }
}

#[tokio::test]
async fn without_a_network_of_their_own_programs_do_not_get_past_the_proxy() {
    for host in hosts() {
        let outside = Outside::start();
        let server = Server::start(policy(host, &format!("public,{}", outside.rule())));
        let told = attempts(&server, &outside).await;
        for attempt in [
            "tcp",
            "tcp to the service",
            "tcp to a public address",
            "tcp over IPv6",
            "http to the metadata",
            "http to the metadata, mapped",
            "http to the metadata of IPv6",
            "http to a private address",
            "https to a multicast address",
        ] {
            assert_outcome(&told, attempt, "EACCES");
        }
        for attempt in
            ["udp", "udp over IPv6", "another server for names", "a name with data in it", "a raw socket"]
        {
            assert_outcome(&told, attempt, "EAFNOSUPPORT");
        }
        assert_eq!(outside.requests(), 0, "{host}");
        // Nor does the proxy lead where a program may not go, itself included.
        let own = "${HTTP_PROXY#http://}".to_owned();
        for (at, rule) in [
            (server.address().to_string(), "service"),
            (own, "service"),
            ("169.254.169.254:80".to_owned(), "metadata"),
            ("[::ffff:a9fe:a9fe]:80".to_owned(), "metadata"),
            ("10.0.0.1:443".to_owned(), "private"),
            ("203.0.113.1:25".to_owned(), "port-25"),
        ] {
            let script = format!(
                "at=\"{at}\"; port=${{HTTP_PROXY##*:}}; exec 3<>/dev/tcp/127.0.0.1/$port; \
                 printf 'CONNECT %s HTTP/1.1\\r\\n\\r\\n' \"$at\" >&3; head -n 4 <&3"
            );
            let answer = said(&server, &script).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{host}: {at}: {answer}");
            let header = format!("x-mhnos-egress: {rule}\r");
            assert!(answer.to_ascii_lowercase().contains(&header), "{host}: {at}: {answer}");
        }
    }
}

/// The control of both: the same host, whose network is the programs'.
#[tokio::test]
async fn under_relaxed_the_network_of_the_host_is_the_programs() {
    for host in hosts() {
        let outside = Outside::start();
        let server = Server::start(policy(host, "off").env("MHNOS_SANDBOX", "relaxed"));
        let told = attempts(&server, &outside).await;
        for attempt in ["tcp", "tcp to the service"] {
            assert_outcome(&told, attempt, "ok");
        }
        // It was sent: the host it came to says that nobody listens.
        assert_outcome(&told, "udp", "ECONNREFUSED");
        assert_eq!(
            said(&server, "echo \"[$HTTP_PROXY$https_proxy$NODE_USE_ENV_PROXY]\"").await,
            "[]\n",
            "{host}"
        );
    }
}

#[tokio::test]
async fn programs_of_one_workspace_reach_what_they_listen_on() {
    for host in hosts() {
        let server = Server::start(policy(host, "off"));
        // One of the ports that development servers use by habit; the tests of other hosts use others.
        let port = if host == "container" { 5174 } else { 5175 };
        let script = format!(
            "python3 -m http.server {port} --bind 127.0.0.1 >/dev/null 2>&1 & \
             until curl -fsS http://localhost:{port}/ >/dev/null 2>&1; do :; done; echo reached; kill $!"
        );
        assert_eq!(said(&server, &script).await, "reached\n", "{host}");
    }
}

/// What somebody gets who is no program of this service and asks its proxy to connect.
fn stranger(port: u16, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    write!(stream, "CONNECT {target} HTTP/1.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test]
async fn the_proxy_on_the_hosts_loopback_is_for_programs_alone() {
    for host in hosts() {
        let outside = Outside::start();
        let server = Server::start(policy(host, &outside.rule()));
        let port = said(&server, "printf %s ${HTTP_PROXY##*:}").await.parse().expect("a port");
        // The tests are root, or at least not the user that programs of the container are.
        match stranger(port, &outside.rule()) {
            Err(error) => {
                let cut = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind());
                assert!(cut, "{host}: {error}");
            }
            Ok(answer) => assert_eq!(answer, "", "{host}"),
        }
        assert_eq!(outside.requests(), 0, "{host}");
        assert_eq!(said(&server, &format!("curl -sS {}/x", outside.url())).await, "GET /x", "{host}");
    }
}

/// Before Linux 6.7 nothing keeps a program from the service's port but the service, which knows whose connections are a
/// program's.
#[tokio::test]
async fn where_no_rule_keeps_programs_from_the_service_it_does_itself() {
    for host in strict_hosts().filter(|host| *host == "container-linux-6.1") {
        for (mode, expected) in [("strict", "reset"), ("relaxed", "HTTP/1.1 200 OK")] {
            let server = Server::start(options().env("MHNOS_SANDBOX", mode).on(host));
            server.write("ask.py", include_str!("ask.py"));
            let ask = format!("python3 ask.py {}", server.address().port());
            // What was sent by somebody who has left is no better.
            let told = said(&server, &ask).await;
            assert_eq!(told.lines().collect::<Vec<_>>(), [expected; 3], "{mode}: {told}");
            // The control: others are let in.
            assert_eq!(server.get("/health").status, 200, "{mode}");
            if mode == "strict" {
                let metrics = server.get("/metrics").body;
                let refused = metrics.lines().find(|line| line.contains("\"program\"")).expect("a series");
                assert!(refused.ends_with(" 4"), "{refused}");
            }
        }
    }
}

#[tokio::test]
async fn what_restricts_a_shared_network_is_told() {
    for host in hosts() {
        let server = Server::start(policy(host, "public"));
        let mut wire = Wire::connect(server.address()).await;
        let status = wire.request(json!({"type": "status", "id": 1})).await;
        let layers = status["isolation"]["layers"].as_array().expect("layers");
        assert!(layers.contains(&json!("net-proxy")), "{host}: {status}");
        assert!(!server.log().contains("MHNOS_EGRESS does nothing"), "{host}: {}", server.log());
    }
}
