//! The file system of a sandbox: a fresh, read-only tree that holds what programs need and nothing else.
//!
//! Sources are cloned as detached mounts first, while the host's tree is still visible; then the new root is
//! built, the clones are attached, and the host's tree is let go. Runs in the sandbox's init, in its own user
//! and mount namespace, so nothing here can touch the host.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path},
};

use rustix::{
    fs::{AtFlags, CWD, Mode as FileMode, OFlags, ResolveFlags, fstat, mkdir, openat2, statat, symlink},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
        mount_remount, move_mount, open_tree, unmount,
    },
    process::{chdir, pivot_root},
};

use crate::{
    Tier,
    error::{SetupError, Step},
    etc,
    policy::{FEW_INODES, Policy, SHM_BYTES, Source, TMP_BYTES, TMP_INODES, WORKSPACE_ALIAS, Workspace},
    sys::{self, MountAccess},
};

/// Any directory that exists everywhere: the new root is mounted over it, in a namespace of our own.
const BASE: &str = "/usr";

/// Top-level directories of the host that hold programs and libraries.
pub(crate) const SYSTEM: [&str; 8] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt"];

/// Devices every program may use.
pub(crate) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Builds the tree and makes it this process's root.
pub(crate) fn build(policy: &Policy) -> Result<(), SetupError> {
    let all = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", all).step("make mounts private")?;
    let clones = Clones::take(policy)?;
    let etc = etc::collect(policy.uid, policy.gid, policy.own_network());

    tmpfs(BASE, "mode=755,size=8m,nr_inodes=4096", MountFlags::empty()).step("mount the root tree")?;
    chdir(BASE).step("enter the root tree")?;
    clones.attach_system()?;
    etc.write().step("write /etc")?;
    clones.attach_etc()?;
    furnish_dev(&clones)?;
    furnish_proc(&clones)?;
    let few = format!("mode=755,size=4m,nr_inodes={FEW_INODES}");
    for dir in ["run", "var"] {
        make_dir(dir)?;
        tmpfs(dir, &few, MountFlags::NOEXEC).step_on("mount a temporary", dir)?;
    }
    let tmp = format!("mode=1777,size={TMP_BYTES},nr_inodes={TMP_INODES}");
    make_dir("tmp")?;
    tmpfs("tmp", &tmp, MountFlags::empty()).step("mount /tmp")?;
    symlink("../tmp", "var/tmp").step("link /var/tmp")?;
    clones.attach_sources()?;
    link_alias(&policy.workspace)?;
    enter()
}

/// Lets the host's tree go: from here on only what was attached exists.
fn enter() -> Result<(), SetupError> {
    pivot_root(".", ".").step("pivot into the root tree")?;
    unmount(".", UnmountFlags::DETACH).step("let go of the host's tree")?;
    chdir("/").step("enter the root tree")?;
    let read_only = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount("/", read_only, "").step("make the root tree read-only")
}

/// What is taken from the host, as detached mounts, before its tree is covered.
struct Clones {
    system: Vec<(&'static str, System)>,
    etc: Vec<(&'static str, OwnedFd)>,
    devices: Vec<(&'static str, OwnedFd)>,
    sources: Vec<(String, OwnedFd)>,
    /// The outer `/proc`, for a tier that cannot have its own.
    proc: Option<OwnedFd>,
}

/// A top-level directory: a mount of its own, or a link as on a merged `/usr`.
enum System {
    Mount(OwnedFd),
    Link(String),
}

impl Clones {
    fn take(policy: &Policy) -> Result<Self, SetupError> {
        let mut sources = Vec::new();
        for source in &policy.read_only {
            let clone = clone_tree(&source.outside, MountAccess::ReadOnly)
                .step_on("clone", source.outside.display())?;
            sources.push((inside(source), clone));
        }
        sources.push((inside(&policy.workspace.source), clone_workspace(&policy.workspace)?));
        let proc = (policy.tier == Tier::T2)
            .then(|| clone_tree(Path::new("/proc"), MountAccess::ReadOnly).step("clone /proc"))
            .transpose()?;
        Ok(Self { system: clone_system()?, etc: clone_etc()?, devices: clone_devices()?, sources, proc })
    }

    fn attach_system(&self) -> Result<(), SetupError> {
        for (name, system) in &self.system {
            match system {
                System::Link(target) => symlink(target.as_str(), *name).step_on("link", name)?,
                System::Mount(clone) => attach(clone, name)?,
            }
        }
        Ok(())
    }

    fn attach_etc(&self) -> Result<(), SetupError> {
        self.etc.iter().try_for_each(|(name, clone)| attach(clone, &format!("etc/{name}")))
    }

    fn attach_sources(&self) -> Result<(), SetupError> {
        self.sources.iter().try_for_each(|(path, clone)| attach(clone, path))
    }
}

fn clone_system() -> Result<Vec<(&'static str, System)>, SetupError> {
    let mut found = Vec::new();
    for name in SYSTEM {
        let path = Path::new("/").join(name);
        match std::fs::read_link(&path) {
            Ok(target) => found.push((name, System::Link(target.to_string_lossy().into_owned()))),
            Err(_) if path.is_dir() => {
                let clone = clone_tree(&path, MountAccess::ReadOnly).step_on("clone", path.display())?;
                found.push((name, System::Mount(clone)));
            }
            Err(_) => {}
        }
    }
    Ok(found)
}

fn clone_etc() -> Result<Vec<(&'static str, OwnedFd)>, SetupError> {
    let mut found = Vec::new();
    for name in etc::DIRECTORIES {
        let path = Path::new("/etc").join(name);
        if path.is_dir() {
            found.push((name, clone_tree(&path, MountAccess::ReadOnly).step_on("clone", path.display())?));
        }
    }
    Ok(found)
}

fn clone_devices() -> Result<Vec<(&'static str, OwnedFd)>, SetupError> {
    let mut found = Vec::new();
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        // Not `mount_setattr`: with nodev the device could not be opened.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        found.push((name, open_tree(CWD, &path, flags).step_on("clone", path.display())?));
    }
    Ok(found)
}

/// Clones the tree at `path`, recursively: what is mounted below comes along, under the same restrictions.
fn clone_tree(path: &Path, access: MountAccess) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let clone = open_tree(CWD, path, flags)?;
    sys::mount_setattr(&clone, access)?;
    Ok(clone)
}

/// Opens the workspace at this path, if it still is the directory it was at start.
pub(crate) fn open_workspace(
    path: &Path,
    identity: (u64, u64),
    resolve: ResolveFlags,
) -> Result<OwnedFd, SetupError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat2(CWD, path, flags, FileMode::empty(), resolve)
        .step_on("open the workspace", path.display())?;
    let now = fstat(&dir).step("examine the workspace")?;
    if (now.st_dev, now.st_ino) != identity {
        let swapped = io::Error::other("it is no longer the directory the service started with");
        return Err(swapped).step_on("open the workspace", path.display());
    }
    Ok(dir)
}

fn clone_workspace(workspace: &Workspace) -> Result<OwnedFd, SetupError> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let dir = open_workspace(&workspace.source.outside, workspace.identity, resolve)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(&dir, "", flags).step("clone the workspace")?;
    sys::mount_setattr(&clone, MountAccess::ReadWrite).step("restrict the workspace")?;
    Ok(clone)
}

/// A process table of its own; or the host's, read-only, where the kernel refuses a fresh one because parts
/// of the host's are covered (containers, `ProtectKernelTunables`).
fn furnish_proc(clones: &Clones) -> Result<(), SetupError> {
    make_dir("proc")?;
    if let Some(outer) = &clones.proc {
        return attach_here(outer, "proc");
    }
    mount("proc", "proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .step("mount /proc")
}

fn furnish_dev(clones: &Clones) -> Result<(), SetupError> {
    make_dir("dev")?;
    let few = format!("mode=755,size=64k,nr_inodes={FEW_INODES}");
    tmpfs("dev", &few, MountFlags::NOEXEC).step("mount /dev")?;
    for (name, clone) in &clones.devices {
        let path = format!("dev/{name}");
        std::fs::File::create(&path).step_on("create", &path)?;
        attach_here(clone, &path)?;
    }
    make_dir("dev/pts")?;
    let private = c"newinstance,ptmxmode=0666,mode=620";
    mount("devpts", "dev/pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, Some(private))
        .step("mount /dev/pts")?;
    make_dir("dev/shm")?;
    let shm = format!("mode=1777,size={SHM_BYTES},nr_inodes={TMP_INODES}");
    tmpfs("dev/shm", &shm, MountFlags::NOEXEC).step("mount /dev/shm")?;
    for (target, link) in [
        ("pts/ptmx", "dev/ptmx"),
        ("/proc/self/fd", "dev/fd"),
        ("/proc/self/fd/0", "dev/stdin"),
        ("/proc/self/fd/1", "dev/stdout"),
        ("/proc/self/fd/2", "dev/stderr"),
    ] {
        symlink(target, link).step_on("link", link)?;
    }
    Ok(())
}

fn link_alias(workspace: &Workspace) -> Result<(), SetupError> {
    let inside = &workspace.source.inside;
    if inside == Path::new(WORKSPACE_ALIAS) || inside.starts_with(WORKSPACE_ALIAS) {
        return Ok(());
    }
    let alias = WORKSPACE_ALIAS.trim_start_matches('/');
    symlink(inside, alias).step_on("link", WORKSPACE_ALIAS)
}

/// Attaches a directory clone at a path below the new root, making the directories on the way.
fn attach(clone: &OwnedFd, path: &str) -> Result<(), SetupError> {
    let mut made = String::new();
    for part in Path::new(path).components() {
        let Component::Normal(part) = part else { continue };
        if !made.is_empty() {
            made.push('/');
        }
        made.push_str(&part.to_string_lossy());
        make_dir(&made)?;
    }
    attach_here(clone, path)
}

fn attach_here(clone: &OwnedFd, path: &str) -> Result<(), SetupError> {
    move_mount(clone.as_fd(), "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .step_on("attach", format_args!("/{path}"))
}

fn make_dir(path: &str) -> Result<(), SetupError> {
    match mkdir(path, FileMode::from_raw_mode(0o755)) {
        Err(Errno::EXIST | Errno::ROFS) if is_dir(path) => Ok(()),
        other => other.step_on("make the directory", format_args!("/{path}")),
    }
}

fn is_dir(path: &str) -> bool {
    statat(CWD, path, AtFlags::empty())
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

fn tmpfs(target: &str, options: &str, flags: MountFlags) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    mount(
        "tmpfs",
        target,
        "tmpfs",
        flags | MountFlags::NOSUID | MountFlags::NODEV,
        Some(options.as_c_str()),
    )?;
    Ok(())
}

/// The path inside, relative to the new root.
fn inside(source: &Source) -> String {
    source.inside.to_string_lossy().trim_start_matches('/').to_owned()
}
