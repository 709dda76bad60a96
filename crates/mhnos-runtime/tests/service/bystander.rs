//! What others notice of bad clients: somebody who pings all the while, and has pinged before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mhnos_sandbox::sys::set_time_slice;
use mhnos_testing::{Server, Wire, WireOptions};
use tokio::{runtime::Builder, sync::oneshot};

use crate::{
    bad_clients::{full, open_files, sized},
    requests::assert_serves,
};

/// What others may notice: pings while somebody is at it take at most this long, all but one in a hundred.
const UNNOTICED: Duration = Duration::from_millis(5);
/// A machine on which a ping without any attack takes longer is busy with other things, and tells nothing of attacks.
const QUIET: Duration = Duration::from_millis(1);

/// Somebody who pings all the while, on a thread that waits for nobody else here: what is measured is the service, not
/// whoever attacks it from the same process, nor how soon a client that is somewhere else would get a processor.
pub(crate) struct Bystander {
    over: Arc<AtomicBool>,
    /// Before anything happened, and after.
    pings: JoinHandle<(Pings, Pings)>,
}

/// How long pings took.
struct Pings {
    count: usize,
    p50: Duration,
    p99: Duration,
    worst: Duration,
}

impl Pings {
    /// Pings until `enough` says so of their number.
    async fn take(wire: &mut Wire, enough: impl Fn(usize) -> bool) -> Self {
        let mut took = Vec::new();
        while took.is_empty() || !enough(took.len()) {
            let begun = Instant::now();
            assert_serves(wire).await;
            took.push(begun.elapsed());
            tokio::task::yield_now().await;
        }
        took.sort_unstable();
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
        Self { count: took.len(), p50: at(0.5), p99: at(0.99), worst: at(1.0) }
    }
}

impl std::fmt::Display for Pings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, p50, p99, worst } = self;
        write!(f, "p50 {p50:.2?}, p99 {p99:.2?}, worst {worst:.2?} of {count}")
    }
}

impl Bystander {
    pub(crate) async fn of(server: &Server) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (until, address) = (Arc::clone(&over), server.address());
        let (begin, begun) = oneshot::channel();
        let pings = std::thread::spawn(move || {
            // Older kernels have none; they tell more of the machine.
            let _ = set_time_slice(Duration::from_micros(100));
            let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async move {
                let mut wire = Wire::connect_as(address, WireOptions::modern()).await;
                let before = Pings::take(&mut wire, |count| count >= sized(50, 5000)).await;
                begin.send(()).expect("somebody waits");
                (before, Pings::take(&mut wire, |_| until.load(Ordering::Relaxed)).await)
            })
        });
        begun.await.expect("pings before the attack");
        Self { over, pings }
    }

    pub(crate) fn report(self, what: &str, server: &Server, grown_kib: u64) {
        self.over.store(true, Ordering::Relaxed);
        let (before, during) = self.pings.join().expect("served to the end");
        let files = open_files(server);
        println!("{what}: ping {during}; before it {before}; memory +{grown_kib} KiB; {files} files");
        if full() {
            let quiet = before.p99 < QUIET;
            assert!(!quiet || during.p99 < UNNOTICED, "{what}: others notice it");
            println!("{what}: p99 {}", if quiet { "asserted" } else { "not asserted: the machine is busy" });
        }
    }
}
