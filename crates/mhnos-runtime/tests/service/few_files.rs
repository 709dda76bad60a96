//! A service that may open few files, and more clients than that: the ones that are there are served, the others wait.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::chown,
    time::Duration,
};

use mhnos_testing::{Scratch, Server, Wire};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    bad_clients::allow_many_files,
    options,
    requests::{assert_serves, bash, python, with_options},
};

const FILES: usize = 512;

/// No answer takes this long.
const ANSWERED: Duration = Duration::from_mins(1);

/// A program's descriptors come with the word that it has started: without room for them that is lost.
#[tokio::test]
async fn clients_beyond_the_files_the_service_may_open_wait_and_those_before_them_can_start_programs() {
    allow_many_files();
    let server = Server::start(options().ulimit(&format!("-n {FILES}")));
    let address = server.address();
    let mut wire = Wire::connect(address).await;
    let handshake = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut clients: Vec<TcpStream> = (0..2 * FILES)
        .map(|_| {
            let mut client = TcpStream::connect(address).expect("it listens");
            client.write_all(handshake.as_bytes()).expect("sent");
            client
        })
        .collect();
    // Once it is known that some wait, as many are in as there will be.
    let waits = async {
        while !server.log().contains("they wait until others leave") {
            assert_serves(&mut wire).await;
        }
    };
    timeout(ANSWERED, waits).await.expect("some wait");
    for _ in 0..5 {
        let starts = async {
            let pid = wire.spawn(bash("echo starts; sleep 1000")).await;
            wire.stdout_until(pid, "starts").await;
        };
        timeout(ANSWERED, starts).await.expect("a program starts although others wait");
    }
    let list = wire.request(json!({"type": "list", "id": "list"})).await;
    assert_eq!(list["stats"]["active"], 5, "{list}");
    // Who has waited is let in when others have left.
    let mut last = clients.pop().expect("many");
    drop(clients);
    last.set_read_timeout(Some(ANSWERED)).expect("a timeout");
    let mut answer = [0; 12];
    last.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 101");
}

/// Sends descriptors to itself until the kernel takes no more of its user's, and keeps them.
const IN_FLIGHT: &str = "
import array, os, socket, sys
kept, sent, many = [], 0, array.array('i', [0] * 64)
try:
    while True:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        kept.append(pair)
        pair[0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)])
        sent += len(many)
except OSError as error:
    print(f'{sent} {os.strerror(error.errno)}', flush=True)
sys.stdin.read()
";

/// The kernel counts them by user, and this service's is no other test's.
#[tokio::test]
async fn descriptors_that_programs_have_on_their_way_are_in_nobodys_way() {
    const USER: u32 = 9989;
    let workspace = Scratch::new();
    chown(workspace.path(), Some(USER), Some(USER)).expect("root");
    let server =
        Server::start(options().on("root").ulimit(&format!("-n {FILES}")).workspace(workspace.path()));
    let mut wire = Wire::connect(server.address()).await;
    let hog = wire.spawn(python(IN_FLIGHT)).await;
    let said = wire.stdout_until(hog, "\n").await;
    assert!(said.contains("Too many references"), "the control: {said}");
    for options in [json!({"pty": false}), json!({"pty": true})] {
        let pid = wire.spawn(with_options(bash("echo starts"), options)).await;
        assert!(wire.run_to_exit(pid).await.0.contains("starts"));
    }
}
