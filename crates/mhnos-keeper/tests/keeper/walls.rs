//! What is in force on each kind of host is what the keeper says, and holds.

use mhnos_keeper::channel::{Isolation, Stage};
use mhnos_sandbox::{Layer, Mode, Stdio, Tier, WindowSize, sys::landlock_abi};

use mhnos_testing::{host::Host, waive};

use crate::bridge::Bridge;

pub(crate) fn the_layers_told_are_those_of_the_host(bridge: &mut Bridge) {
    let host = Host::named(&bridge.host());
    assert_eq!(bridge.tier(), host.tier);
    assert_eq!(bridge.has(Layer::Cgroup), host.grouped);
    assert_eq!(bridge.has(Layer::MemoryWatchdog), !host.grouped);
    assert_eq!(bridge.has(Layer::Seccomp), host.mode != Mode::None);
    assert_eq!(bridge.has(Layer::SeparateUid), host.tier == Tier::T3Plus);
    // The test machine's kernel must have it.
    assert_eq!(bridge.has(Layer::Landlock), host.mode != Mode::None);
    // What came to it since Linux 6.2 and 6.12.
    let version = host.landlock.or_else(landlock_abi);
    let at_least = |abi| version.is_some_and(|own| own >= abi);
    assert_eq!(bridge.has(Layer::LandlockTruncate), host.mode != Mode::None && at_least(3));
    assert_eq!(bridge.has(Layer::LandlockScopes), host.mode != Mode::None && at_least(6));
    let own_network = host.mode == Mode::Strict && matches!(host.tier, Tier::T1 | Tier::T2);
    assert_eq!(bridge.has(Layer::NetNamespace), own_network);
    // Since Linux 6.7.
    let restricted = matches!(host.tier, Tier::T3 | Tier::T3Plus) && at_least(4);
    assert_eq!(bridge.has(Layer::NetProxy), host.mode == Mode::Strict && restricted);
}

pub(crate) fn the_host_does_not_show(bridge: &mut Bridge) {
    let (text, _) = bridge.run(
        "ls / | tr '\\n' ' '; hostname; id -u; cat /proc/1/cmdline | tr '\\0' ' '; cat /proc/1/environ 2>&1; \
         touch /usr/x 2>&1; touch /etc/x 2>&1; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; ls /proc/self/fd | wc -l; \
         cat /etc/shadow 2>&1; echo ok > \"$PWD\"/here; cat \"$PWD\"/here; ps -e | wc -l",
    );
    for expected in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "ok\n"] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    if bridge.tier() == Tier::None {
        return waive("what walls hide", "there are no walls");
    }
    assert!(text.contains("Read-only file system") || text.contains("Permission denied"), "{text}");
    if bridge.has(Layer::MountNamespace) {
        assert!(text.contains("No such file"), "no shadow file: {text}");
        assert!(!text.contains("root:"), "{text}");
    }
    if bridge.tier() == Tier::T1 {
        assert!(text.contains("mhnos-init"), "{text}");
        assert!(!text.contains("keeper"), "{text}");
    }
}

pub(crate) fn a_swapped_workspace_is_refused(bridge: &mut Bridge) {
    if bridge.tier() == Tier::None {
        return waive("all of it", "there are no walls");
    }
    let workspace = std::env::var("WORKSPACE").expect("workspace");
    let aside = format!("{workspace}.aside");
    if std::fs::rename(&workspace, &aside).is_err() {
        // A user who may not rename it cannot swap it either.
        let another_users = bridge.has(Layer::Cgroup) || bridge.tier() == Tier::T3Plus;
        assert!(another_users, "only where it belongs to another user");
        return waive("what comes of a swap", "the workspace is another user's, who alone can swap it");
    }
    std::os::unix::fs::symlink("/etc", &workspace).expect("swap");
    let stdio = Stdio::Pipes { stdin: false };
    let list = bridge.order(&["sh", "-c", "ls $PWD /workspace/"], stdio, Isolation::Private);
    let refused = bridge.started(list);
    let rules_anew = (!bridge.has(Layer::MountNamespace)).then(|| {
        // Each terminal has rules of its own there.
        let terminal = Stdio::Pty(WindowSize { cols: 80, rows: 24 });
        let list = bridge.order(&["ls"], terminal, Isolation::Shared);
        bridge.started(list)
    });
    std::fs::remove_file(&workspace).and_then(|()| std::fs::rename(&aside, &workspace)).expect("swap back");
    match refused {
        Err(failure) => assert_eq!(failure.stage, Stage::Sandbox, "{failure:?}"),
        // Staged by root, it is bound by what it is and not by its name.
        Ok(_) => assert!(bridge.has(Layer::Cgroup) && !bridge.output(list).contains("passwd")),
    }
    if let Some(refused) = rules_anew {
        assert_eq!(refused.expect_err("not the link's target").stage, Stage::Confine);
    }
    // The positive control.
    let pid = bridge.order(&["true"], Stdio::Pipes { stdin: false }, Isolation::Private);
    bridge.started(pid).expect("starts");
}
