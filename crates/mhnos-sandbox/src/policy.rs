//! What a sandbox shall be: the operator's wishes, with every path resolved. Built once, at start, by the
//! keeper; no client and no bridge can change it.

use std::{
    ffi::OsString,
    os::unix::{ffi::OsStringExt, fs::FileTypeExt},
    path::{Path, PathBuf},
};

use crate::{
    Mode, Tier, filter, landlock,
    sys::Instruction,
    syscalls::{self, Profile},
};

/// The walls and the furniture of a sandbox.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What the operator asked for.
    pub mode: Mode,
    /// What is built: see [`Policy::at`].
    pub tier: Tier,
    /// The one writable directory that is the user's.
    pub workspace: Workspace,
    /// Host directories that programs need, read-only, at the same path inside.
    pub read_only: Vec<Source>,
    /// The uid and gid programs run as, inside and outside alike.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// Ports the service listens on, which programs that share its network must not reach.
    pub own_ports: Vec<u16>,
    /// Files with what only the service may know, which programs must not be able to read.
    pub secrets: Vec<PathBuf>,
    /// The port of the proxy on the host's loopback, for programs that have no other way out: see
    /// [`Policy::needs_proxy`].
    pub proxy: Option<u16>,
    /// The system call filter of programs; empty for none.
    pub filter: Vec<Instruction>,
}

impl Policy {
    /// This policy at a tier, its filter compiled; `grouped` says that control groups limit its programs.
    #[must_use]
    pub fn at(&self, tier: Tier, grouped: bool) -> Self {
        let mut policy = Self { tier, ..self.clone() };
        policy.filter = match tier {
            Tier::None => Vec::new(),
            _ => filter::compile(&syscalls::rules(Profile {
                mode: self.mode,
                shares_host: matches!(tier, Tier::T3 | Tier::T3Plus),
                datagrams: !policy.needs_proxy(),
                grouped,
                unix_sockets: !matches!(tier, Tier::T3 | Tier::T3Plus)
                    || landlock::covers_unix_sockets()
                    || !foreign_sockets(),
            })),
        };
        policy
    }

    /// Whether programs have a network of their own: the host's is what `relaxed` means, and without namespaces
    /// there is no other.
    #[must_use]
    pub fn own_network(&self) -> bool {
        self.mode == Mode::Strict && matches!(self.tier, Tier::T1 | Tier::T2)
    }

    /// Whether programs share the host's network and are kept from it all the same: no datagrams, and of TCP the
    /// proxy's port and a list ([`landlock`]). Before Linux 6.7 nothing could keep them from a port.
    #[must_use]
    pub fn needs_proxy(&self) -> bool {
        self.mode == Mode::Strict && matches!(self.tier, Tier::T3 | Tier::T3Plus) && landlock::covers_ports()
    }
}

/// Whether a socket with a path exists that a program might connect to: with the host's tree in view and
/// before Landlock ABI 9 nothing else would keep it from doing so.
fn foreign_sockets() -> bool {
    let read = std::fs::read_to_string;
    // A table that cannot be read may hold one.
    read("/proc/net/unix").map_or(true, |table| has_path(&table))
        || read("/proc/self/mountinfo").map_or(true, |table| mount_points(&table).any(|at| is_socket(&at)))
}

/// One that was opened in another network is in another table; a container may have it mounted.
fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

/// `/proc/self/mountinfo`: the fifth field of a line, what would part fields in it as three octal digits.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    let fields = table.lines().filter_map(|line| line.split(' ').nth(4));
    fields.map(|field| {
        let mut parts = field.split('\\');
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
            bytes.extend(code);
            bytes.extend(part.bytes().skip(3));
        }
        OsString::from_vec(bytes).into()
    })
}

/// `/proc/net/unix`: a header, then lines whose eighth field, if any, is a path or, after `@`, a name.
fn has_path(table: &str) -> bool {
    table
        .lines()
        .skip(1)
        .any(|line| line.split_whitespace().nth(7).is_some_and(|name| !name.starts_with('@')))
}

/// The workspace as the keeper found it at start.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Where it is now and where it shows inside.
    pub source: Source,
    /// Device and inode at start. A directory that has been swapped since is not bound.
    pub identity: (u64, u64),
}

/// A directory or file of the host and its place inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where the keeper reaches it: the host's path, or its place on the staging tree.
    pub outside: PathBuf,
    /// Absolute path inside the sandbox.
    pub inside: PathBuf,
}

/// The name of the account programs see themselves as.
pub const USER: &str = "mhnos";

/// The name of the machine programs see.
pub const HOST_NAME: &str = "mhnos";

/// Where the workspace can always be found, whatever its own path.
pub const WORKSPACE_ALIAS: &str = "/workspace";

/// Size of a sandbox's `/tmp`, in bytes.
pub const TMP_BYTES: u64 = 256 << 20;

/// Files and directories in a sandbox's `/tmp`.
pub const TMP_INODES: u64 = 65_536;

/// Files, links and names of files in `/run`, `/var` and `/dev`, each: sockets and locks of a few programs. By default the kernel
/// allows one for every two pages of the machine, a kilobyte or so each, which no limit of the program's counts once it has ended.
pub const FEW_INODES: u64 = 1024;

/// Size of a sandbox's `/dev/shm`, in bytes.
pub const SHM_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_with_a_path_are_told_from_those_with_a_name_or_none() {
        let header = "Num       RefCount Protocol Flags    Type St Inode Path\n";
        let pair = "00000000dc4e5b0c: 00000002 00000000 00000000 0001 03 12345\n";
        let named = "00000000dc4e5b0c: 00000002 00000000 00010000 0001 01 12345 @abstract\n";
        let path = "00000000dc4e5b0c: 00000002 00000000 00010000 0001 01 12345 /run/x.sock\n";
        assert!(!has_path(&format!("{header}{pair}{named}")));
        assert!(has_path(&format!("{header}{pair}{path}")));
    }
    #[test]
    fn a_socket_that_is_mounted_is_found() {
        let place = std::env::temp_dir().join(format!("mhnos a socket\t{}", std::process::id()));
        let _listening = std::os::unix::net::UnixListener::bind(&place).expect("listen");
        let text = place.to_string_lossy().replace(' ', "\\040").replace('\t', "\\011");
        let table = format!(
            "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n36 22 254:0 /a {text} rw,relatime - ext4 /dev/vda rw\n"
        );
        let found: Vec<_> = mount_points(&table).collect();
        assert_eq!(found, [PathBuf::from("/"), place.clone()]);
        assert_eq!(found.iter().map(|at| is_socket(at)).collect::<Vec<_>>(), [false, true]);
        std::fs::remove_file(&place).expect("remove");
    }
}
