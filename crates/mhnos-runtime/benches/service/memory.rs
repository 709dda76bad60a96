//! What the service holds when it has nothing to do: the proportional share of all its own processes.

use mhnos_testing::{Server, Wire};

use crate::{report, start};

const CONNECTIONS: usize = 100;

pub(crate) async fn idle() {
    let server = start();
    // One client, come and gone, so that what is set up on first use is there.
    drop(Wire::connect(server.address()).await);
    let idle = proportional_kib(&server);
    report("memory, idle (PSS of all own processes)", &format!("{:.1} MiB", idle as f64 / 1024.0));
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Wire::connect(server.address()).await);
    }
    let grown = proportional_kib(&server).saturating_sub(idle);
    report("memory, for each idle connection", &format!("{:.1} KiB", grown as f64 / CONNECTIONS as f64));
}

fn proportional_kib(server: &Server) -> u64 {
    let descendants = server.descendants();
    let all = descendants.iter().map(|process| process.os_pid).chain([server.os_pid()]);
    let share = |pid: i32| -> Option<u64> {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()
    };
    all.filter_map(share).sum()
}
