//! Many programs asked for at once, over many connections.

use futures_util::{StreamExt, stream::FuturesUnordered};
use mhnos_testing::{Server, Wire};
use serde_json::json;

use crate::start;

const CONNECTIONS: usize = 16;
const PROGRAMS: usize = 25;

async fn one_client(server: &Server) {
    let mut wire = Wire::connect(server.address()).await;
    for _ in 0..PROGRAMS {
        let spawn =
            json!({"processType": "shell", "command": "/bin/echo", "args": ["x"], "options": {"pty": false}});
        let pid = wire.spawn(spawn).await;
        let (stdout, _, exit) = wire.run_to_exit(pid).await;
        assert_eq!((stdout.as_str(), &exit["code"]), ("x\n", &json!(0)), "{exit}");
    }
}

/// The keeper takes rising numbers only: orders must reach it in the order of their numbers.
#[tokio::test]
async fn programs_asked_for_by_many_clients_at_once_all_start() {
    let server = start();
    let mut clients: FuturesUnordered<_> = (0..CONNECTIONS).map(|_| one_client(&server)).collect();
    while clients.next().await.is_some() {}
}
