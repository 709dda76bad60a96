//! A kernel with an older Landlock than the one the tests run on.
//!
//! Its version is the one thing a filter's error number cannot say. So the call waits until another process has
//! answered in the kernel's place, for this program and all it starts: the version asked for, and a ruleset with
//! rights or fields that version does not know refused as the kernel refuses it. That process is nobody's
//! descendant, and ends with the keeper.

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::FileExt},
    process::{Command, Stdio},
};

use mhnos_sandbox::sys::{self, Notice};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{PidfdFlags, geteuid, getpid, pidfd_open},
    thread::set_no_new_privs,
};

use super::filter;

/// The first argument of the program that answers: `PROGRAM ANSWER VERSION`, for which `main` calls [`answer`].
pub const ANSWER: &str = "answer-as-older-landlock";

/// `SECCOMP_RET_USER_NOTIF`.
const ASK: u32 = 0x7FC0_0000;

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: u64 = 1;

/// Puts this process and all it becomes on a kernel with this version of Landlock. Its `main` must know [`ANSWER`].
#[allow(clippy::disallowed_methods, reason = "starting a program is what it is for")]
pub(super) fn pretend(version: u32) {
    assert!(geteuid().is_root(), "root is needed for this host; waive it by name or run as root");
    set_no_new_privs(true).expect("no new privileges");
    let program = filter(libc::SYS_landlock_create_ruleset, &[], ASK);
    let asked = sys::install_notifying_filter(&program).expect("a filter that asks");
    let own_end = pidfd_open(getpid(), PidfdFlags::empty()).expect("a descriptor of this process");
    let own = std::env::current_exe().expect("own path");
    // By way of a shell that ends at once, so that it is no child of what this process becomes.
    let status = Command::new("/bin/sh")
        .args(["-c", "exec 3<&0; \"$@\" <&3 3<&- &", "sh"])
        .arg(own)
        .args([ANSWER, &version.to_string()])
        .stdin(Stdio::from(asked))
        .stdout(Stdio::from(own_end))
        .status();
    assert!(status.is_ok_and(|status| status.success()), "cannot start who answers");
}

/// Answers what is asked on stdin until the process ends of which stdout is a descriptor.
pub fn answer(version: &str) {
    let version: u32 = version.parse().expect("a version");
    let (asked, end) = (io::stdin(), io::stdout());
    loop {
        let mut events = [PollFd::new(&asked, PollFlags::IN), PollFd::new(&end, PollFlags::IN)];
        poll(&mut events, None).expect("poll");
        if !events[1].revents().is_empty() {
            return;
        }
        let notice = match sys::next_notice(asked.as_fd()) {
            // Who asked has died meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            other => other.expect("a question"),
        };
        match reply(version, &notice) {
            Ok(None) => sys::let_go_on(asked.as_fd(), &notice),
            Ok(Some(value)) => sys::answer(asked.as_fd(), &notice, Ok(value)),
            Err(error) => {
                let _ = writeln!(io::stderr(), "refused a ruleset of {notice:?}: {error}");
                sys::answer(asked.as_fd(), &notice, Err(error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
    }
}

/// What that kernel says: a version, an error, or `None` for what this one says.
fn reply(version: u32, notice: &Notice) -> io::Result<Option<i64>> {
    let [attributes, size, flags, ..] = notice.arguments;
    if flags == VERSION {
        return Ok(Some(version.into()));
    }
    let memory = File::open(format!("/proc/{}/mem", notice.thread))?;
    let mut fields = [0; 3];
    for (field, at) in fields.iter_mut().zip((attributes..attributes + size).step_by(8)) {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, at)?;
        *field = u64::from_ne_bytes(bytes);
    }
    let (rights, known) = known(version);
    if fields[0] >> rights != 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if fields[known..].iter().any(|field| *field != 0) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    Ok(None)
}

/// How many rights to files a version knows, and how many fields (landlock(7), "VERSIONS").
fn known(version: u32) -> (u32, usize) {
    match version {
        1 => (13, 1),
        2 => (14, 1),
        3 => (15, 1),
        4 => (15, 2),
        5 => (16, 2),
        _ => (16, 3),
    }
}
