//! A bridge that dies: what it carried breaks, and what asks meanwhile waits for the next.

use std::time::Duration;

use mhnos_testing::{Server, Wire, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use super::{outside::Outside, policy, said, shared};
use crate::requests::bridge;

/// Reached on failure only.
const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn connections_made_while_there_is_no_bridge_are_served_by_the_next() {
    let outside = Outside::start();
    gap(&Server::start(policy(&outside.rule())), &outside).await;
    for host in shared::hosts() {
        let outside = Outside::start();
        gap(&Server::start(shared::policy(host, &outside.rule())), &outside).await;
    }
}

async fn gap(server: &Server, outside: &Outside) {
    server.write("gap.py", include_str!("gap.py"));
    let mut wire = Wire::connect(server.address()).await;
    wire.spawn(json!({"processType": "python", "command": "gap.py", "args": [outside.rule()]})).await;
    let told = |name: &str| {
        let file = server.workspace().join(name);
        eventually(LONG, name, || std::fs::read_to_string(&file).ok())
    };
    told("ready");
    // From here on nobody accepts, until the next bridge does.
    let first = bridge(server).expect("a bridge");
    kill_process(first, Signal::STOP).expect("it is ours");
    let tasks = format!("/proc/{}/task", first.as_raw_nonzero());
    eventually(LONG, "a bridge that stands still", || {
        let states = std::fs::read_dir(&tasks).ok()?.map(|task| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            Some(stat.rsplit_once(") ")?.1.starts_with('T'))
        });
        states.collect::<Option<Vec<_>>>()?.into_iter().all(|stopped| stopped).then_some(())
    });
    std::fs::write(server.workspace().join("go"), "go").expect("the program reads");
    told("asked");
    assert_eq!(outside.requests(), 0);
    kill_process(first, Signal::KILL).expect("it is ours");
    assert_eq!(told("result"), "broken: True, HTTP/1.1 200");
    assert_eq!(outside.requests(), 1);
}

/// The names a bridge has given addresses to go with it, and programs remember what they were told.
#[tokio::test]
async fn the_address_of_a_name_stands_for_no_other_at_the_next_bridge() {
    let server = Server::start(policy("public"));
    server.write("remembers.py", include_str!("remembers.py"));
    let mut wire = Wire::connect(server.address()).await;
    wire.spawn(json!({"processType": "python", "command": "remembers.py"})).await;
    let told = |name: &str| {
        let file = server.workspace().join(name);
        eventually(LONG, name, || std::fs::read_to_string(&file).ok())
    };
    let old = told("address");
    let first = bridge(&server).expect("a bridge");
    kill_process(first, Signal::KILL).expect("it is ours");
    eventually(LONG, "another bridge", || bridge(&server).filter(|pid| *pid != first));
    // Somebody else asks for another name first.
    let ask = "python3 -c \"import socket; print(socket.gethostbyname('new.example'), end='')\"";
    let new = said(&server, ask).await;
    assert!(new.starts_with("198.1") && new != old, "{old}: {new}");
    std::fs::write(server.workspace().join("go"), "go").expect("the program reads");
    assert_eq!(told("result"), "ECONNRESET");
    server.logged(LONG, "\"rule\":\"name-expired\"");
}
