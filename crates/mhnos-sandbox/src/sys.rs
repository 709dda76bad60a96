//! The only place with `unsafe`: thin, safe wrappers around what `rustix` does not offer. Each block holds
//! one unsafe operation and names the precondition of that very call.

use std::{
    convert::Infallible,
    ffi::{CStr, CString, c_char},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::process::Pid;

mod heap;
mod landlock;
mod notify;
mod shared_map;
mod slices;
mod socket_filter;
mod tries;
mod users;

pub use heap::{give_back_free_memory, share_one_heap};
pub use landlock::{LandlockScope, Ruleset, landlock_abi};
pub use notify::{Notice, answer, install_notifying_filter, let_go_on, next_notice};
pub use shared_map::SharedMap;
pub use slices::set_time_slice;
pub use socket_filter::filter_socket;
pub use tries::{is_inheritable, try_clone3, try_user_namespace};
pub(crate) use users::{kill_everybody, make_files_as};

/// Bytes waiting in a pipe or terminal (`FIONREAD`).
pub fn bytes_readable(fd: impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(fd)?)
}

/// The raw number of a descriptor, for messages and for programs that are told it.
pub fn number(fd: impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}

/// Takes over a descriptor that this process inherited under a number it was told.
///
/// Returns `None` if no descriptor is open there. The caller must be the only one to take `number`: each
/// inherited descriptor is taken once, at start, in the order of the command line.
pub fn take_inherited(number: i32) -> Option<OwnedFd> {
    if number < 3 {
        return None;
    }
    // SAFETY: fcntl with F_GETFD reads no memory; an unused number gives EBADF.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    // SAFETY: open (just checked) and owned by nobody else in this process: the documented duty.
    open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Which side of [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old process, with the new one's pid as seen from here.
    Parent(Pid),
}

/// Creates a process, with `namespaces` (`CLONE_NEW*` bits) of its own: `clone(2)` with fork's semantics.
///
/// # Panics
/// In a process with more than one thread: the child would own locks that no thread will ever release.
pub fn fork(namespaces: Namespaces) -> io::Result<Fork> {
    assert!(is_single_threaded(), "fork in a process with threads");
    let flags = namespaces.0 | i64::from(libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack this is fork: the child continues on a copy of this
    // stack, and no other thread exists whose state could be torn (asserted above).
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match pid {
        0 => Ok(Fork::Child),
        1.. => Ok(Fork::Parent(Pid::from_raw(pid as i32).expect("clone returned a positive pid"))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Namespaces a new process gets for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(i64);

impl Namespaces {
    /// None: all of the parent's.
    pub const NONE: Self = Self(0);
    /// Own users.
    pub const USER: Self = Self(libc::CLONE_NEWUSER as i64);
    /// Own mounts.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as i64);
    /// Own pids.
    pub const PID: Self = Self(libc::CLONE_NEWPID as i64);
    /// Own System V IPC.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as i64);
    /// Own host name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as i64);
    /// Own network.
    pub const NET: Self = Self(libc::CLONE_NEWNET as i64);
    /// Own cgroup root.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as i64);

    /// Both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The kernel's count of this process's threads is one.
fn is_single_threaded() -> bool {
    rustix::fs::stat("/proc/self/task").map_or(true, |task| task.st_nlink == 3)
}

/// A null-terminated vector of C strings, as `execve` takes it.
#[derive(Debug)]
pub struct CStrings {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl CStrings {
    /// Fails with `InvalidInput` on a string with a NUL byte.
    pub fn new<S: Into<Vec<u8>>>(strings: impl IntoIterator<Item = S>) -> io::Result<Self> {
        let owned = strings.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = owned.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { pointers, _owned: owned })
    }
}

/// Replaces this process's program. Returns only on failure.
pub fn execve(program: &CStr, argv: &CStrings, env: &CStrings) -> io::Result<Infallible> {
    // SAFETY: all three are valid C strings and null-terminated vectors of such, alive during the call.
    unsafe { libc::execve(program.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Replaces this process's program with the one that `file` is open on. Returns only on failure.
pub fn execve_file(file: impl AsFd, argv: &CStrings, env: &CStrings) -> io::Result<Infallible> {
    // SAFETY: the path is a static empty C string (AT_EMPTY_PATH); the vectors as in `execve`.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            number(file),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(io::Error::last_os_error())
}

/// Ends this process at once, without destructors: for children of [`fork`].
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from `first` up as close-on-exec (close_range(2), Linux 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed; only flags change.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `number` lead where `fd` leads, inheritable, whatever it led to before. For a process about to
/// exec, which owns no descriptor object under `number` any more.
pub fn place(fd: impl AsFd, number: i32) -> io::Result<()> {
    let source = fd.as_fd().as_raw_fd();
    assert_ne!(source, number, "a descriptor cannot be placed on itself");
    // SAFETY: dup2 touches no memory; the documented duty rules out an owned descriptor at `number`.
    if unsafe { libc::dup2(source, number) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The signals the service's own processes take through [`signal_fd`].
pub const HANDLED: [i32; 5] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR2];

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: the pointer leads to writable memory of the right type.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset has initialised it.
    let mut set = unsafe { set.assume_init() };
    for &signal in signals {
        // SAFETY: `set` is an initialised signal set.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// Blocks `signals` in this thread and returns a descriptor that delivers them, non-blocking.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: `set` is initialised; a null old set is allowed.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: -1 asks for a new descriptor; `set` is initialised.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just created and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal waiting in a [`signal_fd`], if any.
pub fn next_signal(fd: &OwnedFd) -> Option<i32> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    let read = rustix::io::read(fd, &mut info).ok()?;
    (read == info.len()).then(|| i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
}

/// Gives every signal its default action and blocks none: what a program expects to start with.
pub fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL installs no handler; numbers the kernel refuses (SIGKILL) change nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let none = signal_set(&[]);
    // SAFETY: `none` is initialised; a null old set is allowed.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Sends `signal` (any number the kernel knows, real-time ones included) to one process.
pub fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory.
    if unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A child that has ended, with what it used (wait4(2)).
#[derive(Clone, Copy, Debug)]
pub struct Reaped {
    /// Which child.
    pub pid: Pid,
    /// `Ok(code)` or `Err(signal)`.
    pub status: Result<u8, i32>,
    /// CPU time, user and system, in microseconds, with the children it waited for.
    pub cpu_us: u64,
    /// Largest resident set of it or one such child, in bytes.
    pub max_rss: u64,
}

/// What a `wait4` without waiting found.
#[derive(Clone, Copy, Debug)]
pub enum Reap {
    /// This child has ended and is no more.
    Ended(Reaped),
    /// Children exist, none has ended.
    NoneYet,
    /// There are no children.
    NoChildren,
}

/// Reaps one ended child, if there is one.
pub fn reap() -> Reap {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers lead to writable memory of the right types.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    // SAFETY: an rusage of zeros is valid, and the kernel overwrites it with a valid one.
    let usage = unsafe { usage.assume_init() };
    match Pid::from_raw(pid.max(0)) {
        Some(pid) => Reap::Ended(Reaped {
            pid,
            status: if libc::WIFEXITED(status) {
                Ok(libc::WEXITSTATUS(status) as u8)
            } else {
                Err(libc::WTERMSIG(status))
            },
            cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
            max_rss: usage.ru_maxrss as u64 * 1024,
        }),
        None if pid == 0 => Reap::NoneYet,
        None => Reap::NoChildren,
    }
}

fn micros(time: libc::timeval) -> u64 {
    time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64
}

/// Attributes of [`mount_setattr`], set on the mount and all below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountAccess {
    /// Read-only, no set-uid, no devices.
    ReadOnly,
    /// Writable, no set-uid, no devices.
    ReadWrite,
}

/// Restricts a detached mount, recursively, and makes it private (mount_setattr(2), Linux 5.12).
pub fn mount_setattr(mount: impl AsFd, access: MountAccess) -> io::Result<()> {
    let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if access == MountAccess::ReadOnly {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    let attributes =
        libc::mount_attr { attr_set: set, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    // SAFETY: the path is a static empty C string, `attributes` lives during the call and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            number(mount),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Overwrites this process's arguments and environment as `/proc/PID/cmdline` and `environ` show them.
///
/// For children of [`fork`] that never exec: they would otherwise show the service's own. The process must
/// not look at its arguments or environment afterwards (they read as empty strings).
pub fn scrub_arguments(name: &str) -> io::Result<()> {
    // The name in it is the program file's, and need not be text.
    let status = std::fs::read("/proc/self/stat")?;
    let status = String::from_utf8_lossy(&status);
    let fields: Vec<&str> = status.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    // Counted from field 3 (proc_pid_stat(5)): arg_start is field 48, env_end is field 51.
    let address = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<usize>().ok());
    let (Some(start), Some(end)) = (address(48), address(51)) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if start == 0 || end <= start || end - start < name.len() + 1 {
        return Ok(());
    }
    let first = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel names this range as the strings it placed on this process's initial stack: mapped,
    // writable, and by the documented duty no longer read as Rust strings.
    unsafe { std::ptr::write_bytes(first, 0, end - start) };
    // SAFETY: `name` is shorter than the range (checked above) and cannot overlap the stack's strings.
    unsafe { std::ptr::copy_nonoverlapping(name.as_ptr(), first, name.len()) };
    Ok(())
}

/// Closes every descriptor above 2 but `keep`.
///
/// For children of [`fork`] that go on as something else and end by [`exit_now`]: the descriptor objects
/// inherited in memory must never be used or dropped again.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).filter(|n| *n > 2).collect();
    numbers.sort_unstable();
    let mut first = 3;
    for last in numbers.into_iter().chain([u32::MAX]) {
        if last > first {
            // SAFETY: closes descriptors that, by the documented duty, nobody in this process uses again.
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, last - 1, 0) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = last.saturating_add(1);
    }
    Ok(())
}

/// Gives this process a mount namespace of its own.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS alone changes neither memory nor descriptors, only what paths mean.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One instruction of a system call filter: `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Opcode.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip if it does not.
    pub jump_false: u8,
    /// Constant, offset or result.
    pub operand: u32,
}

/// Puts this process and all it becomes behind a filter, for good. It must have no new privileges.
pub fn install_filter(program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // `Instruction` has the layout of `sock_filter`: same fields, same order, repr(C).
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `program` lives during the call, its length is that of the slice, and the kernel only reads it.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
