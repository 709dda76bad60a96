//! From policy to walls, for the sandbox's init: which namespaces it is created with, and the ordered script
//! it runs before it starts anything. A step that fails ends it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    process::{
        DumpableBehavior, Signal, getpid, set_child_subreaper, set_dumpable_behavior,
        set_parent_process_death_signal,
    },
    system::sethostname,
    thread::set_no_new_privs,
};

use crate::{
    Enforcement, Layer, Tier,
    confine::{FIRST_FREE, empty_bounding_set},
    error::{SetupError, Step},
    filter,
    landlock::{self, Rules},
    network::{self, Outlet},
    policy::{HOST_NAME, Policy},
    stage::{Account, become_programs_user},
    sys::{self, Instruction, Namespaces, Ruleset},
    tree,
};

/// The namespaces an init of this policy is created in.
pub fn namespaces(policy: &Policy) -> Namespaces {
    match policy.tier {
        Tier::None | Tier::T3 | Tier::T3Plus => Namespaces::NONE,
        Tier::T1 | Tier::T2 => Namespaces::USER
            .and(Namespaces::MOUNT)
            .and(Namespaces::PID)
            .and(Namespaces::IPC)
            .and(Namespaces::UTS)
            .and(Namespaces::CGROUP)
            .and(if policy.own_network() { Namespaces::NET } else { Namespaces::NONE }),
    }
}

/// What processes of this policy run behind, once [`enter`] and `confine` have succeeded, with or without
/// control groups.
pub fn enforcement(policy: &Policy, grouped: bool) -> Enforcement {
    let mut layers = match policy.tier {
        Tier::None | Tier::T3 => Vec::new(),
        Tier::T3Plus => vec![Layer::SeparateUid],
        Tier::T1 | Tier::T2 => vec![
            Layer::UserNamespace,
            Layer::MountNamespace,
            Layer::PidNamespace,
            Layer::IpcNamespace,
            Layer::UtsNamespace,
            Layer::CgroupNamespace,
        ],
    };
    layers.extend(policy.own_network().then_some(Layer::NetNamespace));
    layers.extend(policy.needs_proxy().then_some(Layer::NetProxy));
    let landlock = landlock::in_force(policy.tier);
    layers.extend(landlock.then_some(Layer::Landlock));
    layers.extend((landlock && landlock::has_scopes()).then_some(Layer::LandlockScopes));
    layers.extend((landlock && landlock::covers_truncating()).then_some(Layer::LandlockTruncate));
    layers.extend((!policy.filter.is_empty()).then_some(Layer::Seccomp));
    layers.extend([
        Layer::NoNewPrivileges,
        Layer::NoCapabilities,
        Layer::ResourceLimits,
        Layer::Session,
        Layer::CleanEnvironment,
        Layer::ClosedDescriptors,
        if grouped { Layer::Cgroup } else { Layer::MemoryWatchdog },
    ]);
    Enforcement { mode: policy.mode, tier: policy.tier, layers }
}

/// What is left to put up around each program, by its supervisor and by its own process.
#[derive(Debug)]
pub struct Walls {
    tier: Tier,
    filter: Vec<Instruction>,
    /// Control groups hold each program's tree together.
    grouped: bool,
    /// Around supervisor and program: signals stay inside.
    signals: Option<Ruleset>,
    /// Around each program: files, ports, signals.
    program: Option<(Rules, Ruleset)>,
}

impl Walls {
    /// The tier these are of.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Whether a system call filter is among them.
    pub fn filters(&self) -> bool {
        !self.filter.is_empty()
    }

    /// Whether they keep programs from TCP ports that are not on the list.
    pub fn restricts_ports(&self) -> bool {
        self.program.as_ref().is_some_and(|(rules, _)| rules.restricts_ports())
    }

    /// The descriptors that must stay open for [`Walls::around_supervisor`] and [`Walls::around_program`].
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let program = self.program.iter().map(|(_, ruleset)| ruleset.as_fd());
        self.signals.iter().map(AsFd::as_fd).chain(program).collect()
    }

    /// What can go up around a supervisor, and so around all that it will start: the filter too, which the kernel compiles
    /// each time it is installed, about 0.1 ms, and a process inherits for nothing. Without a control group the supervisor
    /// has to lower others' priorities, which the filter denies.
    pub fn around_supervisor(&self) -> Result<Enclosure, SetupError> {
        let signals = match &self.signals {
            Some(signals) => {
                signals.restrict().step("keep signals inside")?;
                Some(Enclosed(()))
            }
            None => None,
        };
        // A filter of its own: where the kernel refuses it, nothing else is missing.
        let notices = sys::install_notifying_filter(&filter::noticing(libc::SYS_listen as u32)).ok();
        if self.grouped {
            self.install_filter()?;
        }
        Ok(Enclosure { signals, notices })
    }

    /// What can go up around a process that does not know yet which program it will be.
    pub(crate) fn around_recruit(&self) -> Result<(), SetupError> {
        if self.grouped { Ok(()) } else { self.install_filter() }
    }

    /// The walls that are left, for a process about to become a program; `terminal` is its own.
    pub(crate) fn around_program(&self, terminal: Option<BorrowedFd<'_>>) -> Result<(), SetupError> {
        let Some((rules, ruleset)) = &self.program else { return Ok(()) };
        let own = terminal.map(|terminal| rules.ruleset(Some(terminal))).transpose()?;
        own.as_ref().unwrap_or(ruleset).restrict().step("restrict files by Landlock")
    }

    fn install_filter(&self) -> Result<(), SetupError> {
        if self.filters() {
            sys::install_filter(&self.filter).step("install the system call filter")?;
        }
        Ok(())
    }
}

/// What a supervisor has put up around itself.
#[derive(Debug)]
pub struct Enclosure {
    /// Its signals, and those of all it will start, stay among themselves: where that is needed and can be had.
    pub signals: Option<Enclosed>,
    /// Where calls of listen(2) of all it will start are seen, if the kernel grants that (see [`crate::listening`]).
    pub notices: Option<OwnedFd>,
}

/// Held by a process whose signals do not leave its own domain.
#[derive(Debug)]
pub struct Enclosed(());

impl Enclosed {
    /// A signal to everybody, which is: to all descendants at once, however they fork, and to nobody else.
    pub fn signal_all(&self, signal: i32) {
        sys::kill_everybody(signal);
    }
}

/// What a process is that has become an init.
#[derive(Debug)]
pub struct Entered {
    /// What it puts up around each program.
    pub walls: Walls,
    /// What leads out of the sandbox's own network, if it has one.
    pub outlets: Vec<(Outlet, OwnedFd)>,
}

/// Makes this process, just created in [`namespaces`], the init of its sandbox. `grouped` says that control
/// groups will hold each program's tree together.
pub fn enter(policy: &Policy, grouped: bool) -> Result<Entered, SetupError> {
    let mut outlets = Vec::new();
    if matches!(policy.tier, Tier::T1 | Tier::T2) {
        // First of all: whatever happens to the keeper from here on, nothing outlives it.
        set_parent_process_death_signal(Some(Signal::KILL)).step("tie init to the keeper")?;
        // After a change of uid /proc/self belongs to root until the process is dumpable again.
        set_dumpable_behavior(DumpableBehavior::Dumpable).step("open /proc/self")?;
        map_user(policy.uid, policy.gid)?;
        if policy.own_network() {
            outlets = network::open()?;
        }
        sethostname(HOST_NAME.as_bytes()).step("set the host name")?;
        // Arguments are found through /proc/self, so before the tree changes.
        sys::scrub_arguments("mhnos-init").step("hide the service's arguments")?;
        tree::build(policy)?;
    } else {
        if policy.tier == Tier::T3Plus {
            become_programs_user(Account { uid: policy.uid, gid: policy.gid })?;
            set_dumpable_behavior(DumpableBehavior::Dumpable).step("open /proc/self")?;
        }
        // Without a pid namespace init must not die by the keeper's end, but end by it (see its main loop),
        // and what loses its supervisor becomes its child only if it asks for that.
        sys::scrub_arguments("mhnos-init").step("hide the service's arguments")?;
        set_child_subreaper(Some(getpid())).step("become the parent of orphans")?;
    }
    rustix::thread::set_name(c"mhnos-init").step("name init")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("close /proc/self")?;
    set_no_new_privs(true).step("forbid new privileges")?;
    empty_bounding_set()?;
    Ok(Entered { walls: raise_landlock(policy, grouped)?, outlets })
}

fn raise_landlock(policy: &Policy, grouped: bool) -> Result<Walls, SetupError> {
    let filter = policy.filter.clone();
    let mut walls = Walls { tier: policy.tier, filter, grouped, signals: None, program: None };
    if !landlock::in_force(policy.tier) {
        if landlock::needed_abi(policy.tier).is_some() {
            return Err(std::io::Error::from_raw_os_error(libc::EOPNOTSUPP)).step("find Landlock");
        }
        return Ok(walls);
    }
    if landlock::needed_abi(policy.tier) > sys::landlock_abi() {
        let old = std::io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        return Err(old).step_on("find Landlock's scopes", "(Linux 6.12)");
    }
    if matches!(policy.tier, Tier::T1 | Tier::T2) {
        // One domain for all, so that programs of one sandbox are as open to each other as without it.
        Rules::of_tree(policy).ruleset(None)?.restrict().step("restrict files by Landlock")?;
    } else {
        let rules = Rules::of_host(policy);
        let ruleset = rules.ruleset(None)?.set_apart(FIRST_FREE).step("set a ruleset apart")?;
        walls.program = Some((rules, ruleset));
    }
    if !grouped && landlock::has_scopes() {
        walls.signals = Some(Rules::of_signals().ruleset(None)?);
    }
    Ok(walls)
}

/// One user, itself: the same number inside and outside, so that files belong to who they seem to.
fn map_user(uid: u32, gid: u32) -> Result<(), SetupError> {
    // Without the denial an unprivileged process may not map its group; tmpfs needs the group mapped.
    std::fs::write("/proc/self/setgroups", "deny").step("deny setgroups")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).step("map the user")?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).step("map the group")
}
