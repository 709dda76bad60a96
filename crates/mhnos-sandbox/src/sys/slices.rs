//! How long a process runs before others have their turn: who asks for less is served sooner, and gets no more in all
//! (sched(7), Linux 6.12; older kernels take no notice).

use std::{io, time::Duration};

/// Has the kernel give this thread, and what it will start, slices of this length; zero is the kernel's own.
pub fn set_time_slice(slice: Duration) -> io::Result<()> {
    // SAFETY: every field is an integer, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: the kernel writes at most `size` bytes, which the structure has; 0 is this thread.
    if unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.sched_runtime = slice.as_nanos() as u64;
    // SAFETY: the kernel reads the `size` bytes that the structure says it has; 0 is this thread.
    if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_taken_and_given_back_without_any_privilege() {
        let thread = std::thread::spawn(|| {
            set_time_slice(Duration::from_micros(100))?;
            set_time_slice(Duration::ZERO)
        });
        thread.join().expect("thread").expect("any thread may ask");
    }
}
