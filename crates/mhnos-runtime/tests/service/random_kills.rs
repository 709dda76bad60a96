//! SIGKILL for one of the service's own processes at a random moment of a burst of spawns: what can end with it ends,
//! what can go on goes on, and nothing is left behind.
//!
//! The moment is a random number of answers into the burst and of turns of the scheduler after that; the seed is printed.
//! `make test-kills` runs many more rounds.

use std::time::Instant;

use mhnos_testing::{Server, Wire};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{abuse::strict_hosts, options, tiers::inits};

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
                let begun = Instant::now();
                println!("seed {seed}, round {round}: {victim:?} on {host}");
                one(host, victim, &mut random).await;
                println!("  {} ms", begun.elapsed().as_millis());
            }
        }
    }
}

async fn one(host: &str, victim: Victim, random: &mut Random) {
    let mut server = Server::start(options().on(host));
    let pid = victim_of(&server, victim);
    let burst = Burst::ask(&server, random).await;
    kill_process(pid, Signal::KILL).expect("kill it");
    if matches!(victim, Victim::Keeper) {
        server.kill();
        return server.assert_nothing_left();
    }
    let mut wire = connect(&server, victim).await;
    if matches!(victim, Victim::Init) {
        burst.ends_with_its_sandbox(host).await;
    }
    next_is_served(&mut wire, host, victim).await;
    server.stop();
    server.assert_nothing_left();
}

/// Whoever asks next is served.
async fn next_is_served(wire: &mut Wire, host: &str, victim: Victim) {
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
            return;
        }
        // What was started in it a moment before ends with it, and says that, too.
        assert!(matches!(victim, Victim::Init) && is_lost(&exit), "{host} {victim:?}: {exit}");
    }
}

fn is_lost(exit: &Value) -> bool {
    exit["reason"] == "lost" && exit["code"].is_null() && exit["signal"].is_null()
}

/// Many programs asked for at once.
struct Burst {
    wire: Wire,
    /// What each request asked for, by its id.
    scripts: Vec<&'static str>,
    /// Answers that were waited for.
    answers: Vec<Value>,
}

impl Burst {
    /// Asks, and goes on after a random part of the answers.
    async fn ask(server: &Server, random: &mut Random) -> Self {
        let mut wire = Wire::connect(server.address()).await;
        let mut scripts = Vec::new();
        for id in 0..BURST {
            let script = SCRIPTS[random.below(SCRIPTS.len() as u64) as usize];
            let options = json!({"pty": random.below(2) == 0});
            wire.send(&json!({"type": "spawn", "id": id, "processType": "shell", "command": "bash",
                "args": ["-c", script], "options": options}))
                .await;
            scripts.push(script);
        }
        let mut answers = Vec::new();
        for _ in 0..random.below(BURST) {
            answers.push(wire.next_where(|message| !message["id"].is_null()).await);
        }
        for _ in 0..random.below(300) {
            tokio::task::yield_now().await;
        }
        Self { wire, scripts, answers }
    }

    /// Its init was killed: what was there before is lost with its sandbox, unless it had ended by itself; what came later is
    /// refused, or lost too, or runs in the next sandbox.
    async fn ends_with_its_sandbox(mut self, host: &str) {
        let before = self.answers.len();
        while self.answers.len() < self.scripts.len() {
            self.answers.push(self.wire.next_where(|message| !message["id"].is_null()).await);
        }
        for (index, answer) in
            self.answers.iter().enumerate().filter(|(_, answer)| answer["type"] == "spawned")
        {
            let script = self.scripts[answer["id"].as_u64().expect("an id") as usize];
            let pid = answer["pid"].as_u64().expect("a pid");
            let (short, known) = (script == SCRIPTS[0], index < before);
            if !short && !known {
                self.wire.send(&json!({"type": "kill", "pid": pid, "signal": "SIGKILL"})).await;
            }
            let exit = self.wire.run_to_exit(pid).await.2;
            let right = match exit["reason"].as_str() {
                Some("lost") => is_lost(&exit),
                Some("exited") => short && exit["code"] == 0,
                Some("killed") => !short && !known && exit["signal"] == "SIGKILL",
                _ => false,
            };
            assert!(right, "{host}: {script}, there before: {known}: {exit}");
        }
    }
}

async fn connect(server: &Server, victim: Victim) -> Wire {
    if matches!(victim, Victim::Bridge) {
        server.logged(std::time::Duration::from_secs(30), "\"generation\":2");
    }
    Wire::connect(server.address()).await
}

fn victim_of(server: &Server, victim: Victim) -> Pid {
    let bridge =
        || server.descendants().into_iter().find(|process| process.command.contains("mhnos-runtime bridge"));
    match victim {
        Victim::Keeper => Pid::from_raw(server.os_pid()).expect("a pid"),
        Victim::Bridge => Pid::from_raw(bridge().expect("a bridge").os_pid).expect("a pid"),
        Victim::Init => inits(server)[0],
    }
}
