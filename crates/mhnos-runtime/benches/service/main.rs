//! What the service costs, measured from outside the built binary over a real WebSocket.
//!
//! Where there is a floor, the same program is run directly in the same round (service, direct, direct, service, …), so that the
//! ratio means something on any machine; absolute figures only describe this one. Every measurement checks what it
//! measured: the right number of bytes, the right exit. Medians of rounds, and the 99th percentile of single operations.
//!
//! Usage: `make bench`, or `cargo bench -p mhnos-runtime --bench service -- [NAME…]` for some of the measurements.

#![allow(clippy::disallowed_methods)] // runs the same programs directly, as the floor

mod cost;
mod direct;
mod files;
mod install;
mod isolation;
mod memory;
mod pattern;
mod peers;
mod previews;
mod relay;
mod round_trip;
mod socket;
mod spawn;
mod throughput;
mod viewers;

use std::time::Duration;

use mhnos_testing::{Options, Server};

const SERVICE: &str = env!("CARGO_BIN_EXE_mhnos-runtime");

type Measurement = (&'static str, fn(&tokio::runtime::Runtime));

const ALL: &[Measurement] = &[
    ("start", |runtime| runtime.block_on(spawn::service_start())),
    ("ping", |_| round_trip::ping()),
    ("echo", |_| round_trip::echo()),
    ("flood", |_| round_trip::echo_in_flood()),
    ("spawn", |runtime| runtime.block_on(spawn::short_programs())),
    ("isolation", |runtime| runtime.block_on(isolation::matrix())),
    ("churn", |runtime| runtime.block_on(isolation::churn())),
    ("kill", |runtime| runtime.block_on(isolation::kill())),
    ("throughput", |_| throughput::pipes()),
    ("terminals", |_| throughput::terminals()),
    ("fan-out", |_| viewers::fan_out()),
    ("stalled", |_| viewers::stalled()),
    ("bridge", |_| viewers::bridge_killed()),
    ("files", |runtime| runtime.block_on(files::both_ways())),
    ("memory", |_| memory::idle()),
    ("previews", |runtime| runtime.block_on(previews::requests())),
    ("ports", |runtime| runtime.block_on(previews::ports())),
    ("npm", |runtime| runtime.block_on(install::npm())),
    ("idle-servers", |runtime| runtime.block_on(previews::idle_servers())),
];

fn main() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for the client");
    // cargo passes `--bench`; anything else names measurements.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    for (name, measure) in ALL {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            measure(&runtime);
        }
    }
}

/// The service as users run it: strict, quiet.
fn start() -> Server {
    Server::start(Options::new(SERVICE).env("MHNOS_LOG_LEVEL", "warn"))
}

/// One line of the report.
fn report(what: &str, figures: &str) {
    println!("{what:<44} {figures}");
}

/// "p50 1.234 ms, p99 2.345 ms".
fn percentiles(times: &mut [Duration]) -> String {
    format!("p50 {}, p99 {}", millis(percentile(times, 50)), millis(percentile(times, 99)))
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}
