//! The user that files are reached as, apart from the user that owns the process (credentials(7)).

use std::io;

/// Files are reached and made as this user and group by this thread, and by threads it makes from now on.
pub fn make_files_as(uid: u32, gid: u32) -> io::Result<()> {
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
