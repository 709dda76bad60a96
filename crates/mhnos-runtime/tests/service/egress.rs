//! The way out: what programs reach through the policy, and what they do not, asked by the programs people use.
//!
//! The outside is a server of the test on a loopback address of its own (127.x.y.z), which a rule opens: to a program
//! in its own network that address is as far away as any other.

mod descriptors;
mod gap;
mod ipv6;
pub(crate) mod outside;
mod own_network;
mod past;
pub(crate) mod programs;
mod shared;

use std::{collections::BTreeMap, time::Duration};

use mhnos_testing::{Options, Server, Wire};
use serde_json::{Value, json};

use self::outside::Outside;
use crate::options;

/// Tests that need walls of their own say which the host must give.
fn policy(egress: &str) -> Options {
    options().env("MHNOS_EGRESS", egress).env("MHNOS_SANDBOX_MIN_TIER", "T2")
}

/// Runs a command line in a shell inside; what it printed, both streams, and its exit.
async fn shell(server: &Server, script: &str) -> (String, String, Value) {
    let mut wire = Wire::connect(server.address()).await;
    let arguments = json!(["-c", script]);
    let options = json!({"pty": false, "timeout": 120_000});
    let pid = wire
        .spawn(json!({"processType": "shell", "command": "bash", "args": arguments, "options": options}))
        .await;
    wire.run_to_exit(pid).await
}

/// The same for one that must end well; what it printed on stdout.
async fn said(server: &Server, script: &str) -> String {
    let (stdout, stderr, exit) = shell(server, script).await;
    assert_eq!(
        exit["code"],
        0,
        "{script}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n--- log\n{}",
        server.log()
    );
    stdout
}

#[tokio::test]
async fn a_rule_opens_what_it_names_and_nothing_else() {
    let outside = Outside::start();
    let other = Outside::start();
    let server = Server::start(policy(&outside.rule()));
    let url = outside.url();
    assert_eq!(said(&server, &format!("curl -sS {url}/hello")).await, "GET /hello");
    let (stdout, stderr, _) =
        shell(&server, &format!("curl -sS -w '%{{http_code}}' {}/hello", other.url())).await;
    assert!(stdout.ends_with("rule not-listed\n403"), "{stdout} {stderr}");
    assert_eq!(other.requests(), 0);
    // The same without the proxy: there is nobody.
    let (_, stderr, exit) = shell(&server, &format!("curl -sS --noproxy '*' {url}/hello")).await;
    assert_eq!(exit["code"], 7, "{stderr}");
    assert!(server.log().contains("refused a way out"), "{}", server.log());
}

const ATTEMPTS: &str = include_str!("egress/attempts.py");

/// What each attempt of attempts.py came to: `ok`, or an errno.
async fn attempts(server: &Server, outside: &Outside) -> BTreeMap<String, Value> {
    server.write("attempts.py", ATTEMPTS);
    let address = outside.address();
    let (ip, port, own) = (address.ip(), address.port(), server.address().port());
    outcomes(&said(server, &format!("python3 attempts.py {ip} {port} {own}")).await)
}

fn outcomes(stdout: &str) -> BTreeMap<String, Value> {
    let told = stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("a report"));
    told.map(|told| (told["attempt"].as_str().expect("a name").to_owned(), told)).collect()
}

#[track_caller]
fn assert_outcome(told: &BTreeMap<String, Value>, attempt: &str, expected: &str) {
    assert_eq!(told[attempt]["outcome"], expected, "{attempt}: {told:#?}");
}

/// Ports that are not captured lead nowhere: above all not to a neighbour who listens on that port of every address.
#[tokio::test]
async fn a_neighbour_is_not_taken_for_the_outside() {
    let server = Server::start(policy("public"));
    server.write("neighbour.py", include_str!("egress/neighbour.py"));
    let mut wire = Wire::connect(server.address()).await;
    let listen = json!({"processType": "python", "command": "neighbour.py", "args": ["listen"],
                        "options": {"pty": false}});
    let neighbour = wire.spawn(listen).await;
    wire.next_where(|message| message["pid"] == neighbour && message["data"] == "listening\n").await;
    let stdout = said(&server, "python3 neighbour.py ask").await;
    let told: BTreeMap<&str, &str> = stdout.lines().filter_map(|line| line.split_once(": ")).collect();
    assert_eq!(told["tcp 127.7.7.7"], "the neighbour", "{stdout}");
    for own in ["127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1"] {
        for kind in ["tcp", "udp"] {
            assert_eq!(told[&*format!("{kind} {own}")], "the neighbour", "{stdout}");
        }
    }
    for outside in [
        "203.0.113.9",
        "10.0.0.1",
        "169.254.169.254",
        "198.18.0.16",
        "2001:2::10",
        "2606:4700::1111",
        "fd00:ec2::254",
        "::ffff:203.0.113.9",
        "224.0.0.251",
        "ff0e::fb",
    ] {
        for kind in ["tcp", "udp"] {
            assert_eq!(told[&*format!("{kind} {outside}")], "ENETUNREACH", "{stdout}");
        }
    }
    for odd in ["255.255.255.255", "fe80::1%lo", "203.0.113.9 by lo", "203.0.113.9 by a route of its own"] {
        for kind in ["tcp", "udp"] {
            assert_ne!(told[&*format!("{kind} {odd}")], "the neighbour", "{stdout}");
        }
    }
}

#[tokio::test]
async fn without_a_network_of_its_own_the_same_attempts_succeed() {
    let outside = Outside::start();
    let server = Server::start(options().env("MHNOS_SANDBOX", "relaxed").env("MHNOS_EGRESS", "off"));
    // A policy that is not kept is told to be none.
    server.logged(Duration::from_secs(10), "MHNOS_EGRESS does nothing here");
    let told = attempts(&server, &outside).await;
    assert_outcome(&told, "tcp", "ok");
    assert_outcome(&told, "tcp to the service", "ok");
    assert!(outside.requests() > 0);
}

#[tokio::test]
async fn the_service_and_this_machine_are_out_of_reach() {
    let bystander = Outside::start();
    let server = Server::start(policy("public,127.0.0.1"));
    let service = server.address();
    // Through the proxy everything may be asked for; what the asker calls it makes no difference.
    for (host, rule) in [
        (format!("{service}"), "service"),
        (format!("localhost:{}", service.port()), "service"),
        (format!("[::ffff:127.0.0.1]:{}", service.port()), "service"),
        (format!("0x7f000001:{}", service.port()), "service"),
        (format!("2130706433:{}", service.port()), "service"),
        (format!("0.0.0.0:{}", service.port()), "service"),
        (bystander.rule(), "loopback"),
        ("169.254.169.254:80".to_owned(), "metadata"),
        ("2852039166:80".to_owned(), "metadata"),
        ("0xa9fea9fe:80".to_owned(), "metadata"),
        ("0251.0376.0251.0376:80".to_owned(), "metadata"),
        ("[::ffff:a9fe:a9fe]:80".to_owned(), "metadata"),
        ("[64:ff9b::a9fe:a9fe]:80".to_owned(), "metadata"),
        ("[fd00:ec2::254]:80".to_owned(), "metadata"),
        ("10.0.0.1:443".to_owned(), "private"),
        ("198.18.0.20:443".to_owned(), "reserved"),
        ("203.0.113.1:25".to_owned(), "port-25"),
    ] {
        // No tool rewrites what is written here.
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT {host} HTTP/1.1\\r\\n\\r\\n' >&3; head -n 4 <&3"
        );
        let answer = said(&server, &script).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{host}: {answer}");
        assert!(
            answer.to_ascii_lowercase().contains(&format!("x-mhnos-egress: {rule}\r")),
            "{host}: {answer}"
        );
    }
    assert_eq!(bystander.requests(), 0);
    let (_, stderr, exit) = shell(&server, "curl -sS --noproxy '*' http://169.254.169.254/latest").await;
    // The reset may come before curl has seen the connection (7), or after (56).
    assert!([7, 56].iter().any(|code| exit["code"] == *code), "{exit} {stderr}");
    server.logged(Duration::from_secs(10), "\"rule\":\"metadata\",\"via\":\"connection\"");
}

#[tokio::test]
async fn a_redirect_leads_nowhere_that_a_program_could_not_go_itself() {
    let (outside, inside) = (Outside::start(), Outside::start());
    let server = Server::start(policy(&outside.rule()));
    let script = format!("curl -sSL -w '%{{http_code}}' '{}/to?{}/secret'", outside.url(), inside.url());
    let (stdout, ..) = shell(&server, &script).await;
    assert!(stdout.ends_with("403"), "{stdout}");
    assert_eq!((outside.requests(), inside.requests()), (1, 0));
    let again = format!("curl -sSL '{}/to?{}/open'", outside.url(), outside.url());
    assert_eq!(said(&server, &again).await, "GET /open");
}

/// Addresses only: how long a machine takes to find out that there is no such name is its own affair.
#[tokio::test]
async fn the_operators_proxy_is_asked_for_what_is_public() {
    let operator = Outside::start();
    let proxy = format!("http://{}", operator.address());
    let server = Server::start(policy("public").env("MHNOS_UPSTREAM_PROXY", &proxy));
    let url = "http://203.0.113.1/x";
    assert_eq!(said(&server, &format!("curl -sS {url}")).await, format!("GET {url}"));
    let (stdout, ..) = shell(&server, "curl -sS http://10.0.0.1/").await;
    assert!(stdout.contains("rule private"), "{stdout}");
    let (stdout, ..) = shell(&server, &format!("curl -sS {proxy}/")).await;
    assert!(stdout.contains("rule upstream"), "{stdout}");
    assert_eq!(operator.requests(), 1);
}

#[tokio::test]
async fn off_is_nothing_at_all() {
    let outside = Outside::start();
    let server = Server::start(policy("off"));
    let (stdout, ..) =
        shell(&server, &format!("curl -sS {}/hello; getent hosts example.org", outside.url())).await;
    assert!(stdout.contains("rule off") && !stdout.contains("198.1"), "{stdout}");
    assert_eq!(outside.requests(), 0);
    // Programs of one sandbox reach each other all the same.
    let own = "python3 -m http.server 8123 --bind 127.0.0.1 >/dev/null 2>&1 & \
               until curl -fsS http://localhost:8123/ >/dev/null 2>&1; do :; done; echo reached; kill $!";
    assert_eq!(said(&server, own).await, "reached\n");
}

#[tokio::test]
async fn who_asks_is_told_of_refusals_and_nobody_else() {
    let server = Server::start(policy("public"));
    let mut asks = Wire::connect(server.address()).await;
    let mut silent = Wire::connect(server.address()).await;
    let options = json!({"pty": false, "events": ["egress"]});
    let script = "read x; exec 3<>/dev/tcp/10.0.0.7/80; read x; exec 3<>/dev/tcp/10.0.0.8/443; read x";
    let spawn =
        json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": options});
    let pid = asks.spawn(spawn).await;
    silent.request(json!({"type": "attach", "id": 1, "pid": pid})).await;
    asks.send(&json!({"type": "write", "pid": pid, "data": "go\n"})).await;
    let told = asks.next_where(|message| message["type"] == "egress").await;
    // In the workspace's sandbox nobody knows which process it was.
    let expected = json!({"type": "egress", "pid": null, "host": "10.0.0.7", "port": 80, "rule": "private",
                          "via": "connection", "count": 1, "others": 0});
    assert_eq!(told, expected);
    let wrong = json!({"type": "attach", "id": 2, "pid": pid, "events": ["everything"]});
    assert_eq!(silent.request(wrong).await["code"], "INVALID_VALUE");
    // Who attaches for it is told from then on; who has let go is told no more.
    let mut late = Wire::connect(server.address()).await;
    late.request(json!({"type": "attach", "id": 1, "pid": pid, "events": ["egress"]})).await;
    asks.request(json!({"type": "detach", "id": 3, "pid": pid})).await;
    late.send(&json!({"type": "write", "pid": pid, "data": "go\n"})).await;
    let told = late.next_where(|message| message["type"] == "egress").await;
    assert_eq!((&told["host"], &told["port"]), (&json!("10.0.0.8"), &json!(443)), "{told}");
    for wire in [&mut asks, &mut silent] {
        wire.send(&json!({"type": "ping", "id": "last"})).await;
        loop {
            let message = wire.next().await;
            assert_ne!(message["type"], "egress", "{message}");
            if message["id"] == "last" {
                break;
            }
        }
    }
}
