//! IPv6 beyond the loopback: the test moves into a network of its own, with a cable to another one.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use mhnos_testing::Server;

use super::{
    own_network::{ip, is_inside},
    policy, said, shell,
};

/// A host at the other end of the cable, until it is dropped.
struct Far(Child);

impl Far {
    fn connect() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "python3", "-c", include_str!("far.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare and python3");
        let mut heard = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        heard.read_line(&mut line).expect("it is in its own network");
        ip("link set lo up");
        ip("link add name near type veth peer name far");
        ip(&format!("link set far netns {}", child.id()));
        ip("link set near up");
        for address in ["fd77::1/64", "2001:db8:77::1/64"] {
            ip(&format!("-6 address add {address} dev near nodad"));
        }
        writeln!(child.stdin.as_mut().expect("piped"), "go").expect("it listens");
        line.clear();
        heard.read_line(&mut line).expect("it serves");
        assert_eq!(line, "serving\n");
        Self(child)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_server_beyond_this_machine_is_reached_over_ipv6() {
    if !is_inside("egress::ipv6::a_server_beyond_this_machine_is_reached_over_ipv6") {
        return;
    }
    let _far = Far::connect();
    let server = Server::start(policy("[fd77::]/64"));
    for script in [
        "curl -sSg http://[fd77::2]:8080/x",
        // Not by the proxy, but caught.
        "curl -sSg --noproxy '*' http://[fd77::2]/x",
        "node -e \"fetch('http://[fd77::2]/x').then(r => r.text()).then(t => process.stdout.write(t))\"",
        "python3 -c \"import urllib.request as r; print(r.urlopen('http://[fd77::2]:8080/x').read().decode(), end='')\"",
    ] {
        assert_eq!(said(&server, script).await, "GET /x for fd77::1", "{script}");
    }
    let other = "curl -sSg -w '%{http_code}' http://[2001:db8:77::2]:8080/x";
    let (stdout, ..) = shell(&server, other).await;
    assert!(stdout.ends_with("rule not-listed\n403"), "{stdout}");

    let public = Server::start(policy("public"));
    assert_eq!(said(&public, "curl -sSg http://[2001:db8:77::2]:8080/x").await, "GET /x for 2001:db8:77::1");
    let (stdout, ..) = shell(&public, "curl -sSg -w '%{http_code}' http://[fd77::2]:8080/x").await;
    assert!(stdout.ends_with("rule private\n403"), "{stdout}");
    // The near end is this machine's own, public or not.
    let (stdout, ..) = shell(&public, "curl -sSg -w '%{http_code}' http://[2001:db8:77::1]:8080/x").await;
    assert!(stdout.ends_with("rule own-address\n403"), "{stdout}");
}
