//! Sandboxes come and go: the shared one, built before anybody asks and again if it is lost, and private
//! ones that end with their process.

use std::{rc::Rc, time::Instant};

use mhnos_sandbox::{Outlet, SpareGroups, Tier, enforcement, stage::Account};

use super::{Keeper, KeeperError, SHARED, Token, failure};
use crate::{
    channel::{Failure, FromKeeper, HOST_NETWORK, Isolation, Pid, Stage},
    choose::choose,
    held::{Held, Phase},
    inner::FromInit,
    sandboxes::Sandbox,
    socket::RecvError,
};

impl Keeper {
    /// Settles what sandboxes are here, and opens the shared one.
    pub(super) fn choose_tier(&mut self) -> Result<(), KeeperError> {
        let settings = &mut self.settings;
        let chosen = choose(
            &settings.policy,
            settings.cgroups.as_ref(),
            settings.limits,
            settings.floor,
            settings.reserve.take(),
        )
        .map_err(KeeperError::Sandbox)?;
        settings.policy = chosen.policy;
        settings.cgroups = chosen.cgroups;
        self.groups = settings.cgroups.clone().map(|cgroups| SpareGroups::new(cgroups, settings.limits));
        if settings.policy.tier == Tier::T3Plus {
            settings.bridge.files_as = Some(Account { uid: settings.policy.uid, gid: settings.policy.gid });
        }
        for missing in &chosen.missing {
            tracing::info!("a stronger sandbox cannot be had here: {missing}");
        }
        self.proxy = chosen.proxy.map(Rc::new);
        self.enforcement = enforcement(&self.settings.policy, self.settings.cgroups.is_some());
        self.watch(&chosen.sandbox.outbox, Token::Sandbox(SHARED))
            .map_err(|error| KeeperError::System("watch the sandbox", error))?;
        self.sandboxes.insert(SHARED, chosen.sandbox);
        self.spares.begin(Instant::now());
        Ok(())
    }

    pub(super) fn sandbox_for(&mut self, isolation: Isolation) -> Result<u32, Failure> {
        match isolation {
            Isolation::Shared if self.sandboxes.contains_key(&SHARED) => Ok(SHARED),
            Isolation::Shared => self.create_sandbox(SHARED),
            Isolation::Private => {
                let id = self.next_sandbox;
                let next = self.next_sandbox.wrapping_add(1);
                self.next_sandbox = if next == HOST_NETWORK { SHARED + 1 } else { next };
                self.create_sandbox(id)
            }
        }
    }

    pub(super) fn create_sandbox(&mut self, id: u32) -> Result<u32, Failure> {
        let sandbox =
            Sandbox::create(&self.settings.policy, self.settings.cgroups.is_some()).map_err(|error| {
                Failure { detail: "create the sandbox".into(), ..failure(Stage::Sandbox, &error) }
            })?;
        self.watch(&sandbox.outbox, Token::Sandbox(id)).map_err(|error| failure(Stage::Sandbox, &error))?;
        self.sandboxes.insert(id, sandbox);
        Ok(id)
    }

    pub(super) fn on_sandbox(&mut self, id: u32) {
        while let Some(sandbox) = self.sandboxes.get_mut(&id) {
            match sandbox.outbox.recv::<FromInit>() {
                Ok(received) => match received.message {
                    FromInit::Ready(kinds) => {
                        sandbox.stands(kinds, received.fds);
                        self.tell_network(id);
                    }
                    FromInit::SetupFailed(failure) => sandbox.failure = Some(failure),
                },
                Err(RecvError::WouldBlock) => return,
                Err(RecvError::Malformed(what)) => tracing::error!(id, what, "malformed report of init"),
                Err(RecvError::Closed | RecvError::Io(_)) => {
                    if id == SHARED {
                        tracing::warn!("the shared sandbox has ended; the next spawn builds it anew");
                    }
                    let failure = sandbox.failure.take();
                    if id == SHARED {
                        self.spares.clear();
                    }
                    self.close_sandbox(id);
                    self.held.values_mut().filter(|held| held.sandbox == id).for_each(Held::lose_sandbox);
                    if failure.is_none() {
                        return;
                    }
                    return self.refuse_starting(id, failure.as_ref());
                }
            }
        }
    }

    /// What an init that is gone has said of why it could not put up its walls.
    pub(super) fn died_of(&mut self, id: u32) -> Option<Failure> {
        let sandbox = self.sandboxes.get_mut(&id)?;
        // That may not have been read yet; it is the only thing such an init says.
        if let Ok(received) = sandbox.outbox.recv::<FromInit>()
            && let FromInit::SetupFailed(failure) = received.message
        {
            sandbox.failure = Some(failure);
        }
        sandbox.failure.clone()
    }

    /// Programs that were waiting for walls that could not be put up.
    pub(super) fn refuse_starting(&mut self, id: u32, failure: Option<&Failure>) {
        let starting = |held: &Held| held.sandbox == id && matches!(held.phase, Phase::Starting { .. });
        let waiting: Vec<Pid> =
            self.held.values().filter(|held| starting(held)).map(|held| held.pid).collect();
        for pid in waiting {
            self.held.remove(&pid);
            if let Some(failure) = failure.cloned() {
                self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
            }
        }
    }

    pub(super) fn close_private(&mut self, id: u32) {
        if id != SHARED {
            self.close_sandbox(id);
        }
    }

    fn close_sandbox(&mut self, id: u32) {
        if self.sandboxes.remove(&id).is_some_and(|sandbox| sandbox.has_network()) {
            self.tell(FromKeeper::NetworkGone { sandbox: id }, Vec::new());
        }
    }

    /// Tells the bridge of the proxy on the host's loopback, if programs need it.
    pub(super) fn tell_proxy(&mut self) {
        let Some(proxy) = &self.proxy else { return };
        let network =
            FromKeeper::Network { sandbox: HOST_NETWORK, process: None, outlets: vec![Outlet::Proxy] };
        let socket = proxy.clone();
        self.tell(network, vec![socket]);
    }

    /// Tells the bridge of a sandbox's network, if it has one of its own.
    pub(super) fn tell_network(&mut self, id: u32) {
        let Some(sandbox) = self.sandboxes.get(&id).filter(|sandbox| sandbox.has_network()) else { return };
        let process = self.held.values().find(|held| id != SHARED && held.sandbox == id);
        let (message, sockets) = sandbox.network(id, process.map(|held| held.pid));
        self.tell(message, sockets);
    }
}
