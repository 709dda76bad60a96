//! A start without secrets: the program that read them is replaced by itself, in the same process, with nothing of them
//! in its environment, arguments or memory; they wait in a sealed descriptor for the bridge.

use std::{ffi::OsString, fs::File, os::fd::OwnedFd, os::unix::ffi::OsStringExt};

use anyhow::Context;
use mhnos_sandbox::sys::{self, CStrings};
use mhnos_server::{Secrets, config::GivenToken};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
};

/// The variable that holds a secret.
const VARIABLE: &str = "MHNOS_AUTH_TOKEN";

/// Executes this program again, with the secrets sealed. Returns only if that fails.
pub(super) fn without_secrets(secrets: &Secrets) -> anyhow::Error {
    match execute(secrets) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn execute(secrets: &Secrets) -> anyhow::Result<std::convert::Infallible> {
    let sealed = secrets.seal().context("cannot seal them")?;
    let mut argv: Vec<Vec<u8>> = std::env::args_os().map(OsString::into_vec).collect();
    argv.push(format!("--secrets={}", sys::number(&sealed)).into_bytes());
    let env = std::env::vars_os().map(|(name, value)| {
        let value = if name == VARIABLE && !value.is_empty() { GivenToken::SEALED.into() } else { value };
        [name.into_vec(), value.into_vec()].join(&b'=')
    });
    let (argv, env) = (CStrings::new(argv)?, CStrings::new(env)?);
    // By its path the process keeps its name in lists of processes; the file is there even if the path is not.
    if let Ok(path) = std::fs::read_link("/proc/self/exe")
        && let Ok(path) = std::ffi::CString::new(path.into_os_string().into_vec())
    {
        let _ = sys::execve(&path, &argv, &env);
    }
    let program = File::open("/proc/self/exe").context("cannot open this program")?;
    Ok(sys::execve_file(&program, &argv, &env)?)
}

/// The descriptor that [`without_secrets`] left; nobody else inherits it.
pub(super) fn sealed(number: i32) -> Option<OwnedFd> {
    let fd = sys::take_inherited(number)?;
    fcntl_setfd(&fd, FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// What this process holds is nobody else's to see: no core file, no tracer, no reader of `/proc/PID/fd` or `mem`
/// without the privilege to read everything anyway.
pub(crate) fn keep_out_others() -> anyhow::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .context("cannot forbid core files")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot keep tracers out")
}
