//! A kernel with an older Landlock than the one the tests run on.
//!
//! Its version is the one thing a filter's error number cannot say. So another process answers ([`asked`]): the version
//! asked for, and a ruleset with rights or fields that version does not know refused as the kernel refuses it.

use std::{fs::File, io, os::unix::fs::FileExt};

use mhnos_sandbox::sys::Notice;
use rustix::process::geteuid;

use super::{asked, filter};

/// The word for this among what [`super::asked`] answers.
pub(super) const KIND: &str = "older-landlock";

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: u64 = 1;

/// Puts this process and all it becomes on a kernel with this version of Landlock.
pub(super) fn pretend(version: u32) {
    // Who answers reads the memory of who asks.
    assert!(geteuid().is_root(), "root is needed for this host; waive it by name or run as root");
    let program = filter(libc::SYS_landlock_create_ruleset, &[], asked::ASK);
    asked::start(&program, &[KIND, &version.to_string()]);
}

/// Answers what is asked until nobody is left to ask.
pub(super) fn answer(version: &str) {
    let version: u32 = version.parse().expect("a version");
    asked::serve(|notice| reply(version, notice));
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
