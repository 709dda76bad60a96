//! Ways past the policy, in a network where somebody listens at the end of each.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use mhnos_testing::{Server, eventually};
use serde_json::{Value, json};

use super::{
    ATTEMPTS, assert_outcome, attempts, outcomes,
    outside::Outside,
    own_network::{ip, is_inside},
    policy, said,
};

/// Reached on failure only.
const LONG: Duration = Duration::from_mins(1);

/// Listens on all addresses this network has, until it is dropped.
struct Everywhere {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl Everywhere {
    fn listen(port: u16) -> Self {
        for address in ["203.0.113.9/32", "9.9.9.9/32", "10.255.255.1/32", "169.254.169.254/32"] {
            ip(&format!("address add {address} dev lo"));
        }
        for address in ["2606:4700::1111/128", "fd00:ec2::254/128"] {
            ip(&format!("-6 address add {address} dev lo nodad"));
        }
        let mut child = Command::new("python3")
            .args(["-c", include_str!("everywhere.py"), &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let told = BufReader::new(child.stdout.take().expect("piped"));
        let mut everywhere = Self { child, told };
        assert_eq!(everywhere.line(), "listening\n");
        everywhere
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).expect("it speaks");
        line
    }

    /// Who has come since this was asked last.
    fn came(&mut self) -> Vec<Value> {
        writeln!(self.child.stdin.as_mut().expect("piped")).expect("it listens");
        serde_json::from_str(&self.line()).expect("a list")
    }
}

impl Drop for Everywhere {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[tokio::test]
async fn nothing_leaves_past_the_policy() {
    if !is_inside("egress::past::nothing_leaves_past_the_policy") {
        return;
    }
    let outside = Outside::start();
    let address = outside.address();
    let mut everywhere = Everywhere::listen(address.port());
    let server = Server::start(policy(&format!("public,{}", outside.rule())));

    // The control: outside the sandbox each of them arrives.
    let (port, own) = (address.port().to_string(), server.address().port().to_string());
    let output = Command::new("python3")
        .args(["-c", ATTEMPTS, &address.ip().to_string(), &port, &own])
        .output()
        .expect("python3");
    let told = outcomes(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(told.len(), 15, "{told:#?}");
    for (attempt, outcome) in &told {
        // No kernel connects to many.
        let expected = if attempt == "https to a multicast address" { "ENETUNREACH" } else { "ok" };
        assert_eq!(outcome["outcome"], expected, "{attempt}: {told:#?}");
    }
    assert_eq!(told["text of a name"]["value"]["answers"], 1, "{told:#?}");
    assert_eq!(outside.requests(), 1);
    let mut came = Vec::new();
    for expected in [
        json!(["tcp", "203.0.113.9", 8443]),
        json!(["tcp", "2606:4700::1111", 8443]),
        json!(["tcp", "169.254.169.254", 80]),
        json!(["tcp", "fd00:ec2::254", 80]),
        json!(["tcp", "10.255.255.1", 80]),
        json!(["udp", address.port()]),
        json!(["udp", 443]),
        json!(["udp", 53]),
    ] {
        // What was sent without an answer is on its way.
        eventually(LONG, "an arrival", || {
            came.extend(everywhere.came());
            came.contains(&expected).then_some(())
        });
    }

    let told = attempts(&server, &outside).await;
    // The loopback is the programs' own: nobody listens there.
    for attempt in ["tcp", "tcp to the service", "udp"] {
        assert_outcome(&told, attempt, "ECONNREFUSED");
    }
    for attempt in [
        "tcp to a public address",
        "tcp over IPv6",
        "udp over IPv6",
        "another server for names",
        "https to a multicast address",
    ] {
        assert_outcome(&told, attempt, "ENETUNREACH");
    }
    for attempt in [
        "http to the metadata",
        "http to the metadata, mapped",
        "http to the metadata of IPv6",
        "http to a private address",
    ] {
        assert_outcome(&told, attempt, "ECONNRESET");
    }
    let named = &told["a name with data in it"]["value"];
    let ours = named["end"][0] == 198 && [18, 19].iter().any(|second| named["end"][1] == *second);
    assert!(ours, "an address of ours: {named}");
    assert_eq!(told["text of a name"]["value"]["answers"], 0, "{told:#?}");
    assert_outcome(&told, "a raw socket", "EAFNOSUPPORT");
    assert_eq!((outside.requests(), everywhere.came()), (1, Vec::new()));
    // Here they are this machine's own.
    server.logged(LONG, "\"rule\":\"own-address\",\"via\":\"connection\"");
    // By the way that is open.
    assert_eq!(said(&server, &format!("curl -sS {}/hello", outside.url())).await, "GET /hello");
}
