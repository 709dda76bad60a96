//! What a service manager hears of the service, and that programs hear nothing of it.

use std::{os::unix::net::UnixDatagram, time::Duration};

use mhnos_testing::{Scratch, Server, Wire};
use serde_json::json;

use crate::options;

/// For any one message; a loaded machine gets its time.
const DEADLINE: Duration = Duration::from_secs(30);

fn hear(manager: &UnixDatagram) -> String {
    let mut text = [0; 1000];
    let length = manager.recv(&mut text).expect("a message in time");
    String::from_utf8_lossy(&text[..length]).into_owned()
}

#[tokio::test]
async fn a_service_manager_hears_ready_signs_of_life_and_stopping() {
    let scratch = Scratch::new();
    let socket = scratch.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("bind");
    manager.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let options = options()
        .env("NOTIFY_SOCKET", socket.display().to_string())
        .env("WATCHDOG_USEC", "200000")
        .env("MHNOS_KILL_GRACE", "1h");
    let mut server = Server::start(options);
    assert!(hear(&manager).starts_with("READY=1"), "first of all");
    assert_eq!(hear(&manager), "WATCHDOG=1");
    assert_eq!(hear(&manager), "WATCHDOG=1");

    let mut wire = Wire::connect(server.address()).await;
    let order =
        json!({"processType": "shell", "command": "bash", "args": ["-c", "env"], "options": {"pty": false}});
    let pid = wire.spawn(order).await;
    let (environment, ..) = wire.run_to_exit(pid).await;
    assert!(environment.contains("HOME="), "the control: {environment}");
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"), "{environment}");

    server.stop();
    let mut heard = hear(&manager);
    while heard == "WATCHDOG=1" {
        heard = hear(&manager);
    }
    assert!(heard.starts_with("STOPPING=1"), "{heard}");
    let asked = heard.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    let asked = Duration::from_micros(asked.and_then(|micros| micros.parse().ok()).expect(&heard));
    assert!(asked > Duration::from_hours(1), "as long as the grace period, and what comes after: {asked:?}");
}
