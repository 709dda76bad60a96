//! The bridge is replaced on purpose: the old one is asked to leave, the new program is tried, and taken back
//! if it does not work.

use std::{os::fd::OwnedFd, time::Instant};

use mhnos_sandbox::sys;

use super::Keeper;
use crate::{
    channel::FromKeeper,
    limits::{HELLO_TIMEOUT, LEAVE_TIMEOUT},
};

/// How far a replacement is.
#[derive(Debug, Default)]
pub(super) struct Replacement {
    /// The old bridge has been asked to leave, until then.
    pub(super) leaving: Option<Instant>,
    /// The program to go back to, until a bridge of the new one has said hello.
    previous: Option<(OwnedFd, u32)>,
    /// The number of the newest program tried.
    tried: u32,
}

impl Keeper {
    /// Somebody wants the bridge replaced by the program that is now where this one was.
    pub(super) fn upgrade(&mut self) {
        if self.stopping.is_some() || self.replacement.leaving.is_some() {
            return tracing::warn!("no upgrade now: the service is stopping, or being upgraded already");
        }
        let program = match self.settings.bridge.place.open() {
            Ok(program) => program,
            Err(error) => {
                let uid = rustix::process::geteuid().as_raw();
                return tracing::error!(%error, uid, "cannot open the new program; the bridge stays");
            }
        };
        self.replacement.tried += 1;
        let command = &mut self.settings.bridge;
        let replaced = std::mem::replace(&mut command.program, program);
        let number = std::mem::replace(&mut command.number, self.replacement.tried);
        self.replacement.previous.get_or_insert((replaced, number));
        match &self.bridge {
            Some(bridge) => {
                tracing::info!("upgrading: the bridge is asked to leave");
                self.replacement.leaving = Some(Instant::now() + LEAVE_TIMEOUT);
                if bridge.greeted {
                    self.tell(FromKeeper::Leave, Vec::new());
                } else {
                    let _ = sys::kill(bridge.pid, libc::SIGKILL);
                }
            }
            None => self.bridge_due = Some(Instant::now()),
        }
    }

    /// The old bridge has had time enough.
    pub(super) fn end_slow_leave(&mut self, now: Instant) {
        if self.replacement.leaving.is_some_and(|deadline| deadline <= now)
            && let Some(bridge) = &self.bridge
        {
            tracing::warn!("the bridge did not leave in time; ending it");
            let _ = sys::kill(bridge.pid, libc::SIGKILL);
            self.replacement.leaving = Some(now + LEAVE_TIMEOUT);
        }
    }

    /// Until when the first bridge of a new program has to say hello.
    pub(super) fn hello_due(&self) -> Option<Instant> {
        let bridge = self.bridge.as_ref().filter(|bridge| !bridge.greeted)?;
        let first = self.replacement.leaving.is_none() && self.replacement.previous.is_some();
        first.then_some(bridge.hello_due)
    }

    /// The new program is no bridge, or none that works.
    pub(super) fn end_mute_bridge(&mut self, now: Instant) {
        if self.hello_due().is_some_and(|deadline| deadline <= now)
            && let Some(bridge) = &mut self.bridge
        {
            tracing::error!("the new program says nothing; ending it");
            let _ = sys::kill(bridge.pid, libc::SIGKILL);
            // Its end comes as a signal.
            bridge.hello_due = now + HELLO_TIMEOUT;
        }
    }

    /// Whether the bridge that ended had been asked to.
    pub(super) fn has_left(&mut self) -> bool {
        self.replacement.leaving.take().is_some()
    }

    /// Whether the bridge that ended was the first of a new program and never said hello: then the old program is
    /// back.
    pub(super) fn take_back_program(&mut self, greeted: bool) -> bool {
        let Some((program, number)) = self.replacement.previous.take_if(|_| !greeted) else { return false };
        self.settings.bridge.program = program;
        self.settings.bridge.number = number;
        true
    }

    /// A bridge of the present program has said hello.
    pub(super) fn keep_program(&mut self) {
        if self.replacement.leaving.is_none() && self.replacement.previous.take().is_some() {
            tracing::info!(generation = self.generation, "upgraded: the new bridge has taken over");
        }
    }
}
