//! The three system calls of Landlock (landlock(7)). Three wrappers instead of a crate: the `landlock` crate
//! and what it needs are seventeen, and its default is to go on silently where the kernel gives less.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

/// `LANDLOCK_CREATE_RULESET_VERSION`: asks for the ABI instead of a ruleset.
const ASK_VERSION: u32 = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: i32 = 1;
/// `LANDLOCK_RULE_NET_PORT`.
const NET_PORT: i32 = 2;

/// The version of Landlock this kernel speaks; `None` where it is not built in, not enabled or not allowed.
pub fn landlock_abi() -> Option<u32> {
    // SAFETY: with a null attribute of size 0 and this flag the call reads and writes no memory.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, ASK_VERSION)
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// What a domain cuts off beside files and ports (ABI 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LandlockScope {
    /// Abstract unix sockets of processes outside the domain.
    pub abstract_sockets: bool,
    /// Signals to processes outside the domain.
    pub signals: bool,
}

impl LandlockScope {
    fn bits(self) -> u64 {
        u64::from(self.abstract_sockets) | u64::from(self.signals) << 1
    }
}

/// `struct landlock_ruleset_attr`. A kernel that knows fewer fields accepts the others as zeros.
#[repr(C)]
struct RulesetAttributes {
    files: u64,
    ports: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`, packed in the kernel's own header.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct NetPort {
    allowed: u64,
    port: u64,
}

/// Rules that a process may put itself under. What is handled and not allowed by a rule is denied.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// Handles these rights to files (`LANDLOCK_ACCESS_FS_*`) and ports (`LANDLOCK_ACCESS_NET_*`).
    pub fn new(files: u64, ports: u64, scope: LandlockScope) -> io::Result<Self> {
        let attributes = RulesetAttributes { files, ports, scoped: scope.bits() };
        // SAFETY: the attributes live during the call and their size is given.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attributes,
                size_of::<RulesetAttributes>(),
                0,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just created (close-on-exec) and owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// The same under another number, `lowest` or above.
    pub fn set_apart(self, lowest: i32) -> io::Result<Self> {
        Ok(Self(rustix::io::fcntl_dupfd_cloexec(&self.0, lowest)?))
    }

    /// Allows these rights to what is beneath `parent`, a directory or a file.
    pub fn allow_beneath(&self, parent: impl AsFd, allowed: u64) -> io::Result<()> {
        let rule = PathBeneath { allowed, parent: parent.as_fd().as_raw_fd() };
        // SAFETY: the rule lives during the call and has the layout this rule type asks for.
        let result = unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, self.0.as_raw_fd(), PATH_BENEATH, &raw const rule, 0)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Allows these rights to a TCP port.
    pub fn allow_port(&self, port: u16, allowed: u64) -> io::Result<()> {
        let rule = NetPort { allowed, port: port.into() };
        // SAFETY: the rule lives during the call and has the layout this rule type asks for.
        let result = unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, self.0.as_raw_fd(), NET_PORT, &raw const rule, 0)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Puts this process and all it becomes under the rules, for good. It must have no new privileges, or
    /// be privileged in its user namespace.
    pub fn restrict(&self) -> io::Result<()> {
        // SAFETY: the call reads and writes no memory.
        let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for Ruleset {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
