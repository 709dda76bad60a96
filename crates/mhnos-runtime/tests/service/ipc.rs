//! Objects that processes share by a name or a number, POSIX's and System V's: those of the host, of another sandbox and of
//! another service. `ipc.py` makes them and tries to reach them, inside and outside alike.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use mhnos_sandbox::Tier;
use mhnos_testing::{Server, Wire, host::Host};
use serde_json::json;

use crate::{abuse::strict_hosts, options};

const PROGRAM: &str = include_str!("ipc.py");

/// Kept in `/dev/shm`.
const IN_SHM: [&str; 2] = ["shared_memory", "semaphore"];
/// Kept by the kernel.
const IN_KERNEL: [&str; 4] = ["v_shared_memory", "v_semaphore", "v_queue", POSIX_QUEUE];
/// In a file system that is mounted nowhere: Landlock has no rule for it, so programs have none at all.
const POSIX_QUEUE: &str = "queue";

/// What came of each kind, by its name.
type Found = BTreeMap<String, String>;

fn found(said: &str) -> Found {
    said.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(kind, end)| (kind.into(), end.into()))
        .collect()
}

/// Names and numbers that nobody else uses.
struct Objects {
    name: String,
    number: u32,
}

static NEXT: AtomicU32 = AtomicU32::new(1);

impl Objects {
    fn new() -> Self {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        // A process's own number is below 2^22; two keys for each.
        let number = (std::process::id() << 8 | next << 1) & 0x7FFF_FFFF;
        Self { name: format!("mhnos-test-{}-{next}", std::process::id()), number }
    }

    fn arguments(&self, action: &str) -> [String; 3] {
        [action.to_owned(), self.name.clone(), self.number.to_string()]
    }

    /// By the user of the tests, outside every sandbox.
    fn outside(&self, action: &str) -> Found {
        let mut python = Command::new("python3");
        python.args(["-c", PROGRAM]).args(self.arguments(action)).stdin(Stdio::null());
        let output = python.output().expect("python3");
        assert!(output.status.success() || std::thread::panicking(), "{output:?}");
        found(&String::from_utf8_lossy(&output.stdout))
    }

    /// By a program of this service, which stays.
    async fn inside(&self, server: &Server, wire: &mut Wire, action: &str, isolation: &str) -> Found {
        server.write("ipc.py", PROGRAM);
        let options = json!({"pty": false, "isolation": isolation});
        let arguments = self.arguments(action);
        let spawn =
            json!({"processType": "python", "command": "ipc.py", "args": arguments, "options": options});
        let pid = wire.spawn(spawn).await;
        found(&wire.stdout_until(pid, "end\n").await)
    }
}

/// They would outlive the test where they are the host's.
impl Drop for Objects {
    fn drop(&mut self) {
        self.outside("remove");
    }
}

#[track_caller]
fn assert_all(found: &Found, kinds: &[&str], expected: &str, what: &str) {
    for kind in kinds {
        assert_eq!(found.get(*kind).map(String::as_str), Some(expected), "{what}: {kind} of {found:?}");
    }
}

fn own(kinds: &[&str]) -> Vec<String> {
    kinds.iter().map(|kind| format!("own-{kind}")).collect()
}

fn has_own_objects(host: &str) -> bool {
    matches!(Host::named(host).tier, Tier::T1 | Tier::T2)
}

#[tokio::test]
async fn shared_objects_of_the_host_are_out_of_reach_but_for_those_in_dev_shm_that_are_for_everybody() {
    let objects = Objects::new();
    let made = objects.outside("make");
    assert_all(&made, &[&IN_SHM[..], &IN_KERNEL].concat(), "ok", "outside");
    let own = own(&[&IN_SHM[..], &IN_KERNEL].concat());
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    assert_all(&made, &own, "ok", "outside");
    for host in strict_hosts() {
        let server = Server::start(options().on(host));
        let mut wire = Wire::connect(server.address()).await;
        let reached = objects.inside(&server, &mut wire, "reach", "shared").await;
        if has_own_objects(host) {
            assert_all(&reached, &[&IN_SHM[..], &IN_KERNEL].concat(), "ENOENT", host);
            assert_all(&reached, &own, "ENOENT", host);
        } else {
            // Told in docs/threat-model.md.
            assert_all(&reached, &IN_SHM, "ok", host);
            assert_all(&reached, &own[..IN_SHM.len()], "EACCES", host);
            assert_all(&reached, &IN_KERNEL, "ENOSYS", host);
            assert_all(&reached, &own[IN_SHM.len()..], "ENOSYS", host);
        }
    }
    // The control: without walls permissions decide.
    let server = Server::start(options().on("none").env("MHNOS_SANDBOX", "none"));
    let mut wire = Wire::connect(server.address()).await;
    let reached = objects.inside(&server, &mut wire, "reach", "shared").await;
    assert_all(&reached, &[&IN_SHM[..], &IN_KERNEL].concat(), "ok", "none");
    assert_all(&reached, &own, "EACCES", "none");
}

#[tokio::test]
async fn shared_objects_are_a_sandboxs_own_where_it_has_namespaces() {
    for host in strict_hosts() {
        let objects = Objects::new();
        let (server, other) = (Server::start(options().on(host)), Server::start(options().on(host)));
        let mut wire = Wire::connect(server.address()).await;
        let mut others = Wire::connect(other.address()).await;
        let made = objects.inside(&server, &mut wire, "make", "shared").await;
        // The control, and what programs are promised: one sandbox is one machine.
        let near = objects.inside(&server, &mut wire, "reach", "shared").await;
        let private = objects.inside(&server, &mut wire, "reach", "private").await;
        let far = objects.inside(&other, &mut others, "reach", "shared").await;
        let (system_v, refused) = if has_own_objects(host) { ("ok", "EACCES") } else { ("ENOSYS", "ENOSYS") };
        for found in [&made, &near] {
            assert_all(found, &IN_SHM, "ok", host);
            assert_all(found, &IN_KERNEL[..3], system_v, host);
        }
        assert_all(&made, &[POSIX_QUEUE], refused, host);
        for found in [&private, &far] {
            if has_own_objects(host) {
                assert_all(found, &[&IN_SHM[..], &IN_KERNEL].concat(), "ENOENT", host);
            } else {
                // Told in docs/threat-model.md.
                assert_all(found, &IN_SHM, "ok", host);
                assert_all(found, &IN_KERNEL, "ENOSYS", host);
            }
        }
    }
}
