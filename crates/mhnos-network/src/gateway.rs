//! The way out of one sandbox: its sockets, accepted on and served.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{
    address, captured,
    dial::{DialError, Purpose, Reached, dial},
    dns::{self, Answer},
    limits::{ACCEPT_PAUSE, Bounds, DESCRIPTORS, MAX_QUESTION, OF_A_CONNECTION, RESOLVING_OF_ONE},
    names::{self, Names},
    pace::{Pace, Paced},
    policy::{Egress, Machine, RuleName},
    proxy,
    report::{Refusals, Refused, Reporter, Told, Via},
    resolve::{Resolver, SystemResolver},
    target::{Host, Target},
    upstream::Upstream,
};

/// Whose sandbox it is: a process with one of its own, or nobody in particular.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner(pub Option<u32>);

/// What all sandboxes share.
pub struct Gateway {
    pub(crate) egress: Egress,
    pub(crate) machine: Machine,
    pub(crate) resolver: Box<dyn Resolver>,
    pub(crate) bounds: Bounds,
    pub(crate) upstream: Option<Upstream>,
    /// What connections may take of the process's descriptors, those of all sandboxes together.
    pub(crate) descriptors: Arc<Semaphore>,
    room: Option<Room>,
    /// Bytes a second of one sandbox; 0 is no bound.
    rate: u64,
    bridge: u32,
    reporter: Reporter,
}

/// The sockets of one sandbox.
#[derive(Debug, Default)]
pub struct Outlets {
    /// Programs ask for a proxy here, HTTP or SOCKS.
    pub proxy: Vec<TcpListener>,
    /// Connections to any address.
    pub captured: Vec<TcpListener>,
    /// Questions for names.
    pub names_udp: Vec<UdpSocket>,
    /// Such that do not fit a datagram.
    pub names_tcp: Vec<TcpListener>,
    /// Who may connect, where others than the sandbox's programs can; `None` for all.
    pub admits: Option<Admits>,
}

/// Whether the maker of a connection may use it: of a connection's own address and the other end's.
#[derive(Clone)]
pub struct Admits(pub Arc<dyn Fn(SocketAddr, SocketAddr) -> bool + Send + Sync>);

impl fmt::Debug for Admits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admits")
    }
}

/// Whether the process has room for another connection.
#[derive(Clone)]
pub struct Room(pub Arc<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room")
    }
}

impl Gateway {
    /// `ports` are those the service itself listens on.
    pub fn new(egress: Egress, ports: Vec<u16>) -> Self {
        Self {
            egress,
            machine: Machine { ports, is_own: address::is_own },
            resolver: Box::new(SystemResolver::default()),
            bounds: Bounds::default(),
            upstream: None,
            descriptors: Arc::new(Semaphore::new(DESCRIPTORS)),
            room: None,
            rate: 0,
            bridge: 0,
            reporter: Reporter::default(),
        }
    }

    /// What is public is reached through this proxy.
    #[must_use]
    pub fn through(mut self, upstream: Option<Upstream>) -> Self {
        self.upstream = upstream;
        self
    }

    /// All sandboxes together take so many descriptors at most, and never more than [`DESCRIPTORS`].
    #[must_use]
    pub fn within(mut self, descriptors: usize) -> Self {
        self.descriptors = Arc::new(Semaphore::new(descriptors.min(DESCRIPTORS)));
        self
    }

    /// Connections are taken while there is room in the process for more of anything.
    #[must_use]
    pub fn in_room(mut self, room: Room) -> Self {
        self.room = Some(room);
        self
    }

    /// A sandbox moves this many bytes a second, both directions together; 0 is no bound.
    #[must_use]
    pub fn at_most(mut self, rate: u64) -> Self {
        self.rate = rate;
        self
    }

    /// Which of its keeper's bridges this is: the next one's names have other addresses.
    #[must_use]
    pub fn of_bridge(mut self, generation: u32) -> Self {
        self.bridge = generation;
        self
    }

    /// With another resolver and other bounds: for tests.
    #[must_use]
    pub fn with(mut self, resolver: Box<dyn Resolver>, bounds: Bounds) -> Self {
        self.resolver = resolver;
        self.bounds = bounds;
        self
    }

    /// Refusals from now on.
    pub fn refusals(&self) -> Refusals {
        self.reporter.subscribe()
    }

    /// Serves one sandbox for as long as it is polled.
    ///
    /// # Cancel safety
    /// All its connections break, and its sockets are closed.
    pub async fn serve(self: &Arc<Self>, owner: Owner, outlets: Outlets) {
        let way = Arc::new(Way {
            gateway: Arc::clone(self),
            owner,
            names: Mutex::new(Names::new(self.bounds.names, self.bridge)),
            places: Arc::new(Semaphore::new(self.bounds.connections)),
            resolving: Arc::new(Semaphore::new(RESOLVING_OF_ONE)),
            pace: Arc::new(Pace::new(self.rate)),
            admits: outlets.admits,
            told: Mutex::default(),
        });
        let Outlets { proxy, captured, names_udp, names_tcp, admits: _ } = outlets;
        let accepting = [(Role::Proxy, proxy), (Role::Captured, captured), (Role::Names, names_tcp)];
        let accepting = accepting
            .into_iter()
            .flat_map(|(role, listeners)| listeners.into_iter().map(move |listener| (role, listener)))
            .map(|(role, listener)| accept(listener, role, &way));
        let answering = names_udp.into_iter().map(|socket| answer_datagrams(socket, &way));
        tokio::join!(join_all(accepting.collect::<Vec<_>>()), join_all(answering.collect::<Vec<_>>()));
    }
}

/// The way out of one sandbox.
pub(crate) struct Way {
    pub(crate) gateway: Arc<Gateway>,
    owner: Owner,
    names: Mutex<Names>,
    places: Arc<Semaphore>,
    /// Places for names being resolved.
    pub(crate) resolving: Arc<Semaphore>,
    pace: Arc<Pace>,
    admits: Option<Admits>,
    told: Mutex<Told>,
}

/// A sandbox has as many connections as it may have, or all together have.
const TOO_MANY: RuleName = RuleName("connections");

#[derive(Clone, Copy, Debug)]
enum Role {
    Proxy,
    Captured,
    Names,
}

impl Way {
    /// Connects for bytes both ways; a refusal is told.
    pub(crate) async fn dial(&self, target: &Target, via: Via) -> Result<Paced, DialError> {
        self.reach(target, Purpose::Bytes, via).await.map(|reached| reached.stream)
    }

    /// Connects; a refusal is told.
    pub(crate) async fn reach(
        &self,
        target: &Target,
        purpose: Purpose,
        via: Via,
    ) -> Result<Reached<Paced>, DialError> {
        let named = self.named(target);
        let target = named.as_ref().unwrap_or(target);
        let outcome = dial(self, target, purpose).await;
        match &outcome {
            Ok(reached) => _ = reached.stream.set_nodelay(true),
            Err(DialError::Refused(rule)) => {
                self.refused(target.host.to_string(), Some(target.port), *rule, via);
            }
            Err(error) => debug!(%target, ?error, "no connection to the outside"),
        }
        let Reached { stream, whole_url } = outcome?;
        Ok(Reached { stream: Paced::new(stream, Arc::clone(&self.pace)), whole_url })
    }

    /// The name behind an address of ours: some ask for the address themselves and then the proxy for it (`curl --socks5`).
    fn named(&self, target: &Target) -> Option<Target> {
        let Host::Address(address) = &target.host else { return None };
        let name = self.names().name(names::number(*address)?)?.to_owned();
        Some(Target { host: Host::Name(name), port: target.port })
    }

    /// There is no place for a connection. Who asks a proxy has not said for what yet: the proxy is what is told.
    fn turned_away(&self, stream: &TcpStream, role: Role) {
        let Ok((address, port)) = wanted(stream) else { return };
        let named = Target::parse(&address.to_string(), port).and_then(|target| self.named(&target));
        let host = named.map_or_else(|| address.to_string(), |target| target.host.to_string());
        let (port, via) = match role {
            Role::Proxy => (Some(port), Via::Proxy),
            Role::Captured => (Some(port), Via::Connection),
            Role::Names => (None, Via::Name),
        };
        self.refused(host, port, TOO_MANY, via);
    }

    /// One of the sandbox's connections and what it takes of the process, until it is dropped.
    fn place(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        if self.gateway.room.as_ref().is_some_and(|Room(is_left)| !is_left()) {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let descriptors =
            Arc::clone(&self.gateway.descriptors).try_acquire_many_owned(OF_A_CONNECTION).ok()?;
        Some((place, descriptors))
    }

    fn lets_in(&self, stream: &TcpStream, peer: SocketAddr) -> bool {
        let Some(Admits(admits)) = &self.admits else { return true };
        stream.local_addr().is_ok_and(|own| admits(own, peer))
    }

    pub(crate) fn refused(&self, host: String, port: Option<u16>, rule: RuleName, via: Via) {
        let refused = Refused { owner: self.owner, host, port, rule: rule.0, via, count: 1, others: 0 };
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).admit(refused, Instant::now());
        if let Some(refused) = told {
            self.gateway.reporter.tell(refused);
        }
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a question for a name; `None` if it deserves none.
    fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let question = match dns::parse(message) {
            Ok(question) => question,
            Err(answer) => return answer,
        };
        let answer = match &question.name {
            None => Answer::NoSuchName,
            Some(name) if name == "localhost" || name.ends_with(".localhost") => Answer::Localhost,
            // Questions for the names of addresses: ours have none, and others are nobody's business.
            Some(name) if name.rsplit('.').next() == Some("arpa") => Answer::NoSuchName,
            Some(name) if self.gateway.egress.knows(name) => Answer::Number(self.names().number(name)),
            Some(name) => {
                let rule = self.gateway.egress.unknown();
                self.refused(name.clone(), None, rule, Via::Name);
                Answer::Refused
            }
        };
        Some(question.answer(answer))
    }
}

async fn accept(listener: TcpListener, role: Role, way: &Arc<Way>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) if !way.lets_in(&stream, peer) => {
                debug!(%peer, "a connection to the proxy that no program made");
                reset(&stream);
            }
            Ok((stream, peer)) => {
                let Some(place) = way.place() else {
                    way.turned_away(&stream, role);
                    reset(&stream);
                    continue;
                };
                let way = Arc::clone(way);
                connections.spawn(async move {
                    attend(stream, peer, role, &way).await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept connections of programs for now");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn attend(stream: TcpStream, peer: SocketAddr, role: Role, way: &Arc<Way>) {
    _ = stream.set_nodelay(true);
    let outcome = match role {
        Role::Proxy => proxy::serve(stream, way).await,
        Role::Captured => captured::serve(stream, way).await,
        Role::Names => answer_connection(stream, way).await,
    };
    if let Err(error) = outcome {
        debug!(%peer, ?role, %error, "a program's connection ended");
    }
}

async fn answer_datagrams(socket: UdpSocket, way: &Way) {
    let mut message = vec![0; MAX_QUESTION];
    loop {
        match socket.recv_from(&mut message).await {
            Ok((length, peer)) => {
                if let Some(answer) = way.answer(&message[..length]) {
                    // A peer that is gone, or has no room, asks again.
                    _ = socket.try_send_to(&answer, peer);
                }
            }
            // An earlier answer found nobody.
            Err(error) => debug!(%error, "cannot receive a question for a name"),
        }
    }
}

/// Questions over a connection, one after the other, each with its length (RFC 1035, 4.2.2).
async fn answer_connection(mut stream: TcpStream, way: &Way) -> io::Result<()> {
    loop {
        let question = timeout(way.gateway.bounds.ask, async {
            let length = usize::from(stream.read_u16().await?);
            if length > MAX_QUESTION {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            let mut message = vec![0; length];
            stream.read_exact(&mut message).await?;
            Ok(message)
        });
        let message = question.await.map_err(io::Error::from)??;
        let Some(answer) = way.answer(&message) else { return Ok(()) };
        stream.write_u16(answer.len() as u16).await?;
        stream.write_all(&answer).await?;
    }
}

/// Closes a connection so that the other end notices: not as an end, but as a failure.
pub(crate) fn reset(stream: &TcpStream) {
    _ = stream.set_zero_linger();
}

/// Errors of accept(2) that concern one connection and not the listening socket.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The address a connection was made to, which on a caught port is the one the program wanted.
pub(crate) fn wanted(stream: &TcpStream) -> io::Result<(IpAddr, u16)> {
    let address = stream.local_addr()?;
    Ok((address::plain(address.ip()), address.port()))
}
