//! Previews: what a process serves on a TCP port, for a browser, on the service's own port.
//!
//! A preview has a host name of its own, `p<pid>-<port>.<domain>`, and so an origin of its own: browsers keep its
//! cookies, storage and service workers from those of every other preview and of the pages that may use the service.
//! Where a token is asked for, the name ends with the process's key, which nobody can guess: knowing it is being
//! let in.
//!
//! A request's way: `name` recognises it, `judge` keeps strangers' pages out, `exchange` finds or makes a connection
//! to the process and passes head and bodies on as they come, `headers` rewrites what is between two hops or names
//! the preview, `page` is what a person sees where there is nothing to see.

mod body;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod headers;
mod judge;
mod name;
mod page;
mod patience;
mod port_events;
mod tunnel;
mod turns;

use std::{
    net::SocketAddr,
    sync::{Arc, Once},
};

use hyper::{HeaderMap, Request, Response, body::Incoming, header};
use mhnos_process::{Pid, Process, Processes};
use mhnos_protocol as wire;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    descriptors::Descriptors,
    door::{Door, Shown, Tokens},
    limits::{MAX_PREVIEW_CONNECTIONS, MAX_PREVIEWS_CONNECTIONS},
    places::Places,
};
pub(crate) use body::Body;
pub(crate) use exchange::Exchanges;
pub(crate) use name::Base;
pub(crate) use name::Name;
pub(crate) use patience::Patience;
pub(crate) use port_events::PortEvents;

/// What all previews share.
#[derive(Debug)]
pub(crate) struct Previews {
    /// Their names end with this.
    domain: String,
    /// The service's own tokens, where it asks for one: then names hold the process's key.
    tokens: Option<watch::Receiver<Arc<Tokens>>>,
    processes: Processes,
    door: Door,
    places: Arc<Places<Pid>>,
    room: Descriptors,
    /// Who may show a preview in a frame, as `frame-ancestors` says it.
    framers: header::HeaderValue,
    /// That one was asked for in a way that does not say whose page asks has been told.
    warned: Once,
}

/// What of a connection a preview is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    /// It speaks TLS with this service.
    pub(crate) secure: bool,
}

impl Previews {
    pub(crate) fn new(
        domain: String,
        tokens: Option<watch::Receiver<Arc<Tokens>>>,
        processes: Processes,
        door: Door,
        room: Descriptors,
    ) -> Self {
        let framers = headers::framers(door.framers());
        Self {
            domain,
            tokens,
            processes,
            door,
            places: Places::new(MAX_PREVIEWS_CONNECTIONS, MAX_PREVIEW_CONNECTIONS),
            room,
            framers,
            warned: Once::new(),
        }
    }

    /// Whether it needs a key to see a preview.
    pub(crate) fn is_keyed(&self) -> bool {
        self.tokens.is_some()
    }

    /// The preview that a request is for, by its Host.
    pub(crate) fn addressed<B>(&self, request: &Request<B>) -> Option<Name> {
        Name::of(request.headers(), &self.domain)
    }

    /// Answers a request for a preview; `turn_away` is told why of one that may not reach it.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        name: &Name,
        request: Request<Incoming>,
        client: Client,
        exchanges: &Exchanges,
        turn_away: impl Fn(&str),
    ) -> Response<Body> {
        self.warn_of_plain_http(request.headers(), client);
        exchanges.answer(self, name, request, client, turn_away).await
    }

    /// Browsers say whose page a request comes from (Sec-Fetch-Site) by HTTPS and to names of this machine alone. Who
    /// speaks TLS for us is not known before it does.
    fn warn_of_plain_http(&self, headers: &HeaderMap, client: Client) {
        let own = self.domain == "localhost" || self.domain.ends_with(".localhost");
        if own || client.secure || name::is_forwarded_secure(headers) {
            return;
        }
        self.warned.call_once(|| {
            warn!(
                domain = self.domain,
                "previews are asked for by plain HTTP (MHNOS_PREVIEW_DOMAIN): browsers do not say then whose page \
                 asks, and one preview can ask another with its cookies. Set MHNOS_TLS_CERT, or have the proxy in \
                 front speak TLS and say so (X-Forwarded-Proto: https)"
            );
        });
    }

    /// Where a browser reaches what a process listens on.
    pub(crate) fn url(&self, base: Base, process: &Process, port: u16) -> String {
        let key = self.is_keyed().then(|| process.key());
        base.url(&Name { pid: process.pid(), port, key }, &self.domain)
    }

    /// The ports of one process, each once.
    pub(crate) fn ports(&self, base: Base, process: &Process) -> Vec<wire::OpenPort> {
        let mut ports: Vec<u16> = process.ports().iter().map(|port| port.port).collect();
        ports.dedup();
        let open = |port| wire::OpenPort { pid: process.pid(), port, url: self.url(base, process, port) };
        ports.into_iter().map(open).collect()
    }

    /// Takes out what was meant for the service alone.
    fn keep_secrets(&self, headers: &mut HeaderMap) {
        let Some(tokens) = &self.tokens else { return };
        let shown: Vec<&[u8]> =
            headers.get_all(header::AUTHORIZATION).iter().map(header::HeaderValue::as_bytes).collect();
        if let Shown::Token(token) = Shown::of(&shown, std::iter::empty())
            && tokens.borrow().find(token).is_some()
        {
            headers.remove(header::AUTHORIZATION);
        }
    }

    /// The process a name is for, unless it has ended, or the key is not its own.
    fn process(&self, name: &Name) -> Option<Arc<Process>> {
        let process = self.processes.get(name.pid)?;
        let alive = process.exit().is_none() || process.lingers();
        let key = self.is_keyed().then(|| process.key());
        (alive && same(key.as_deref(), name.key.as_deref())).then_some(process)
    }
}

/// Compares in a time that tells nothing of where they differ.
fn same(expected: Option<&str>, given: Option<&str>) -> bool {
    match (expected, given) {
        (None, None) => true,
        (Some(expected), Some(given)) if expected.len() == given.len() => {
            expected.bytes().zip(given.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
        }
        _ => false,
    }
}
