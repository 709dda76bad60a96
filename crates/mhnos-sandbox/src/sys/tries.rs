//! What the self-test tries: calls that must not succeed, and do no harm where they do.

use std::io;

/// Asks for a user namespace, as every way around the walls would begin.
pub fn try_user_namespace() -> io::Result<()> {
    // SAFETY: changes neither memory nor descriptors; the caller is a single-threaded test process that ends.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Calls clone3 with no arguments: EINVAL from the kernel, ENOSYS from the filter.
pub fn try_clone3() -> io::Result<()> {
    // SAFETY: a null structure of size 0 is refused by the kernel before anything is read.
    let result = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0_usize) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a descriptor of this number is open and would stay so over exec.
pub fn is_inheritable(number: i32) -> bool {
    // SAFETY: F_GETFD reads no memory; an unused number gives EBADF.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}
