//! Which tier: the strongest whose sandbox can be built and passes its own test.
//!
//! Every tier is tried as it would be used, from the strongest down, and the first that holds stays as the
//! workspace's sandbox. What a weaker tier takes the place of is told, with what would give it.

use std::{fmt, io, os::fd::OwnedFd};

use mhnos_sandbox::{
    Cgroups, Limits, Mode, Outside, Policy, SetupError, Tier, network,
    remedy::remedy,
    stage::{Account, Reserve},
};

use crate::{
    channel::{Failure, Stage},
    sandboxes::Sandbox,
};

/// A tier that cannot be had here.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Which.
    pub tier: Tier,
    /// The step that failed.
    pub failure: Failure,
}

impl Missing {
    /// What failed.
    pub fn reason(&self) -> String {
        match &self.failure {
            Failure { errno: 0, detail, .. } => detail.clone(),
            Failure { errno, detail, .. } => {
                format!("{detail} ({})", io::Error::from_raw_os_error(*errno))
            }
        }
    }

    /// What would give it.
    pub fn remedy(&self) -> &'static str {
        remedy(self.tier, &self.failure.detail, self.failure.errno)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tier.as_str(), self.reason())?;
        match self.remedy() {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

/// The tiers for a mode, strongest first.
pub fn candidates(mode: Mode) -> &'static [Tier] {
    match mode {
        Mode::None => &[Tier::None],
        Mode::Strict | Mode::Relaxed => &[Tier::T1, Tier::T2, Tier::T3Plus, Tier::T3],
    }
}

/// A tier that holds.
pub(crate) struct Chosen {
    pub(crate) policy: Policy,
    pub(crate) cgroups: Option<Cgroups>,
    pub(crate) sandbox: Sandbox,
    /// The proxy's socket, where programs share the host's network and may not use it.
    pub(crate) proxy: Option<OwnedFd>,
    /// Stronger ones that cannot be had.
    pub(crate) missing: Vec<Missing>,
}

/// The strongest tier from `floor` up; or why there is none.
pub(crate) fn choose(
    policy: &Policy,
    cgroups: Option<&Cgroups>,
    limits: Limits,
    floor: Tier,
    mut reserve: Option<Reserve>,
) -> Result<Chosen, Vec<Missing>> {
    let mut missing = Vec::new();
    for &tier in candidates(policy.mode).iter().filter(|tier| **tier >= floor) {
        match attempt(policy, tier, cgroups, limits, &mut reserve) {
            Ok(chosen) => return Ok(Chosen { missing, ..chosen }),
            Err(failure) => missing.push(Missing { tier, failure }),
        }
    }
    Err(missing)
}

/// Tries every tier, whatever the others gave. `None` for one that holds.
pub fn examine(
    policy: &Policy,
    cgroups: Option<&Cgroups>,
    limits: Limits,
    mut reserve: Option<Reserve>,
) -> Vec<(Tier, Option<Missing>)> {
    let mut tiers = candidates(policy.mode).to_vec();
    // Trying a tier of one user gives the power up that T3+ needs, so that one goes first.
    tiers.sort_by_key(|tier| *tier != Tier::T3Plus);
    let mut found: Vec<_> = tiers
        .into_iter()
        .map(|tier| {
            let outcome = attempt(policy, tier, cgroups, limits, &mut reserve).map(drop);
            // Whatever it found: a process whose users are parted is not what the other tiers start from.
            let outcome = outcome.and(give_up(&mut reserve));
            (tier, outcome.err().map(|failure| Missing { tier, failure }))
        })
        .collect();
    found.sort_by_key(|(tier, _)| std::cmp::Reverse(*tier));
    found
}

fn attempt(
    policy: &Policy,
    tier: Tier,
    cgroups: Option<&Cgroups>,
    limits: Limits,
    reserve: &mut Option<Reserve>,
) -> Result<Chosen, Failure> {
    let failed = |detail: String, errno: i32| Failure { stage: Stage::Sandbox, errno, detail };
    let step = |error: SetupError| failed(error.to_string(), error.errno());
    let mut policy = policy.at(tier, cgroups.is_some());
    match (tier, &reserve) {
        (Tier::T3Plus, None) => {
            return Err(failed("CAP_SETUID and CAP_SETGID are not held".into(), libc::EPERM));
        }
        (Tier::T3Plus, Some(held)) => {
            held.part().map_err(step)?;
        }
        (Tier::T3 | Tier::None, _) => give_up(reserve)?,
        (Tier::T1 | Tier::T2, _) => {}
    }
    let user = Account { uid: policy.uid, gid: policy.gid };
    let cgroups = cgroups.cloned();
    let cgroups = if tier == Tier::T3Plus { cgroups.map(|all| all.for_user(user)) } else { cgroups };
    // A name for each tier: a stronger one that took too long may not have left its group yet.
    let name = format!("self-test-{}", tier.as_str());
    let group = cgroups.as_ref().map(|cgroups| cgroups.create(&name, &limits)).transpose();
    let group =
        group.map_err(|error| failed("make a control group".into(), error.raw_os_error().unwrap_or(0)))?;
    let (proxy, port) = policy.needs_proxy().then(network::host_proxy).transpose().map_err(step)?.unzip();
    policy.proxy = port;
    let mut sandbox = Sandbox::create(&policy, cgroups.is_some()).map_err(|error| {
        failed("create the sandbox's namespaces".into(), error.raw_os_error().unwrap_or(0))
    })?;
    sandbox.wait_ready()?;
    sandbox.self_test(Outside::look(&policy), limits, group)?;
    if tier != Tier::T3Plus {
        give_up(reserve)?;
    }
    Ok(Chosen { policy, cgroups, sandbox, proxy, missing: Vec::new() })
}

fn give_up(reserve: &mut Option<Reserve>) -> Result<(), Failure> {
    let Some(held) = reserve.take() else { return Ok(()) };
    held.give_up().map_err(|error| Failure {
        stage: Stage::Sandbox,
        errno: error.errno(),
        detail: error.to_string(),
    })
}
