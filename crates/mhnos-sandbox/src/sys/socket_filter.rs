//! What a socket takes in at all (socket(7), `SO_ATTACH_FILTER`).

use std::{io, os::fd::AsFd};

use super::{Instruction, number};

/// A message is received as far as this program says when it comes.
pub fn filter_socket(socket: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // `Instruction` has the layout of `sock_filter`: same fields, same order, repr(C).
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `program` lives during the call, its length is that of the slice, and the kernel only reads both.
    let result = unsafe {
        libc::setsockopt(
            number(socket),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
