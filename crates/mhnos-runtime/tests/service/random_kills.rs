//! SIGKILL for one of the service's own processes at a random moment of a burst of spawns: what can end with it ends,
//! what can go on goes on, and nothing is left behind.
//!
//! The moment is a random number of answers into the burst and of turns of the scheduler after that; the seed is printed.
//! `make test-kills` runs many more rounds.

use mhnos_testing::{Server, Wire};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{abuse::strict_hosts, options};

/// Rounds on each kind of host, for each victim.
const ROUNDS: u64 = 2;

/// Programs asked for in a burst.
const BURST: u64 = 12;

/// Programs of a burst in turn: short, long, and those with descendants of other sessions.
const SCRIPTS: [&str; 4] = [
    "exit 0",
    "exec sleep 1000",
    "(setsid sleep 1000 &) ; sleep 1000",
    "trap '' TERM HUP; for n in 1 2 3; do (setsid sleep 1000 &); done; sleep 1000",
];

#[derive(Clone, Copy, Debug)]
enum Victim {
    Keeper,
    Bridge,
    Init,
}

/// Marsaglia's xorshift: enough for picking moments.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test]
async fn a_kill_at_a_random_moment_of_a_burst_leaves_nothing_in_any_tier() {
    let seed = number("MHNOS_TEST_SEED", 20_261_126).max(1);
    let rounds = number("MHNOS_TEST_KILLS", ROUNDS);
    let mut random = Random(seed);
    for round in 0..rounds {
        for host in strict_hosts() {
            for victim in [Victim::Keeper, Victim::Bridge, Victim::Init] {
                println!("seed {seed}, round {round}: {victim:?} on {host}");
                one(host, victim, &mut random).await;
            }
        }
    }
}

async fn one(host: &str, victim: Victim, random: &mut Random) {
    let mut server = Server::start(options().on(host));
    let pid = victim_of(&server, victim);
    burst(&server, random).await;
    kill_process(pid, Signal::KILL).expect("kill it");
    if matches!(victim, Victim::Keeper) {
        server.kill();
        return server.assert_nothing_left();
    }
    // Whoever asks next is served.
    let mut wire = connect(&server, victim).await;
    loop {
        let spawn = json!({"type": "spawn", "id": 1, "processType": "shell", "command": "bash", "args": ["-c", "exit 3"]});
        let answer = wire.request(spawn).await;
        if answer["type"] != "spawned" {
            // What was on its way into a sandbox that died is refused, and says so.
            let code = answer["code"].as_str().unwrap_or_default();
            assert!(["SPAWN_FAILED", "ISOLATION_UNAVAILABLE"].contains(&code), "{host} {victim:?}: {answer}");
            continue;
        }
        let exit = wire.run_to_exit(answer["pid"].as_u64().expect("a pid")).await.2;
        if exit["code"] == 3 {
            break;
        }
        // What was started in it a moment before ends with it, and says that, too.
        assert!(matches!(victim, Victim::Init), "{host} {victim:?}: {exit}");
        assert!(
            ["lost", "signaled"].contains(&exit["reason"].as_str().unwrap_or_default()),
            "{host}: {exit}"
        );
    }
    server.stop();
    server.assert_nothing_left();
}

/// Asks for many programs and goes on after a random part of the answers.
async fn burst(server: &Server, random: &mut Random) {
    let mut wire = Wire::connect(server.address()).await;
    for id in 0..BURST {
        let script = SCRIPTS[random.below(SCRIPTS.len() as u64) as usize];
        let options = json!({"pty": random.below(2) == 0});
        wire.send(&json!({"type": "spawn", "id": id, "processType": "shell", "command": "bash",
            "args": ["-c", script], "options": options}))
            .await;
    }
    for _ in 0..random.below(BURST) {
        wire.next_where(|message| !message["id"].is_null()).await;
    }
    for _ in 0..random.below(300) {
        tokio::task::yield_now().await;
    }
}

async fn connect(server: &Server, victim: Victim) -> Wire {
    if matches!(victim, Victim::Bridge) {
        server.logged(std::time::Duration::from_secs(30), "\"generation\":2");
    }
    Wire::connect(server.address()).await
}

fn victim_of(server: &Server, victim: Victim) -> Pid {
    let named = |name: &str| {
        let found = server.descendants().into_iter().find(|process| process.command.contains(name));
        found.unwrap_or_else(|| panic!("no {name}")).os_pid
    };
    let pid = match victim {
        Victim::Keeper => server.os_pid(),
        Victim::Bridge => named("mhnos-runtime bridge"),
        Victim::Init => named("mhnos-init"),
    };
    Pid::from_raw(pid).expect("a pid")
}
