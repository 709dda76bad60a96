//! The listening sockets: bound by the keeper, so that they outlive a bridge.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use anyhow::Context;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind as bind_socket, ipproto, listen, socket_with, sockopt,
};

/// Connections the kernel holds while the bridge is busy or being replaced.
const BACKLOG: i32 = 1024;

/// Listens on `port` of every address; 0 takes one free port for all. An IPv6 loopback address that this
/// machine does not have is passed over, as long as another address works.
pub(crate) fn bind(hosts: &[IpAddr], port: u16) -> anyhow::Result<(Vec<OwnedFd>, u16)> {
    let mut chosen = port;
    let mut listeners = Vec::new();
    for host in hosts {
        let address = SocketAddr::new(*host, chosen);
        match listen_on(address) {
            Ok(listener) => {
                chosen = listener.local_addr().context("cannot read the port")?.port();
                listeners.push(listener.into());
            }
            Err(error) if is_absent(*host, &error) && hosts.len() > 1 => {
                tracing::info!(%host, "this machine has no such address; not listening on it");
            }
            Err(error) => return Err(error).with_context(|| refusal(address)),
        }
    }
    anyhow::ensure!(!listeners.is_empty(), "none of the addresses of MHNOS_HOST exists on this machine");
    Ok((listeners, chosen))
}

/// A restarted service takes its port back at once (SO_REUSEADDR); two services never share one.
fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind_socket(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn is_absent(host: IpAddr, error: &io::Error) -> bool {
    let absent = matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT));
    host.is_ipv6() && host.is_loopback() && absent
}

fn refusal(address: SocketAddr) -> String {
    format!(
        "cannot listen on {address}; if the port is in use, stop what uses it (`ss -ltnp sport = :{}` tells) \
         or choose another with MHNOS_RUNTIME_PORT",
        address.port()
    )
}

/// Where clients find the service.
pub(crate) fn urls(hosts: &[IpAddr], port: u16) -> Vec<String> {
    hosts.iter().map(|host| format!("http://{}", SocketAddr::new(*host, port))).take(1).collect()
}
