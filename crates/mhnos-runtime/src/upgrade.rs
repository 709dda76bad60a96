//! `upgrade`: asks a running service to replace its bridge by the program that is installed now, and waits until it
//! has.
//!
//! The request is a signal (SIGUSR2 to the keeper), so that only root and the service's own account can make it.

use std::{
    fs, iter,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::ArgMatches;
use rustix::process::{Pid, Signal, kill_process};

/// For the old bridge to leave and a new one to come, or for the keeper to see that it does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at the service's children.
const INTERVAL: Duration = Duration::from_millis(10);

/// Exit status 0 if another bridge serves.
pub(crate) fn run(arguments: &ArgMatches) -> ExitCode {
    match upgrade(arguments.get_one::<i32>("pid").copied()) {
        Ok((old, new)) => {
            println!("upgraded: bridge {old} has been replaced by {new}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mhnos-runtime: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn upgrade(pid: Option<i32>) -> anyhow::Result<(i32, i32)> {
    let keeper = pid.map_or_else(the_only_service, Ok)?;
    let old = bridge_of(keeper).with_context(|| format!("process {keeper} is no service with a bridge"))?;
    let target = Pid::from_raw(keeper).context("a process number is positive")?;
    kill_process(target, Signal::USR2).with_context(|| format!("cannot signal the service ({keeper})"))?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        std::thread::sleep(INTERVAL);
        let Some(now) = bridge_of(keeper).filter(|now| now.pid != old.pid) else { continue };
        // An upgrade that is taken back ends with the program there was.
        ensure!(
            now.program > old.program,
            "the new program does not work here, and the old one is back; the service's log says more"
        );
        if serves(now) {
            return Ok((old.pid, now.pid));
        }
    }
    bail!("the service did not replace its bridge; its log says why")
}

/// The service, if there is one and no other.
fn the_only_service() -> anyhow::Result<i32> {
    let processes = fs::read_dir("/proc").context("cannot look for the service")?;
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let serves =
        |pid: &i32| arguments(*pid).is_some_and(|words| words.get(1).is_some_and(|word| word == "serve"));
    let candidates: Vec<i32> = pids.filter(serves).collect();
    let mut services = outermost(&candidates, parent_of);
    services.retain(|pid| bridge_of(*pid).is_some());
    match services[..] {
        [one] => Ok(one),
        [] => bail!("no service with a bridge is running here"),
        _ => bail!("several services are running ({services:?}); choose one with --pid"),
    }
}

/// Those that descend from none of the others: below a keeper are the programs of its clients, which may give themselves
/// any command line.
fn outermost(candidates: &[i32], parent_of: impl Fn(i32) -> Option<i32>) -> Vec<i32> {
    let above = |pid: i32| iter::successors(parent_of(pid), |pid| parent_of(*pid));
    let outermost = |pid: &i32| !above(*pid).any(|above| candidates.contains(&above));
    candidates.iter().copied().filter(outermost).collect()
}

/// Absent for what has no parent here, or may not be looked at.
fn parent_of(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())?;
    (parent > 0).then_some(parent)
}

/// A bridge, as its command line shows it.
#[derive(Clone, Copy)]
struct Bridge {
    pid: i32,
    /// Which of the programs this service has been given.
    program: u32,
}

/// Whether it has taken over: it has its name from then on.
fn serves(bridge: Bridge) -> bool {
    let name = fs::read_to_string(format!("/proc/{}/comm", bridge.pid));
    name.is_ok_and(|name| name.trim_end() == mhnos_server::NAME.to_string_lossy())
}

fn bridge_of(keeper: i32) -> Option<Bridge> {
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).ok()?;
    let mut pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.find_map(|pid| {
        let arguments =
            arguments(pid).filter(|arguments| arguments.get(1).is_some_and(|word| word == "bridge"))?;
        let program = arguments.iter().find_map(|word| word.strip_prefix("--program=")?.parse().ok())?;
        Some(Bridge { pid, program })
    })
}

/// The command line of a process of this program.
fn arguments(pid: i32) -> Option<Vec<String>> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    words.first()?.ends_with("mhnos-runtime").then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_calls_itself_a_service_is_none() {
        // 10 and 20 are keepers, 11 a supervisor, 12 its program, which names itself as they are named.
        let parents = [(10, 1), (11, 10), (12, 11), (13, 12), (20, 1)];
        let parent_of = |pid| parents.iter().find(|(child, _)| *child == pid).map(|(_, parent)| *parent);
        let check = |candidates: &[i32], expected: &[i32]| {
            assert_eq!(outermost(candidates, parent_of), expected, "{candidates:?}");
        };
        check(&[10, 12], &[10]);
        check(&[13, 10], &[10]);
        check(&[10, 11, 12, 13, 20], &[10, 20]);
        check(&[13], &[13]);
        check(&[], &[]);
    }

    #[test]
    fn the_parent_of_a_process_is_found() {
        let own = std::process::id().cast_signed();
        assert_eq!(parent_of(own), Some(std::os::unix::process::parent_id().cast_signed()));
        assert_eq!(parent_of(0), None);
    }
}
