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
    task::{AbortHandle, JoinError, JoinSet},
};
use tracing::error;

use crate::{neighbours::Programs, tasks};

/// Serves what is told until the processes are gone. `Err` if what serves a network panics: its programs are without.
///
/// # Cancel safety
/// Connections to the outside break. Sockets are closed.
pub(crate) async fn serve(
    gateway: &Arc<Gateway>,
    networks: watch::Receiver<Networks>,
    programs: Programs,
) -> Result<(), JoinError> {
    let begin = |id, network: &Network| {
        let mut outlets = outlets(network)?;
        if id == HOST_NETWORK {
            outlets.admits = Some(Admits(Arc::new(move |own, peer| programs.made(own, peer))));
        }
        let (gateway, owner) = (Arc::clone(gateway), Owner(network.process));
        Ok(async move { gateway.serve(owner, outlets).await })
    };
    serve_each(networks, begin).await
}

/// Runs what `begin` makes of each network for as long as that is there.
async fn serve_each<F: Future<Output = ()> + Send + 'static>(
    mut networks: watch::Receiver<Networks>,
    begin: impl Fn(u32, &Network) -> io::Result<F>,
) -> Result<(), JoinError> {
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
            match begin(id, &network) {
                Ok(work) => _ = place.insert((network, serving.spawn(work))),
                Err(error) => error!(sandbox = id, %error, "programs of a sandbox are without a network"),
            }
        }
        tokio::select! {
            changed = networks.changed() => if changed.is_err() {
                return Ok(());
            },
            error = tasks::failure(&mut serving) => return Err(error),
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

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn network() -> Arc<Network> {
        Arc::new(Network { process: None, outlets: Vec::new() })
    }

    #[tokio::test]
    async fn a_panic_in_what_serves_one_network_is_told_although_others_are_served() {
        let (told, networks) = watch::channel(Networks::from([(1, network()), (2, network())]));
        let (begun, mut begins) = mpsc::channel(4);
        let begin = |id, _: &Network| {
            let begun = begun.clone();
            Ok(async move {
                begun.send(id).await.expect("the test looks");
                assert_ne!(id, 3, "on purpose");
                std::future::pending::<()>().await;
            })
        };
        let changes = async {
            let first = [begins.recv().await, begins.recv().await];
            assert_eq!(first, [Some(1), Some(2)]);
            // One that goes is no failure.
            told.send_modify(|networks| _ = networks.remove(&1));
            told.send_modify(|networks| _ = networks.insert(3, network()));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = serve_each(networks, begin) => {
                assert!(outcome.expect_err("a panic").to_string().contains("on purpose"));
            }
            () = changes => {}
        }
    }
}
