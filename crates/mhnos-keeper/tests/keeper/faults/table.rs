//! Which call fails where, and which step that is.

use mhnos_keeper::channel::Stage;
use mhnos_sandbox::{
    Layer,
    Tier::{self, T1, T2, T3, T3Plus},
};
use mhnos_testing::host::Refusal;

use super::{Attempt, Fault, Outcome, When};

/// A call's number; what one architecture has under an older name is made by the newer one on the other.
mod numbers {
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) use libc::SYS_dup3 as SYS_dup2;
    pub(super) use libc::*;
}

/// All of an argument that a filter looks at: its lower half.
const ALL: u32 = u32::MAX;

const fn fault(host: &'static str, floor: Tier, call: &'static str, number: i64) -> Fault {
    let refusal = Refusal { number, errno: libc::EPERM, only: &[] };
    Fault { host, call, refusal, when: When::Always, floor, outcome: Outcome::Tier(floor) }
}

impl Fault {
    /// Only with these arguments: argument, mask, value.
    const fn only(mut self, only: &'static [(u32, u32, u32)]) -> Self {
        self.refusal.only = only;
        self
    }

    const fn answers(mut self, errno: i32) -> Self {
        self.refusal.errno = errno;
        self
    }

    /// An error that is not one of those the step is prepared for.
    const fn unexpected(mut self) -> Self {
        self.refusal.errno = libc::EIO;
        self
    }

    const fn nth(mut self, nth: u32) -> Self {
        self.when = When::Nth(nth);
        self
    }

    const fn early(mut self) -> Self {
        self.when = When::Early;
        self
    }

    const fn during(mut self, attempt: Attempt) -> Self {
        self.when = When::Running(attempt);
        self
    }

    const fn stops(mut self, step: &'static str) -> Self {
        self.outcome = Outcome::Refused(step);
        self
    }

    const fn stops_programs(mut self, stage: Stage, step: &'static str) -> Self {
        self.outcome = Outcome::NoProgram(stage, step);
        self
    }

    const fn becomes(mut self, tier: Tier) -> Self {
        self.outcome = Outcome::Tier(tier);
        self
    }

    const fn costs(mut self, layer: Layer) -> Self {
        self.outcome = Outcome::Without(layer);
        self
    }
}

macro_rules! faults {
    ($($(#[$attribute:meta])* $host:literal $floor:ident $call:ident $(.$method:ident($($value:expr),*))*;)*) => {
        &[$($(#[$attribute])* fault($host, $floor, stringify!($call), numbers::$call)$(.$method($($value),*))*),*]
    };
}

/// `prctl`'s first argument.
macro_rules! prctl {
    ($operation:ident) => {
        &[(0, ALL, libc::$operation as u32)]
    };
    ($operation:ident, $value:literal) => {
        &[(0, ALL, libc::$operation as u32), (1, ALL, $value)]
    };
}

/// Mounts differ by their flags.
macro_rules! flags {
    ($flags:expr) => {
        &[(3, ALL, ($flags) as u32)]
    };
}

const NO_SUID_NO_DEV: u64 = libc::MS_NOSUID | libc::MS_NODEV;

/// The user that programs get on these kinds of host, if the tests are run by root.
const USER: u32 = mhnos_testing::host::USER;

pub(crate) const FAULTS: &[Fault] = faults! {
    // Init, before it builds anything.
    "user" T1 SYS_clone.only(&[(0, libc::CLONE_NEWUSER as u32, libc::CLONE_NEWUSER as u32)]).stops("create the sandbox's namespaces");
    "user" T1 SYS_setpgid.stops("take a process group of its own");
    "user" T1 SYS_close_range.only(&[(2, ALL, 0)]).stops("close the keeper's descriptors");
    "user" T1 SYS_prctl.only(prctl!(PR_SET_PDEATHSIG)).stops("tie init to the keeper");
    "user" T1 SYS_prctl.only(prctl!(PR_SET_DUMPABLE, 1)).stops("open /proc/self");
    // By their lengths: "deny", "4242 4242 1".
    "user" T1 SYS_write.only(&[(2, ALL, 4)]).stops("deny setgroups");
    "user" T1 SYS_write.only(&[(2, ALL, 11)]).stops("map the user");
    "user" T1 SYS_write.only(&[(2, ALL, 11)]).nth(2).stops("map the group");
    // Its network.
    "user" T1 SYS_socket.only(&[(0, ALL, libc::AF_NETLINK as u32), (2, ALL, 0)]).stops("open the route socket");
    "user" T1 SYS_sendto.only(&[(2, ALL, 32)]).stops("bring up the loopback");
    // By their lengths: rules and route of IPv4, and of IPv6, without which there is only less to reach.
    "user" T1 SYS_sendto.only(&[(2, ALL, 236)]).stops("make the rules of IPv4");
    "user" T1 SYS_sendto.only(&[(2, ALL, 44)]).stops("make the route of IPv4");
    "user" T1 SYS_sendto.only(&[(2, ALL, 248)]).stops("make the rules of IPv6");
    "user" T1 SYS_sendto.only(&[(2, ALL, 248)]).answers(libc::EOPNOTSUPP);
    "user" T1 SYS_sendto.only(&[(2, ALL, 56)]).stops("make the route of IPv6");
    "user" T1 SYS_bind.only(&[(2, ALL, 16)]).stops("listen for proxy requests");
    "user" T1 SYS_bind.only(&[(2, ALL, 16)]).nth(2).stops("listen for names");
    "user" T1 SYS_listen.only(&[(1, ALL, 1024)]).nth(2).stops("listen for names");
    "user" T1 SYS_listen.only(&[(1, ALL, 1024)]).nth(3).stops("listen on port 22");
    "user" T1 SYS_listen.only(&[(1, ALL, 1024)]).nth(4).stops("listen on IPv6 port 22");
    "user" T1 SYS_sethostname.stops("set the host name");
    // The tree.
    "user" T1 SYS_mount.only(flags!(libc::MS_PRIVATE | libc::MS_REC)).stops("make mounts private");
    "user" T1 SYS_openat2.stops("open the workspace /");
    "user" T1 SYS_open_tree.only(&[(2, ALL, 0x8_9001)]).stops("clone the workspace");
    "user" T1 SYS_mount_setattr.stops("restrict the workspace");
    "user" T1 SYS_open_tree.only(&[(2, ALL, 0x8_8001)]).stops("clone /usr");
    "user" T1 SYS_open_tree.only(&[(2, ALL, 0x8_0001)]).stops("clone /dev/null");
    "user" T1 SYS_mount.only(flags!(NO_SUID_NO_DEV)).stops("mount the root tree");
    "user" T1 SYS_chdir.stops("enter the root tree");
    "user" T1 SYS_mkdirat.stops("make the directory /usr");
    "user" T1 SYS_move_mount.stops("attach /usr");
    "user" T1 SYS_symlinkat.stops("link ");
    "user" T1 SYS_mount.only(flags!(NO_SUID_NO_DEV | libc::MS_NOEXEC)).stops("mount /dev");
    "user" T1 SYS_mount.only(flags!(libc::MS_NOSUID | libc::MS_NOEXEC)).stops("mount /dev/pts");
    "user" T1 SYS_mount.only(flags!(NO_SUID_NO_DEV | libc::MS_NOEXEC)).nth(2).stops("mount /dev/shm");
    "user" T1 SYS_mount.only(flags!(NO_SUID_NO_DEV | libc::MS_NOEXEC)).nth(3).stops("mount /proc");
    "user" T1 SYS_mount.only(flags!(NO_SUID_NO_DEV | libc::MS_NOEXEC)).nth(4).stops("mount a temporary run");
    "user" T1 SYS_mount.only(flags!(NO_SUID_NO_DEV | libc::MS_NOEXEC)).nth(5).stops("mount a temporary var");
    "user" T1 SYS_mount.only(flags!(NO_SUID_NO_DEV)).nth(2).stops("mount /tmp");
    "user" T1 SYS_pivot_root.stops("pivot into the root tree");
    "user" T1 SYS_umount2.stops("let go of the host's tree");
    "user" T1 SYS_chdir.nth(2).stops("enter the root tree");
    "user" T1 SYS_mount.only(flags!(NO_SUID_NO_DEV | libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY))
        .stops("make the root tree read-only");
    // Init, when the tree stands.
    "user" T1 SYS_prctl.only(prctl!(PR_SET_NAME)).stops("name init");
    "user" T1 SYS_prctl.only(prctl!(PR_SET_DUMPABLE, 0)).stops("close /proc/self");
    "user" T1 SYS_prctl.only(prctl!(PR_SET_NO_NEW_PRIVS)).stops("forbid new privileges");
    "user" T1 SYS_prctl.only(prctl!(PR_CAPBSET_DROP)).unexpected().stops("empty the bounding set");
    "user" T1 SYS_landlock_add_rule.stops("allow /");
    "user" T1 SYS_landlock_restrict_self.stops("restrict files by Landlock");
    // Around supervisor and program. One byte is what a door takes; limits are lines.
    "user" T1 SYS_clone.only(&[(0, ALL, libc::SIGCHLD as u32)]).stops("create the supervisor");
    "root" T1 SYS_write.only(&[(2, ALL, 1)]).stops("join the control group");
    "user" T1 SYS_setpriority.stops("lower the priority");
    "user" T1 SYS_setsid.stops("open a session");
    "user" T1 SYS_ioctl.stops("open a terminal");
    "user" T1 SYS_ioctl.only(&[(1, ALL, libc::TIOCSCTTY as u32)]).stops("take the terminal");
    "user" T1 SYS_fcntl.only(&[(1, ALL, libc::F_DUPFD_CLOEXEC as u32), (2, ALL, 64)]).stops("set its channel apart");
    "user" T1 SYS_close_range.only(&[(2, ALL, libc::CLOSE_RANGE_CLOEXEC)]).stops("connect descriptors");
    "user" T1 SYS_dup2.stops("connect descriptors");
    // Limits that are set, not asked for.
    "user" T1 SYS_prlimit64.only(&[(1, ALL, libc::RLIMIT_CORE), (3, ALL, 0)]).stops("limit Core");
    "user" T1 SYS_prlimit64.only(&[(1, ALL, libc::RLIMIT_DATA), (3, ALL, 0)]).stops("limit Data");
    "user" T1 SYS_prctl.only(prctl!(PR_CAP_AMBIENT)).stops("clear ambient capabilities");
    "user" T1 SYS_capset.stops("drop capabilities");
    "user" T1 SYS_seccomp.stops("install the system call filter");
    // With the host's /proc, which comes before the system's directories.
    "masked-proc" T2 SYS_open_tree.only(&[(2, ALL, 0x8_8001)]).stops("clone /proc");
    "masked-proc" T2 SYS_pivot_root.stops("pivot into the root tree");
    "masked-proc" T2 SYS_seccomp.stops("install the system call filter");
    // Without namespaces: another user, rules of Landlock for each program.
    "container" T3Plus SYS_setgroups.unexpected().stops("drop supplementary groups");
    "container" T3Plus SYS_setresgid.stops("change the group");
    "container" T3Plus SYS_setresgid.only(&[(0, ALL, USER)]).stops("change the group");
    "container" T3Plus SYS_setresuid.stops("change the user");
    "container" T3Plus SYS_setresuid.only(&[(0, ALL, USER)]).stops("change the user");
    "container" T3Plus SYS_setfsuid.stops("make files as the programs' user");
    "container" T3Plus SYS_capset.stops("drop capabilities");
    "container" T3Plus SYS_listen.only(&[(1, ALL, 1024)]).stops("listen for proxy requests");
    "container" T3Plus SYS_prctl.only(prctl!(PR_SET_DUMPABLE, 1)).stops("open /proc/self");
    "container" T3Plus SYS_prctl.only(prctl!(PR_SET_CHILD_SUBREAPER)).stops("become the parent of orphans");
    "container" T3Plus SYS_prctl.only(prctl!(PR_SET_NAME)).stops("name init");
    "container" T3Plus SYS_prctl.only(prctl!(PR_SET_DUMPABLE, 0)).stops("close /proc/self");
    "container" T3Plus SYS_prctl.only(prctl!(PR_SET_NO_NEW_PRIVS)).stops("forbid new privileges");
    "container" T3Plus SYS_landlock_create_ruleset.stops("find Landlock");
    "container" T3Plus SYS_landlock_add_rule.stops("allow /");
    "container" T3Plus SYS_openat2.stops("open the workspace /");
    "container" T3Plus SYS_fcntl.only(&[(1, ALL, libc::F_DUPFD_CLOEXEC as u32), (2, ALL, 64)]).stops("set a ruleset apart");
    "container" T3Plus SYS_prctl.only(prctl!(PR_SET_PDEATHSIG)).stops("tie the program to its supervisor");
    // Rulesets of programs have been set apart, above 64.
    "container" T3Plus SYS_landlock_restrict_self.only(&[(0, 64, 0)]).stops("keep signals inside");
    // The self-test has a terminal, and so a ruleset of its own.
    "container" T3Plus SYS_landlock_restrict_self.only(&[(0, 64, 64)])
        .stops_programs(Stage::Confine, "restrict files by Landlock");
    "container" T3Plus SYS_seccomp.stops("install the system call filter");
    "one-user" T3 SYS_landlock_restrict_self.stops("keep signals inside");
    "one-user" T3 SYS_seccomp.stops("install the system call filter");
    // A lower tier takes the place of a higher one, and never silently.
    "user" T3 SYS_pivot_root.becomes(T3);
    "user" T1 SYS_landlock_create_ruleset.costs(Layer::Landlock);
    "container" T3 SYS_setfsuid.becomes(T3);
    // What root does before it stops being root.
    "root" T1 SYS_unshare.unexpected().early().stops("take a mount namespace");
    "root" T1 SYS_mount.only(flags!(libc::MS_SLAVE | libc::MS_REC)).early().stops("separate mounts");
    "root" T1 SYS_open_tree.early().stops("clone /");
    "root" T1 SYS_mount.only(flags!(NO_SUID_NO_DEV)).early().stops("mount the staging tree");
    "root" T1 SYS_move_mount.early().stops("attach /mnt/0");
    "root" T1 SYS_prctl.only(prctl!(PR_SET_KEEPCAPS)).early().stops("keep capabilities aside");
    "root" T1 SYS_setgroups.early().unexpected().stops("drop supplementary groups");
    "root" T1 SYS_setresgid.early().stops("change the group");
    "root" T1 SYS_setresuid.early().stops("change the user");
    "root" T1 SYS_capset.early().stops("drop capabilities");
    // In a service that runs.
    "user" T1 SYS_pivot_root.during(Attempt::Private).stops_programs(Stage::Sandbox, "pivot into the root tree");
    "user" T1 SYS_mount.only(flags!(NO_SUID_NO_DEV | libc::MS_NOEXEC)).during(Attempt::Private)
        .stops_programs(Stage::Sandbox, "mount /dev");
    "user" T1 SYS_ioctl.only(&[(1, ALL, libc::TIOCSCTTY as u32)]).during(Attempt::OnTerminal)
        .stops_programs(Stage::Confine, "take the terminal");
    "one-user" T3 SYS_landlock_restrict_self.only(&[(0, 64, 64)]).during(Attempt::Shared)
        .stops_programs(Stage::Confine, "restrict files by Landlock");
    "one-user" T3 SYS_chdir.stops_programs(Stage::Chdir, "enter /");
    "user" T1 SYS_execve.stops_programs(Stage::Exec, "execute /");
};
