//! What is in force, as opposed to what was asked for. Degradation is a value here, never a log line:
//! every process carries the [`Enforcement`] it really runs under.

use serde::{Deserialize, Serialize};

/// The sandbox mode as the operator sets it (`MHNOS_SANDBOX`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Everything this service can enforce; refuses to start below its floor.
    Strict,
    /// The walls around files and privileges, but the host's network and debuggers allowed.
    Relaxed,
    /// Own session, clean environment and resource limits only.
    None,
}

impl Mode {
    /// The name used in configuration and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Relaxed => "relaxed",
            Self::None => "none",
        }
    }
}

/// How strong the walls are, by what the host can give. Ordered: a later tier is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// No walls (`MHNOS_SANDBOX=none`).
    None,
    /// Landlock with scopes and a system call filter, one uid.
    T3,
    /// Separate uids, Landlock, system call filter.
    T3Plus,
    /// Namespaces with the outer `/proc`.
    T2,
    /// Namespaces with a fresh `/proc`.
    T1,
}

impl Tier {
    /// The name used in documentation and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::T3 => "T3",
            Self::T3Plus => "T3+",
            Self::T2 => "T2",
            Self::T1 => "T1",
        }
    }
}

/// One wall of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Layer {
    /// Own user namespace: no privilege over anything of the host.
    UserNamespace,
    /// Own mount namespace with a minimal, read-only tree.
    MountNamespace,
    /// Own process table.
    PidNamespace,
    /// Own System V IPC and POSIX queues.
    IpcNamespace,
    /// Own host name.
    UtsNamespace,
    /// Own network stack.
    NetNamespace,
    /// Own view of the cgroup tree.
    CgroupNamespace,
    /// A uid that owns nothing of the service.
    SeparateUid,
    /// Landlock's rules for files. What came to it later are layers of their own.
    Landlock,
    /// The system call filter.
    Seccomp,
    /// No program can gain privileges by exec.
    NoNewPrivileges,
    /// All capabilities dropped, the bounding set emptied.
    NoCapabilities,
    /// Resource limits of `setrlimit`.
    ResourceLimits,
    /// Memory, pid and CPU limits of the whole tree by cgroup.
    Cgroup,
    /// Memory of the whole tree watched and enforced by the service, where there is no cgroup.
    MemoryWatchdog,
    /// Own session and, if asked for, own terminal.
    Session,
    /// An environment that holds nothing of the service's own.
    CleanEnvironment,
    /// No descriptor of the service is inherited.
    ClosedDescriptors,
    /// Of the host's network, which programs share: no datagrams, and TCP to the service's proxy and a list of ports.
    NetProxy,
    /// Landlock keeps programs from abstract sockets that are not their own, and, where they share the host's processes, from
    /// signals to those (Linux 6.12).
    LandlockScopes,
    /// Landlock's rules for files cover truncating them by path (Linux 6.2).
    LandlockTruncate,
}

impl Layer {
    /// Every layer there is.
    pub const ALL: [Self; 21] = [
        Self::UserNamespace,
        Self::MountNamespace,
        Self::PidNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::NetNamespace,
        Self::CgroupNamespace,
        Self::SeparateUid,
        Self::Landlock,
        Self::Seccomp,
        Self::NoNewPrivileges,
        Self::NoCapabilities,
        Self::ResourceLimits,
        Self::Cgroup,
        Self::MemoryWatchdog,
        Self::Session,
        Self::CleanEnvironment,
        Self::ClosedDescriptors,
        Self::NetProxy,
        Self::LandlockScopes,
        Self::LandlockTruncate,
    ];

    /// The name used in documentation and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserNamespace => "user-namespace",
            Self::MountNamespace => "mount-namespace",
            Self::PidNamespace => "pid-namespace",
            Self::IpcNamespace => "ipc-namespace",
            Self::UtsNamespace => "uts-namespace",
            Self::NetNamespace => "net-namespace",
            Self::CgroupNamespace => "cgroup-namespace",
            Self::SeparateUid => "separate-uid",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::NoCapabilities => "no-capabilities",
            Self::ResourceLimits => "resource-limits",
            Self::Cgroup => "cgroup",
            Self::MemoryWatchdog => "memory-watchdog",
            Self::Session => "session",
            Self::CleanEnvironment => "clean-environment",
            Self::ClosedDescriptors => "closed-descriptors",
            Self::NetProxy => "net-proxy",
            Self::LandlockScopes => "landlock-scopes",
            Self::LandlockTruncate => "landlock-truncate",
        }
    }
}

/// The walls a process really runs behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcement {
    /// What the operator asked for.
    pub mode: Mode,
    /// What the host allowed.
    pub tier: Tier,
    /// The layers in force, each shown by a self-test at start.
    pub layers: Vec<Layer>,
}
