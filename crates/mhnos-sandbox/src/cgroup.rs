//! Limits that hold for a whole tree of processes, and a kill that no fork outruns: control groups, version 2
//! or 1, whichever this service may write to.
//!
//! A service started by root makes a directory in each hierarchy and gives it to the account it goes on
//! as; one started by systemd finds a directory delegated to it. Below that is a directory of the service's own ([`own`]), and
//! in that every process gets a group of its own, which the program joins itself, last of all before it is confined: it writes `0` to a file that
//! the keeper opened for it. Neither keeper nor bridge is ever in a process's group.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{Limits, stage::Account};

mod own;
mod word;

use own::Own;
pub use own::{dirs_of, left_by};
pub use word::Word;

/// The quota period, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// The longest the kernel takes, for shares of which it would take no quota otherwise: one is a millisecond or more.
const LONG_CPU_PERIOD_US: u64 = 1_000_000;

/// Bytes that may still be charged to a group that is used again: what the kernel sets aside for each CPU is some
/// 256 KiB, and the smallest limit anybody sets is many times this.
const MOST_LEFT: u64 = 1 << 20;

/// The hierarchies this service may make groups in.
#[derive(Clone, Debug)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    /// For its end, with the last of these and of their groups.
    own: Arc<Own>,
    /// Of this machine, as far as the service may use them.
    cores: u64,
    /// Whose the doors must be opened as, where that is not the keeper's own user.
    door_user: Option<Account>,
}

/// One mounted hierarchy, at this service's own place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    dir: PathBuf,
    kind: Kind,
    /// Version 2: what may be limited. Version 1: the one controller.
    controllers: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    V1,
    V2,
}

impl Cgroups {
    /// Finds and prepares what there is. Called before root is given up; `None` if memory and pids of a tree
    /// cannot both be limited here.
    pub fn prepare(account: Account) -> Option<Self> {
        let name = own::name()?;
        let prepared = find_of("self").into_iter().filter_map(|found| found.prepare(&name, account).ok());
        let hierarchies: Vec<_> = prepared.collect();
        let own = Arc::new(Own::of(hierarchies.iter().map(|hierarchy| hierarchy.dir.clone()).collect()));
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let cgroups = Self { hierarchies, own, cores, door_user: None };
        (cgroups.limits("memory") && cgroups.limits("pids")).then_some(cgroups)
    }

    /// The same, for programs that run as another user than the keeper: version 1 lets a process join if
    /// whoever opened the door is its own user.
    #[must_use]
    pub fn for_user(mut self, user: Account) -> Self {
        self.door_user = Some(user);
        self
    }

    fn limits(&self, controller: &str) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.has(controller))
    }

    /// A group for one process, with these limits, that nobody is in yet.
    pub fn create(&self, name: &str, limits: &Limits) -> io::Result<Group> {
        self.own.remove_left();
        let own = Arc::clone(&self.own);
        let mut group = Group { parts: Vec::new(), own, word: None, door_user: self.door_user };
        let all_cores = u64::from(limits.cpu_millis) >= self.cores * 1000;
        for hierarchy in &self.hierarchies {
            if all_cores && hierarchy.controllers == ["cpu"] {
                // A quota of everything limits nothing; to join this hierarchy takes a millisecond and more.
                continue;
            }
            let dir = hierarchy.dir.join(name);
            fs::create_dir(&dir)?;
            group.parts.push(Hierarchy {
                dir,
                kind: hierarchy.kind,
                controllers: hierarchy.controllers.clone(),
            });
        }
        group.limit(limits)?;
        let version_1 = |part: &&Hierarchy| part.kind == Kind::V1 && part.has("memory");
        group.word =
            group.parts.iter().find(version_1).map(|part| Word::of(&part.dir)).transpose()?.flatten();
        Ok(group)
    }
}

/// The hierarchies of a process, as this one sees them.
fn find_of(process: &str) -> Vec<Hierarchy> {
    // Places of other mounts need not be text.
    let read = |file: &str| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    find(&read("/proc/self/mountinfo"), &read(&format!("/proc/{process}/cgroup")))
}

/// The hierarchies of a process, by mountinfo(5) and cgroups(7).
fn find(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let Some((place, source)) = line.split_once(" - ") else { continue };
        let place: Vec<&str> = place.split(' ').collect();
        let source: Vec<&str> = source.split(' ').collect();
        let ([_, _, _, root, mount, ..], [kind, _, options, ..]) = (&place[..], &source[..]) else {
            continue;
        };
        let (kind, wanted): (_, Vec<&str>) = match *kind {
            "cgroup2" => (Kind::V2, Vec::new()),
            "cgroup" => {
                let known = |option: &&str| matches!(*option, "memory" | "pids" | "cpu");
                (Kind::V1, options.split(',').filter(known).collect())
            }
            _ => continue,
        };
        if kind == Kind::V1 && wanted.is_empty() {
            continue;
        }
        let line = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let is_it = match kind {
                Kind::V2 => id == "0" && controllers.is_empty(),
                Kind::V1 => controllers.split(',').any(|controller| wanted.contains(&controller)),
            };
            is_it.then_some(path)
        });
        let Some(path) = line else { continue };
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(path));
        let below = below.strip_prefix("/").unwrap_or(below);
        let controllers = wanted.into_iter().map(str::to_owned).collect();
        found.push(Hierarchy { dir: Path::new(mount).join(below), kind, controllers });
    }
    found
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }

    /// Makes the service's directory and gives it to the account.
    fn prepare(mut self, name: &str, account: Account) -> io::Result<Self> {
        let give = |path: &Path| chown(path, Some(account.uid), Some(account.gid));
        if self.kind == Kind::V1 {
            let common = own::common(&self.dir, account);
            match fs::create_dir(&common) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
            give(&common)?;
            own::remove_stale(&common, "");
            let base = common.join(name);
            fs::create_dir(&base)?;
            give(&base)?;
            return Ok(Self { dir: base, ..self });
        }
        own::remove_stale(&self.dir, own::PREFIX);
        let base = self.dir.join(format!("{}{name}", own::PREFIX));
        fs::create_dir(&base)?;
        // Version 2: a group with processes has no limited children, so the service itself moves to a group
        // beside those of its programs; and moving a process takes write access to the common ancestor.
        let (keeper, programs) = (base.join("service"), base.join("programs"));
        fs::create_dir(&keeper)?;
        fs::write(keeper.join("cgroup.procs"), "0")?;
        let available = fs::read_to_string(self.dir.join("cgroup.controllers")).unwrap_or_default();
        for controller in
            available.split_whitespace().filter(|name| matches!(*name, "memory" | "pids" | "cpu"))
        {
            let enable = format!("+{controller}");
            let enabled = [&self.dir, &base]
                .into_iter()
                .all(|dir| fs::write(dir.join("cgroup.subtree_control"), &enable).is_ok());
            if enabled {
                self.controllers.push(controller.to_owned());
            }
        }
        fs::create_dir(&programs)?;
        for controller in &self.controllers {
            fs::write(programs.join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
        for path in [&base, &base.join("cgroup.procs"), &programs, &programs.join("cgroup.procs")] {
            give(path)?;
        }
        Ok(Self { dir: programs, ..self })
    }

    fn limit(&self, limits: &Limits) -> io::Result<()> {
        let write = |file: &str, value: String| fs::write(self.dir.join(file), value);
        let period = if limits.cpu_millis < 10 { LONG_CPU_PERIOD_US } else { CPU_PERIOD_US };
        let quota = u64::from(limits.cpu_millis) * period / 1000;
        let optional = |result: io::Result<()>| match result {
            // Swap accounting may be switched off in the kernel: then there is nothing to limit.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        };
        match self.kind {
            Kind::V1 => {
                if self.has("memory") {
                    write("memory.limit_in_bytes", limits.memory.to_string())?;
                    optional(write("memory.memsw.limit_in_bytes", limits.memory.to_string()))?;
                }
                if self.has("pids") {
                    write("pids.max", limits.pids.to_string())?;
                }
                if self.has("cpu") {
                    write("cpu.cfs_period_us", period.to_string())?;
                    write("cpu.cfs_quota_us", quota.to_string())?;
                }
            }
            Kind::V2 => {
                if self.has("memory") {
                    write("memory.max", limits.memory.to_string())?;
                    // As lines, so that no filter takes them for what is written to a door.
                    optional(write("memory.swap.max", "0\n".to_owned()))?;
                    write("memory.oom.group", "1\n".to_owned())?;
                }
                if self.has("pids") {
                    write("pids.max", limits.pids.to_string())?;
                }
                if self.has("cpu") {
                    write("cpu.max", format!("{quota} {period}"))?;
                }
            }
        }
        Ok(())
    }

    /// The number behind `key` in one of the group's files.
    fn count(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        value.unwrap_or(0)
    }
}

/// The group of one process and all its descendants. Dropping it removes it, or if somebody is in it still, has it removed
/// when other groups are made.
#[derive(Debug)]
pub struct Group {
    parts: Vec<Hierarchy>,
    own: Arc<Own>,
    /// Of version 1, which kills one process for want of memory where version 2 kills them all.
    word: Option<Word>,
    door_user: Option<Account>,
}

impl Group {
    /// Sets the limits, in place of earlier ones.
    pub fn limit(&self, limits: &Limits) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| part.limit(limits))
    }

    /// Files by which a process joins: it writes `0` to each.
    pub fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        let open = |part: &Hierarchy| {
            fs::OpenOptions::new().write(true).open(part.dir.join("cgroup.procs")).map(OwnedFd::from)
        };
        let open_all = || self.parts.iter().map(open).collect();
        match self.door_user {
            Some(user) => crate::stage::acting_as(user, open_all)?,
            None => open_all(),
        }
    }

    /// Kills all that is in it, at once (`cgroup.kill`, Linux 5.14). Where that is not to be had nothing in it
    /// can fork any more, so that walking the tree finds all of it, and the answer is false.
    pub fn kill(&self) -> bool {
        for part in self.parts.iter().filter(|part| part.has("pids")) {
            let _ = fs::write(part.dir.join("pids.max"), "0");
        }
        self.parts
            .iter()
            .any(|part| part.kind == Kind::V2 && fs::write(part.dir.join("cgroup.kill"), "1").is_ok())
    }

    /// Whether it is as good as one just made: no limit has been hit, and what was charged to it and stays (files in
    /// memory, what the kernel remembers) is next to nothing. For one that nobody is in.
    pub fn is_as_new(&self) -> bool {
        let used = |part: &Hierarchy| match part.kind {
            Kind::V1 => part.count("memory.usage_in_bytes", ""),
            Kind::V2 => part.count("memory.current", ""),
        };
        let left: u64 = self.parts.iter().filter(|part| part.has("memory")).map(used).sum();
        left <= MOST_LEFT && !self.ran_out_of_memory() && self.fork_refusals() == 0
    }

    /// What the kernel says when the group, or one above it, is out of memory, if somebody has to listen: whoever hears it looks
    /// whether the group has lost somebody, and ends all of it then.
    pub fn word(&self) -> Option<&Word> {
        self.word.as_ref()
    }

    /// Whether it needed more memory than there was: processes of it were killed for it.
    pub fn ran_out_of_memory(&self) -> bool {
        let kills = |part: &Hierarchy| match part.kind {
            Kind::V1 => part.count("memory.oom_control", "oom_kill "),
            Kind::V2 => part.count("memory.events", "oom_kill "),
        };
        self.parts.iter().filter(|part| part.has("memory")).map(kills).sum::<u64>() > 0
    }

    /// Forks the kernel has refused because the group was full.
    pub fn fork_refusals(&self) -> u64 {
        self.parts.iter().filter(|part| part.has("pids")).map(|part| part.count("pids.events", "max ")).sum()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for part in &self.parts {
            self.own.remove(&part.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a tree to kill is started")]

    use std::{
        os::unix::process::ExitStatusExt,
        process::{Command, Stdio},
        thread,
    };

    use mhnos_testing::waive;

    use super::*;

    #[test]
    fn hierarchies_are_found_where_this_process_is() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
                      41 31 0:38 /box /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a/b\n1:cpu:/\n0::/box/inner\n";
        let found: Vec<_> = find(mounts, own).into_iter().map(|h| (h.dir, h.kind, h.controllers)).collect();
        let expected = [
            ("/sys/fs/cgroup/cpu", Kind::V1, vec!["cpu".to_owned()]),
            ("/sys/fs/cgroup/memory/a/b", Kind::V1, vec!["memory".to_owned()]),
            ("/sys/fs/cgroup/unified/inner", Kind::V2, vec![]),
        ];
        let expected: Vec<_> = expected.into_iter().map(|(dir, k, c)| (PathBuf::from(dir), k, c)).collect();
        assert_eq!(found, expected);
    }

    /// The kernel takes no less than a millisecond, and no period of more than a second.
    #[test]
    fn the_smallest_share_of_a_processor_is_one_that_the_kernel_takes() {
        let scratch = mhnos_testing::Scratch::new();
        let part =
            Hierarchy { dir: scratch.path().to_owned(), kind: Kind::V2, controllers: vec!["cpu".to_owned()] };
        for cpu_millis in [1, 5, 9, 10, 500, 64_000] {
            part.limit(&Limits { memory: 1 << 30, pids: 100, cpu_millis }).expect("a file");
            let written = fs::read_to_string(scratch.path().join("cpu.max")).expect("written");
            let (quota, period) = written.split_once(' ').expect("two numbers");
            let (quota, period): (u64, u64) = (quota.parse().expect("one"), period.parse().expect("one"));
            assert_eq!(quota * 1000 / period, u64::from(cpu_millis));
            assert!(quota >= 1000 && period <= 1_000_000, "{cpu_millis}: {written}");
        }
    }

    /// Nobody walks a tree here, so it is the group that ends them, and says so.
    #[test]
    fn version_2_kills_all_that_is_in_a_group_at_once() {
        let Some(mut part) = find_of("self").into_iter().find(|found| found.kind == Kind::V2) else {
            return waive("all of it", "no hierarchy of version 2");
        };
        part.dir.push(format!("kill-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&part.dir) {
            return waive("all of it", &format!("cannot make a group: {error}"));
        }
        let dir = part.dir.clone();
        let own = Arc::new(Own::of(vec![dir.clone()]));
        let group = Group { parts: vec![part], own, word: None, door_user: None };
        let members = || fs::read_to_string(dir.join("cgroup.procs")).expect("a group").lines().count();
        let tree = "read -r _; trap '' TERM HUP INT; setsid sleep 1000 & sleep 1000 & (setsid sh -c 'kill -STOP $$') & wait";
        let mut tree = Command::new("sh").args(["-c", tree]).stdin(Stdio::piped()).spawn().expect("a shell");
        if let Err(error) = fs::write(dir.join("cgroup.procs"), tree.id().to_string()) {
            tree.kill().expect("ours");
            tree.wait().expect("ours");
            return waive("all of it", &format!("cannot join a group: {error}"));
        }
        drop(tree.stdin.take());
        while members() < 4 {
            thread::yield_now();
        }
        assert!(group.kill(), "cgroup.kill is there from Linux 5.14 on");
        assert_eq!(tree.wait().expect("ours").signal(), Some(libc::SIGKILL));
        while members() > 0 {
            thread::yield_now();
        }
    }
}
