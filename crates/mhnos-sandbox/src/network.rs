//! A network stack of the sandbox's own, with no way out but the service's.
//!
//! Nothing is attached to the namespace but its own loopback, so no packet ever leaves it. A route makes every
//! address there is this machine's (`local 0.0.0.0/0 dev lo`, and the same for IPv6), and rules say for what it
//! counts: for the loopback's own addresses, and for connections to a few ports, which arrive at whoever listens on
//! that port in the sandbox. That is us. The listening sockets are opened here, by init, which alone may use ports
//! below 1024, and travel by way of the keeper to the bridge, which accepts on them: the local address of an accepted
//! socket is where the program wanted to go. For all else there is no route: the program is told so at once
//! (`ENETUNREACH`), and what a neighbour listens on is never taken for the outside.
//!
//! Programs keep their own loopback: what they listen on is reached as on any machine, and ports from 1024 up
//! are theirs but for [`PROXY_PORT`].

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, listen, recv, send,
        socket_with, sockopt,
    },
};
use serde::{Deserialize, Serialize};

use crate::error::{SetupError, Step};

/// Where programs find the proxy on their own loopback.
pub const PROXY_PORT: u16 = 3128;

/// Ports on which programs are let out without knowing of a proxy: git over ssh, http, https. All below 1024,
/// where a program could not listen anyway.
pub const CAPTURED_PORTS: [u16; 3] = [22, 80, 443];

/// Where resolvers ask for names (resolv.conf(5)).
const NAMES_PORT: u16 = 53;

/// Connections that wait to be accepted, on each socket: a bridge that is replaced takes some milliseconds.
const BACKLOG: i32 = 1024;

/// What a socket opened inside is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outlet {
    /// Programs ask for a proxy here.
    Proxy,
    /// Connections to one of [`CAPTURED_PORTS`] of any address end here.
    Captured,
    /// Names are asked for in datagrams.
    NamesUdp,
    /// Names are asked for over connections.
    NamesTcp,
}

/// Brings the stack of this process's own network namespace up and opens what leads out of it.
pub(crate) fn open() -> Result<Vec<(Outlet, OwnedFd)>, SetupError> {
    let ipv6 = bring_up()?;
    let localhost = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut outlets = vec![
        (Outlet::Proxy, listening(localhost(PROXY_PORT)).step("listen for proxy requests")?),
        (Outlet::NamesUdp, datagrams(localhost(NAMES_PORT)).step("listen for names")?),
        (Outlet::NamesTcp, listening(localhost(NAMES_PORT)).step("listen for names")?),
    ];
    for port in CAPTURED_PORTS {
        let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        outlets.push((Outlet::Captured, listening(anywhere).step_on("listen on port", port)?));
        if ipv6 {
            let anywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            outlets.push((Outlet::Captured, listening(anywhere).step_on("listen on IPv6 port", port)?));
        }
    }
    Ok(outlets)
}

/// The proxy's socket for programs that share the host's network, and its port. Whoever forks inits opens it before: what
/// programs may connect to is settled then.
pub fn host_proxy() -> Result<(OwnedFd, u16), SetupError> {
    let step = "listen for proxy requests";
    let socket = listening(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).step(step)?;
    let bound = getsockname(&socket).and_then(SocketAddr::try_from).step(step)?;
    Ok((socket, bound.port()))
}

fn listening(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = bound(address, SocketType::STREAM)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn datagrams(address: SocketAddr) -> io::Result<OwnedFd> {
    bound(address, SocketType::DGRAM)
}

fn bound(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv6() {
        // The other family has a socket of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

/// Loopback up, and captured ports of every address led to it. Whether there is IPv6: without it there is only less to
/// reach.
fn bring_up() -> Result<bool, SetupError> {
    // Of the netlink protocols number 0, the default, is that of routes.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .step("open the route socket")?;
    ask(&socket, &[link_up()]).step("bring up the loopback")?;
    capture(&socket, &IPV4)?;
    match capture(&socket, &IPV6) {
        Ok(()) => Ok(true),
        Err(error) if has_no_rules(&error) || !has_ipv6() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Not before the rules are there does the route exist that they are to bound.
fn capture(socket: &OwnedFd, family: &Family) -> Result<(), SetupError> {
    ask(socket, &rules(family)).step_on("make the rules of", family.name)?;
    ask(socket, &[everything_is_local(family)]).step_on("make the route of", family.name)
}

/// The kernel was built without routing by rules (`CONFIG_IPV6_MULTIPLE_TABLES`).
fn has_no_rules(error: &SetupError) -> bool {
    matches!(error.errno(), libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
}

/// Whether the loopback has an address of IPv6: not where it is switched off, or not built in.
fn has_ipv6() -> bool {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    bound(address, SocketType::DGRAM).is_ok()
}

struct Family {
    name: &'static str,
    number: u8,
    /// The loopback's own addresses, and the length of their prefix.
    loopback: &'static [u8],
    prefix: u8,
    /// What programs connect from: the address they connect to, if nothing is said.
    source: &'static [u8],
}

const IPV4: Family = Family {
    name: "IPv4",
    number: libc::AF_INET as u8,
    loopback: &[127, 0, 0, 0],
    prefix: 8,
    source: &[127, 0, 0, 1],
};

const IPV6: Family = Family {
    name: "IPv6",
    number: libc::AF_INET6 as u8,
    loopback: &Ipv6Addr::LOCALHOST.octets(),
    prefix: 128,
    source: &Ipv6Addr::LOCALHOST.octets(),
};

/// The loopback is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// `RTM_NEWLINK` with `IFF_UP` (rtnetlink(7)): an `ifinfomsg`.
fn link_up() -> Vec<u8> {
    let up = libc::IFF_UP as u32;
    let mut body = vec![0; 4];
    body.extend(LOOPBACK.to_ne_bytes());
    body.extend(up.to_ne_bytes());
    body.extend(up.to_ne_bytes());
    request(libc::RTM_NEWLINK, 0, &body)
}

/// `RTM_NEWROUTE` for `local DEFAULT dev lo src SOURCE` in the table of local addresses: an `rtmsg`, its interface and
/// source. In that table also because the kernel sends nothing from an IPv4 address that it does not find there.
fn everything_is_local(family: &Family) -> Vec<u8> {
    let (prefix, source, service) = (0, 0, 0);
    let mut body = vec![
        family.number,
        prefix,
        source,
        service,
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
    ];
    body.extend(0_u32.to_ne_bytes());
    attribute(&mut body, libc::RTA_OIF, &LOOPBACK.to_ne_bytes());
    attribute(&mut body, libc::RTA_PREFSRC, family.source);
    request(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body)
}

/// What may be looked up among local addresses, in place of the rule of every new namespace by which everything is.
fn rules(family: &Family) -> Vec<Vec<u8>> {
    let new = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut all = vec![rule(libc::RTM_NEWRULE, new, family, family.prefix, 1, &[(FRA_DST, family.loopback)])];
    for port in CAPTURED_PORTS {
        let range = [port.to_ne_bytes(), port.to_ne_bytes()].concat();
        let which = [(FRA_IP_PROTO, &[libc::IPPROTO_TCP as u8][..]), (FRA_DPORT_RANGE, &range)];
        all.push(rule(libc::RTM_NEWRULE, new, family, 0, 2, &which));
    }
    all.push(rule(libc::RTM_DELRULE, 0, family, 0, 0, &[]));
    all
}

/// `lookup local` for what an address's prefix and attributes say (linux/fib_rules.h): a `fib_rule_hdr`.
fn rule(
    kind: u16,
    flags: i32,
    family: &Family,
    prefix: u8,
    priority: u32,
    which: &[(u16, &[u8])],
) -> Vec<u8> {
    let mut body = vec![family.number, prefix, 0, 0, libc::RT_TABLE_LOCAL, 0, 0, FR_ACT_TO_TBL];
    body.extend(0_u32.to_ne_bytes());
    attribute(&mut body, FRA_PRIORITY, &priority.to_ne_bytes());
    for (attribute_kind, value) in which {
        attribute(&mut body, *attribute_kind, value);
    }
    request(kind, flags, &body)
}

// linux/fib_rules.h
const FR_ACT_TO_TBL: u8 = 1;
const FRA_DST: u16 = 1;
const FRA_PRIORITY: u16 = 6;
const FRA_IP_PROTO: u16 = 22;
const FRA_DPORT_RANGE: u16 = 24;

/// A `rtattr`, filled up to a multiple of four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// A `nlmsghdr` with its body (netlink(7)).
fn request(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// Size of a `nlmsghdr`.
const HEADER: usize = 16;

/// Sends requests and waits for the kernel's answers, which are there when the call returns: the first error there is.
fn ask(socket: &OwnedFd, messages: &[Vec<u8>]) -> io::Result<()> {
    send(socket, &messages.concat(), SendFlags::empty())?;
    let mut outcome = Ok(());
    for _ in messages {
        let answer = acknowledged(socket)?;
        outcome = outcome.and(answer.map_err(io::Error::from));
    }
    outcome
}

/// One answer: an `nlmsgerr`, after the header the error, negative; 0 acknowledges.
fn acknowledged(socket: &OwnedFd) -> io::Result<Result<(), Errno>> {
    let mut answer = [0; 1024];
    let (length, _) = recv(socket, &mut answer, RecvFlags::empty())?;
    let error = answer.get(HEADER..HEADER + 4).filter(|_| length >= HEADER + 4);
    match error.and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?))) {
        Some(0) => Ok(Ok(())),
        Some(error) => Ok(Err(Errno::from_raw_os_error(-error))),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_layout_of_rtnetlink() {
        assert_eq!(link_up().len(), 32);
        let route = everything_is_local(&IPV4);
        assert_eq!(route.len(), 44);
        assert_eq!(route[..4], 44_u32.to_ne_bytes());
        assert_eq!(route[16], libc::AF_INET as u8);
        // The loopback, the ports, and the rule that goes.
        let lengths = |family| rules(family).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(&IPV4), [44, 52, 52, 52, 36]);
        assert_eq!(lengths(&IPV6), [56, 52, 52, 52, 36]);
        // What follows a message begins at a multiple of four (NLMSG_ALIGN).
        assert!(rules(&IPV6).iter().all(|rule| rule.len().is_multiple_of(4)));
    }
}
