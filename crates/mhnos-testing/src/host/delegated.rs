//! Control groups given away, as systemd gives a unit its own (`Delegate=`): for each keeper of the tests one in every
//! hierarchy. So a keeper of an ordinary user has groups, and on version 2 each is in a group with nobody else, without which
//! the kernel limits nothing below (cgroups(7), "no internal processes").

use std::{
    fs, io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::geteuid;

use super::USER;
use crate::eventually;

/// How long killed processes may take to be gone, on a machine with much else to do. Reached on failure only.
const LONGEST_END: Duration = Duration::from_mins(1);

/// What is delegated with a directory of version 2 (`/sys/kernel/cgroup/delegate`), as far as it is there.
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// What the service limits by.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// The place in every hierarchy where groups can be made.
#[derive(Debug)]
pub struct Place(Vec<PathBuf>);

impl Place {
    /// This process's own. In version 2 it makes room, by moving to a group below; so only once, and where nobody else is in there.
    pub fn take() -> io::Result<Self> {
        let dirs = mhnos_sandbox::cgroup::dirs_of("self");
        for dir in dirs.iter().filter(|dir| has_controllers(dir)) {
            let below = dir.join(format!("tests-{}", std::process::id()));
            fs::create_dir(&below)?;
            fs::write(below.join("cgroup.procs"), "0")?;
            let available = fs::read_to_string(dir.join("cgroup.controllers"))?;
            for controller in available.split_whitespace().filter(|name| CONTROLLERS.contains(name)) {
                fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))?;
            }
        }
        Ok(Self(dirs))
    }

    /// Groups of this name; to the tests' ordinary user, if it is for one.
    pub fn give(&self, name: &str, ordinary: bool) -> io::Result<Given> {
        let given = Given(self.0.iter().map(|dir| dir.join(name)).collect());
        let user = (ordinary && geteuid().is_root()).then_some(USER);
        for dir in &given.0 {
            fs::create_dir(dir)?;
            chown(dir, user, user)?;
            for file in FILES.map(|file| dir.join(file)).iter().filter(|_| has_controllers(dir)) {
                chown(file, user, user)?;
            }
        }
        Ok(given)
    }
}

/// Groups that a keeper begins in.
#[derive(Debug)]
pub struct Given(Vec<PathBuf>);

impl Given {
    /// For [`join`].
    pub fn dirs(&self) -> &[PathBuf] {
        &self.0
    }

    /// Once the keeper has ended, and all else that was in there.
    ///
    /// Panics where somebody does not end.
    pub fn remove(&self) {
        for dir in &self.0 {
            let removed = || {
                let _ = remove(dir);
                (!dir.exists()).then_some(())
            };
            eventually(LONGEST_END, &format!("nobody is left in {}", dir.display()), removed);
        }
    }
}

/// Makes this process the first in groups given to it.
pub fn join(dirs: &[String]) -> io::Result<()> {
    dirs.iter().try_for_each(|dir| fs::write(Path::new(dir).join("cgroup.procs"), "0"))
}

/// Of version 2, with anything to limit.
fn has_controllers(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.controllers")).is_ok_and(|names| names.contains("memory"))
}

fn remove(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}
