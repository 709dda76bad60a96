//! What belongs to a user: files that are made as another, and the signal to everybody (credentials(7)).

use std::io;

/// Files are reached and made as this user and group by this thread, and by threads it makes from now on.
pub(crate) fn make_files_as(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: changes this thread's credentials only; they return the former id and have no error value.
    let set = || {
        // SAFETY: as above.
        let group = unsafe { libc::setfsgid(gid) };
        // SAFETY: as above.
        let user = unsafe { libc::setfsuid(uid) };
        (user as u32, group as u32)
    };
    set();
    // A second call tells whether the first has worked.
    if set() == (uid, gid) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// `kill(-1)`: to every process that this one may signal, but itself and PID 1. Only for a process that has
/// been confined so that those are its own descendants.
pub(crate) fn kill_everybody(signal: i32) {
    // SAFETY: kill touches no memory.
    unsafe { libc::kill(-1, signal) };
}
