//! The keeper with a scripted bridge: real sandboxes, real programs, on several kinds of host.
//!
//! Without a harness, because the keeper must be single-threaded: `main` starts itself anew for each test as
//! a keeper, which starts it once more as the bridge that plays the test's script. What a host refuses is
//! really refused: by a system call filter that the test puts around the keeper (`host`).

#![allow(clippy::disallowed_methods, reason = "tests start programs and read their environment")]
#![allow(
    clippy::unused_self,
    reason = "what a script may ask about its host reads as a question to the bridge"
)]

mod bridge;
mod descriptors;
mod faults;
mod hostile;
mod life;
mod outsiders;
mod over_limits;
mod ports;
mod proc;
mod spares;
mod walls;

use std::{
    cell::LazyCell,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::Duration,
};

use bridge::Bridge;
use mhnos_keeper::{
    BRIDGE_CHANNEL_FD, BridgeCommand, ProgramPlace, Settings,
    channel::{FromKeeper, ToKeeper},
    socket::Socket,
};
use mhnos_sandbox::{
    Limits, Policy, Tier,
    policy::{Source, Workspace},
    stage, sys,
};
use mhnos_testing::{
    host::{
        self, Host,
        delegated::{self, Given, Place},
    },
    waived::{VARIABLE, WAIVED},
};

type Script = fn(&mut Bridge);

macro_rules! tests {
    ($($module:ident: $($name:ident)*;)*) => { &[$($((stringify!($name), $module::$name)),*),*] };
}

/// Run on every host; a script asks the bridge what it is on.
const TESTS: &[(&str, Script)] = tests! {
    life:
        a_program_runs_and_its_exit_is_told
        a_missing_program_or_directory_is_refused
        a_program_may_be_given_a_descriptor_of_any_number
        orders_that_are_wrong_are_refused
        a_terminal_is_one_of_the_sandbox
        a_killed_tree_leaves_nothing
        a_killed_tree_leaves_nothing_of_those_whose_name_is_no_text
        a_killed_fork_storm_leaves_nothing_and_spares_others
        programs_share_a_sandbox_unless_private
        a_killed_supervisor_takes_its_tree_along
        a_killed_supervisor_takes_a_fork_storm_along
        a_second_bridge_adopts
        a_bridge_whose_child_goes_on_talking_is_replaced_all_the_same
        memory_beyond_the_limit_ends_the_program_and_says_so
        memory_of_many_children_counts_together
        memory_that_belongs_to_no_process_counts_or_is_refused
        processes_beyond_the_limit_are_refused_or_ended
        a_crowd_that_no_control_group_holds_goes_behind_everybody_else
        a_fork_bomb_is_ended_and_others_work_beside_it;
    over_limits:
        a_program_that_ignores_its_childs_death_by_memory_is_ended_too
        a_program_that_ends_well_without_a_child_killed_for_memory_says_so
        a_private_process_has_its_share_of_processes_beside_many_others
        limits_are_the_kernels_where_there_are_control_groups
        a_share_below_the_kernels_smallest_is_enough_to_start
        a_refused_order_leaves_no_private_sandbox_behind
        a_runaway_allocator_is_ended_long_before_it_has_all_it_may_map
        pages_of_files_end_no_program;
    ports:
        a_port_is_told_dialled_and_told_to_be_closed
        ports_are_told_of_whose_they_are_and_dialled_there_alone
        ports_are_told_to_the_next_bridge
        each_program_of_a_supervisor_has_its_ports_seen;
    spares:
        killed_spares_are_passed_over
        stopped_spares_start_all_the_same
        a_start_comes_to_an_end_although_it_is_told_to_stop
        a_word_of_a_child_that_has_not_ended_keeps_no_program_waiting
        a_start_comes_to_an_end_although_those_that_wait_are_killed
        a_spawn_just_after_the_end_of_an_init_gets_a_new_sandbox
        a_supervisor_serves_one_program_after_another
        a_supervisor_sleeps_while_its_program_ends;
    hostile:
        a_hostile_bridge_breaks_nothing;
    descriptors:
        the_next_bridge_starts_and_adopts_although_all_descriptors_were_taken
        an_order_waits_while_too_many_descriptors_are_on_their_way;
    walls:
        the_layers_told_are_those_of_the_host
        the_host_does_not_show
        a_swapped_workspace_is_refused;
};

/// For a test that takes seconds, on a machine with much else to do. Reached on failure only.
const DEADLINE: Duration = Duration::from_mins(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("keeper") => keeper(&arguments[2..]),
        Some("bridge") => play(&arguments[2]),
        Some(host::asked::ANSWER) => {
            host::asked::answer(&arguments[2..]);
            ExitCode::SUCCESS
        }
        filter => suite(filter.filter(|text| !text.starts_with('-'))),
    }
}

fn suite(filter: Option<&str>) -> ExitCode {
    let waived = std::env::var(VARIABLE).unwrap_or_default();
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    let place = LazyCell::new(Place::take);
    let mut cases: Vec<(&Host, String, Vec<String>)> = Vec::new();
    for host in host::HOSTS.iter().chain([&host::DELEGATED]) {
        for (name, _) in TESTS {
            cases.push((host, (*name).to_owned(), vec!["passed".to_owned()]));
        }
    }
    for fault in faults::FAULTS {
        cases.push((Host::named(fault.host), fault.name(), fault.expected()));
    }
    for (host, name, expected) in cases {
        let label = format!("{}::{name}", host.name);
        if filter.is_some_and(|text| !label.contains(text)) {
            continue;
        }
        if waived.split(',').any(|waived| waived == host.name || waived == name) {
            println!("test {label} ... ignored, waived by {VARIABLE}");
            ignored += 1;
            continue;
        }
        let place = match &*place {
            _ if !host.grouped => None,
            Ok(place) => Some(place),
            // Who was given none, as most users are.
            Err(error) if host.is_ordinary() && !rustix::process::geteuid().is_root() => {
                println!("test {label} ... ignored, no control groups to give away: {error}");
                ignored += 1;
                continue;
            }
            Err(error) => panic!(
                "no control groups can be made here ({error}): waive the kinds of host that have some by {VARIABLE}, or start \
                 this in a group with nobody else: systemd-run --wait --pipe -p Delegate=yes …"
            ),
        };
        match run(host, &name, &expected, place) {
            Ok(None) => {
                println!("test {label} ... ok");
                passed += 1;
            }
            Ok(Some(left_out)) => {
                println!("test {label} ... ignored, {left_out}");
                ignored += 1;
            }
            Err(text) => {
                println!("test {label} ... FAILED\n{text}");
                failed += 1;
            }
        }
    }
    if passed + failed + ignored == 0 {
        println!("no test has {} in its name", filter.unwrap_or_default());
        failed = 1;
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One keeper, one script. If it has left out something: what, and why.
fn run(
    host: &Host,
    name: &str,
    expected: &[String],
    place: Option<&Place>,
) -> Result<Option<String>, String> {
    let exe = std::env::current_exe().expect("own path");
    let workspace =
        std::env::temp_dir().join(format!("mhnos-keeper-{}-{}-{name}", std::process::id(), host.name));
    std::fs::create_dir_all(&workspace).expect("workspace");
    host.give(&workspace);
    let mut command = Command::new(&exe);
    command.args(["keeper", host.name, name]).arg(&workspace).stdout(Stdio::piped()).stderr(Stdio::piped());
    let groups = format!("mhnos-tests-{}-{}-{name}", std::process::id(), host.name);
    let groups = place.map(|place| place.give(&groups, host.is_ordinary()).expect("control groups"));
    command.args(groups.iter().flat_map(Given::dirs));
    let keeper = command.spawn().expect("keeper");
    let pid = rustix::process::Pid::from_child(&keeper);
    let patience = if name.contains("hostile") { DEADLINE * hostile::length() } else { DEADLINE };
    // With the keeper everything ends that waits for what does not come.
    let (ended, end) = sync_channel::<()>(0);
    let deadline = std::thread::spawn(move || {
        if end.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            println!("nothing came of it for {patience:?}");
            sys::kill(pid, libc::SIGKILL).expect("end the keeper");
        }
    });
    let output = keeper.wait_with_output().expect("keeper");
    drop(ended);
    deadline.join().expect("no panic");
    let _ = std::fs::remove_dir_all(&workspace);
    groups.iter().for_each(Given::remove);
    let text = String::from_utf8_lossy(&output.stdout);
    if expected.iter().all(|part| text.contains(part.as_str())) {
        return Ok(text.lines().find_map(|line| line.strip_prefix(WAIVED)).map(str::to_owned));
    }
    let log = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} instead of {expected:?}\n{text}\n{log}", output.status))
}

fn keeper(arguments: &[String]) -> ExitCode {
    use std::os::unix::fs::MetadataExt;
    let (host, name, workspace) = (Host::named(&arguments[0]), &arguments[1], &arguments[2]);
    let fault = fault(host.name, name);
    if let Some(fault) = &fault {
        fault.begin(workspace);
    }
    delegated::join(&arguments[3..]).expect("a member of the groups that are given to this keeper");
    host.begin();
    let root = rustix::process::geteuid().is_root();
    let path = PathBuf::from(workspace).canonicalize().expect("workspace");
    let meta = path.metadata().expect("workspace");
    let owner = stage::Account { uid: meta.uid(), gid: meta.gid() };
    let account = if root { stage::Account::for_root(owner) } else { stage::Account::current() };
    let mut policy = Policy {
        mode: host.mode,
        tier: Tier::None,
        workspace: Workspace {
            source: Source { outside: path.clone(), inside: path.clone() },
            identity: (meta.dev(), meta.ino()),
        },
        read_only: Vec::new(),
        uid: account.uid,
        gid: account.gid,
        own_ports: Vec::new(),
        secrets: Vec::new(),
        proxy: None,
        filter: Vec::new(),
    };
    let program = std::fs::File::open("/proc/self/exe").expect("own program");
    let place = ProgramPlace::of(&std::env::current_exe().expect("own path")).expect("own directory");
    let cgroups = host.grouped.then(|| mhnos_sandbox::Cgroups::prepare(account).expect("control groups"));
    let mut reserve = None;
    if root {
        if owner.uid == 0 {
            stage::hand_over(&path, account).expect("hand over");
        }
        match stage::stage(&mut policy).and_then(|_| stage::become_account(account)) {
            Ok(held) => reserve = held,
            Err(error) => {
                println!("not staged: {error} ({})", error.source);
                return ExitCode::FAILURE;
            }
        }
    }
    host.refuse();
    if ["hostile", "descriptors"].iter().any(|part| name.contains(part)) {
        descriptors::limit();
    }
    if let Some(fault) = &fault {
        fault.install();
    }
    let settings = Settings {
        policy,
        floor: fault.as_ref().map_or(host.tier, |fault| fault.floor),
        reserve,
        cgroups,
        limits: Limits { memory: 1 << 30, pids: 512, cpu_millis: 1000 },
        log_bytes: 1 << 20,
        bridge: bridge(program, place, host.name, name, workspace),
        drain_timeout: Duration::from_secs(10),
        service_manager: None,
        on_ready: None,
    };
    match mhnos_keeper::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn bridges_environment(host: &str, workspace: &str) -> Vec<Vec<u8>> {
    let asked = [hostile::ROUNDS_ASKED, hostile::SEED_ASKED];
    let asked = asked.iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)));
    let own = [format!("WORKSPACE={workspace}"), format!("HOST={host}")];
    // Without PATH the bridge finds no program for its control.
    let path = format!("PATH={}", std::env::var("PATH").expect("a PATH"));
    asked.chain(own).chain([path]).map(String::into_bytes).collect()
}

/// This program once more, as the bridge that plays the test's script.
fn bridge(
    program: std::fs::File,
    place: ProgramPlace,
    host: &str,
    name: &str,
    workspace: &str,
) -> BridgeCommand {
    BridgeCommand {
        program: program.into(),
        number: 0,
        place,
        argv: vec!["mhnos-runtime".into(), "bridge".into(), name.into()],
        env: bridges_environment(host, workspace),
        files_as: None,
        fds: Vec::new(),
    }
}

/// The fault of this name on this kind of host.
fn fault(host: &str, name: &str) -> Option<faults::Fault> {
    faults::FAULTS.iter().find(|fault| fault.host == host && fault.name() == name).copied()
}

fn play(name: &str) -> ExitCode {
    let fd = sys::take_inherited(BRIDGE_CHANNEL_FD).expect("channel");
    rustix::io::ioctl_fionbio(&fd, false).expect("blocking");
    let keeper = rustix::process::getppid().expect("keeper");
    let script = TESTS.iter().find(|(test, _)| *test == name).map(|(_, script)| *script);
    let played = std::panic::catch_unwind(|| {
        let mut bridge = Bridge::greet(Socket::from_fd(fd));
        match script {
            Some(script) => script(&mut bridge),
            None => fault(&bridge.host(), name).expect("a test").play(&mut bridge),
        }
        bridge
    });
    let Ok(mut bridge) = played else {
        // The keeper would start another bridge, which would fail likewise, for ever.
        sys::kill(keeper, libc::SIGKILL).expect("end the keeper");
        return ExitCode::FAILURE;
    };
    println!("passed");
    sys::kill(keeper, libc::SIGTERM).expect("stop the keeper");
    bridge.until(|message| matches!(message, FromKeeper::Drain).then_some(()));
    bridge.send(&ToKeeper::Drained);
    bridge.drained();
    ExitCode::SUCCESS
}
