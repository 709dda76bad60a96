//! Random clients, programs, kills and dead bridges, against an oracle that knows every byte.
//!
//! Each step is one thing a client might do, or the death or replacement of the bridge. Every frame is checked as it comes: it
//! begins where the viewer was, and holds what the program must have written there and what other viewers saw there. In
//! between everything is brought to rest, and then all that must have come has come.
//!
//! `MHNOS_MODEL_SEED` repeats one run, `MHNOS_MODEL_RUNS` makes that many with seeds of their own (`make test-model`).

mod client;
mod oracle;
mod random;
mod rarities;

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use mhnos_testing::{Server, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use self::client::{Client, Closed, Oracles};
use self::oracle::{Kind, LOG_BYTES, Oracle};
use self::random::Random;
use crate::{options, requests::bridge};

/// Such floods in one run.
const STALLS: usize = 2;
/// Steps of one run, on one service.
const STEPS: usize = 500;
/// Seeds of an ordinary test run.
const SEEDS: [u64; 4] = [1, 2, 3, 4];
const CLIENTS: usize = 4;
/// Programs at once.
const PROGRAMS: usize = 8;
/// Bridges that may be killed in one run: each makes the next start a little later.
const KILLS: usize = 5;
/// For what takes milliseconds. Reached on failure only.
const SOON: Duration = Duration::from_secs(30);

struct Model {
    random: Random,
    server: Server,
    clients: Vec<Client>,
    oracles: Oracles,
    kills_left: usize,
    stalls_left: usize,
    bridges: usize,
}

#[tokio::test]
async fn every_byte_reaches_every_viewer_once_whatever_dies() {
    for seed in seeds() {
        println!("seed {seed}");
        let run = AssertUnwindSafe(run(seed)).catch_unwind().await;
        if let Err(panic) = run {
            eprintln!("MHNOS_MODEL_SEED={seed} repeats this");
            std::panic::resume_unwind(panic);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "how long a test runs is for whoever runs it")]
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("MHNOS_MODEL_SEED") {
        return vec![seed];
    }
    let Some(runs) = number("MHNOS_MODEL_RUNS") else { return SEEDS.to_vec() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    (now..now + runs).collect()
}

async fn run(seed: u64) {
    let server = Server::start(
        options().env("MHNOS_OUTPUT_LOG", LOG_BYTES.to_string()).env("MHNOS_LOG_LEVEL", "info"),
    );
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(Client::connect(&server, number % 2 == 1).await);
    }
    let mut model = Model {
        random: Random::new(seed),
        server,
        clients,
        oracles: Oracles::new(),
        kills_left: KILLS,
        stalls_left: STALLS,
        bridges: 1,
    };
    for _ in 0..STEPS {
        model.step().await;
    }
    model.finish().await;
}

impl Model {
    async fn step(&mut self) {
        for client in &mut self.clients {
            client.asleep = client.asleep.saturating_sub(1);
        }
        let who = self.random.pick(&self.awake()).expect("one is, always");
        let done = match self.random.below(100) {
            0..12 => self.spawn(who).await,
            12..42 => self.write(who).await,
            42..46 => self.resize(who).await,
            46..49 => {
                self.let_go();
                Ok(())
            }
            49..50 => self.stall(who).await,
            50..62 => self.attach(who).await,
            62..66 => self.detach(who).await,
            66..74 => self.sync(who).await,
            74..79 => self.close_stdin(who).await,
            79..84 => self.kill(who).await,
            84..93 => self.reconnect(who).await,
            93..96 => self.list(who).await,
            96..98 => {
                self.rest().await;
                Ok(())
            }
            _ => {
                self.replace_bridge().await;
                Ok(())
            }
        };
        let checked = self.check_gaps().await;
        if let Err(Closed) = done.and(checked) {
            panic!("a connection ended while its bridge lived");
        }
    }

    /// Who reads.
    fn awake(&self) -> Vec<usize> {
        (0..self.clients.len()).filter(|who| self.clients[*who].asleep == 0).collect()
    }

    fn running(&self) -> Vec<u64> {
        self.oracles
            .values()
            .filter(|oracle| oracle.exit.is_none() && !oracle.killed)
            .map(|oracle| oracle.pid)
            .collect()
    }

    async fn spawn(&mut self, who: usize) -> Result<(), Closed> {
        if self.running().len() >= PROGRAMS {
            return Ok(());
        }
        let flood = Kind::Flood(1 + self.random.below(60_000) as u64);
        let late = 1 + self.random.below(60_000) as u64;
        let lingering = Kind::Lingering(self.random.pick(&[0, late]).expect("there are two"));
        let kinds = [
            Kind::Count,
            Kind::Count,
            Kind::CountTwice,
            Kind::Echo,
            Kind::Foreign,
            Kind::Terminal,
            flood,
            lingering,
        ];
        let kind = self.random.pick(&kinds).expect("there are some");
        self.clients[who].spawn(kind, &mut self.oracles).await.map(drop)
    }

    async fn write(&mut self, who: usize) -> Result<(), Closed> {
        let Some(pid) = self.random.pick(&self.takers()) else { return Ok(()) };
        let amount = if self.random.one_in(12) { 8000 } else { 200 };
        self.write_to(who, pid, amount).await?;
        // What several connections write has no order among them, and the next may come from another.
        self.clients[who].acknowledged(&mut self.oracles).await
    }

    async fn write_to(&mut self, who: usize, pid: u64, most: usize) -> Result<(), Closed> {
        let amount = 1 + self.random.below(most) as u64;
        let oracle = self.oracles.get_mut(&pid).expect("it is there");
        let text = oracle.input(amount);
        let bytes = oracle.possible();
        if oracle.kind == Kind::Foreign {
            let cut = self.random.below(text.len());
            return self.clients[who].write_in_two(pid, &text, bytes, cut).await;
        }
        self.clients[who].write(pid, &text, bytes).await
    }

    /// Writes to a program that no other client is writing to.
    async fn write_without_waiting(&mut self, who: usize) {
        let takers: Vec<u64> =
            self.takers().into_iter().filter(|pid| *pid as usize % self.clients.len() == who).collect();
        if let Some(pid) = self.random.pick(&takers) {
            _ = self.write_to(who, pid, 200).await;
        }
    }

    fn takers(&self) -> Vec<u64> {
        self.oracles.values().filter(|oracle| oracle.takes_input()).map(|oracle| oracle.pid).collect()
    }

    async fn attach(&mut self, who: usize) -> Result<(), Closed> {
        let all: Vec<u64> = self.oracles.keys().copied().collect();
        let Some(pid) = self.random.pick(&all) else { return Ok(()) };
        let after = match self.random.below(3) {
            0 => 0,
            1 => self.random.below(self.oracles[&pid].known_to_be_there() + 1) as u64,
            _ => self.oracles[&pid].known_to_be_there() as u64,
        };
        if self.clients[who].attaching(pid) {
            return Ok(());
        }
        // After an exit the frames of an old view and a new one could not be told apart.
        if matches!(self.oracles[&pid].kind, Kind::Lingering(_)) {
            self.clients[who].detach(pid).await?;
            self.sync(who).await?;
        }
        self.clients[who].attach(pid, after).await
    }

    async fn detach(&mut self, who: usize) -> Result<(), Closed> {
        let viewed: Vec<u64> = self.clients[who].viewed().map(|(pid, ..)| pid).collect();
        let Some(pid) = self.random.pick(&viewed) else { return Ok(()) };
        self.clients[who].detach(pid).await?;
        self.sync(who).await
    }

    async fn sync(&mut self, who: usize) -> Result<(), Closed> {
        self.clients[who].sync(&mut self.oracles).await
    }

    async fn close_stdin(&mut self, who: usize) -> Result<(), Closed> {
        let takers: Vec<u64> = self
            .oracles
            .values()
            .filter(|oracle| oracle.takes_input() && oracle.kind != Kind::Terminal)
            .map(|oracle| oracle.pid)
            .collect();
        let Some(pid) = self.random.pick(&takers) else { return Ok(()) };
        self.oracles.get_mut(&pid).expect("just found").closed = true;
        self.clients[who].close_stdin(pid).await?;
        self.sync(who).await
    }

    async fn kill(&mut self, who: usize) -> Result<(), Closed> {
        // What has ended with somebody left changes no more in what is told of it.
        let left = |oracle: &&Oracle| oracle.lingers() == Some(0) && oracle.exit.is_some();
        let mut alive = self.running();
        alive.extend(self.oracles.values().filter(left).map(|oracle| oracle.pid));
        let Some(pid) = self.random.pick(&alive) else { return Ok(()) };
        let signal = self.random.pick(&["SIGTERM", "SIGKILL", "SIGHUP"]).expect("there are some");
        self.oracles.get_mut(&pid).expect("it runs").killed = true;
        self.clients[who].kill(pid, signal).await
    }

    async fn reconnect(&mut self, who: usize) -> Result<(), Closed> {
        // What it asked for last may or may not have been heard.
        self.sync(who).await?;
        let client = self.clients.remove(who);
        let client = client.resume(&self.server).await;
        self.clients.insert(who, client);
        Ok(())
    }

    async fn list(&mut self, who: usize) -> Result<(), Closed> {
        let list = self.clients[who].request(json!({"type": "list", "all": true}), &mut self.oracles).await?;
        let listed = list["processes"].as_array().expect("an array");
        assert_eq!(listed.len(), self.oracles.len(), "{list}");
        assert_eq!(list["stats"]["totalSpawned"], self.oracles.len(), "{list}");
        for process in listed {
            let oracle = &self.oracles[&process["pid"].as_u64().expect("a number")];
            assert!(process["seq"].as_u64() >= Some(oracle.known_to_be_there() as u64), "{process}");
            assert!(oracle.exit.is_none() || process["status"] == "exited", "{process}");
            let size = process["pty"]["cols"].as_u64().zip(process["pty"]["rows"].as_u64());
            assert!(oracle.size.is_none_or(|told| size == Some(told)), "{:?}: {process}", oracle.size);
        }
        Ok(())
    }

    /// The bridge dies, or is replaced on purpose; every client comes back.
    async fn replace_bridge(&mut self) {
        let old = eventually(SOON, "a bridge", || bridge(&self.server));
        let kill = self.kills_left > 0 && self.random.one_in(2);
        if kill {
            self.kills_left -= 1;
            if self.random.one_in(2) {
                for who in self.awake() {
                    self.sync(who).await.expect("the bridge still lives");
                }
            }
            // What is on its way may be lost with the bridge, but not in part and not twice.
            for who in self.awake() {
                self.write_without_waiting(who).await;
            }
            kill_process(old, Signal::KILL).expect("it is ours");
            self.oracles.values_mut().for_each(Oracle::bridge_was_killed);
        } else {
            self.server.signal(Signal::USR2);
        }
        self.bridges += 1;
        eventually(SOON, "another bridge", || bridge(&self.server).filter(|next| *next != old));
        for who in 0..self.clients.len() {
            let client = self.clients.remove(who);
            let client = client.resume(&self.server).await;
            self.clients.insert(who, client);
        }
        // A kill that was on its way to the old one is lost with it; whoever asked has had no answer, and asks again.
        let unanswered = self.oracles.iter().filter(|(_, oracle)| oracle.killed && oracle.exit.is_none());
        for pid in unanswered.map(|(pid, _)| *pid).collect::<Vec<_>>() {
            // It may have ended; its viewers hear of that in their own time.
            let kill = json!({"type": "kill", "pid": pid, "signal": "SIGKILL"});
            self.clients[0].request(kill, &mut self.oracles).await.expect("the bridge lives");
        }
    }

    /// Waits until everything that must come has come to everybody who views it.
    async fn rest(&mut self) {
        let begun = Instant::now();
        self.clients.iter_mut().for_each(|client| client.asleep = 0);
        loop {
            for who in 0..self.clients.len() {
                self.sync(who).await.expect("the bridge lives");
            }
            let behind: Vec<_> =
                self.clients.iter().flat_map(Client::viewed).filter(|view| self.behind(*view)).collect();
            if behind.is_empty() {
                return;
            }
            let oracle = &self.oracles[&behind[0].0];
            assert!(begun.elapsed() < SOON, "did not come to rest: {behind:?}, {oracle}");
        }
    }

    fn behind(&self, (pid, position, exited): (u64, u64, bool)) -> bool {
        let oracle = &self.oracles[&pid];
        (!exited && oracle.exit.is_some()) || !oracle.is_settled(position, exited)
    }

    fn summary(&self) -> String {
        let bytes: usize = self.oracles.values().map(Oracle::known_to_be_there).sum();
        let gaps: usize = self.clients.iter().map(|client| client.gaps).sum();
        let (programs, bridges) = (self.oracles.len(), self.bridges);
        format!("{programs} programs, {bytes} bytes, {gaps} gaps, {bridges} bridges")
    }

    /// Ends everything and looks at all of it once more.
    async fn finish(mut self) {
        for pid in self.running() {
            let oracle = self.oracles.get_mut(&pid).expect("it runs");
            let to_close = oracle.takes_input() && oracle.kind != Kind::Terminal;
            let asked = if to_close {
                oracle.closed = true;
                self.clients[0].close_stdin(pid).await
            } else {
                oracle.killed = true;
                self.clients[0].kill(pid, "SIGKILL").await
            };
            asked.expect("the bridge lives");
        }
        let lingering: Vec<u64> = self.oracles.keys().copied().collect();
        for pid in lingering {
            self.release(pid);
        }
        self.rest().await;
        let mut late = Client::connect(&self.server, false).await;
        for pid in self.oracles.keys() {
            late.attach(*pid, 0).await.expect("the bridge lives");
        }
        self.clients.push(late);
        self.rest().await;
        self.check_gaps().await.expect("the bridge lives");
        for oracle in self.oracles.values() {
            assert!(oracle.exit.is_some(), "{oracle} has no exit");
            oracle.check_streams().unwrap_or_else(|wrong| panic!("{oracle}: {wrong}"));
        }
        println!("{}", self.summary());
        drop(self.clients);
        let mut server = self.server;
        assert!(server.stop().success());
        server.assert_nothing_left();
    }
}
