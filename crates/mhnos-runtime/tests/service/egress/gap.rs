//! A bridge that dies: what it carried breaks, and what asks meanwhile waits for the next.

use std::time::Duration;

use mhnos_testing::{Server, Wire, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use super::{outside::Outside, policy, shared};
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
