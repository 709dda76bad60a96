//! What to change on a host that does not give a layer: in words an operator can act on.

use crate::{Layer, Mode, Tier};

/// Where AppArmor keeps programs that are not root from user namespaces, or from what they give (Ubuntu 23.10 and newer).
const APPARMOR: &str = "AppArmor keeps this program from user namespaces (Ubuntu): give it a profile with the rule \
     `userns,`, as install.sh and the Debian package do (for a program elsewhere: docs/operations.md, \"Ubuntu\"); or \
     for every program: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";

/// A call that every process may make was refused.
const FILTERED: &str = "a system call filter around this service refuses what every process may do: Docker: the default \
     seccomp profile or one that allows as much; systemd: no SystemCallFilter=, or @system-service with \
     SystemCallErrorNumber=EPERM";

const WORKSPACE: &str = "the service's account must be able to reach and write the workspace";

const MOUNTS: &str = "mounting inside a user namespace is refused: Docker: an AppArmor profile that allows mount and pivot_root \
     (--security-opt apparmor=unconfined) and a seccomp profile that allows the mount family; Ubuntu: an AppArmor \
     profile with the rule `userns,` (docs/operations.md, \"Ubuntu\"); systemd: no SystemCallFilter=~@mount";

const SECCOMP: &str = "the seccomp profile around this service must allow seccomp and the landlock calls, as Docker's default does";

const GROUPS: &str = "the service must be able to make control groups in the one it was started in, and to join them; systemd: \
     Delegate=cpu memory pids, ProtectControlGroups=no";

const TERMINALS: &str = "a terminal cannot be had: there may be too many (sysctl kernel.pty.max), the service's account may \
     lack /dev/ptmx and /dev/pts, or a system call filter around this service refuses ioctl";

const NETWORK: &str = "a network of the programs' own cannot be set up: systemd: RestrictAddressFamilies= must have AF_INET, \
     AF_INET6 and AF_NETLINK, or be left out; Docker: the default seccomp profile or one that allows as much";

const RULES: &str =
    "a network of the programs' own needs routing by rules: a kernel with CONFIG_IP_MULTIPLE_TABLES=y";

const ENDED: &str = "what was being set up was ended by a signal: 31 (SIGSYS) is a system call filter around this service that \
     kills (systemd: SystemCallErrorNumber=EPERM), 9 (SIGKILL) as a rule want of memory";

const SLOW: &str = "a machine with much else to do may need another attempt; where it is always so, a call hangs: see the log";

const SECRETS: &str = "programs could read the file of MHNOS_AUTH_TOKEN_FILE or MHNOS_TLS_KEY: keep it where they see nothing \
     (not in the workspace, /usr, /opt, /etc/ssl, nor what MHNOS_PATH brings), or readable for root alone and start the service \
     as root";

const BROKEN: &str = "a wall was put up and does not hold: the kernel, or what stands in for it (gVisor, an emulator), does not \
     do what Linux does; use one that does";

/// Steps that say by themselves, whatever the tier, what stands in the way, by how they begin. The first that fits counts.
const STEPS: &[(&str, &str)] = &[
    ("self-test: open the terminal", TERMINALS),
    ("self-test: a file with a secret", SECRETS),
    (
        "self-test: read the children of a process",
        "a kernel with CONFIG_PROC_CHILDREN=y, as all distributions' have",
    ),
    ("self-test: write to the workspace", WORKSPACE),
    ("self-test:", BROKEN),
    ("the self-test took too long", SLOW),
    ("the sandbox did not come up in time", SLOW),
    ("the self-test ended early", ENDED),
    ("the self-test was lost", ENDED),
    ("the sandbox's init ended early", ENDED),
    ("open a terminal", TERMINALS),
    ("take the terminal", TERMINALS),
    ("open the route socket", NETWORK),
    ("bring up the loopback", NETWORK),
    ("make the rules of ", RULES),
    ("make the route of ", NETWORK),
    ("listen ", NETWORK),
    ("install the system call filter", SECCOMP),
    ("make a Landlock ruleset", SECCOMP),
    ("restrict files by Landlock", SECCOMP),
    ("keep signals inside", SECCOMP),
    ("allow ", SECCOMP),
    ("take a process group", FILTERED),
    ("close the keeper's descriptors", FILTERED),
    ("close init's descriptors", FILTERED),
    ("close its supervisor's descriptors", FILTERED),
    ("watch for signals", FILTERED),
    ("tie ", FILTERED),
    ("name init", FILTERED),
    ("open /proc/self", FILTERED),
    ("close /proc/self", FILTERED),
    ("forbid new privileges", FILTERED),
    ("empty the bounding set", FILTERED),
    ("clear ambient capabilities", FILTERED),
    ("start the self-test", FILTERED),
    ("create the supervisor", FILTERED),
    ("create the process", FILTERED),
    ("prepare the supervisor", FILTERED),
    ("become the parent of orphans", FILTERED),
    ("set its channel apart", FILTERED),
    ("set a ruleset apart", FILTERED),
    ("lower the priority", FILTERED),
    ("open a session", FILTERED),
    ("connect descriptors", FILTERED),
    ("limit ", FILTERED),
];

/// What a process runs out of.
fn of_want(errno: i32) -> Option<&'static str> {
    match errno {
        libc::EAGAIN => {
            Some("raise how many processes the service may have: systemd: TasksMax=; Docker: --pids-limit")
        }
        libc::ENOMEM => {
            Some("raise how much memory the service may have: systemd: MemoryMax=; Docker: --memory")
        }
        // The last for descriptors on their way from one process to another: unix(7).
        libc::EMFILE | libc::ENFILE | libc::ETOOMANYREFS => {
            Some("raise how many files the service may open: systemd: LimitNOFILE=; Docker: --ulimit nofile=")
        }
        _ => None,
    }
}

/// Why a tier is not to be had and what would give it, from the step that failed and the kernel's answer.
pub fn remedy(tier: Tier, step: &str, errno: i32) -> &'static str {
    if let Some(remedy) = of_want(errno) {
        return remedy;
    }
    if step.contains("control group") {
        return GROUPS;
    }
    if let Some((_, remedy)) = STEPS.iter().find(|(beginning, _)| step.starts_with(beginning)) {
        return remedy;
    }
    match tier {
        Tier::T1 | Tier::T2 => of_namespaces(step, errno),
        Tier::T3Plus => of_separate_uids(step),
        Tier::T3 => of_landlock(step),
        Tier::None => "",
    }
}

fn of_namespaces(step: &str, errno: i32) -> &'static str {
    if step.starts_with("create the sandbox") {
        return match errno {
            libc::ENOSPC => "allow namespaces: sysctl -w user.max_user_namespaces=15000",
            // What security modules answer; sysctls and system call filters say EPERM.
            libc::EACCES => APPARMOR,
            _ => {
                "allow unprivileged user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 (Debian); an AppArmor \
                 profile with the rule `userns,` (Ubuntu: docs/operations.md, \"Ubuntu\"); systemd: \
                 RestrictNamespaces=no; Docker: --security-opt seccomp=PROFILE with clone, unshare and the mount \
                 family allowed"
            }
        };
    }
    if step.starts_with("mount /proc") {
        return "the host covers parts of /proc, so a fresh one is refused; Docker: --security-opt \
                systempaths=unconfined; systemd: ProtectKernelTunables=no, ProtectKernelLogs=no";
    }
    if step.starts_with("map the")
        || step.starts_with("deny setgroups")
        || step.starts_with("set the host name")
    {
        return APPARMOR;
    }
    if is_about_workspace(step) {
        return WORKSPACE;
    }
    // Capabilities that are one's own are dropped without anybody's leave.
    if step.starts_with("drop capabilities") { FILTERED } else { MOUNTS }
}

/// To mount it is another matter.
fn is_about_workspace(step: &str) -> bool {
    step.starts_with("open the workspace") || step.starts_with("examine the workspace")
}

fn of_separate_uids(step: &str) -> &'static str {
    if step.contains("Landlock") {
        return of_landlock(step);
    }
    if is_about_workspace(step) {
        return "the workspace must belong to an ordinary user and be reachable for it";
    }
    "start the service as root with only two capabilities; Docker: --user 0 --cap-drop ALL --cap-add SETUID \
     --cap-add SETGID"
}

fn of_landlock(step: &str) -> &'static str {
    if step.contains("scopes") {
        return "Linux 6.12 or newer is needed where all run as one user; or give the service CAP_SETUID and \
                CAP_SETGID (tier T3+)";
    }
    if step.contains("Landlock") {
        return "enable Landlock: Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK=y and `landlock` in the boot \
                parameter lsm=; if /sys/kernel/security/lsm lists it, the seccomp profile around this service refuses \
                its calls: Docker's own allows them from 20.10.18 on";
    }
    if is_about_workspace(step) {
        return WORKSPACE;
    }
    SECCOMP
}

/// What would give a layer that the tier in force does not have; `None` where the tier says it that would bring it
/// ([`brings`]).
pub fn of_layer(layer: Layer, mode: Mode) -> Option<&'static str> {
    match layer {
        _ if mode == Mode::None => Some("MHNOS_SANDBOX=strict"),
        Layer::Cgroup => Some(
            "systemd: Delegate=cpu memory pids; Docker: a writable cgroup2 (--cgroupns=private and a writable \
             /sys/fs/cgroup); or start as root",
        ),
        Layer::Landlock => Some(
            "Linux 5.19 or newer with CONFIG_SECURITY_LANDLOCK=y and `landlock` in the boot parameter lsm=",
        ),
        Layer::LandlockTruncate => Some("Linux 6.2 or newer, with Landlock"),
        Layer::NetProxy => Some("Linux 6.7 or newer, with Landlock"),
        Layer::LandlockScopes => Some("Linux 6.12 or newer, with Landlock"),
        _ => None,
    }
}

/// The tier that stands or falls with a layer.
pub fn brings(layer: Layer) -> Option<Tier> {
    match layer {
        Layer::UserNamespace
        | Layer::MountNamespace
        | Layer::PidNamespace
        | Layer::IpcNamespace
        | Layer::UtsNamespace
        | Layer::NetNamespace
        | Layer::CgroupNamespace => Some(Tier::T1),
        Layer::SeparateUid => Some(Tier::T3Plus),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ubuntu answers at one step or another: the namespaces are refused, or made without what they should give.
    #[test]
    fn wherever_apparmor_refuses_its_rule_is_named() {
        for (step, errno) in [
            ("create the sandbox's namespaces", libc::EACCES),
            ("create the sandbox's namespaces", libc::EPERM),
            ("map the sandbox's user", libc::EPERM),
            ("set the host name", libc::EPERM),
            ("make all mounts private", libc::EACCES),
        ] {
            let told = remedy(Tier::T1, step, errno);
            assert!(told.contains("`userns,`") && told.contains("docs/operations.md"), "{step}: {told}");
        }
        for tier in [Tier::T1, Tier::T3Plus] {
            let told = remedy(tier, "make a control group", libc::EPERM);
            assert!(told.contains("Delegate=") && !told.contains("AppArmor"), "{told}");
        }
        let full = remedy(Tier::T1, "create the sandbox's namespaces", libc::ENOSPC);
        assert!(full.contains("max_user_namespaces") && !full.contains("AppArmor"), "{full}");
    }

    #[test]
    fn each_kind_of_step_has_a_remedy_of_its_own() {
        let check = |tier, step, errno, expected: &str| {
            let told = remedy(tier, step, errno);
            assert!(told.contains(expected), "{step}: {told}");
        };
        for tier in [Tier::T1, Tier::T2, Tier::T3Plus, Tier::T3] {
            check(tier, "set its channel apart", libc::EPERM, "seccomp profile or one that allows as much");
            check(tier, "connect descriptors", libc::EPERM, "SystemCallFilter=");
            check(tier, "limit Core", libc::EPERM, "SystemCallFilter=");
            check(tier, "create the supervisor", libc::EAGAIN, "TasksMax=");
            check(tier, "create the process", libc::ENOMEM, "MemoryMax=");
            check(tier, "open a terminal", libc::EMFILE, "LimitNOFILE=");
            check(tier, "take the terminal", libc::EPERM, "/dev/pts");
            check(tier, "join the control group", libc::EPERM, "Delegate=");
            check(tier, "install the system call filter", libc::EPERM, "must allow seccomp");
            check(tier, "restrict files by Landlock", libc::EPERM, "landlock calls");
            check(tier, "allow the workspace", libc::EPERM, "landlock calls");
            check(tier, "the self-test ended early: Signal(31)", 0, "SIGSYS");
            check(tier, "self-test: a file with a secret of the service's", 0, "MHNOS_TLS_KEY");
            check(tier, "self-test: read the children of a process", libc::ENOENT, "CONFIG_PROC_CHILDREN");
            check(tier, "self-test: a file outside the workspace", 0, "does not hold");
            check(tier, "self-test: write to the workspace", libc::EACCES, "write the workspace");
            assert!(!remedy(tier, "set its channel apart", libc::EPERM).contains("mount"));
        }
        check(Tier::T1, "open the route socket", libc::EPERM, "AF_NETLINK");
        check(Tier::T1, "make the rules of IPv4", libc::EOPNOTSUPP, "IP_MULTIPLE_TABLES");
        check(Tier::T1, "clone the workspace", libc::EPERM, "mount family");
        check(Tier::T1, "open the workspace /srv", libc::EACCES, "reach and write");
        check(Tier::T1, "pivot into the root tree", libc::EPERM, "pivot_root");
        check(Tier::T3Plus, "change the user", libc::EPERM, "two capabilities");
        check(Tier::T3, "find Landlock", libc::EOPNOTSUPP, "lsm=");
        check(Tier::T3Plus, "find Landlock", libc::EOPNOTSUPP, "20.10.18");
        check(Tier::T3, "find Landlock's scopes", libc::EOPNOTSUPP, "6.12");
    }
}
