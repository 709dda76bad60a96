//! Root does not stay root: before the first sandbox is built the keeper becomes an ordinary account.
//!
//! That account may not be able to reach what root was told to use (a workspace below `/root`). So, while
//! it still may, the keeper takes a mount namespace of its own and attaches every source under a small
//! staging tree that anybody can walk; from then on sources are reached there. The host sees none of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Gid, Uid, chownat},
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount,
        open_tree,
    },
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use crate::{
    error::{SetupError, Step},
    policy::{Policy, Source, USER},
    sys,
};

/// Where the staging tree is mounted, in the keeper's own namespace only.
const STAGE: &str = "/mnt";

/// The account used where the workspace is root's and there is no user `mhnos`.
pub const FALLBACK_ID: u32 = 9999;

/// The account that bridge, inits and programs run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Account {
    /// The account this process runs as.
    pub fn current() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    /// For a service started as root: the workspace's owner, or the user `mhnos`, or [`FALLBACK_ID`].
    pub fn for_root(workspace_owner: Self) -> Self {
        if workspace_owner.uid != 0 {
            return workspace_owner;
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        find_account(&accounts, USER).unwrap_or(Self { uid: FALLBACK_ID, gid: FALLBACK_ID })
    }
}

fn find_account(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (found && uid != 0).then_some(Account { uid, gid })
    })
}

/// Makes every source reachable for an account that is not root, rewriting `outside` in `policy`.
///
/// `Ok(false)` means that this host does not let root mount (a container): sources stay where they are and
/// must be reachable as they are.
pub fn stage(policy: &mut Policy) -> Result<bool, SetupError> {
    match sys::unshare_mounts() {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Ok(false),
        other => other.step("take a mount namespace")?,
    }
    // Mounts that appear on the host later still show; nothing here travels back.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .step("separate mounts")?;
    let sources = || std::iter::once(&policy.workspace.source).chain(&policy.read_only);
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let clones = sources()
        .map(|source| open_tree(CWD, &source.outside, flags).step_on("clone", source.outside.display()))
        .collect::<Result<Vec<_>, _>>()?;
    mount("tmpfs", STAGE, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755,size=64k"))
        .step("mount the staging tree")?;
    let mut places = Vec::new();
    for (index, clone) in clones.iter().enumerate() {
        let place = Path::new(STAGE).join(index.to_string());
        fs::create_dir(&place).step_on("make", place.display())?;
        move_mount(clone, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .step_on("attach", place.display())?;
        places.push(place);
    }
    let mut places = places.into_iter();
    let mut rewrite = |source: &mut Source| source.outside = places.next().unwrap_or_default();
    rewrite(&mut policy.workspace.source);
    policy.read_only.iter_mut().for_each(rewrite);
    Ok(true)
}

/// Gives the workspace's files that are root's to `account`. Returns how many. Links are not followed, and a
/// file with a second name is left alone: that name may lie outside.
pub fn hand_over(workspace: &Path, account: Account) -> io::Result<u64> {
    let mut given = 0;
    let mut pending: Vec<PathBuf> = vec![workspace.to_owned()];
    while let Some(path) = pending.pop() {
        let stat = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        if stat.st_uid == 0 && (kind.is_dir() || stat.st_nlink == 1) {
            let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
            chownat(CWD, &path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            given += 1;
        }
        if kind.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
    }
    Ok(given)
}

/// Becomes `account` for good. No supplementary groups, no capability remains.
pub fn become_account(account: Account) -> Result<(), SetupError> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    set_thread_groups(&[]).step("drop supplementary groups")?;
    set_thread_res_gid(gid, gid, gid).step("change the group")?;
    set_thread_res_uid(uid, uid, uid).step("change the user")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_account_is_found_unless_it_is_root() {
        let passwd = "root:x:0:0::/root:/bin/sh\nmhnos:x:77:78::/:/bin/sh\nodd\n";
        assert_eq!(find_account(passwd, "mhnos"), Some(Account { uid: 77, gid: 78 }));
        assert_eq!(find_account(passwd, "root"), None);
        assert_eq!(find_account(passwd, "other"), None);
    }

    #[test]
    fn the_workspace_owner_goes_first() {
        assert_eq!(Account::for_root(Account { uid: 5, gid: 6 }), Account { uid: 5, gid: 6 });
    }
}
