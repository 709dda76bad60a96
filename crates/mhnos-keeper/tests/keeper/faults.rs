//! Steps of the setup made to fail, one at a time: then no program runs, or it runs in a lower tier whose own test has
//! passed, and the keeper says which step and why.
//!
//! A row names the call, by its arguments where several steps make the same one, and by which it is of those that a process
//! makes where arguments do not tell them apart; and the step exactly as it must be told. What a filter does not see are
//! paths: steps that differ by those alone are left out (opening `/proc/self/stat`, a second link, a third clone).

mod table;

use mhnos_keeper::channel::{ExitStatus, Isolation, Stage};
use mhnos_sandbox::{Layer, Stdio, Tier, WindowSize};
use mhnos_testing::host::{
    Refusal,
    faults::When::{Always, Nth, While},
};

use crate::bridge::Bridge;

pub(crate) use table::FAULTS;

/// A call that fails, and what must come of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The kind of host.
    pub(crate) host: &'static str,
    call: &'static str,
    refusal: Refusal,
    when: When,
    /// What the keeper is asked for at least.
    pub(crate) floor: Tier,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// From the keeper's start on.
    Always,
    /// This one of those that a process makes.
    Nth(u32),
    /// Before the keeper has given root up.
    Early,
    /// While the script wants it, in a service that runs.
    Running(Attempt),
}

/// What is started while a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Shared,
    Private,
    OnTerminal,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// The service does not start, because of this step; of one with a path in it, how it begins.
    Refused(&'static str),
    /// It starts in this tier.
    Tier(Tier),
    /// It starts in its usual tier without this layer, and says so.
    Without(Layer),
    /// It starts and goes on; what is started meanwhile does not, because of this step.
    NoProgram(Stage, &'static str),
}

/// The file that is there while a call shall fail.
const SWITCH: &str = "fault";

impl Fault {
    pub(crate) fn name(&self) -> String {
        let words = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let outcome = match &self.outcome {
            Outcome::Refused(step) => {
                format!("to_{}_stops_the_start", words(step.trim_end_matches(['/', ' '])))
            }
            Outcome::Tier(tier) => format!("leads_to_{}", tier.as_str()),
            Outcome::Without(layer) => format!("costs_{}", layer.as_str()),
            Outcome::NoProgram(_, step) => format!("to_{}_stops_that_program_alone", words(step)),
        };
        let which = if let When::Nth(nth) = self.when { format!("{nth}_") } else { String::new() };
        let call = self.call.trim_start_matches("SYS_");
        format!("a_failing_{call}_{which}from_{}_{outcome}", self.floor.as_str())
    }

    /// What the keeper and its bridge say together.
    pub(crate) fn expected(&self) -> Vec<String> {
        match &self.outcome {
            Outcome::Refused(step) if self.when == When::Early => vec![format!("not staged: {}", told(step))],
            Outcome::Refused(step) => {
                let told = format!("{}: {}", self.floor.as_str(), told(step));
                vec!["no sandbox that is strong enough".into(), told]
            }
            Outcome::Tier(tier) => vec![format!("tier {}", tier.as_str()), "passed".into()],
            Outcome::Without(layer) => vec![format!("without {}", layer.as_str()), "passed".into()],
            Outcome::NoProgram(..) => vec!["stopped that program alone".into(), "passed".into()],
        }
    }

    /// Before root is given up.
    pub(crate) fn begin(&self, workspace: &str) {
        match self.when {
            When::Early => self.refusal.install(),
            When::Nth(nth) => self.refusal.install_when(Nth(nth)),
            When::Running(_) => {
                self.refusal.install_when(While(&std::path::Path::new(workspace).join(SWITCH)));
            }
            When::Always => {}
        }
    }

    /// When the keeper is about to start.
    pub(crate) fn install(&self) {
        if self.when == When::Always {
            self.refusal.install_when(Always);
        }
    }

    /// For a service that starts all the same: a program runs, and what is in force is told.
    pub(crate) fn play(&self, bridge: &mut Bridge) {
        if let Outcome::NoProgram(stage, step) = self.outcome {
            self.stops_that_program_alone(bridge, stage, step);
            return println!("stopped that program alone");
        }
        assert_eq!(bridge.run("exit 4").1, ExitStatus::Code(4));
        println!("tier {}", bridge.tier().as_str());
        if !bridge.has(Layer::Landlock) {
            println!("without {}", Layer::Landlock.as_str());
        }
    }

    fn stops_that_program_alone(&self, bridge: &mut Bridge, stage: Stage, step: &str) {
        let When::Running(attempt) = self.when else {
            // It fails for every program there is.
            let pid = bridge.order(&["true"], Stdio::Pipes { stdin: false }, Isolation::Shared);
            let failure = bridge.started(pid).expect_err("must not start");
            assert_eq!((failure.stage, failure.detail.starts_with(step)), (stage, true), "{failure:?}");
            return;
        };
        let before = bridge.start("exec sleep 1000");
        let switch = format!("{}/{SWITCH}", std::env::var("WORKSPACE").expect("workspace"));
        std::fs::write(&switch, "").expect("the workspace is writable");
        let order = |bridge: &mut Bridge| match attempt {
            Attempt::Shared => bridge.order(&["true"], Stdio::Pipes { stdin: false }, Isolation::Shared),
            Attempt::Private => bridge.order(&["true"], Stdio::Pipes { stdin: false }, Isolation::Private),
            Attempt::OnTerminal => {
                bridge.order(&["true"], Stdio::Pty(WindowSize::DEFAULT), Isolation::Shared)
            }
        };
        let pid = order(bridge);
        let failure = bridge.started(pid).expect_err("must not start");
        assert_eq!((failure.stage, failure.detail.as_str()), (stage, step), "{failure:?}");
        std::fs::remove_file(&switch).expect("made before");
        // The control, and nobody else has noticed.
        let pid = order(bridge);
        bridge.started(pid).expect("starts now");
        assert_eq!(bridge.exit(pid), ExitStatus::Code(0));
        bridge.kill(before);
        assert_eq!(bridge.exit(before), ExitStatus::Signal(libc::SIGKILL), "alive until now");
    }
}

/// A step, as it is told in front of the kernel's answer. Where a path follows there is no telling which.
fn told(step: &str) -> String {
    if step.ends_with(['/', ' ']) { step.to_owned() } else { format!("{step} (") }
}
