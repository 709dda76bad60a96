//! Calls that another process answers in the kernel's place, for this program and all it starts: what a filter cannot say
//! by itself, such as a value, or that the second call fails and the first does not.
//!
//! That process is nobody's descendant, and ends with the one that it was started for.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    process::{Command, Stdio},
};

use mhnos_sandbox::sys::{self, Instruction, Notice};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{PidfdFlags, getpid, pidfd_open},
    thread::set_no_new_privs,
};

use super::{faults, older};

/// The first argument of the program that answers, for which its `main` calls [`answer`] with those that follow.
pub const ANSWER: &str = "answer-for-the-kernel";

/// `SECCOMP_RET_USER_NOTIF`.
pub(super) const ASK: u32 = 0x7FC0_0000;

/// Answers what is asked on stdin until the process ends of which stdout is a descriptor.
pub fn answer(arguments: &[String]) {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [older::KIND, version] => older::answer(version),
        [faults::KIND, errno, when, which] => faults::answer(errno, when, which),
        _ => panic!("not to be answered: {arguments:?}"),
    }
}

/// Puts this filter, some of whose calls ask, around this process and all it becomes, and starts who answers.
#[allow(clippy::disallowed_methods, reason = "starting a program is what it is for")]
pub(super) fn start(filter: &[Instruction], arguments: &[&str]) {
    set_no_new_privs(true).expect("no new privileges");
    let asked = sys::install_notifying_filter(filter).expect("a filter that asks");
    let own_end = pidfd_open(getpid(), PidfdFlags::empty()).expect("a descriptor of this process");
    let own = std::env::current_exe().expect("own path");
    // By way of a shell that ends at once, so that it is no child of what this process becomes.
    let status = Command::new("/bin/sh")
        .args(["-c", "exec 3<&0; \"$@\" <&3 3<&- &", "sh"])
        .arg(own)
        .arg(ANSWER)
        .args(arguments)
        .stdin(Stdio::from(asked))
        .stdout(Stdio::from(own_end))
        .status();
    assert!(status.is_ok_and(|status| status.success()), "cannot start who answers");
}

/// Answers with what `reply` says: a value, an error, or `None` for what the kernel itself says.
pub(super) fn serve(mut reply: impl FnMut(&Notice) -> io::Result<Option<i64>>) {
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
        match reply(&notice) {
            Ok(None) => sys::let_go_on(asked.as_fd(), &notice),
            Ok(Some(value)) => sys::answer(asked.as_fd(), &notice, Ok(value)),
            Err(error) => {
                // In one piece: this process is behind the filter as well, and has nobody to ask.
                let _ = io::stderr().write_all(format!("refused {notice:?}: {error}\n").as_bytes());
                sys::answer(asked.as_fd(), &notice, Err(error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
    }
}
