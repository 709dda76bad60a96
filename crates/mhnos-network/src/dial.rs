//! From a destination to a connection: admitted, resolved, every address judged, and one that was judged connected.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    gateway::Gateway,
    limits::{NEXT_ADDRESS, RESOLVE_TIME},
    policy::RuleName,
    target::{Host, Target},
};

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
}

/// Connects.
///
/// # Cancel safety
/// Attempts end.
pub(crate) async fn dial(gateway: &Gateway, target: &Target) -> Result<TcpStream, DialError> {
    gateway.egress.admit(target).map_err(DialError::Refused)?;
    let addresses = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => match timeout(RESOLVE_TIME, gateway.resolver.resolve(name)).await {
            Err(_) => return Err(DialError::TimedOut),
            Ok(Err(_)) => return Err(DialError::NoSuchName),
            Ok(Ok(addresses)) => addresses,
        },
    };
    let allowed = judged(gateway, target, addresses)?;
    match timeout(gateway.bounds.connect, connect(target.port, &allowed)).await {
        Err(_) => Err(DialError::TimedOut),
        Ok(Err(error)) => Err(DialError::Unreachable(error)),
        Ok(Ok(stream)) => Ok(stream),
    }
}

/// The addresses that may be connected to. If there is none, the rule that refuses the first.
fn judged(gateway: &Gateway, target: &Target, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, DialError> {
    let mut refused = None;
    let mut allowed = Vec::new();
    for address in addresses {
        match gateway.egress.judge(target, address, &gateway.machine) {
            Ok(()) => allowed.push(crate::address::plain(address)),
            Err(rule) => _ = refused.get_or_insert(rule),
        }
    }
    match refused {
        Some(rule) if allowed.is_empty() => Err(DialError::Refused(rule)),
        _ if allowed.is_empty() => Err(DialError::NoSuchName),
        _ => Ok(allowed),
    }
}

/// The first of the addresses that answers, one tried after the other, families in turn (RFC 8305).
async fn connect(port: u16, addresses: &[IpAddr]) -> io::Result<TcpStream> {
    let mut waiting = in_turn(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        let more = waiting.next();
        let ended = more.is_none();
        attempts.extend(more.map(|address| TcpStream::connect(SocketAddr::new(address, port))));
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
        let stream = connect(port, &addresses).await.expect("a connection");
        assert_eq!(stream.peer_addr().expect("address").ip(), addresses[1]);
        assert!(connect(port, &addresses[..1]).await.is_err());
    }
}
