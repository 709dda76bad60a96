//! Programs with all the connections they may have, and clients that come then: whatever limit of open files the
//! service was started with.

use mhnos_testing::{Server, Wire, WireOptions};
use serde_json::{Value, json};

use super::{outside::Outside, policy};
use crate::bad_clients::allow_many_files;

/// What a shell, a container or a service manager gives who does not ask for more.
const USUAL: u64 = 1024;

/// Asks the proxy for connections until it gives no more, says how many, and keeps them. A reset is a refusal.
const HOARD: &str = "
import socket, sys
kept = []
for _ in range(600):
    s = socket.create_connection(('127.0.0.1', 3128))
    try:
        s.sendall(b'CONNECT %s HTTP/1.1\\r\\n\\r\\n' % sys.argv[1].encode())
        if not s.recv(4096).startswith(b'HTTP/1.1 200'):
            break
    except ConnectionError:
        break
    kept.append(s)
print(f'kept={len(kept)}', flush=True)
sys.stdin.read()
";

/// Starts one in a sandbox of its own; how many connections it has.
async fn hoard(wire: &mut Wire, outside: &Outside) -> u64 {
    let options = json!({"pty": false, "isolation": "private"});
    let arguments = json!([HOARD, outside.rule()]);
    let pid = wire
        .spawn(json!({"processType": "python", "command": "-c", "args": arguments, "options": options}))
        .await;
    let said = wire.stdout_until(pid, "\n").await;
    said.trim().strip_prefix("kept=").expect("a number").parse().expect("one")
}

async fn assert_clients_get_in(server: &Server) {
    let mut clients = Vec::new();
    for number in 0..100 {
        let mut client = Wire::connect_as(server.address(), WireOptions::modern()).await;
        let answer: Value = client.request(json!({"type": "ping", "id": number})).await;
        assert_eq!(answer["type"], "pong", "client {number}: {answer}");
        clients.push(client);
    }
}

#[tokio::test]
async fn a_low_soft_limit_of_open_files_keeps_no_client_out() {
    allow_many_files();
    let outside = Outside::start();
    let server = Server::start(policy(&outside.rule()).ulimit(&format!("-S -n {USUAL}")));
    let mut wire = Wire::connect(server.address()).await;
    assert_eq!(hoard(&mut wire, &outside).await, 512);
    assert_clients_get_in(&server).await;
    // Programs have what they had.
    let limit = super::said(&server, "ulimit -Sn; ulimit -Hn").await;
    assert_eq!(limit, "4096\n4096\n");
}

#[tokio::test]
async fn where_files_are_few_programs_of_all_sandboxes_together_leave_half_of_them_to_clients() {
    allow_many_files();
    let outside = Outside::start();
    let server = Server::start(policy(&outside.rule()).ulimit(&format!("-n {USUAL}")));
    let warning = server.log();
    assert!(warning.contains("1024 open files are allowed") && warning.contains("hard limit"), "{warning}");
    let mut wire = Wire::connect(server.address()).await;
    // Two of each connection's are counted.
    assert_eq!(hoard(&mut wire, &outside).await, USUAL / 4);
    assert_eq!(hoard(&mut wire, &outside).await, 0);
    assert_clients_get_in(&server).await;
}
