//! From a destination to a connection: admitted, resolved, every address judged, and one that was judged connected.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    address,
    gateway::{Gateway, Way},
    limits::NEXT_ADDRESS,
    policy::RuleName,
    target::{Host, Target},
    upstream::{Declined, Upstream, tunnel},
};

/// The operator's proxy itself: whoever speaks to that one is past the policy.
const UPSTREAM: RuleName = RuleName("upstream");

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum DialError {
    /// A rule forbids it.
    Refused(RuleName),
    /// The name has no address.
    NoSuchName,
    /// It could not be resolved or connected to in time.
    TimedOut,
    /// The last address's answer.
    Unreachable(io::Error),
    /// The operator's proxy does not connect, or cannot be reached.
    Upstream(Declined),
}

/// What the connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Bytes both ways.
    Bytes,
    /// One plain request, which the operator's proxy takes as it is.
    Request,
}

/// A connection to the outside.
#[derive(Debug)]
pub(crate) struct Reached<S = TcpStream> {
    pub(crate) stream: S,
    /// It ends at the operator's proxy, which wants the request's whole URL.
    pub(crate) whole_url: bool,
}

/// The way to a destination that may be reached.
enum Route {
    Direct(Vec<IpAddr>),
    /// With the addresses that this machine knows of.
    Upstream(Vec<IpAddr>),
}

/// Connects.
///
/// # Cancel safety
/// Attempts end.
pub(crate) async fn dial(way: &Way, target: &Target, purpose: Purpose) -> Result<Reached, DialError> {
    let gateway = &*way.gateway;
    gateway.egress.admit(target).map_err(DialError::Refused)?;
    let found = match &target.host {
        Host::Address(address) => Ok(vec![*address]),
        Host::Name(name) => resolve(way, name).await,
    };
    let reached = match (route(gateway, target, found)?, &gateway.upstream) {
        (Route::Upstream(known), Some(upstream)) => {
            timeout(gateway.bounds.connect, through(way, upstream, target, &known, purpose)).await
        }
        (Route::Upstream(_), None) => return Err(DialError::NoSuchName),
        (Route::Direct(allowed), _) => timeout(gateway.bounds.connect, directly(way, target, &allowed)).await,
    };
    reached.map_err(|_| DialError::TimedOut)?
}

async fn resolve(way: &Way, name: &str) -> Result<Vec<IpAddr>, DialError> {
    let resolved = async {
        let place = Arc::clone(&way.resolving).acquire_owned().await.map_err(io::Error::other)?;
        way.gateway.resolver.resolve(name, place).await
    };
    match timeout(way.gateway.bounds.resolve, resolved).await {
        Err(_) => Err(DialError::TimedOut),
        // Nobody has been asked, so nothing is known of the name.
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(DialError::TimedOut),
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(_) => Err(DialError::NoSuchName),
    }
}

/// Judges. With a proxy of the operator's, a name this machine has no address for is judged as a name, and one that it
/// has must have no address that is out of reach, since which of them is taken is for the proxy to say. One whose resolution takes too
/// long is no such name: whoever can slow the resolver down must not gain by it.
fn route(
    gateway: &Gateway,
    target: &Target,
    found: Result<Vec<IpAddr>, DialError>,
) -> Result<Route, DialError> {
    let Some(upstream) = &gateway.upstream else {
        return Ok(Route::Direct(judged(gateway, target, found?)?));
    };
    if (upstream.host(), upstream.port()) == (&target.host, target.port) {
        return Err(DialError::Refused(UPSTREAM));
    }
    match found {
        Err(DialError::NoSuchName) => {
            gateway.egress.judge_name(target, &gateway.machine).map_err(DialError::Refused)?;
            Ok(Route::Upstream(Vec::new()))
        }
        Err(error) => Err(error),
        Ok(addresses) => {
            for address in &addresses {
                gateway.egress.judge(target, *address, &gateway.machine).map_err(DialError::Refused)?;
            }
            let inside = |address: &IpAddr| gateway.machine.is_inside(*address);
            let plain = addresses.into_iter().map(address::plain);
            let (inside, public): (Vec<_>, Vec<_>) = plain.partition(inside);
            Ok(if public.is_empty() { Route::Direct(inside) } else { Route::Upstream(public) })
        }
    }
}

/// A connection to one of the addresses, none of them the operator's proxy: what opens its network does not open what it leads to.
async fn directly(way: &Way, target: &Target, allowed: &[IpAddr]) -> Result<Reached, DialError> {
    let gateway = &way.gateway;
    if let Some(upstream) = gateway.upstream.as_ref().filter(|upstream| upstream.port() == target.port) {
        is_none_of(&addresses(way, upstream).await?, allowed)?;
    }
    let stream = connect(target.port, allowed, &gateway.descriptors).await;
    Ok(Reached { stream: stream.map_err(DialError::Unreachable)?, whole_url: false })
}

/// A connection by way of the operator's proxy.
async fn through(
    way: &Way,
    upstream: &Upstream,
    target: &Target,
    known: &[IpAddr],
    purpose: Purpose,
) -> Result<Reached, DialError> {
    let addresses = addresses(way, upstream).await?;
    if target.port == upstream.port() {
        is_none_of(&addresses, known)?;
    }
    let mut stream = connect(upstream.port(), &addresses, &way.gateway.descriptors).await.map_err(broken)?;
    if purpose == Purpose::Bytes {
        tunnel(&mut stream, target).await.map_err(DialError::Upstream)?;
    }
    Ok(Reached { stream, whole_url: purpose == Purpose::Request })
}

/// Where the operator's proxy is.
async fn addresses(way: &Way, upstream: &Upstream) -> Result<Vec<IpAddr>, DialError> {
    match upstream.host() {
        Host::Address(address) => Ok(vec![*address]),
        Host::Name(name) => resolve(way, name).await.map_err(|_| broken(io::ErrorKind::NotFound.into())),
    }
}

fn broken(error: io::Error) -> DialError {
    DialError::Upstream(Declined::Broken(error))
}

/// The operator's proxy is not what is asked for, in whatever form its address is written.
fn is_none_of(upstream: &[IpAddr], asked: &[IpAddr]) -> Result<(), DialError> {
    let is_upstream =
        |asked: &IpAddr| upstream.iter().any(|own| address::reached(*own) == address::reached(*asked));
    if asked.iter().any(is_upstream) { Err(DialError::Refused(UPSTREAM)) } else { Ok(()) }
}

/// The addresses that may be connected to. If there is none, the rule that refuses the first.
fn judged(gateway: &Gateway, target: &Target, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, DialError> {
    let mut refused = None;
    let mut allowed = Vec::new();
    for address in addresses {
        match gateway.egress.judge(target, address, &gateway.machine) {
            Ok(()) => allowed.push(address::plain(address)),
            Err(rule) => _ = refused.get_or_insert(rule),
        }
    }
    match refused {
        Some(rule) if allowed.is_empty() => Err(DialError::Refused(rule)),
        _ if allowed.is_empty() => Err(DialError::NoSuchName),
        _ => Ok(allowed),
    }
}

/// The first of the addresses that answers, one tried after the other, families in turn (RFC 8305). One attempt has
/// its descriptor; another beside it is made if there is one to `spare`.
async fn connect(port: u16, addresses: &[IpAddr], spare: &Semaphore) -> io::Result<TcpStream> {
    let mut waiting = in_turn(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        let ended = waiting.len() == 0;
        let beside = if attempts.is_empty() { None } else { spare.try_acquire().ok() };
        if attempts.is_empty() || beside.is_some() {
            attempts.extend(waiting.next().map(|address| async move {
                let _until_it_has_ended = beside;
                TcpStream::connect(SocketAddr::new(address, port)).await
            }));
        }
        if attempts.is_empty() {
            return Err(last);
        }
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            },
            () = sleep(NEXT_ADDRESS), if !ended => {}
        }
    }
}

/// As they came, but each of another family than the one before, as long as there are two.
fn in_turn(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_is_v4 = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (first, second): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.iter().partition(|address| address.is_ipv4() == first_is_v4);
    let mut second = second.into_iter();
    let mut all = Vec::with_capacity(addresses.len());
    for address in first {
        all.push(address);
        all.extend(second.next());
    }
    all.extend(second);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_tried_in_turn() {
        let parsed = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().expect("an address")).collect()
        };
        let given = parsed(&["2a00::1", "2a00::2", "2a00::3", "1.1.1.1"]);
        assert_eq!(in_turn(&given), parsed(&["2a00::1", "1.1.1.1", "2a00::2", "2a00::3"]));
        let given = parsed(&["1.1.1.1", "2a00::1", "2a00::2"]);
        assert_eq!(in_turn(&given), given);
        assert_eq!(in_turn(&[]), Vec::<IpAddr>::new());
    }

    #[tokio::test]
    async fn an_address_that_refuses_makes_way_for_the_next() {
        let listener = std::net::TcpListener::bind("127.0.0.2:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let addresses = ["127.0.0.3", "127.0.0.2"].map(|text| text.parse().expect("an address"));
        let spare = Semaphore::new(0);
        let stream = connect(port, &addresses, &spare).await.expect("a connection");
        assert_eq!(stream.peer_addr().expect("address").ip(), addresses[1]);
        assert!(connect(port, &addresses[..1], &spare).await.is_err());
    }

    /// An address that never answers, and one that does.
    #[tokio::test]
    async fn an_attempt_beside_another_takes_a_descriptor_that_is_to_spare_and_gives_it_back() {
        let full = std::net::TcpListener::bind("127.0.0.4:0").expect("bind");
        let port = full.local_addr().expect("address").port();
        let good = std::net::TcpListener::bind(("127.0.0.5", port)).expect("bind");
        // Nobody accepts here: what comes when its queue is full waits.
        let mut queue = Vec::new();
        let silent = async {
            loop {
                match timeout(NEXT_ADDRESS, TcpStream::connect(full.local_addr().expect("address"))).await {
                    Ok(stream) => queue.push(stream),
                    Err(_) => return,
                }
            }
        };
        rustix::net::listen(&full, 0).expect("a queue of one");
        silent.await;
        let addresses = ["127.0.0.4", "127.0.0.5"].map(|text| text.parse().expect("an address"));
        let none = Semaphore::new(0);
        assert!(timeout(4 * NEXT_ADDRESS, connect(port, &addresses, &none)).await.is_err(), "none to spare");
        let one = Semaphore::new(1);
        let stream = connect(port, &addresses, &one).await.expect("the second");
        assert_eq!((stream.peer_addr().expect("address").ip(), one.available_permits()), (addresses[1], 1));
        drop(good);
    }
}
