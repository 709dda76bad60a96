//! The service works for a long time, and costs at the end what it cost at the beginning.
//!
//! `make soak` runs it for half an hour; without `MHNOS_SOAK_MINUTES` it is one minute. Rounds of ordinary work, now and then
//! with a bridge that is killed or replaced, are followed by rest, in which all that the service's own processes hold is counted.

mod work;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use mhnos_testing::{Server, eventually};

use self::work::{Work, serving};
use crate::{egress::outside::Outside, options};

/// Rounds until everything that is set up on first use is there, and the retained exits are as many as may be.
const WARM_UP: usize = 12;
/// Bridges until then. A new one has less memory than one that has worked; the most any of these had is what later ones are
/// compared with.
const BRIDGES: u32 = 4;
/// What the proportional set size may have grown by: allocators keep a little here and there.
const MEMORY_SLACK_KIB: u64 = 4 * 1024;
/// From the end of one bridge to that of the next, at least: one that dies young is started ever later.
const BRIDGES_APART: Duration = Duration::from_secs(15);
/// Longest time for what takes milliseconds.
const SOON: Duration = Duration::from_mins(1);

/// What the service holds at rest: its keeper, its bridge, and what waits in sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    /// Of all of them.
    pss_kib: u64,
    /// The same.
    fds: usize,
    /// In networks of sandboxes: those that listen, and those that are connected.
    sockets: usize,
    zombies: usize,
    processes: usize,
    control_groups: usize,
}

#[tokio::test]
#[ignore = "runs for minutes: make soak"]
#[allow(clippy::disallowed_methods, reason = "how long it runs is for whoever runs it")]
async fn nothing_grows() {
    let minutes = std::env::var("MHNOS_SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let outside = Outside::start();
    let server = Server::start(options().env("MHNOS_LOG_LEVEL", "warn").env("MHNOS_EGRESS", outside.rule()));
    let (begun, whole) = (Instant::now(), Duration::from_secs(60 * minutes));
    let mut work = Work::new(&server, &outside);
    let (mut rounds, mut first, mut most) = (0, None::<Held>, 0);
    while begun.elapsed() < whole || first.is_none() {
        let apart = if work.bridges() < BRIDGES { BRIDGES_APART } else { BRIDGES_APART.max(whole / 5) };
        work.round(apart).await;
        rounds += 1;
        let held = held(&server, first);
        most = most.max(held.pss_kib);
        if rounds % 10 == 0 {
            println!("{} s, round {rounds}, bridge {}: {held:?}", begun.elapsed().as_secs(), work.bridges());
        }
        match first {
            None if rounds >= WARM_UP && work.bridges() >= BRIDGES => {
                first = Some(Held { pss_kib: most, ..held });
            }
            None => {}
            Some(first) => {
                assert!(held.pss_kib < first.pss_kib + MEMORY_SLACK_KIB, "{held:?}, at first {first:?}");
            }
        }
    }
    println!(
        "{rounds} rounds, {} bridges; at first {first:?}, at most {most} KiB, at last {:?}",
        work.bridges(),
        held(&server, first)
    );
    serving(&server).await;
}

/// What is held when no more is left than at first, and no zombie. If that never is so, the test fails. Less is as good:
/// supervisors that rest between two rounds leave when the next one is late.
fn held(server: &Server, first: Option<Held>) -> Held {
    let within = |held: &Held, most: &Held| {
        held.fds <= most.fds
            && held.sockets <= most.sockets
            && held.processes <= most.processes
            && held.control_groups <= most.control_groups
    };
    // The last connection's end may be on its way. Before there is anything to compare with, two looks must agree.
    let mut before = first.unwrap_or_else(|| look(server));
    let begun = Instant::now();
    eventually(SOON, "as little as at first", || {
        let held = look(server);
        let at_rest = held.zombies == 0 && within(&held, &before);
        assert!(at_rest || begun.elapsed() < SOON / 2, "{held:?} is left, and at first it was {before:?}");
        before = first.unwrap_or(held);
        at_rest.then_some(held)
    })
}

fn look(server: &Server) -> Held {
    let descendants = server.descendants();
    let own: Vec<i32> = descendants.iter().map(|process| process.os_pid).chain([server.os_pid()]).collect();
    Held {
        pss_kib: own.iter().filter_map(|pid| pss_kib(*pid)).sum(),
        fds: own.iter().filter_map(|pid| Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())).sum(),
        sockets: sockets(&own),
        zombies: descendants.iter().filter(|process| process.state == 'Z').count(),
        processes: own.len(),
        control_groups: server.control_groups().len(),
    }
}

fn pss_kib(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()
}

/// Sockets of all networks of these that are not the host's. What has been closed and waits for the other end's last words is
/// the kernel's.
fn sockets(pids: &[i32]) -> usize {
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let mut known: BTreeSet<PathBuf> = network("self").into_iter().collect();
    let mut found = 0;
    for pid in pids.iter().map(i32::to_string) {
        if network(&pid).is_none_or(|network| !known.insert(network)) {
            continue;
        }
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            // Established, waiting to be closed, unconnected (UDP), listening.
            let states = ["01", "08", "07", "0A"];
            let state =
                |line: &str| line.split_whitespace().nth(3).is_some_and(|state| states.contains(&state));
            found += table.lines().skip(1).filter(|line| state(line)).count();
        }
    }
    found
}
