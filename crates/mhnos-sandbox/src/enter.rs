//! From policy to walls, for the sandbox's init: which namespaces it is created with, and the ordered script
//! it runs before it starts anything. A step that fails ends it.

use rustix::{
    process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal},
    system::sethostname,
};

use crate::{
    Enforcement, Layer, Mode, Tier,
    error::{SetupError, Step},
    policy::{HOST_NAME, Policy},
    sys::{self, Namespaces},
    tree,
};

/// The namespaces an init of this policy is created in.
pub fn namespaces(policy: &Policy) -> Namespaces {
    match policy.mode {
        Mode::None => Namespaces::NONE,
        Mode::Strict | Mode::Relaxed => Namespaces::USER
            .and(Namespaces::MOUNT)
            .and(Namespaces::PID)
            .and(Namespaces::IPC)
            .and(Namespaces::UTS)
            .and(Namespaces::CGROUP),
    }
}

/// What processes of this policy run behind, once [`enter`] and `confine` have succeeded, with or without
/// control groups.
pub fn enforcement(policy: &Policy, cgroups: bool) -> Enforcement {
    let base = [
        Layer::NoNewPrivileges,
        Layer::NoCapabilities,
        Layer::ResourceLimits,
        Layer::Session,
        Layer::CleanEnvironment,
        Layer::ClosedDescriptors,
    ];
    let walls = [
        Layer::UserNamespace,
        Layer::MountNamespace,
        Layer::PidNamespace,
        Layer::IpcNamespace,
        Layer::UtsNamespace,
        Layer::CgroupNamespace,
        Layer::Seccomp,
    ];
    let (tier, layers) = match policy.mode {
        Mode::None => (Tier::None, base.to_vec()),
        Mode::Strict | Mode::Relaxed => (Tier::T1, walls.into_iter().chain(base).collect()),
    };
    let layers = layers.into_iter().chain(cgroups.then_some(Layer::Cgroup)).collect();
    Enforcement { mode: policy.mode, tier, layers }
}

/// Makes this process, just created in [`namespaces`], the init of its sandbox.
pub fn enter(policy: &Policy) -> Result<(), SetupError> {
    if policy.mode == Mode::None {
        // Without a pid namespace init must not die by the keeper's end, but end by it: see its main loop.
        sys::scrub_arguments("mhnos-init").step("hide the service's arguments")?;
    } else {
        // First of all: whatever happens to the keeper from here on, nothing outlives it.
        set_parent_process_death_signal(Some(Signal::KILL)).step("tie init to the keeper")?;
        // After a change of uid /proc/self belongs to root until the process is dumpable again.
        set_dumpable_behavior(DumpableBehavior::Dumpable).step("open /proc/self")?;
        map_user(policy.uid, policy.gid)?;
        sethostname(HOST_NAME.as_bytes()).step("set the host name")?;
        // Arguments are found through /proc/self, so before the tree changes.
        sys::scrub_arguments("mhnos-init").step("hide the service's arguments")?;
        tree::build(policy)?;
    }
    rustix::thread::set_name(c"mhnos-init").step("name init")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("close /proc/self")
}

/// One user, itself: the same number inside and outside, so that files belong to who they seem to.
fn map_user(uid: u32, gid: u32) -> Result<(), SetupError> {
    // Without the denial an unprivileged process may not map its group; tmpfs needs the group mapped.
    std::fs::write("/proc/self/setgroups", "deny").step("deny setgroups")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).step("map the user")?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).step("map the group")
}
