//! The answer to `/metrics`: everything that is known, at this moment.

use mhnos_process::{Census, Reason};
use mhnos_protocol::ProcessType;

use super::{
    Counter, Family, Label, Metrics, SPAWN_BUCKETS,
    text::{
        Kind::{Counter as Total, Gauge, Histogram},
        Text,
    },
};
use crate::service::{Service, VERSION};

/// What the answer says it is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole exposition.
pub(crate) fn scrape(service: &Service) -> String {
    let mut text = Text::default();
    about(&mut text, service);
    processes(&mut text, service);
    clients(&mut text, &service.metrics, service.config.max_connections);
    requests(&mut text, service);
    files(&mut text, &service.metrics);
    text.finish()
}

fn about(text: &mut Text, service: &Service) {
    let welcome = service.processes.welcome();
    let enforcement = &welcome.enforcement;
    text.family("mhnos_build_info", Gauge, "1, with the version of the program that serves.");
    text.sample("mhnos_build_info", &[("version", VERSION)], 1);
    text.family("mhnos_sandbox_info", Gauge, "1, with the isolation that is in force.");
    let labels = [("mode", enforcement.mode.as_str()), ("tier", enforcement.tier.as_str())];
    text.sample("mhnos_sandbox_info", &labels, 1);
    let help =
        "When the keeper was started, seconds since 1970. It changes only if all processes have ended.";
    text.single("mhnos_start_time_seconds", Gauge, help, welcome.started_ms as f64 / 1000.0);
    let help = "Bridges that have followed the first: after its death, or an upgrade.";
    text.single("mhnos_bridge_restarts_total", Total, help, welcome.generation.saturating_sub(1));
    if let Some(resident) = resident_bytes() {
        text.single("process_resident_memory_bytes", Gauge, "Memory of the bridge in RAM.", resident);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them reads the directory.
        let open = open.count().saturating_sub(1);
        text.single("process_open_fds", Gauge, "Descriptors the bridge has open.", open);
    }
}

/// From statm (proc_pid_statm(5)): its second number, in pages.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn processes(text: &mut Text, service: &Service) {
    let census = service.processes.census();
    let none = Census::default();
    let of = |kind: ProcessType| census.iter().find(|of| of.process_type == kind.as_str()).unwrap_or(&none);
    let types = || ProcessType::ALL.into_iter().map(|kind| (kind.as_str(), of(kind)));

    let name = "mhnos_processes";
    text.family(name, Gauge, "Processes by state; retained ones have ended and can still be attached.");
    for (kind, of) in types() {
        let states = [
            ("starting", of.starting),
            ("running", of.running),
            ("stopping", of.stopping),
            ("lingering", of.lingering),
            ("retained", of.retained),
        ];
        for (state, count) in states {
            text.sample(name, &[("type", kind), ("state", state)], count);
        }
    }
    let stats = service.processes.stats();
    text.single("mhnos_processes_active", Gauge, "Places taken, of mhnos_processes_max.", stats.active);
    let help = "Processes that may run at once (MHNOS_MAX_PROCESSES).";
    text.single("mhnos_processes_max", Gauge, help, service.config.max_processes);

    let name = "mhnos_processes_started_total";
    text.family(name, Total, "Processes started, over all bridges.");
    types().for_each(|(kind, of)| text.sample(name, &[("type", kind)], of.total.started));
    let name = "mhnos_processes_ended_total";
    text.family(name, Total, "Processes ended, by reason, over all bridges.");
    for (kind, of) in types() {
        for (reason, count) in Reason::ALL.into_iter().zip(of.total.ended) {
            text.sample(name, &[("type", kind), ("reason", reason.as_str())], count);
        }
    }
    let name = "mhnos_output_bytes_total";
    text.family(name, Total, "Bytes programs have written to stdout and stderr, over all bridges.");
    types().for_each(|(kind, of)| text.sample(name, &[("type", kind)], of.total.output_bytes));

    let sum = |field: fn(&Census) -> u64| census.iter().map(field).sum::<u64>();
    text.single("mhnos_viewers", Gauge, "Views of processes that clients have open.", sum(|of| of.viewers));
    let help = "Bytes of output that can be replayed.";
    text.single("mhnos_output_log_bytes", Gauge, help, sum(|of| of.log_bytes));
    let help = "Bytes that the output logs in existence can hold.";
    text.single("mhnos_output_log_capacity_bytes", Gauge, help, sum(|of| of.log_capacity));

    let metrics = &service.metrics;
    let name = "mhnos_spawn_duration_seconds";
    text.family(name, Histogram, "From the request to its answer `spawned`.");
    for (kind, histogram) in ProcessType::ALL.into_iter().zip(&metrics.spawn_time) {
        let (bucket, mut below) = (format!("{name}_bucket"), 0);
        let bounds = SPAWN_BUCKETS.iter().map(|bound| (*bound as f64 / 1e6).to_string());
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&histogram.buckets) {
            below += count.get();
            text.sample(&bucket, &[("type", kind.as_str()), ("le", &bound)], below);
        }
        let labels = [("type", kind.as_str())];
        text.sample(&format!("{name}_sum"), &labels, histogram.micros.get() as f64 / 1e6);
        text.sample(&format!("{name}_count"), &labels, below);
    }
    let name = "mhnos_spawn_failures_total";
    family(
        text,
        name,
        "Answers to `spawn` that were an error, by its code.",
        "code",
        &metrics.spawn_failures,
    );
    let name = "mhnos_egress_refusals_total";
    let help = "Ways out that were refused to programs (MHNOS_EGRESS).";
    family(text, name, help, "via", &metrics.egress_refusals);
    let help = "Bytes of input taken for programs.";
    single(text, "mhnos_input_bytes_total", help, &metrics.input_bytes);
    single(text, "mhnos_gaps_total", "Gaps told to viewers.", &metrics.gaps);
    single(text, "mhnos_gap_bytes_total", "Bytes of output that viewers have missed.", &metrics.gap_bytes);
}

fn clients(text: &mut Text, metrics: &Metrics, max: usize) {
    let name = "mhnos_connections";
    text.family(name, Gauge, "WebSockets that are open.");
    // Ends are read first: a connection that comes in between must not make the difference negative.
    let closed: Vec<u64> = metrics.closed.each().map(|(_, count)| count).collect();
    for ((client, opened), closed) in metrics.opened.each().zip(closed) {
        text.sample(name, &[("client", &client.name())], opened.saturating_sub(closed));
    }
    let help = "WebSockets that may be open at once.";
    text.single("mhnos_connections_max", Gauge, help, max);
    family(text, "mhnos_connections_total", "WebSockets opened.", "client", &metrics.opened);
    let name = "mhnos_disconnections_total";
    family(text, name, "WebSockets ended, by how.", "reason", &metrics.ended);
    let name = "mhnos_refusals_total";
    family(text, name, "Connections and requests turned away at the door.", "cause", &metrics.refused);
    let help = "Payload bytes of messages from clients.";
    single(text, "mhnos_received_bytes_total", help, &metrics.received_bytes);
    let help = "Payload bytes of messages to clients, answers to pulls aside.";
    single(text, "mhnos_sent_bytes_total", help, &metrics.sent_bytes);
}

fn requests(text: &mut Text, service: &Service) {
    let metrics = &service.metrics;
    family(text, "mhnos_requests_total", "Requests by type.", "type", &metrics.requests);
    let help = "Audit lines that could not be written.";
    text.single("mhnos_audit_lost_total", Total, help, service.audit.lost());
    family(text, "mhnos_errors_total", "Answers that were an `error`, by code.", "code", &metrics.errors);
}

fn files(text: &mut Text, metrics: &Metrics) {
    single(
        text,
        "mhnos_pushed_files_total",
        "Files and directories written for pushes.",
        &metrics.pushed_files,
    );
    let help = "Entries of pushes that could not be written.";
    single(text, "mhnos_push_failures_total", help, &metrics.push_failures);
    single(text, "mhnos_pushed_bytes_total", "Bytes of files written for pushes.", &metrics.pushed_bytes);
    single(text, "mhnos_pulled_bytes_total", "Bytes of answers to pulls.", &metrics.pulled_bytes);
}

fn single(text: &mut Text, name: &str, help: &str, counter: &Counter) {
    text.single(name, Total, help, counter.get());
}

fn family<L: Label>(text: &mut Text, name: &str, help: &str, label: &str, family: &Family<L>) {
    text.family(name, Total, help);
    for (value, count) in family.each() {
        text.sample(name, &[(label, &value.name())], count);
    }
}
