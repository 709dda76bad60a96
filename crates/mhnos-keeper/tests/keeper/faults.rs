//! Each step of the setup made to fail, one at a time: then no program runs, or it runs in a lower tier whose
//! own test has passed, and the keeper says which.

use mhnos_keeper::channel::ExitStatus;
use mhnos_sandbox::{Layer, Tier};

use mhnos_testing::host::Refusal;

use crate::bridge::Bridge;

/// A call that fails, and what must come of it.
#[derive(Debug)]
pub(crate) struct Fault {
    call: &'static str,
    number: i64,
    /// What the keeper is asked for at least.
    pub(crate) floor: Tier,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    /// The service does not start; what it says contains this.
    Refused(&'static str),
    /// It starts in this tier.
    Tier(Tier),
    /// It starts in its usual tier without this layer, and says so.
    Without(Layer),
}

macro_rules! faults {
    ($($call:ident $floor:ident $outcome:expr;)*) => {
        &[$(Fault {
            call: stringify!($call), number: numbers::$call, floor: Tier::$floor, outcome: $outcome,
        }),*]
    };
}

/// A call's number; what one architecture has under an older name is made by the newer one on the other.
mod numbers {
    pub(super) use libc::*;
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) use libc::{SYS_mkdirat as SYS_mkdir, SYS_symlinkat as SYS_symlink};
}

use Outcome::{Refused, Tier as Becomes, Without};

pub(crate) const FAULTS: &[Fault] = faults! {
    // Building the tree.
    SYS_mount T1 Refused("mount");
    SYS_open_tree T1 Refused("clone");
    SYS_mount_setattr T1 Refused("restrict the workspace");
    SYS_openat2 T1 Refused("open the workspace");
    SYS_move_mount T1 Refused("attach");
    SYS_mkdir T1 Refused("write /etc");
    SYS_symlink T1 Refused("write /etc");
    SYS_pivot_root T1 Refused("pivot into the root tree");
    SYS_umount2 T1 Refused("let go of the host's tree");
    SYS_sethostname T1 Refused("set the host name");
    // Around init and the program.
    SYS_close_range T1 Refused("T1: ");
    SYS_landlock_add_rule T1 Refused("allow /");
    SYS_landlock_restrict_self T1 Refused("restrict files by Landlock");
    SYS_setsid T1 Refused("open a session");
    SYS_ioctl T1 Refused("open a terminal");
    SYS_prlimit64 T1 Refused("T1: ");
    SYS_capset T1 Refused("drop capabilities");
    SYS_seccomp T1 Refused("install the system call filter");
    // A lower tier takes the place of a higher one, and never silently.
    SYS_pivot_root T3 Becomes(Tier::T3);
    SYS_landlock_create_ruleset T1 Without(Layer::Landlock);
    SYS_landlock_restrict_self T3 Refused("T3: ");
    SYS_seccomp T3 Refused("T3: ");
};

impl Fault {
    pub(crate) fn name(&self) -> String {
        let outcome = match &self.outcome {
            Refused(_) => "stops_the_start".to_owned(),
            Becomes(tier) => format!("leads_to_{}", tier.as_str()),
            Without(layer) => format!("costs_{}", layer.as_str()),
        };
        format!("a_failing_{}_from_{}_{outcome}", self.call.trim_start_matches("SYS_"), self.floor.as_str())
    }

    /// What the keeper and its bridge say together.
    pub(crate) fn expected(&self) -> Vec<String> {
        match &self.outcome {
            Refused(text) => vec!["no sandbox that is strong enough".into(), (*text).into()],
            Becomes(tier) => vec![format!("tier {}", tier.as_str()), "passed".into()],
            Without(layer) => vec![format!("without {}", layer.as_str()), "passed".into()],
        }
    }

    pub(crate) fn install(&self) {
        Refusal { number: self.number, errno: libc::EPERM, only: &[] }.install();
    }
}

/// For a service that starts all the same: a program runs, and what is in force is told.
pub(crate) fn script(bridge: &mut Bridge) {
    assert_eq!(bridge.run("exit 4").1, ExitStatus::Code(4));
    println!("tier {}", bridge.tier().as_str());
    if !bridge.has(Layer::Landlock) {
        println!("without {}", Layer::Landlock.as_str());
    }
}
