//! The workspace and the account: made, checked, handed over, and, for a service started by root, left
//! behind for an account that owns nothing else.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use anyhow::Context;
use mhnos_sandbox::{
    Cgroups, Mode, Policy, Tier,
    policy::{Source, Workspace},
    stage::{self, Account, Reserve},
};
use mhnos_server::config::Config;
use rustix::fs::{CWD, Mode as FileMode, OFlags, openat};

/// Directories that are never a workspace: programs would own the machine's own files.
const SYSTEM: [&str; 22] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/usr/local",
];

/// Directories that every sandbox has already.
const ALWAYS_BOUND: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt"];

/// Where the service works, ready for the keeper.
pub(crate) struct Place {
    /// What sandboxes shall be.
    pub(crate) policy: Policy,
    /// Control groups, where they are to be had.
    pub(crate) cgroups: Option<Cgroups>,
    /// The power to part users, if the service was started with it.
    pub(crate) reserve: Option<Reserve>,
    /// The workspace, open for the bridge.
    pub(crate) dir: OwnedFd,
}

/// Refuses a workspace that must not be one, before anything is touched.
pub(crate) fn check(workspace: &Path) -> Result<(), String> {
    let path = fs::canonicalize(workspace).unwrap_or_else(|_| workspace.to_owned());
    if SYSTEM.iter().any(|system| path == Path::new(system)) {
        return Err(format!(
            "MHNOS_WORKSPACE={:?}: expected a directory of its own, not one of the system's",
            workspace.display().to_string()
        ));
    }
    if path.exists() && !path.is_dir() {
        return Err(format!(
            "MHNOS_WORKSPACE={:?}: expected a directory, but this is something else",
            workspace.display().to_string()
        ));
    }
    Ok(())
}

/// Makes the workspace and, as root, becomes the account that everything runs as.
///
/// `port` is the one the service listens on; `made` is a file of the service's that goes to the account too.
pub(crate) fn take(config: &Config, port: u16, made: Option<&OwnedFd>) -> anyhow::Result<Place> {
    let given = &config.workspace;
    let remedy =
        || format!("cannot make the workspace {}; choose another with MHNOS_WORKSPACE", given.display());
    fs::DirBuilder::new().recursive(true).mode(0o755).create(given).with_context(remedy)?;
    let path = fs::canonicalize(given).with_context(remedy)?;
    let meta = fs::metadata(&path).with_context(remedy)?;

    let root = rustix::process::geteuid().is_root();
    let owner = Account { uid: meta.uid(), gid: meta.gid() };
    let account = if root { Account::for_root(owner) } else { Account::current() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(CWD, &path, flags, FileMode::empty()).with_context(remedy)?;
    let mut policy = Policy {
        mode: config.sandbox,
        workspace: Workspace {
            source: Source { outside: path.clone(), inside: path.clone() },
            identity: (meta.dev(), meta.ino()),
        },
        read_only: prefixes(&config.path, &path),
        uid: account.uid,
        gid: account.gid,
        tier: Tier::None,
        own_ports: vec![port],
        secrets: secrets(config),
        proxy: None,
        filter: Vec::new(),
    };
    let cgroups = Cgroups::prepare(account);
    if let Some(file) = made.filter(|_| root) {
        std::os::unix::fs::fchown(file, Some(account.uid), Some(account.gid))
            .context("cannot hand the audit log over")?;
    }
    let reserve = if root { leave_root(&mut policy, owner, account, &path)? } else { None };
    ensure_writable(&dir, &path, account)?;
    if config.sandbox == Mode::None {
        // Without walls there is no other name for it: programs walk the host's path.
        fs::metadata(&path).with_context(|| {
            format!(
                "uid {} cannot reach the workspace {}; move it, or open its parents",
                account.uid,
                path.display()
            )
        })?;
    }
    Ok(Place { policy, cgroups, reserve, dir })
}

fn leave_root(
    policy: &mut Policy,
    owner: Account,
    account: Account,
    path: &Path,
) -> anyhow::Result<Option<Reserve>> {
    if owner.uid == 0 {
        let given = stage::hand_over(path, account).context("cannot hand the workspace over")?;
        tracing::info!(
            uid = account.uid,
            files = given,
            "the workspace has been handed over: programs do not run as root"
        );
    }
    if policy.mode != Mode::None {
        stage::stage(policy).context("cannot prepare the sandbox's sources")?;
    }
    stage::become_account(account).context("cannot stop being root")
}

/// Fails early, by name, where every spawn would fail late.
fn ensure_writable(dir: &OwnedFd, path: &Path, account: Account) -> anyhow::Result<()> {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::accessat(dir, ".", access, rustix::fs::AtFlags::EACCESS).with_context(|| {
        format!("the workspace {} is not writable for uid {}; chown it", path.display(), account.uid)
    })
}

/// What the directories of `MHNOS_PATH` need beside the system's own: `X` for `X/bin`, `X/node_modules` for
/// `X/node_modules/.bin`, and of somebody's home no more than `bin` and `lib`. Directories that do not exist are passed over, as by
/// every shell.
fn prefixes(search: &str, workspace: &Path) -> Vec<Source> {
    let mut found: Vec<PathBuf> = Vec::new();
    for prefix in search.split(':').map(Path::new).flat_map(needed) {
        let bound = ALWAYS_BOUND.iter().any(|system| prefix.starts_with(system));
        if !bound && !prefix.starts_with(workspace) && prefix.is_dir() && !found.contains(&prefix) {
            found.push(prefix);
        }
    }
    found.into_iter().map(|prefix| Source { outside: prefix.clone(), inside: prefix }).collect()
}

/// As they are told and where that leads.
fn secrets(config: &Config) -> Vec<PathBuf> {
    let told = [&config.auth_token_file, &config.tls_key].into_iter().flatten();
    told.flat_map(|file| [Some(file.clone()), fs::canonicalize(file).ok()]).flatten().collect()
}

fn needed(dir: &Path) -> Vec<PathBuf> {
    let Some(parent) = dir.parent() else { return Vec::new() };
    let whole = if dir.ends_with("bin") || dir.ends_with("node_modules/.bin") { parent } else { dir };
    match whole {
        whole if whole == Path::new("/") => Vec::new(),
        // Keys and the like are there, too: such as `~/.local/share/keyrings`.
        whole if is_private(whole) && whole == dir => {
            tracing::warn!(
                path = %dir.display(),
                "MHNOS_PATH names a home, which programs do not get to see; put theirs into a bin below it"
            );
            Vec::new()
        }
        whole if is_private(whole) => vec![dir.to_owned(), whole.join("lib")],
        whole => vec![whole.to_owned()],
    }
}

/// Whether it is somebody's home, `.local` in one, or where homes are.
fn is_private(dir: &Path) -> bool {
    let home = if dir.ends_with(".local") { dir.parent().unwrap_or(dir) } else { dir };
    let homes = Path::new("/home");
    home == Path::new("/root") || home == homes || home.parent() == Some(homes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_a_search_path() {
        let check = |dir: &str, expected: &[&str]| {
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(needed(Path::new(dir)), expected, "{dir}");
        };
        check("/usr/local/bin", &["/usr/local"]);
        check("/bin", &[]);
        check("/home/u/x/node_modules/.bin", &["/home/u/x/node_modules"]);
        check("/home/u/node/bin", &["/home/u/node"]);
        check("/srv/scripts", &["/srv/scripts"]);
        check("/home/u/bin", &["/home/u/bin", "/home/u/lib"]);
        check("/home/u/.local/bin", &["/home/u/.local/bin", "/home/u/.local/lib"]);
        check("/root/.local/bin", &["/root/.local/bin", "/root/.local/lib"]);
        check("/home/bin", &["/home/bin", "/home/lib"]);
        check("/home/u", &[]);
        check("/home/u/.nvm/versions/node/v24/bin", &["/home/u/.nvm/versions/node/v24"]);
    }

    #[test]
    fn a_system_directory_is_no_workspace() {
        assert!(check(Path::new("/etc")).is_err());
        assert!(check(Path::new("/usr/../etc")).is_err());
        assert!(check(Path::new("/etc/passwd")).is_err());
        assert!(check(Path::new("/var/lib/mhnos/workspace")).is_ok());
    }
}
