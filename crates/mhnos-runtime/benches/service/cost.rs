//! What the service's own processes have used, as the kernel counts it.

use mhnos_testing::Server;

/// Processor time of the bridge in seconds: its threads, those that have ended included (proc_pid_stat(5)).
pub(crate) fn cpu_seconds(server: &Server) -> f64 {
    let text = of_bridge(server, "stat");
    let fields: Vec<&str> = text.rsplit_once(')').expect("proc(5)").1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    ticks as f64 / 100.0
}

/// The bridge's memory now, in KiB: what it shares with the keeper and the output log included.
pub(crate) fn resident_kib(server: &Server) -> u64 {
    of_status(server, "VmRSS:")
}

/// The most it has been since the start, or since [`forget_peak`].
pub(crate) fn peak_kib(server: &Server) -> u64 {
    of_status(server, "VmHWM:")
}

/// Lets the peak begin anew (proc_pid_clear_refs(5)).
pub(crate) fn forget_peak(server: &Server) {
    let path = format!("/proc/{}/clear_refs", bridge(server));
    std::fs::write(path, "5").expect("a process of ours");
}

/// The proportional share of all the service's own processes, in KiB. Programs are told by their names: `not`.
pub(crate) fn proportional_kib(server: &Server, not: &str) -> u64 {
    let descendants = server.descendants();
    let own = descendants.iter().filter(|process| not.is_empty() || !process.command.starts_with(not));
    let share = |pid: i32| -> Option<u64> {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()
    };
    own.map(|process| process.os_pid).chain([server.os_pid()]).filter_map(share).sum()
}

/// The bridge's number.
pub(crate) fn bridge(server: &Server) -> i32 {
    try_bridge(server).expect("a bridge")
}

pub(crate) fn try_bridge(server: &Server) -> Option<i32> {
    let all = server.descendants();
    all.into_iter().find(|process| process.command.contains(" bridge ")).map(|process| process.os_pid)
}

/// A line of the bridge's proc_pid_status(5).
fn of_status(server: &Server, line: &str) -> u64 {
    let text = of_bridge(server, "status");
    let value = text.lines().find_map(|text| text.strip_prefix(line)).expect("proc(5)");
    value.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

fn of_bridge(server: &Server, file: &str) -> String {
    let path = format!("/proc/{}/{file}", bridge(server));
    std::fs::read_to_string(path).expect("it lives")
}
