//! Who made a TCP connection of this machine to itself, by sock_diag(7), or by `/proc/net/tcp` where the kernel has none.
//!
//! For listening sockets that programs share a network with: their user tells their connections from others'.

use std::net::{IpAddr, SocketAddr};

use crate::listening::{Diagnosis, HEADER, MESSAGE, SOCK_DIAG_BY_FAMILY, TCP_LISTEN, place, request_at};

/// The user of the socket at `from`, connected to `to`. `None` if there is none in this network, or nobody holds it any
/// more: what it sent may still come.
pub fn maker(from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let (from, to) = (plain(from), plain(to));
    let Found { uid, held } = match asked(from, to) {
        Some(found) => found,
        None => listed(from, to)?,
    };
    held.then_some(uid)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    uid: u32,
    /// Some process has it open.
    held: bool,
}

/// An IPv4 address in its own family: that is how the kernel files the connection.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn asked(from: SocketAddr, to: SocketAddr) -> Option<Found> {
    let mut request = request_at(from);
    let id = &mut request[HEADER + 8..];
    id[2..4].copy_from_slice(&to.port().to_be_bytes());
    match to.ip() {
        IpAddr::V4(ip) => id[20..24].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => id[20..36].copy_from_slice(&ip.octets()),
    }
    answer(&Diagnosis::of_this_network().ask(&request)?, to.port())
}

/// A `nlmsghdr` with a `struct inet_diag_msg`. Where nobody has the connection the kernel tells who would accept it.
fn answer(datagram: &[u8], port: u16) -> Option<Found> {
    let kind = datagram.get(4..6)?.first_chunk().map(|kind| u16::from_ne_bytes(*kind))?;
    let message = datagram.get(HEADER..HEADER + MESSAGE)?;
    let connected =
        kind == SOCK_DIAG_BY_FAMILY && message[1] != TCP_LISTEN && message[6..8] == port.to_be_bytes();
    let number = |at: usize| Some(u32::from_ne_bytes(*message.get(at..)?.first_chunk()?));
    if connected { Some(Found { uid: number(64)?, held: number(68)? != 0 }) } else { None }
}

fn listed(from: SocketAddr, to: SocketAddr) -> Option<Found> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    tables.into_iter().find_map(|path| in_table(&std::fs::read_to_string(path).ok()?, from, to))
}

/// proc_pid_net(5): `sl local_address rem_address st queues timer retransmits uid timeout inode`.
fn in_table(text: &str, from: SocketAddr, to: SocketAddr) -> Option<Found> {
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is = |field: usize, address| {
            fields.get(field).and_then(|field| place(field)).is_some_and(|place| plain(place) == address)
        };
        let found = || Some(Found { uid: fields.get(7)?.parse().ok()?, held: *fields.get(9)? != "0" });
        if is(1, from) && is(2, to) { found() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn who_connects_is_found_both_ways_and_who_has_left_is_nobody() {
        let uid = rustix::process::geteuid().as_raw();
        for (place, asked_at) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            let listener = TcpListener::bind(place).expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            let at: IpAddr = asked_at.parse().expect("an address");
            let client = TcpStream::connect((at, port)).expect("it listens");
            let (accepted, peer) = listener.accept().expect("a connection");
            let own = accepted.local_addr().expect("connected");
            assert_eq!(maker(peer, own), Some(uid), "{place}");
            let expected = Some(Found { uid, held: true });
            assert_eq!(asked(plain(peer), plain(own)), expected, "{place}");
            assert_eq!(listed(plain(peer), plain(own)), expected, "{place}");
            // The other end is the listener's.
            assert_eq!(maker(SocketAddr::new(at, 1), own), None);
            drop(client);
            assert_eq!(maker(peer, own), None, "{place}: nobody holds it");
        }
    }

    #[test]
    fn cut_and_senseless_answers_are_nobody() {
        for datagram in [&[][..], &[1, 2, 3], &[0; 16], &[255; 40], &[20; 100]] {
            assert_eq!(answer(datagram, 80), None);
        }
        let from = "127.0.0.1:8080".parse().expect("an address");
        assert_eq!(in_table("header\n 0: 0100007F:1F90\nx\n 1: 01:zz a 0A", from, from), None);
    }
}
