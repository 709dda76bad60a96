//! Landlock: which files a program reaches, which ports, whom it may signal.
//!
//! Where there is a mount namespace this is a second wall around what the tree already says, entered once by
//! init for the whole sandbox. Where there is none it is *the* wall around the host's files, and each program
//! gets a domain of its own. A right that the kernel does not know yet cannot be denied by it; the tiers say
//! which version each needs ([`needed_abi`]).

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode as FileMode, OFlags, ResolveFlags, fstat, openat},
    io::Errno,
};

use crate::{
    Mode, Tier,
    error::{SetupError, Step},
    etc,
    policy::{Policy, Workspace},
    sys::{LandlockScope, Ruleset, landlock_abi},
    tree::open_workspace,
};

// LANDLOCK_ACCESS_FS_*.
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_SYM: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
const RESOLVE_UNIX: u64 = 1 << 16;

/// What can be allowed for a file that is no directory.
const OF_A_FILE: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV | RESOLVE_UNIX;

const READ: u64 = READ_FILE | READ_DIR;
const READ_EXECUTE: u64 = READ | EXECUTE;
/// Files like /dev/null: they are used, not made.
const DEVICE: u64 = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV;
/// Everything but making device nodes.
const ALL: u64 = READ_EXECUTE
    | WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
    | TRUNCATE
    | IOCTL_DEV
    | RESOLVE_UNIX;
/// Semaphores and shared memory by name, without a list of whose there are.
const SHARED_MEMORY: u64 = READ_FILE | WRITE_FILE | MAKE_REG | REMOVE_FILE | TRUNCATE;

/// `LANDLOCK_ACCESS_NET_CONNECT_TCP`.
const CONNECT_TCP: u64 = 1 << 1;

/// From this version on, moving a file to another directory can be allowed; before, a second wall would cost
/// `rename`.
const ABI_REFER: u32 = 2;
/// Truncating by path.
const ABI_TRUNCATE: u32 = 3;
/// TCP ports.
const ABI_TCP: u32 = 4;
/// Signals and abstract sockets.
const ABI_SCOPES: u32 = 6;
/// Connecting to sockets with a path.
const ABI_UNIX: u32 = 9;

/// Where nothing but Landlock keeps programs from the service's own ports, these are what they may connect
/// to, at any address, beside the proxy's: a list, because there is no "all but". What development servers listen on by
/// habit, and nothing the outside is usually asked on.
const PORTS: [(u16, u16); 11] = [
    (1420, 1421), // tauri
    (3000, 3031),
    (4000, 4007),
    (4200, 4207),
    (5000, 5007),
    (5173, 5180), // vite
    (8000, 8031),
    (8080, 8095),
    (8787, 8794),   // workerd
    (9229, 9236),   // node --inspect
    (18789, 18789), // OpenClaw's gateway, for its own commands
];

/// The version a tier cannot do without, and the version from which on it uses Landlock at all.
pub fn needed_abi(tier: Tier) -> Option<u32> {
    match tier {
        Tier::T3 => Some(ABI_SCOPES),
        Tier::T3Plus => Some(1),
        Tier::T1 | Tier::T2 | Tier::None => None,
    }
}

/// Whether a sandbox of this tier has Landlock here.
pub fn in_force(tier: Tier) -> bool {
    landlock_abi().is_some_and(|abi| match tier {
        Tier::None => false,
        Tier::T1 | Tier::T2 => abi >= ABI_REFER,
        Tier::T3 | Tier::T3Plus => true,
    })
}

/// Whether the kernel can keep signals and connections to abstract sockets within a domain: then one `kill(-1)` ends a tree
/// exactly.
pub fn has_scopes() -> bool {
    landlock_abi().is_some_and(|abi| abi >= ABI_SCOPES)
}

/// Whether what no rule lets a program write it cannot truncate either.
pub fn covers_truncating() -> bool {
    landlock_abi().is_some_and(|abi| abi >= ABI_TRUNCATE)
}

/// Whether the kernel can keep programs from TCP ports.
pub fn covers_ports() -> bool {
    landlock_abi().is_some_and(|abi| abi >= ABI_TCP)
}

/// Whether the kernel can keep programs from sockets with a path.
pub fn covers_unix_sockets() -> bool {
    landlock_abi().is_some_and(|abi| abi >= ABI_UNIX)
}

/// What shall be reachable, for [`Rules::ruleset`].
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The rights to files that are denied where no rule allows them, as far as the kernel knows them.
    handled: u64,
    beneath: Vec<(PathBuf, u64)>,
    /// Only if it still is what it was: who may write beside it can put a link in its place.
    workspace: Option<(Workspace, u64)>,
    ports: Option<Vec<u16>>,
    scope: LandlockScope,
}

impl Rules {
    /// The second wall, for a process whose root is the sandbox's own tree.
    pub(crate) fn of_tree(policy: &Policy) -> Self {
        let mut beneath = vec![(PathBuf::from("/"), READ_EXECUTE)];
        for writable in ["/tmp", "/dev", "/run", "/var"] {
            beneath.push((writable.into(), ALL));
        }
        beneath.push(("/proc".into(), READ | WRITE_FILE | TRUNCATE));
        // The network, and with it such sockets, may be the host's.
        let scope = LandlockScope { abstract_sockets: true, signals: false };
        let workspace = Some((policy.workspace.clone(), ALL));
        Self { handled: u64::MAX, beneath, workspace, ports: None, scope }
    }

    /// The only wall around files, for a process that sees the host's tree.
    pub(crate) fn of_host(policy: &Policy) -> Self {
        let mut beneath: Vec<(PathBuf, u64)> = Vec::new();
        beneath.extend(crate::tree::SYSTEM.map(|name| (Path::new("/").join(name), READ_EXECUTE)));
        beneath.extend(policy.read_only.iter().map(|source| (source.inside.clone(), READ_EXECUTE)));
        beneath.extend(etc::names().map(|name| (Path::new("/etc").join(name), READ)));
        // Not writable, not even the program's own part: a rule cannot tell it from the service's.
        beneath.push(("/proc".into(), READ));
        beneath.extend(crate::tree::DEVICES.map(|name| (Path::new("/dev").join(name), DEVICE)));
        if policy.tier == Tier::T3Plus {
            // Other terminals belong to other users. With one user for all, a program gets its own only.
            beneath.push(("/dev/ptmx".into(), DEVICE));
            beneath.push(("/dev/pts".into(), READ | DEVICE));
        }
        beneath.push(("/dev/shm".into(), SHARED_MEMORY));
        beneath.push(("/tmp".into(), ALL & !IOCTL_DEV));
        let workspace = Some((policy.workspace.clone(), ALL & !IOCTL_DEV));
        let ports = || {
            let all = PORTS.into_iter().flat_map(|(first, last)| first..=last);
            all.filter(|port| !policy.own_ports.contains(port)).chain(policy.proxy).collect()
        };
        let scope = LandlockScope { abstract_sockets: true, signals: true };
        // The host's network is what `relaxed` means.
        Self {
            handled: u64::MAX,
            beneath,
            workspace,
            ports: (policy.mode == Mode::Strict).then(ports),
            scope,
        }
    }

    /// A domain that signals do not leave, and nothing else: for a supervisor, whose `kill(-1)` then reaches
    /// its own tree only, and all of it.
    ///
    /// To move a file to another directory is the one thing that every domain within another denies unless it allows it
    /// (landlock(7), `LANDLOCK_ACCESS_FS_REFER`).
    pub(crate) fn of_signals() -> Self {
        let scope = LandlockScope { abstract_sockets: false, signals: true };
        Self { handled: REFER, beneath: vec![("/".into(), REFER)], workspace: None, ports: None, scope }
    }

    /// Whether ports are restricted, here.
    pub(crate) fn restricts_ports(&self) -> bool {
        self.ports.is_some() && landlock_abi().is_some_and(|abi| abi >= ABI_TCP)
    }

    /// The rules as the kernel takes them, with `terminal` among what may be opened.
    pub(crate) fn ruleset(&self, terminal: Option<BorrowedFd<'_>>) -> Result<Ruleset, SetupError> {
        let abi = landlock_abi().unwrap_or(0);
        let handled = self.handled & known_rights(abi);
        let ports = self.ports.as_deref().filter(|_| abi >= ABI_TCP);
        let scope = if abi >= ABI_SCOPES { self.scope } else { LandlockScope::default() };
        let ruleset =
            Ruleset::new(handled, ports.map_or(0, |_| CONNECT_TCP), scope).step("make a Landlock ruleset")?;
        for (path, rights) in &self.beneath {
            allow(&ruleset, path, rights & handled)?;
        }
        if let Some((workspace, rights)) = &self.workspace {
            // By links of the sandbox's own tree, if need be (/var/tmp).
            let resolve = ResolveFlags::NO_MAGICLINKS;
            let dir = open_workspace(&workspace.source.inside, workspace.identity, resolve)?;
            ruleset.allow_beneath(&dir, rights & handled).step("allow the workspace")?;
        }
        if let Some(terminal) = terminal {
            ruleset.allow_beneath(terminal, DEVICE & handled).step("allow the terminal")?;
        }
        for port in ports.unwrap_or_default() {
            ruleset.allow_port(*port, CONNECT_TCP).step("allow a port")?;
        }
        Ok(ruleset)
    }
}

/// The rights to files that this version knows, all of which are handled: what no rule allows is denied.
fn known_rights(abi: u32) -> u64 {
    let count = match abi {
        0 | 1 => 13,
        2 => 14,
        3 | 4 => 15,
        5..=8 => 16,
        _ => 17,
    };
    (1 << count) - 1
}

/// Paths that do not exist here need no rule.
fn allow(ruleset: &Ruleset, path: &Path, rights: u64) -> Result<(), SetupError> {
    let parent: OwnedFd = match openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(()),
        other => other.step_on("open for a rule", path.display())?,
    };
    let stat = fstat(&parent).step_on("examine for a rule", path.display())?;
    let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
    let rights = if is_dir { rights } else { rights & OF_A_FILE };
    ruleset.allow_beneath(&parent, rights).step_on("allow", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_right_used_is_known_to_the_newest_version() {
        assert_eq!(ALL & !known_rights(9), 0);
        assert_eq!(known_rights(1) & REFER, 0);
        assert_eq!(known_rights(6) & RESOLVE_UNIX, 0);
    }

    #[test]
    fn the_list_of_ports_is_a_slice() {
        let count: u32 = PORTS.iter().map(|(first, last)| u32::from(last - first) + 1).sum();
        assert!(PORTS.windows(2).all(|pair| pair[0].1 < pair[1].0), "in order, without overlap");
        assert!(count < 256, "each costs every spawn: {count}");
    }
}
