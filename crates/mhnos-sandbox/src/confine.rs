//! The steps of a program's own process, from fork to exec, in the order in which they must happen.
//!
//! The first of them need no order and take long: to join a control group of version 1 a process waits until
//! every CPU has been through its scheduler, milliseconds (`cgroup_threadgroup_rwsem`). So [`get_ready`] may be
//! called long before it is known what the process will become. The system call filter goes up there too, if
//! it is not its supervisor's already ([`Walls::around_supervisor`]).

use std::{ffi::CString, io, os::fd::OwnedFd, time::Duration};

use rustix::{
    fs::{OFlags, open},
    io::{Errno, fcntl_dupfd_cloexec},
    process::{
        Resource, Rlimit, Signal, chdir, getrlimit, ioctl_tiocsctty, nice, set_parent_process_death_signal,
        setrlimit, setsid,
    },
    stdio::stdin,
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs,
    },
};

use crate::{
    Launch, Limits,
    enter::Walls,
    error::{SetupError, Step},
    selftest::{self, Outside},
    sys::{self, CStrings},
};

/// Open files of one process; half of what the service may have where that is less. A sender's limit is, too, how many
/// descriptors its user may have on their way through sockets (unix(7), `ETOOMANYREFS`): programs must not use up the service's.
pub const MAX_OPEN_FILES: u64 = 4096;

/// Bytes of one file: far above what a build or a download makes, far below what a sparse file can claim.
pub const MAX_FILE_SIZE: u64 = 64 << 30;

/// Room above the memory limit for what a program maps and never touches: V8 reserves about 550 MiB for each
/// isolate, and OpenClaw's gateway runs a dozen of them. What is touched is the control group's matter, or the
/// watchdog's; this only ends what has run away faster than a watchdog looks.
pub const DATA_SLACK: u64 = 16 << 30;

/// The priority of programs whose CPU time no control group limits.
const NICE: i32 = 10;

/// What is still needed while a program's descriptors are put in their places is above every number it may be given.
pub const FIRST_FREE: i32 = 64;

/// The descriptors of a program about to start.
#[derive(Debug)]
pub struct Descriptors {
    /// Descriptors 0, 1, 2, in this order. For a terminal the same one thrice.
    pub stdio: [OwnedFd; 3],
    /// Further ones with the number the program expects them at.
    pub extra: Vec<(u32, OwnedFd)>,
    /// Whether 0 is a terminal that shall control the new session.
    pub terminal: bool,
}

/// A [`Launch`] with everything allocated that its last steps need.
#[derive(Debug)]
pub struct Prepared {
    candidates: Vec<CString>,
    argv: CStrings,
    env: CStrings,
    cwd: CString,
}

/// Where a program went wrong on its way.
#[derive(Debug)]
pub enum StartError {
    /// A confinement step.
    Confine(SetupError),
    /// The working directory.
    Chdir(SetupError),
    /// The program itself.
    Exec(SetupError),
}

impl Prepared {
    /// Looks up nothing yet: a bare program name becomes one candidate for each directory of the `PATH` of
    /// the program's own environment.
    pub fn new(launch: &Launch) -> io::Result<Self> {
        let path = launch.env.iter().rev().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
        let candidates = if launch.program.contains('/') {
            vec![CString::new(launch.program.as_str())?]
        } else {
            path.split(':')
                .filter(|dir| dir.starts_with('/'))
                .map(|dir| CString::new(format!("{dir}/{}", launch.program)))
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            candidates,
            argv: CStrings::new(launch.argv.iter().map(String::as_str))?,
            env: CStrings::new(launch.env.iter().map(|(name, value)| format!("{name}={value}")))?,
            cwd: CString::new(launch.cwd.as_str())?,
        })
    }
}

/// Confines this process, which has got ready, and becomes the program. Returns only on failure.
pub fn become_program(
    program: &Prepared,
    fds: Descriptors,
    limits: &Limits,
    nproc: u64,
    walls: &Walls,
) -> StartError {
    let terminal = fds.terminal;
    if let Err(error) = confine(fds, limits, nproc) {
        return StartError::Confine(error);
    }
    if let Err(error) = chdir(program.cwd.as_c_str()).step_on("enter", program.cwd.to_string_lossy()) {
        return StartError::Chdir(error);
    }
    if let Err(error) = walls.around_program(terminal.then(stdin)) {
        return StartError::Confine(error);
    }
    StartError::Exec(exec(program))
}

/// Confines this process, which has got ready, as a program would be, and tries the walls.
pub fn become_self_test(
    fds: Descriptors,
    limits: &Limits,
    nproc: u64,
    walls: &Walls,
    outside: &Outside,
) -> Result<(), SetupError> {
    let terminal = fds.terminal;
    confine(fds, limits, nproc)?;
    walls.around_program(terminal.then(stdin))?;
    selftest::check(walls, outside)
}

/// What every program's process does first; `doors` are those of its control group.
pub fn get_ready(doors: &[OwnedFd], walls: &Walls) -> Result<(), SetupError> {
    set_parent_process_death_signal(Some(Signal::KILL)).step("tie the program to its supervisor")?;
    for door in doors {
        rustix::io::write(door, b"0").step("join the control group")?;
    }
    if doors.is_empty() {
        // No share of the CPU can be set, so that at least the service itself goes first.
        nice(NICE).step("lower the priority")?;
    }
    // The service's is shorter, and not for programs.
    let _ = sys::set_time_slice(Duration::ZERO);
    sys::reset_signals();
    setsid().step("open a session")?;
    drop_capabilities()?;
    set_no_new_privs(true).step("forbid new privileges")?;
    walls.around_recruit()
}

fn confine(fds: Descriptors, limits: &Limits, nproc: u64) -> Result<(), SetupError> {
    connect(fds)?;
    restrict_resources(limits, nproc)
}

/// Descriptors 0, 1, 2 and the extra ones; everything else closes at exec.
fn connect(fds: Descriptors) -> Result<(), SetupError> {
    let Descriptors { stdio, extra, terminal } = fds;
    if terminal {
        ioctl_tiocsctty(&stdio[0]).step("take the terminal")?;
    }
    let step = "connect descriptors";
    let numbered = stdio.into_iter().zip(0u32..).map(|(fd, number)| (number, fd)).chain(extra);
    let moved = numbered
        .map(|(number, fd)| Ok((number, fcntl_dupfd_cloexec(&fd, FIRST_FREE)?)))
        .collect::<Result<Vec<_>, Errno>>()
        .step(step)?;
    sys::close_on_exec_from(3).step(step)?;
    for (number, fd) in &moved {
        sys::place(fd, *number as i32).step(step)?;
    }
    // Closing them here would be one call each; exec does it.
    std::mem::forget(moved);
    Ok(())
}

fn restrict_resources(limits: &Limits, nproc: u64) -> Result<(), SetupError> {
    let files =
        getrlimit(Resource::Nofile).maximum.map_or(MAX_OPEN_FILES, |most| MAX_OPEN_FILES.min(most / 2));
    for (resource, wanted) in [
        (Resource::Core, 0),
        (Resource::Nofile, files),
        (Resource::Fsize, MAX_FILE_SIZE),
        (Resource::Nproc, nproc),
        (Resource::Data, limits.memory.saturating_add(DATA_SLACK)),
    ] {
        // A limit can only be lowered; where the service itself has less, that holds.
        let value = getrlimit(resource).maximum.map_or(wanted, |maximum| wanted.min(maximum));
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, limit).step_on("limit", format_args!("{resource:?}"))?;
    }
    Ok(())
}

/// What no process after this one may gain by an exec. Costs a call each, so not for every program: it is inherited.
pub(crate) fn empty_bounding_set() -> Result<(), SetupError> {
    for bit in 0..63 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match remove_capability_from_bounding_set(capability) {
            // Beyond the kernel's last capability; or not privileged to drop, with nothing to gain then:
            // no_new_privs keeps exec from using the bounding set.
            Err(Errno::INVAL | Errno::PERM) => break,
            other => other.step("empty the bounding set")?,
        }
    }
    Ok(())
}

fn drop_capabilities() -> Result<(), SetupError> {
    clear_ambient_capability_set().step("clear ambient capabilities")?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).step("drop capabilities")
}

fn exec(program: &Prepared) -> SetupError {
    let mut worst = io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in &program.candidates {
        let Err(error) = sys::execve(candidate, &program.argv, &program.env);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            // As execvp(3): a file that may not be executed is passed over, and named if nothing else is found.
            Some(libc::EACCES) => worst = error,
            _ => return SetupError { step: "execute", detail: lossy(candidate), source: error },
        }
    }
    let detail = program.candidates.first().map(lossy).unwrap_or_default();
    SetupError { step: "execute", detail, source: worst }
}

fn lossy(path: &CString) -> String {
    path.to_string_lossy().into_owned()
}

/// `/dev/null`, for a program without input.
pub fn null() -> io::Result<OwnedFd> {
    Ok(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty())?)
}
