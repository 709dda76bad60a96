//! What to change on a host that does not give a layer: in words an operator can act on.

use crate::{Layer, Mode, Tier};

/// Where AppArmor keeps programs that are not root from user namespaces, or from what they give (Ubuntu 23.10 and newer).
const APPARMOR: &str = "AppArmor keeps this program from user namespaces (Ubuntu): give it a profile with the rule \
     `userns,`, as install.sh and the Debian package do (for a program elsewhere: docs/operations.md, \"Ubuntu\"); or \
     for every program: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";

/// Why a tier is not to be had and what would give it, from the step that failed and the kernel's answer.
pub fn remedy(tier: Tier, step: &str, errno: i32) -> &'static str {
    if step.contains("control group") {
        return "the service must be able to make control groups in the one it was started in, and to join them; systemd: \
                Delegate=cpu memory pids, ProtectControlGroups=no";
    }
    match tier {
        Tier::T1 | Tier::T2 => of_namespaces(step, errno),
        Tier::T3Plus => of_separate_uids(step, errno),
        Tier::T3 => of_landlock(step, errno),
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
    if step.contains("workspace") {
        return "the service's account must be able to reach and write the workspace";
    }
    "mounting inside a user namespace is refused: Docker: an AppArmor profile that allows mount and pivot_root \
     (--security-opt apparmor=unconfined) and a seccomp profile that allows the mount family; Ubuntu: an AppArmor \
     profile with the rule `userns,` (docs/operations.md, \"Ubuntu\"); systemd: no SystemCallFilter=~@mount"
}

fn of_separate_uids(step: &str, errno: i32) -> &'static str {
    if step.contains("Landlock") {
        return of_landlock(step, errno);
    }
    if step.contains("workspace") {
        return "the workspace must belong to an ordinary user and be reachable for it";
    }
    "start the service as root with only two capabilities; Docker: --user 0 --cap-drop ALL --cap-add SETUID \
     --cap-add SETGID"
}

fn of_landlock(step: &str, _errno: i32) -> &'static str {
    if step.contains("scopes") {
        return "Linux 6.12 or newer is needed where all run as one user; or give the service CAP_SETUID and \
                CAP_SETGID (tier T3+)";
    }
    if step.contains("Landlock") {
        return "enable Landlock: Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK=y and `landlock` in the boot \
                parameter lsm=";
    }
    if step.contains("workspace") {
        return "the service's account must be able to reach and write the workspace";
    }
    "the seccomp profile around this service must allow seccomp and the landlock calls, as Docker's default does"
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
}
