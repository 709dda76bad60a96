//! Who may speak to the service, and what a client's environment may not decide.

use mhnos_testing::{Wire, WireOptions, http_get};
use serde_json::json;

use crate::{
    requests::{assert_serves, node, python, with_options},
    start,
};

/// Defect 25: what the kernel says of the port.
#[test]
fn only_this_machine_is_listened_to() {
    const LISTEN: &str = "0A";
    let server = start();
    let port = format!("{:04X}", server.address().port());
    let mut listening = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let Some((address, of)) = fields[1].split_once(':') else { continue };
            if of == port && fields[3] == LISTEN {
                listening.push(address.to_owned());
            }
        }
    }
    // 127.0.0.1 and ::1, as proc(5) writes them on little-endian machines.
    let loopback = ["0100007F", "00000000000000000000000001000000"];
    assert!(
        !listening.is_empty() && listening.iter().all(|one| loopback.contains(&one.as_str())),
        "{listening:?}"
    );
}

/// Defect 25.
#[tokio::test]
async fn pages_of_other_origins_and_rebound_hosts_are_refused() {
    let server = start();
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Origin", "https://localhost.evil.example"),
        ("Origin", "http://127.0.0.1.evil.example:8080"),
        ("Origin", "null"),
        ("Origin", "file://"),
        ("Origin", ""),
        ("Host", "evil.example"),
        ("Host", "rebound.example:80"),
    ] {
        let header = format!("{name}: {value}");
        for path in ["/", "/health"] {
            let reply = http_get(server.address(), path, &[&header]).expect("an answer");
            assert_eq!(reply.status, 403, "{header}: {reply:?}");
        }
        if name == "Origin" {
            let options = WireOptions::default().header(name, value);
            Wire::open(server.address(), options).await.expect_err(&header);
        }
    }
    let log = server.log();
    assert!(log.contains("http://evil.example") && log.contains("MHNOS_ALLOWED_ORIGINS"), "{log}");
    for origin in ["http://localhost:8080", "http://127.0.0.1:3000", "http://[::1]:3000", "https://localhost"]
    {
        let options = WireOptions::default().header("Origin", origin);
        assert_serves(&mut Wire::connect_as(server.address(), options).await).await;
    }
}

/// Defect 25: `options.env` is the program's, not the service's.
#[tokio::test]
async fn the_environment_does_not_choose_the_interpreter() {
    let server = start();
    server.write("evil/node", "#!/bin/sh\necho evil\n");
    server.write("evil/python3", "#!/bin/sh\necho evil\n");
    let mut wire = Wire::connect(server.address()).await;
    for (spawn, expected) in [
        (node("console.log(process.env.PATH.split(':')[0])"), "/workspace/evil\n"),
        (python("import os; print(os.environ['PATH'].split(':')[0])"), "/workspace/evil\n"),
    ] {
        let env = json!({"env": {"PATH": "/workspace/evil:/usr/bin:/bin"}});
        let pid = wire.spawn(with_options(spawn, env)).await;
        let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
        assert_eq!((stdout.as_str(), &exit["code"]), (expected, &json!(0)), "{stderr}");
    }
}
