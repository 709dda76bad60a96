//! A network stack of the sandbox's own, with no way out but the service's.
//!
//! Nothing is attached to the namespace but its own loopback, so no packet ever leaves it. Two routes make
//! the kernel treat every address there is as this machine's (`local 0.0.0.0/0 dev lo`, and the same for
//! IPv6): a connection to anywhere then arrives at whoever listens on that port in the sandbox. For a few
//! ports that is us. The listening sockets are opened here, by init, which alone may use ports below 1024,
//! and travel by way of the keeper to the bridge, which accepts on them: the local address of an accepted
//! socket is where the program wanted to go. On all other ports a connection to the outside is refused by
//! the kernel, because nobody listens.
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

/// Loopback up, and every address a local one. Whether there is IPv6: without it there is only less to reach.
fn bring_up() -> Result<bool, SetupError> {
    // Of the netlink protocols number 0, the default, is that of routes.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .step("open the route socket")?;
    ask(&socket, &link_up()).step("bring up the loopback")?;
    ask(&socket, &everything_is_local(libc::AF_INET as u8)).step("route everything to the loopback")?;
    match ask(&socket, &everything_is_local(libc::AF_INET6 as u8)) {
        Ok(()) => Ok(true),
        Err(_) if !has_ipv6() => Ok(false),
        Err(error) => Err(error).step("route IPv6 to the loopback"),
    }
}

/// Whether the loopback has an address of IPv6: not where it is switched off, or not built in.
fn has_ipv6() -> bool {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    bound(address, SocketType::DGRAM).is_ok()
}

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

/// `RTM_NEWROUTE` for `local DEFAULT dev lo` in the table of local addresses: an `rtmsg` and its interface.
fn everything_is_local(family: u8) -> Vec<u8> {
    let (prefix, source, service) = (0, 0, 0);
    let mut body = vec![
        family,
        prefix,
        source,
        service,
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
    ];
    body.extend(0_u32.to_ne_bytes());
    body.extend(8_u16.to_ne_bytes());
    body.extend(libc::RTA_OIF.to_ne_bytes());
    body.extend(LOOPBACK.to_ne_bytes());
    request(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body)
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

/// Sends one request and waits for the kernel's answer, which is there when the call returns.
fn ask(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    send(socket, message, SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (length, _) = recv(socket, &mut answer, RecvFlags::empty())?;
    // An `nlmsgerr`: after the header the error, negative; 0 acknowledges.
    let error = answer.get(HEADER..HEADER + 4).filter(|_| length >= HEADER + 4);
    let error = error.and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
    match error {
        Some(0) => Ok(()),
        Some(error) => Err(Errno::from_raw_os_error(-error).into()),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_layout_of_rtnetlink() {
        assert_eq!(link_up().len(), 32);
        let route = everything_is_local(libc::AF_INET as u8);
        assert_eq!(route.len(), 36);
        assert_eq!(route[..4], 36_u32.to_ne_bytes());
        assert_eq!(route[16], libc::AF_INET as u8);
    }
}
