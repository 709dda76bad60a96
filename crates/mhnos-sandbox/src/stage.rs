//! Root does not stay root: before the first sandbox is built the keeper becomes an ordinary account.
//!
//! That account may not be able to reach what root was told to use (a workspace below `/root`). So, while
//! it still may, the keeper takes a mount namespace of its own and attaches every source under a small
//! staging tree that anybody can walk; from then on sources are reached there. The host sees none of it.

use std::{
    ffi::OsStr,
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode as FileMode, OFlags, ResolveFlags, Uid, chownat, fstat,
        openat, openat2,
    },
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount,
        open_tree,
    },
    process::{getegid, geteuid, getgroups, getuid},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        configure_capability_in_ambient_set, set_capabilities, set_keep_capabilities, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
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

/// The user of the service's own processes where programs run as another.
const SERVICE_ID: u32 = 9998;

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

    /// An account that is not `programs`, nor root.
    fn beside(programs: Self) -> Self {
        let id = if programs.uid == SERVICE_ID { SERVICE_ID - 1 } else { SERVICE_ID };
        Self { uid: id, gid: id }
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
///
/// Some of it may be somebody else's already, who moves it or puts links in its place meanwhile: so each file is opened
/// beneath the workspace first, and what was looked at is what is given. What is gone by then is passed over.
pub fn hand_over(workspace: &Path, account: Account) -> io::Result<u64> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let list = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, workspace, list | OFlags::NOFOLLOW, FileMode::empty())?;
    let mut given = 0;
    let mut pending = vec![PathBuf::from(".")];
    while let Some(path) = pending.pop() {
        let Some(file) = beneath(&root, &path)? else { continue };
        let stat = fstat(&file)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
        if stat.st_uid == 0 && (is_dir || stat.st_nlink == 1) {
            chownat(&file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
            given += 1;
        }
        if is_dir {
            for entry in Dir::new(openat(&file, ".", list, FileMode::empty())?)? {
                let entry = entry?;
                let name = entry.file_name();
                if name != c"." && name != c".." {
                    pending.push(path.join(OsStr::from_bytes(name.to_bytes())));
                }
            }
        }
    }
    Ok(given)
}

/// A file, or a link itself, that is reached without following any.
fn beneath(root: &OwnedFd, path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(root, path, flags, FileMode::empty(), resolve) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Becomes `account`. No supplementary groups, and no capability but those of the [`Reserve`], which is there
/// if this process may choose its users.
pub fn become_account(account: Account) -> Result<Option<Reserve>, SetupError> {
    let kept = CapabilitySet::SETUID | CapabilitySet::SETGID;
    let held = capabilities(None).step("read the capabilities")?.permitted;
    let reserved = held.contains(kept);
    set_keep_capabilities(reserved).step("keep capabilities aside")?;
    change_to(account)?;
    let permitted = if reserved { kept } else { CapabilitySet::empty() };
    hold(permitted, CapabilitySet::empty())?;
    let service = Account::beside(account);
    Ok(reserved.then_some(Reserve { programs: account, service }))
}

/// For root that only asks something of a service: becomes, for good, another user than its `programs`.
pub fn become_bystander(programs: Account) -> Result<(), SetupError> {
    change_to(Account::beside(programs))?;
    hold(CapabilitySet::empty(), CapabilitySet::empty())
}

/// The power to have programs run as another user than the service: held back until it is known whether the
/// tier needs it, and then used or given up.
#[derive(Debug)]
pub struct Reserve {
    programs: Account,
    service: Account,
}

impl Reserve {
    /// Parts the users: this process becomes the service's, and keeps the power to become the programs'. What
    /// it makes (pipes, files) belongs to the programs' user.
    pub fn part(&self) -> Result<(), SetupError> {
        let kept = CapabilitySet::SETUID | CapabilitySet::SETGID;
        hold(kept, kept)?;
        change_to(self.service)?;
        sys::make_files_as(self.programs.uid, self.programs.gid).step("make files as the programs' user")
    }

    /// One user for all, for good.
    pub fn give_up(self) -> Result<(), SetupError> {
        let kept = CapabilitySet::SETUID | CapabilitySet::SETGID;
        hold(kept, kept)?;
        change_to(self.programs)?;
        hold(CapabilitySet::empty(), CapabilitySet::empty())
    }
}

/// In a process of a keeper that has parted the users: becomes the programs' user for good.
pub(crate) fn become_programs_user(account: Account) -> Result<(), SetupError> {
    change_to(account)?;
    hold(CapabilitySet::empty(), CapabilitySet::empty())
}

/// For the bridge of a keeper that has parted the users, between fork and exec: keeps what [`files_as`] needs
/// over exec.
pub fn lend_capabilities() -> Result<(), SetupError> {
    // An exec by a process whose file group is not its own is one that changes ids (Linux 6.16), and that
    // clears what is lent.
    sys::make_files_as(geteuid().as_raw(), getegid().as_raw()).step("make files as the service's user")?;
    let kept = CapabilitySet::SETUID | CapabilitySet::SETGID;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    set_capabilities(None, sets).step("lend capabilities")?;
    for capability in [CapabilitySet::SETUID, CapabilitySet::SETGID] {
        configure_capability_in_ambient_set(capability, true).step("lend capabilities")?;
    }
    Ok(())
}

/// For the bridge, before it has threads: files are reached and made as the programs' user, everything else
/// stays the service's, so that programs can neither signal nor trace it. No capability remains.
pub fn files_as(account: Account) -> Result<(), SetupError> {
    sys::make_files_as(account.uid, account.gid).step("make files as the programs' user")?;
    clear_ambient_capability_set().step("clear ambient capabilities")?;
    hold(CapabilitySet::empty(), CapabilitySet::empty())
}

/// Runs `action` with `account` as the effective user, for a keeper that has parted the users.
pub(crate) fn acting_as<T>(account: Account, action: impl FnOnce() -> T) -> io::Result<T> {
    let (real, user) = (getuid(), Uid::from_raw(account.uid));
    set_thread_res_uid(real, user, real)?;
    let result = action();
    set_thread_res_uid(real, real, real)?;
    // A change of the effective user is one of whose files are made, too.
    sys::make_files_as(account.uid, account.gid)?;
    Ok(result)
}

fn change_to(account: Account) -> Result<(), SetupError> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    // Only the holder of CAP_SETGID has groups to drop that it could drop.
    match set_thread_groups(&[]) {
        Err(rustix::io::Errno::PERM) if getgroups().is_ok_and(|groups| groups.is_empty()) => {}
        other => other.step("drop supplementary groups")?,
    }
    set_thread_res_gid(gid, gid, gid).step("change the group")?;
    set_thread_res_uid(uid, uid, uid).step("change the user")
}

fn hold(permitted: CapabilitySet, effective: CapabilitySet) -> Result<(), SetupError> {
    let sets = CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).step("drop capabilities")
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{MetadataExt, symlink},
        sync::atomic::{AtomicBool, Ordering},
    };

    use mhnos_testing::{Scratch, waive};
    use rustix::fs::{RenameFlags, renameat_with};

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

    /// Somebody to whom a directory belongs already may put a link in its place at any time.
    #[test]
    fn a_flipped_link_leads_no_hand_over_out_of_the_workspace() {
        if !geteuid().is_root() {
            return waive("all of it", "only root hands files over");
        }
        let scratch = Scratch::new();
        let [workspace, outside] = ["workspace", "outside"].map(|name| scratch.path().join(name));
        for dir in [&workspace.join("flips"), &outside] {
            fs::create_dir_all(dir).expect("make");
            fs::write(dir.join("file"), "root's").expect("write");
        }
        symlink(&outside, workspace.join("link")).expect("link");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (workspace.join("flips"), workspace.join("link"));
                while !done.load(Ordering::Relaxed) {
                    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).expect("flip");
                }
            });
            let outcomes: Vec<_> = (0..1000)
                .map(|_| hand_over(&workspace, Account { uid: FALLBACK_ID, gid: FALLBACK_ID }))
                .collect();
            done.store(true, Ordering::Relaxed);
            for outcome in outcomes {
                outcome.expect("whatever is where");
            }
        });
        let owner = |path: &Path| fs::symlink_metadata(path).expect("there").uid();
        assert_eq!((owner(&outside), owner(&outside.join("file"))), (0, 0));
        hand_over(&workspace, Account { uid: FALLBACK_ID, gid: FALLBACK_ID }).expect("the control");
        for name in ["", "flips", "link"] {
            assert_eq!(owner(&workspace.join(name)), FALLBACK_ID, "{name}");
        }
        let dir = if workspace.join("link").is_symlink() { "flips/file" } else { "link/file" };
        assert_eq!(owner(&workspace.join(dir)), FALLBACK_ID);
    }
}
