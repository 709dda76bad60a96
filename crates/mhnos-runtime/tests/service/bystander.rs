//! What others notice of bad clients: somebody who pings all the while, and has pinged before.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
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
/// ... unless a thread that does nothing but answer, beside the service, is itself not served sooner: then the machine is
/// what is noticed. The service may take so many times as long: it is two threads and a WebSocket further away.
const FLOORS: f64 = 1.5;
/// A machine on which a ping without any attack takes longer is busy with other things, and tells nothing of attacks.
const QUIET: Duration = Duration::from_millis(1);

/// As short as the service's own.
const SLICE: Duration = Duration::from_micros(100);

/// Somebody who pings all the while, on a thread that waits for nobody else here: what is measured is the service, not
/// whoever attacks it from the same process, nor how soon a client that is somewhere else would get a processor.
pub(crate) struct Bystander {
    over: Arc<AtomicBool>,
    /// Before anything happened, and after; and of the thread that does nothing but answer.
    pings: JoinHandle<(Pings, Pings, Pings)>,
}

/// How long pings took.
struct Pings {
    count: usize,
    p50: Duration,
    p99: Duration,
    worst: Duration,
}

/// The least that a machine takes for an answer: a thread of its own that sends back what it gets.
struct Floor(TcpStream);

impl Floor {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
        let (mut far, _) = listener.accept().expect("it has connected");
        for stream in [&near, &far] {
            stream.set_nodelay(true).expect("set");
        }
        std::thread::spawn(move || {
            let _ = set_time_slice(SLICE);
            let mut bytes = [0; 64];
            // It ends with the other end.
            while let Ok(count @ 1..) = far.read(&mut bytes) {
                far.write_all(&bytes[..count]).expect("somebody waits");
            }
        });
        Self(near)
    }

    fn ping(&mut self) {
        let mut answer = [0; 15];
        self.0.write_all(br#"{"type":"ping"}"#).expect("sent");
        self.0.read_exact(&mut answer).expect("an answer");
    }
}

impl Pings {
    /// Pings until `enough` says so of their number, the service and the floor in turn.
    async fn take(wire: &mut Wire, floor: &mut Floor, enough: impl Fn(usize) -> bool) -> (Self, Self) {
        let (mut took, mut floors) = (Vec::new(), Vec::new());
        while took.is_empty() || !enough(took.len()) {
            let begun = Instant::now();
            assert_serves(wire).await;
            took.push(begun.elapsed());
            let begun = Instant::now();
            floor.ping();
            floors.push(begun.elapsed());
            tokio::task::yield_now().await;
        }
        (Self::of(took), Self::of(floors))
    }

    fn of(mut took: Vec<Duration>) -> Self {
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
            let _ = set_time_slice(SLICE);
            let mut floor = Floor::start();
            let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async move {
                let mut wire = Wire::connect_as(address, WireOptions::modern()).await;
                let (before, _) = Pings::take(&mut wire, &mut floor, |count| count >= sized(50, 5000)).await;
                begin.send(()).expect("somebody waits");
                let (during, least) =
                    Pings::take(&mut wire, &mut floor, |_| until.load(Ordering::Relaxed)).await;
                (before, during, least)
            })
        });
        begun.await.expect("pings before the attack");
        Self { over, pings }
    }

    pub(crate) fn report(self, what: &str, server: &Server, grown_kib: u64) {
        self.over.store(true, Ordering::Relaxed);
        let (before, during, least) = self.pings.join().expect("served to the end");
        let files = open_files(server);
        println!(
            "{what}: ping {during}; bare thread {least}; before it {before}; memory +{grown_kib} KiB; {files} files"
        );
        if full() {
            let quiet = before.p99 < QUIET;
            let most = UNNOTICED.max(least.p99.mul_f64(FLOORS));
            assert!(!quiet || during.p99 < most, "{what}: others notice it");
            println!("{what}: p99 {}", if quiet { "asserted" } else { "not asserted: the machine is busy" });
        }
    }
}
