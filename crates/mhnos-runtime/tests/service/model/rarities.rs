//! Steps that programs and clients take now and then: terminals change, descendants outlive their program and write, viewers
//! read nothing for a while. And what was told to be missing is compared with the log.

use std::time::Instant;

use serde_json::json;

use super::{
    Model, SOON,
    client::{Client, Closed},
    oracle::{Kind, Oracle, released},
};

/// Numbers of a flood that fills all buffers on its way to a client that reads nothing.
const FLOOD: u64 = 1_000_000;

impl Model {
    /// The latest size of a terminal wins, and everybody who views it is told.
    pub(super) async fn resize(&mut self, who: usize) -> Result<(), Closed> {
        let terminal =
            |oracle: &&Oracle| oracle.kind == Kind::Terminal && oracle.exit.is_none() && !oracle.killed;
        let terminals: Vec<u64> = self.oracles.values().filter(terminal).map(|oracle| oracle.pid).collect();
        let Some(pid) = self.random.pick(&terminals) else { return Ok(()) };
        let size = (1 + self.random.below(65_535) as u64, 1 + self.random.below(65_535) as u64);
        let views = |client: &Client| !client.attaching(pid) && client.viewed().any(|view| view.0 == pid);
        let told: Vec<usize> = self.awake().into_iter().filter(|who| views(&self.clients[*who])).collect();
        self.clients[who].resize(pid, size).await?;
        self.sync(who).await?;
        let begun = Instant::now();
        for who in told {
            while self.clients[who].size(pid) != Some(size) {
                assert!(begun.elapsed() < SOON, "{pid} has {size:?}, and a viewer was not told");
                self.sync(who).await?;
            }
        }
        Ok(())
    }

    /// A descendant of a program that has ended writes.
    pub(super) fn let_go(&mut self) {
        let lingers = |oracle: &&Oracle| oracle.lingers().is_some() && oracle.exit.is_some();
        let all: Vec<u64> = self.oracles.values().filter(lingers).map(|oracle| oracle.pid).collect();
        if let Some(pid) = self.random.pick(&all) {
            self.release(pid);
        }
    }

    pub(super) fn release(&mut self, pid: u64) {
        let oracle = self.oracles.get_mut(&pid).expect("it lingers");
        if let Some(count) = oracle.lingers() {
            oracle.let_go(count);
            self.server.write(&released(oracle.number), "");
        }
    }

    /// A client views a flood, and reads nothing for a while: neither that nor anything else it views.
    pub(super) async fn stall(&mut self, who: usize) -> Result<(), Closed> {
        let others: Vec<usize> = self.awake().into_iter().filter(|other| *other != who).collect();
        let Some(other) = self.random.pick(&others).filter(|_| self.stalls_left > 0) else { return Ok(()) };
        self.stalls_left -= 1;
        let pid = self.clients[other].spawn(Kind::Flood(FLOOD), &mut self.oracles).await?;
        self.clients[who].attach(pid, 0).await?;
        self.sync(who).await?;
        self.clients[who].asleep = 5 + self.random.below(20);
        Ok(())
    }

    /// Nothing is said to be missing that the log holds.
    pub(super) async fn check_gaps(&mut self) -> Result<(), Closed> {
        for who in self.awake() {
            while !self.clients[who].unchecked.is_empty() {
                let gaps = std::mem::take(&mut self.clients[who].unchecked);
                let list = self.clients[who]
                    .request(json!({"type": "list", "all": true}), &mut self.oracles)
                    .await?;
                let listed = list["processes"].as_array().expect("an array");
                for (pid, from, to) in gaps {
                    let process = listed.iter().find(|process| process["pid"] == pid).expect("retained");
                    let end = process["seq"].as_u64().expect("a position");
                    let checked = self.oracles[&pid].check_gap(from, to, end);
                    checked.unwrap_or_else(|wrong| panic!("process {pid}: {wrong}"));
                }
            }
        }
        Ok(())
    }
}
