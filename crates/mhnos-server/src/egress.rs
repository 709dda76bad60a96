//! The networks of sandboxes, each served through the policy for as long as it is there.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    os::fd::OwnedFd,
    sync::Arc,
};

use mhnos_keeper::channel::HOST_NETWORK;
use mhnos_network::{Admits, Gateway, Outlets, Owner};
use mhnos_process::{Network, Networks};
use mhnos_sandbox::Outlet;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tracing::error;

use crate::neighbours::Programs;

/// Serves what is told until the processes are gone.
///
/// # Cancel safety
/// Connections to the outside break. Sockets are closed.
pub(crate) async fn serve(
    gateway: &Arc<Gateway>,
    mut networks: watch::Receiver<Networks>,
    programs: Programs,
) {
    let mut serving = JoinSet::new();
    let mut known: BTreeMap<u32, (Arc<Network>, AbortHandle)> = BTreeMap::new();
    loop {
        let now = networks.borrow_and_update().clone();
        known.retain(|id, (network, task)| {
            // A number may have come back for another network.
            let there = now.get(id).is_some_and(|other| Arc::ptr_eq(network, other));
            if !there {
                task.abort();
            }
            there
        });
        for (id, network) in now {
            let Entry::Vacant(place) = known.entry(id) else { continue };
            match outlets(&network) {
                Ok(mut outlets) => {
                    if id == HOST_NETWORK {
                        outlets.admits = Some(Admits(Arc::new(move |own, peer| programs.made(own, peer))));
                    }
                    let gateway = Arc::clone(gateway);
                    let owner = Owner(network.process);
                    let task = serving.spawn(async move { gateway.serve(owner, outlets).await });
                    place.insert((network, task));
                }
                Err(error) => error!(sandbox = id, %error, "programs of a sandbox are without a network"),
            }
        }
        let changed = tokio::select! {
            changed = networks.changed() => changed,
            Some(_) = serving.join_next() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

/// The port of the proxy on the host's loopback, where programs are kept to one.
pub(crate) fn host_proxy(networks: &Networks) -> Option<u16> {
    let (_, socket) = networks.get(&HOST_NETWORK)?.outlets.first()?;
    let socket = listener(socket.try_clone().ok()?).ok()?;
    Some(socket.local_addr().ok()?.port())
}

/// Duplicates of a network's sockets; it keeps its own until it is gone.
fn outlets(network: &Network) -> io::Result<Outlets> {
    let mut outlets = Outlets::default();
    for (kind, socket) in &network.outlets {
        let socket = socket.try_clone()?;
        match kind {
            Outlet::Proxy => outlets.proxy.push(listener(socket)?),
            Outlet::Captured => outlets.captured.push(listener(socket)?),
            Outlet::NamesTcp => outlets.names_tcp.push(listener(socket)?),
            Outlet::NamesUdp => {
                outlets.names_udp.push(UdpSocket::from_std(std::net::UdpSocket::from(socket))?);
            }
        }
    }
    Ok(outlets)
}

fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    TcpListener::from_std(std::net::TcpListener::from(socket))
}
