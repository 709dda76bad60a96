//! Kinds of host, made out of the one the tests run on: what a kind refuses is refused by the kernel, on
//! behalf of a filter around the keeper.
//!
//! A host that needs root fails where the tests are not run by root, unless it is waived by name.

use std::path::Path;

pub mod asked;
pub mod delegated;
pub mod faults;
mod older;

use mhnos_sandbox::{Mode, Tier, sys, sys::Instruction};
use rustix::{
    fs::{Gid, Uid},
    process::geteuid,
    thread::{
        CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

/// The ordinary user of the tests, if they are run by root.
pub const USER: u32 = 4242;

/// A kind of host.
#[derive(Debug)]
pub struct Host {
    /// What it is called in the names of tests.
    pub name: &'static str,
    /// Who starts the service.
    starter: Starter,
    /// What the operator asks for.
    pub mode: Mode,
    /// With control groups.
    pub grouped: bool,
    /// What the keeper must find.
    pub tier: Tier,
    /// The version of its kernel's Landlock; `None` for this one's.
    pub landlock: Option<u32>,
    refused: &'static [Refusal],
}

/// Who starts the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starter {
    /// root, with all that root may do.
    Root,
    /// An ordinary user.
    User,
    /// uid 0 with CAP_SETUID and CAP_SETGID and nothing else.
    RootOfContainer,
}

/// A system call that fails.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// Which.
    pub number: i64,
    /// How.
    pub errno: i32,
    /// Only if these arguments have these values: argument, mask, value.
    pub only: &'static [(u32, u32, u32)],
}

const NO_NAMESPACES: Refusal = Refusal {
    number: libc::SYS_clone,
    errno: libc::EPERM,
    only: &[(0, libc::CLONE_NEWUSER as u32, libc::CLONE_NEWUSER as u32)],
};

/// As the kernel answers where parts of the outer /proc are covered: flags nosuid, nodev, noexec and no
/// options, which of all mounts is that of /proc alone.
const NO_FRESH_PROC: Refusal =
    Refusal { number: libc::SYS_mount, errno: libc::EPERM, only: &[(3, u32::MAX, 14), (4, u32::MAX, 0)] };

/// As the kernel answers where the service itself is behind a filter some of whose calls are seen by another.
const NO_NOTICES: Refusal = Refusal { number: libc::SYS_seccomp, errno: libc::EBUSY, only: &[(1, 8, 8)] };

/// As a kernel answers whose Landlock is not built, or not enabled.
const NO_LANDLOCK: Refusal =
    Refusal { number: libc::SYS_landlock_create_ruleset, errno: libc::EOPNOTSUPP, only: &[] };

/// As Linux 6.1 answers to what came later: the auxiliary vector by prctl (6.4), sealed memory files (6.3), and calls
/// of newer numbers (fchmodat2 6.6, statmount 6.8).
const LINUX_6_1: [Refusal; 4] = [
    Refusal { number: libc::SYS_prctl, errno: libc::EINVAL, only: &[(0, u32::MAX, 0x4155_5856)] },
    Refusal { number: libc::SYS_memfd_create, errno: libc::EINVAL, only: &[(1, 8, 8)] },
    Refusal { number: 452, errno: libc::ENOSYS, only: &[] },
    Refusal { number: 457, errno: libc::ENOSYS, only: &[] },
];

/// As Linux 5.15 answers (Ubuntu 22.04's first kernel), beside that: a listener that a signal does not interrupt (5.19), and calls of
/// newer numbers (futex_waitv 5.16, cachestat 6.5).
const LINUX_5_15: [Refusal; 3] = [
    Refusal { number: libc::SYS_seccomp, errno: libc::EINVAL, only: &[(0, u32::MAX, 1), (1, 32, 32)] },
    Refusal { number: libc::SYS_futex_waitv, errno: libc::ENOSYS, only: &[] },
    Refusal { number: 451, errno: libc::ENOSYS, only: &[] },
];

/// All kinds.
pub const HOSTS: &[Host] = &[
    Host {
        name: "root",
        starter: Starter::Root,
        mode: Mode::Strict,
        grouped: true,
        tier: Tier::T1,
        landlock: None,
        refused: &[],
    },
    Host {
        name: "user",
        starter: Starter::User,
        mode: Mode::Strict,
        grouped: false,
        tier: Tier::T1,
        landlock: None,
        refused: &[],
    },
    Host {
        name: "relaxed",
        starter: Starter::User,
        mode: Mode::Relaxed,
        grouped: false,
        tier: Tier::T1,
        landlock: None,
        refused: &[],
    },
    Host {
        name: "masked-proc",
        starter: Starter::User,
        mode: Mode::Strict,
        grouped: false,
        tier: Tier::T2,
        landlock: None,
        refused: &[NO_FRESH_PROC],
    },
    Host {
        name: "no-namespaces",
        starter: Starter::Root,
        mode: Mode::Strict,
        grouped: false,
        tier: Tier::T3Plus,
        landlock: None,
        refused: &[NO_NAMESPACES],
    },
    Host {
        name: "no-namespaces-grouped",
        starter: Starter::Root,
        mode: Mode::Strict,
        grouped: true,
        tier: Tier::T3Plus,
        landlock: None,
        refused: &[NO_NAMESPACES, NO_NOTICES],
    },
    Host {
        name: "container",
        starter: Starter::RootOfContainer,
        mode: Mode::Strict,
        grouped: false,
        tier: Tier::T3Plus,
        landlock: None,
        refused: &[NO_NAMESPACES],
    },
    Host {
        name: "container-linux-6.1",
        starter: Starter::RootOfContainer,
        mode: Mode::Strict,
        grouped: false,
        tier: Tier::T3Plus,
        landlock: Some(2),
        refused: &[NO_NAMESPACES, LINUX_6_1[0], LINUX_6_1[1], LINUX_6_1[2], LINUX_6_1[3]],
    },
    Host {
        name: "container-linux-5.15",
        starter: Starter::RootOfContainer,
        mode: Mode::Strict,
        grouped: false,
        tier: Tier::T3Plus,
        landlock: Some(1),
        refused: &[
            NO_NAMESPACES,
            LINUX_6_1[0],
            LINUX_6_1[1],
            LINUX_6_1[2],
            LINUX_6_1[3],
            LINUX_5_15[0],
            LINUX_5_15[1],
            LINUX_5_15[2],
        ],
    },
    Host {
        name: "one-user",
        starter: Starter::User,
        mode: Mode::Strict,
        grouped: false,
        tier: Tier::T3,
        landlock: None,
        refused: &[NO_NAMESPACES],
    },
    Host {
        name: "none",
        starter: Starter::User,
        mode: Mode::None,
        grouped: false,
        tier: Tier::None,
        landlock: None,
        refused: &[],
    },
];

/// A kernel without Landlock. What the tiers make of it the other kinds show; here it is what stands in the way of T3+ alone.
const WITHOUT_LANDLOCK: Host = Host {
    name: "root-without-landlock",
    starter: Starter::Root,
    mode: Mode::Strict,
    grouped: true,
    tier: Tier::T1,
    landlock: None,
    refused: &[NO_LANDLOCK],
};

/// As a filter answers around the service that does not know what the last steps of a program's process take: a descriptor
/// of a number of one's choice.
const NO_HIGH_DESCRIPTORS: Refusal = Refusal {
    number: libc::SYS_fcntl,
    errno: libc::EPERM,
    only: &[(1, u32::MAX, libc::F_DUPFD_CLOEXEC as u32), (2, 64, 64)],
};

/// Where no tier comes up, for want of one step that all have late.
const WITHOUT_A_LATE_STEP: Host = Host {
    name: "without-a-late-step",
    starter: Starter::User,
    mode: Mode::Strict,
    grouped: false,
    tier: Tier::None,
    landlock: None,
    refused: &[NO_HIGH_DESCRIPTORS],
};

/// The first Landlock, where there are namespaces: they do without it.
const FIRST_LANDLOCK: Host = Host {
    name: "user-first-landlock",
    starter: Starter::User,
    mode: Mode::Strict,
    grouped: false,
    tier: Tier::T1,
    landlock: Some(1),
    refused: &[],
};

/// The first Landlock, and nothing else that could keep programs of the service's own user in: no tier comes up.
const FIRST_LANDLOCK_ALONE: Host = Host {
    name: "one-user-first-landlock",
    starter: Starter::User,
    mode: Mode::Strict,
    grouped: false,
    tier: Tier::None,
    landlock: Some(1),
    refused: &[NO_NAMESPACES],
};

/// A unit of systemd's: an ordinary user with control groups that were given to it. For those who can give some ([`delegated`]).
pub const DELEGATED: Host = Host {
    name: "delegated",
    starter: Starter::User,
    mode: Mode::Strict,
    grouped: true,
    tier: Tier::T1,
    landlock: None,
    refused: &[],
};

impl Host {
    /// The host of this name.
    #[track_caller]
    pub fn named(name: &str) -> &'static Self {
        let others =
            [&WITHOUT_LANDLOCK, &WITHOUT_A_LATE_STEP, &FIRST_LANDLOCK, &FIRST_LANDLOCK_ALONE, &DELEGATED];
        HOSTS.iter().chain(others).find(|host| host.name == name).expect("a host")
    }

    /// Whether an ordinary user starts the service.
    pub fn is_ordinary(&self) -> bool {
        self.starter == Starter::User
    }

    /// Gives a directory to the user who will start the keeper.
    pub fn give(&self, directory: &Path) {
        if self.starter != Starter::Root && geteuid().is_root() {
            std::os::unix::fs::chown(directory, Some(USER), Some(USER)).expect("give the directory");
        }
    }

    /// Becomes the user who starts the keeper.
    pub fn begin(&self) {
        if let Some(version) = self.landlock {
            older::pretend(version);
        }
        if self.starter != Starter::User {
            assert!(geteuid().is_root(), "root is needed for this host; waive it by name or run as root");
            if self.starter == Starter::RootOfContainer {
                keep_two_capabilities();
            }
        } else if geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
            set_thread_groups(&[]).expect("groups");
            set_thread_res_gid(gid, gid, gid).expect("group");
            set_thread_res_uid(uid, uid, uid).expect("user");
        }
    }

    /// From here on this host is as it says.
    pub fn refuse(&self) {
        self.refused.iter().for_each(Refusal::install);
    }
}

/// `SECCOMP_RET_ERRNO`.
const RETURN_ERRNO: u32 = 0x0005_0000;

fn keep_two_capabilities() {
    let kept = CapabilitySet::SETUID | CapabilitySet::SETGID;
    for capability in CapabilitySet::all().difference(kept).iter() {
        // What the kernel or the surroundings do not have cannot be dropped.
        let _ = remove_capability_from_bounding_set(capability);
    }
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )
    .expect("drop capabilities");
}

impl Refusal {
    /// Puts it around this process and all it starts.
    pub fn install(&self) {
        set_no_new_privs(true).expect("no new privileges");
        sys::install_filter(&filter(self.number, self.only, RETURN_ERRNO | self.errno as u32))
            .expect("a filter");
    }
}

/// Calls of this number whose arguments have these values (argument, mask, value) are answered with `action`, one of
/// `SECCOMP_RET_*`; all else is allowed.
fn filter(number: i64, only: &[(u32, u32, u32)], action: u32) -> Vec<Instruction> {
    const LOAD: u16 = 0x20;
    const AND: u16 = 0x54;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let instruction = |code, jump_false, operand| Instruction { code, jump_true: 0, jump_false, operand };
    // From the end: what is left to skip grows.
    let mut program = vec![instruction(RETURN, 0, action), instruction(RETURN, 0, 0x7FFF_0000)];
    for (argument, mask, value) in only.iter().rev() {
        let past = program.len() as u8 - 1;
        let test = [
            instruction(LOAD, 0, 16 + 8 * argument),
            instruction(AND, 0, *mask),
            instruction(JUMP_EQUAL, past, *value),
        ];
        program.splice(0..0, test);
    }
    let past = program.len() as u8 - 1;
    program.splice(0..0, [instruction(LOAD, 0, 0), instruction(JUMP_EQUAL, past, number as u32)]);
    program
}
