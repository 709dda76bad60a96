//! The keeper's talk with the bridge: starting it, telling it, obeying it within bounds.

use std::time::Instant;

use mhnos_sandbox::sys;
use rustix::{
    event::epoll,
    net::{Shutdown, shutdown},
};

use super::{Keeper, KeeperError, Token};
use crate::{
    bridge::Bridge,
    channel::{FromKeeper, MAX_NOTE, Pid, Scope, ToKeeper, Welcome},
    held::{Held, Phase},
    inner::ToSupervisor,
    limits::BATCH,
    outbox::Attached,
    socket::RecvError,
};

impl Keeper {
    pub(super) fn start_bridge(&mut self) -> Result<(), KeeperError> {
        self.bridge_due = None;
        let bridge = Bridge::start(&self.settings.bridge)
            .map_err(|error| KeeperError::System("start the bridge", error))?;
        self.generation += 1;
        self.watch(&bridge.outbox, Token::Bridge)
            .map_err(|error| KeeperError::System("watch the bridge", error))?;
        self.bridge = Some(bridge);
        Ok(())
    }

    pub(super) fn bridge_ended(&mut self, status: Result<u8, i32>) {
        let Some(bridge) = self.bridge.take() else { return };
        if self.has_left() {
            self.bridge_due = Some(Instant::now());
            return;
        }
        if self.take_back_program(bridge.greeted) {
            tracing::error!(?status, "the new program does not work here; going back to the old one");
            self.bridge_due = Some(Instant::now());
            return;
        }
        if self.stopping.is_some() && !self.anything_runs() {
            self.finished = true;
            return;
        }
        if bridge.was_healthy() {
            self.bridge_failures = 0;
        }
        self.schedule_bridge(&format!("the bridge ended ({})", describe(status)));
    }

    /// Whether a drain has something left to do.
    fn anything_runs(&self) -> bool {
        self.held.values().any(|held| !matches!(held.phase, Phase::Ended { .. }))
    }

    /// Starts a bridge after a pause that grows with each one in a row that did not live long.
    fn schedule_bridge(&mut self, why: &str) {
        self.bridge_failures += 1;
        let pause = Bridge::backoff(self.bridge_failures - 1);
        let failures = self.bridge_failures;
        tracing::error!(failures, restart_in = ?pause, "{why}; processes go on");
        self.bridge_due = Some(Instant::now() + pause);
    }

    /// Tries again later if it fails: what runs must not end because there is no room for a bridge just now.
    pub(super) fn restart_bridge(&mut self) {
        if let Err(error) = self.start_bridge() {
            self.schedule_bridge(&format!("cannot start the bridge: {error}"));
        }
    }

    pub(super) fn tell(&mut self, message: FromKeeper, fds: Attached) {
        // A bridge that has not said hello yet will be told all by `greet`.
        if let Some(bridge) = &mut self.bridge
            && bridge.greeted
            && let Err(error) = bridge.outbox.send(message, fds)
        {
            // A bridge that cannot be told is ended; the next one is told everything.
            tracing::error!(%error, "the bridge does not listen");
            let _ = sys::kill(bridge.pid, libc::SIGKILL);
        }
    }

    pub(super) fn on_bridge(&mut self) {
        for _ in 0..BATCH {
            if !self.hear_bridge() {
                return;
            }
        }
    }

    /// What a bridge said before it died still counts: notes, signals, what is to be forgotten. All of it has
    /// taken effect before the next bridge is told anything. Of what comes only now, from a child of its own that has
    /// the channel, nothing is heard.
    pub(super) fn hear_last_words(&mut self) {
        if let Some(bridge) = &self.bridge {
            let _ = shutdown(&bridge.outbox, Shutdown::Read);
        }
        while self.hear_bridge() {}
    }

    /// Takes one message; false when there is none.
    fn hear_bridge(&mut self) -> bool {
        let Some(bridge) = &self.bridge else { return false };
        match bridge.outbox.recv::<ToKeeper>() {
            Ok(received) => self.obey(received.message),
            Err(RecvError::WouldBlock) => return false,
            Err(RecvError::Malformed(what)) => tracing::error!(what, "malformed message from the bridge"),
            Err(RecvError::Closed | RecvError::Io(_)) => {
                let pid = bridge.pid;
                let _ = epoll::delete(&self.epoll, &bridge.outbox);
                // It may have closed the channel and live on; the exit is then seen by `reap`.
                let _ = sys::kill(pid, libc::SIGKILL);
                return false;
            }
        }
        true
    }

    pub(super) fn obey(&mut self, message: ToKeeper) {
        match message {
            ToKeeper::Hello => self.greet(),
            ToKeeper::Spawn(order) => self.spawn(order),
            ToKeeper::Signal { pid, signal, scope } => {
                if (1..=64).contains(&signal)
                    && let Some(held) = self.held.get_mut(&pid)
                {
                    match (signal, scope) {
                        (libc::SIGKILL, Scope::Tree) => held.kill(),
                        _ => held.signal(signal, scope),
                    }
                }
            }
            ToKeeper::CloseStdin { pid } => {
                if let Some(held) = self.held.get_mut(&pid) {
                    held.close_stdin();
                }
            }
            ToKeeper::Note { pid, note } if note.len() <= MAX_NOTE => {
                if pid == 0 {
                    self.note = note;
                } else if let Some(held) = self.held.get_mut(&pid) {
                    held.note = note;
                }
            }
            ToKeeper::Note { pid, .. } => tracing::error!(pid, "a note over its bound"),
            ToKeeper::Forget { pid } => {
                if self.held.get(&pid).is_some_and(|held| matches!(held.phase, Phase::Ended { .. })) {
                    self.held.remove(&pid);
                }
            }
            ToKeeper::Members { pid } => {
                let asked = self.held.get_mut(&pid).and_then(Held::control);
                if asked.is_none_or(|control| control.send(ToSupervisor::Members, Vec::new()).is_err()) {
                    self.tell(FromKeeper::Members { pid, members: Vec::new() }, Vec::new());
                }
            }
            ToKeeper::Dial { pid, token, port } => self.dial(pid, token, port),
            ToKeeper::Drained => self.finished = self.stopping.is_some(),
        }
    }

    pub(super) fn greet(&mut self) {
        let Some(bridge) = &mut self.bridge else { return };
        if std::mem::replace(&mut bridge.greeted, true) {
            return;
        }
        self.ever_greeted = true;
        self.keep_program();
        let welcome = Welcome {
            generation: self.generation,
            started_ms: self.started_ms,
            enforcement: self.enforcement.clone(),
            note: self.note.clone(),
        };
        self.tell(FromKeeper::Welcome(welcome), Vec::new());
        self.tell_proxy();
        let sandboxes: Vec<u32> = self.sandboxes.keys().copied().collect();
        for id in sandboxes {
            self.tell_network(id);
        }
        let known: Vec<Pid> = self.held.keys().copied().collect();
        for pid in known {
            self.introduce(pid);
        }
        self.tell(FromKeeper::Adopted, Vec::new());
        if self.stopping.is_some() {
            self.tell(FromKeeper::Drain, Vec::new());
        }
        if let Some(on_ready) = self.settings.on_ready.take() {
            on_ready();
            if let Some(manager) = &mut self.settings.service_manager {
                manager.ready();
            }
        }
    }

    /// Tells the bridge of a process that another bridge has ordered.
    pub(super) fn introduce(&mut self, pid: Pid) {
        let Some(held) = self.held.get(&pid) else { return };
        if matches!(held.phase, Phase::Starting { .. }) {
            return self.tell(FromKeeper::Starting { pid }, Vec::new());
        }
        let (message, fds) = held.adoption();
        self.tell(message, fds);
    }
}

fn describe(status: Result<u8, i32>) -> String {
    match status {
        Ok(code) => format!("exit status {code}"),
        Err(signal) => format!("signal {signal}"),
    }
}
