//! System calls that wait until another process has seen them (seccomp_unotify(2)).

use std::{
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd},
};

use super::{Instruction, number};

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    id: u64,
    /// The thread that makes it, as the receiver's pid namespace numbers it; 0 if it is not visible there.
    pub thread: i32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// Puts this process and all it becomes behind a filter some of whose calls wait to be seen. Returns where they
/// are seen, close-on-exec. When nobody holds that any more, they fail with ENOSYS.
///
/// Fails with EBUSY where the process is behind such a filter already.
pub fn install_notifying_filter(program: &[Instruction]) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // Once a call has been seen, a signal no longer interrupts it (Linux 5.19): older kernels do without.
    for flags in [listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, listener] {
        // SAFETY: `program` lives during the call, its length is that of the slice, and the kernel only reads it.
        let fd = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        if fd >= 0 {
            // SAFETY: just created and owned by nobody else.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
    }
    Err(io::ErrorKind::Unsupported.into())
}

/// The next call that waits. To be called when the descriptor is readable; fails with ENOENT if the caller has
/// died since.
pub fn next_notice(notices: impl AsFd) -> io::Result<Notice> {
    let mut request = std::mem::MaybeUninit::<libc::seccomp_notif>::zeroed();
    // SAFETY: the kernel wants zeros and writes one `seccomp_notif`, for which there is room.
    let result =
        unsafe { libc::ioctl(number(notices), libc::SECCOMP_IOCTL_NOTIF_RECV, request.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeros are valid, and the kernel has written a valid value.
    let request = unsafe { request.assume_init() };
    Ok(Notice { id: request.id, thread: request.pid as i32, arguments: request.data.args })
}

/// Lets a call go on as if nobody had looked. That its caller has died is no error.
pub fn let_go_on(notices: impl AsFd, notice: &Notice) {
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    respond(notices, libc::seccomp_notif_resp { id: notice.id, val: 0, error: 0, flags });
}

/// Answers a call in the kernel's place: with a value or an error number. That its caller has died is no error.
pub fn answer(notices: impl AsFd, notice: &Notice, answer: Result<i64, i32>) {
    let (val, error) = answer.map_or_else(|errno| (0, -errno), |value| (value, 0));
    respond(notices, libc::seccomp_notif_resp { id: notice.id, val, error, flags: 0 });
}

fn respond(notices: impl AsFd, mut response: libc::seccomp_notif_resp) {
    // SAFETY: the kernel reads one `seccomp_notif_resp`, which lives during the call.
    unsafe { libc::ioctl(number(notices), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
}
