//! A process of the host and its files, which programs must not reach although it is of their own user where they have no user
//! to themselves, keeps nothing to itself and lets everybody trace it. `neighbour.py` is what a program tries.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use mhnos_sandbox::Tier;
use mhnos_testing::{Server, Wire, host::Host, host::USER};
use rustix::process::geteuid;
use serde_json::{Value, json};

use crate::{abuse::strict_hosts, options};

const PROGRAM: &str = include_str!("neighbour.py");

/// Waits, and may be traced by anybody where a kernel asks for that (`PR_SET_PTRACER`).
const NEIGHBOUR: &str = "import ctypes, sys\nctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)\n\
                         print('up', flush=True)\nsys.stdin.read()";

struct Neighbour {
    process: Child,
    /// No rule of any tier allows what is here; below it are a directory for everybody and the services' workspaces.
    place: PathBuf,
}

impl Neighbour {
    fn start(name: &str) -> Self {
        let place = PathBuf::from(format!("/var/tmp/mhnos-test-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(place.join("shared")).expect("a directory");
        let mut python = Command::new("python3");
        python.args(["-c", NEIGHBOUR]).current_dir(&place).stdin(Stdio::piped()).stdout(Stdio::piped());
        if geteuid().is_root() {
            python.uid(USER).gid(USER);
        }
        let mut process = python.spawn().expect("python3");
        let up = BufReader::new(process.stdout.take().expect("piped")).lines().next();
        assert_eq!(up.expect("a line").expect("text"), "up");
        let neighbour = Self { process, place };
        neighbour.furnish();
        neighbour
    }

    fn shared(&self) -> PathBuf {
        self.place.join("shared")
    }

    /// For everybody, and the programs' user's where it is that of the service.
    fn furnish(&self) {
        for name in ["file", "other", "third", "program"] {
            let path = self.shared().join(name);
            fs::write(&path, "#!/bin/sh\n").expect("write");
            give(&path);
        }
        let _ = fs::remove_file(self.shared().join("new"));
        give(&self.shared());
    }

    /// What a program of a service on this kind of host finds.
    async fn found_on(&self, host: &str, mode: &str) -> Vec<(String, String)> {
        let workspace = self.place.join(host);
        fs::create_dir(&workspace).expect("a workspace");
        let server = Server::start(options().on(host).env("MHNOS_SANDBOX", mode).workspace(workspace));
        // Not a weaker one, for want of a place for the workspace.
        let health: Value = serde_json::from_str(&server.get("/health").body).expect("JSON");
        assert_eq!(health["sandbox"]["tier"], Host::named(host).tier.as_str(), "{host}: {health}");
        server.write("neighbour.py", PROGRAM);
        let mut wire = Wire::connect(server.address()).await;
        // Another service of the same user, with a workspace beside the first one's.
        let sibling = self.place.join(format!("{host}-sibling"));
        fs::create_dir(&sibling).expect("a workspace");
        let other = Server::start(options().on(host).env("MHNOS_SANDBOX", mode).workspace(sibling.clone()));
        other.write("kept", "not for programs of another");
        give(&sibling.join("kept"));
        give(&sibling);
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let arguments = [self.process.id().to_string(), path(self.shared()), path(sibling)];
        let options = json!({"pty": false});
        let spawn = json!({"processType": "python", "command": "neighbour.py", "args": arguments, "options": options});
        let pid = wire.spawn(spawn).await;
        let (stdout, stderr, _) = wire.run_to_exit(pid).await;
        assert!(stdout.contains("end\n"), "{host}: {stdout}\n{stderr}");
        stdout.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.into(), b.into())).collect()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.place);
    }
}

fn give(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("open to all");
    if geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).expect("give");
    }
}

/// Refused, or not even there.
const REFUSALS: [&str; 6] = ["ENOENT", "EACCES", "EPERM", "ESRCH", "EXDEV", "EROFS"];

/// What its descriptors are called, as its arguments are: the host's `/proc` shows that of a user's own processes.
const IN_PROC: &str = "descriptors";

/// Before Linux 6.2 Landlock knew of no truncating by path, and before 6.12 of no signals (docs/threat-model.md).
const BEFORE_LINUX_6_2: [&str; 3] = ["truncate", "signal", "signal-by-descriptor"];

#[tokio::test]
async fn another_process_of_the_same_user_and_its_files_are_out_of_reach_in_every_tier() {
    let mut wrong = Vec::new();
    for host in strict_hosts() {
        let mut neighbour = Neighbour::start(host);
        let found = neighbour.found_on(host, "strict").await;
        let reached = found.into_iter().filter(|(_, answer)| !REFUSALS.contains(&&**answer));
        let expected: &[&str] = if Host::named(host).landlock.is_some() { &BEFORE_LINUX_6_2 } else { &[] };
        let shown = |name: &str| name == IN_PROC && Host::named(host).tier < Tier::T1;
        let expected_of = |name: &str| expected.contains(&name) || shown(name);
        wrong.extend(reached.filter(|(name, _)| !expected_of(name)).map(|attempt| (host, attempt)));
        let lives = neighbour.process.try_wait().expect("ours").is_none();
        assert_eq!(lives, expected.is_empty(), "{host}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The control: without walls all of it is done.
#[tokio::test]
async fn without_walls_another_process_of_the_same_user_and_its_files_are_reached() {
    let mut neighbour = Neighbour::start("none");
    let found = neighbour.found_on("none", "none").await;
    let refused: Vec<_> = found.iter().filter(|(_, answer)| answer != "ok").collect();
    assert!(refused.is_empty() && found.len() > 20, "{refused:?} of {found:?}");
    assert!(neighbour.shared().join("new").exists());
    neighbour.process.wait().expect("ended by a signal that no kill(2) sent");
}
