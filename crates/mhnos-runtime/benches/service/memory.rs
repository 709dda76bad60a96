//! What the service holds when it has nothing to do: the proportional share of all its own processes.

use crate::{cost::proportional_kib, report, socket::Socket, start};

const CONNECTIONS: usize = 1000;
const PROCESSES: usize = 50;
/// What the programs are called that are not the service's own.
const PROGRAM: &str = "sleep ";

pub(crate) fn idle() {
    let server = start();
    // One client, come and gone, so that what is set up on first use is there.
    let mut first = Socket::connect(server.address(), "mhnos.v1");
    first.spawn("exec true", false);
    first.until("\"exit\"");
    drop(first);
    let idle = proportional_kib(&server, PROGRAM);
    report("memory, idle (PSS of all own processes)", &mebibytes(idle));

    let connections: Vec<_> =
        (0..CONNECTIONS).map(|_| Socket::connect(server.address(), "mhnos.v1").into_stream()).collect();
    let connected = proportional_kib(&server, PROGRAM);
    each("memory, for each idle connection", connected - idle, CONNECTIONS);

    let mut spawner = Socket::connect(server.address(), "mhnos.v1");
    for _ in 0..PROCESSES {
        spawner.spawn("exec sleep 1000", false);
    }
    let all = proportional_kib(&server, PROGRAM);
    each("memory, for each idle process", all - connected, PROCESSES);
    report(&format!("memory, {CONNECTIONS} connections and {PROCESSES} processes"), &mebibytes(all));
    drop(connections);
}

fn each(what: &str, kib: u64, count: usize) {
    report(what, &format!("{:.1} KiB", kib as f64 / count as f64));
}

fn mebibytes(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
