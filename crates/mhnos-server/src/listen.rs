//! Accepting connections, and letting go of them.

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tracing::{debug, warn};

use crate::{
    connection::{self, Phase},
    http::{self, Front, TurnedAway},
    limits,
    metrics::Refused,
    service::Service,
};

/// What a client gets that comes when all places are taken.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 46\r\nRetry-After: 5\r\nConnection: close\r\n\r\n\
    Too many connections to this service are open\n";

/// A listening socket inherited from the keeper.
pub(crate) fn adopt(socket: OwnedFd) -> io::Result<TcpListener> {
    let socket = std::net::TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Accepts on one socket until the phase is [`Phase::Closing`], then waits for its connections to end. Each
/// has a bounded time for that.
pub(crate) async fn accept(
    listener: TcpListener,
    front: Arc<Front>,
    service: Arc<Service>,
    places: Arc<Semaphore>,
    mut phase: watch::Receiver<Phase>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = Phase::closing(&mut phase) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    warn!(%peer, max = limits::MAX_CONNECTIONS, "refused a connection: all places are taken");
                    let why = "Too many connections to this service are open.";
                    service.turned_away(&TurnedAway { peer, cause: Refused::Full, why });
                    // A fresh socket's buffer takes this at once or the client gets nothing.
                    let _ = stream.try_write(FULL);
                    continue;
                };
                let (front, service, phase) = (Arc::clone(&front), Arc::clone(&service), phase.clone());
                connections.spawn(async move {
                    attend(stream, peer, &front, service, phase).await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_client(&error) => debug!(%error, "a client left before it was accepted"),
            Err(error) => {
                warn!(%error, "cannot accept connections for now");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn attend(
    stream: TcpStream,
    peer: SocketAddr,
    front: &Arc<Front>,
    service: Arc<Service>,
    mut phase: watch::Receiver<Phase>,
) {
    // Echoing a key press must not wait for an acknowledgement (Nagle's algorithm).
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "TCP_NODELAY");
    }
    if let Err(error) = watch_over(&stream) {
        debug!(%peer, %error, "SO_KEEPALIVE");
    }
    let guest = tokio::select! {
        guest = http::receive(stream, peer, front) => guest,
        () = Phase::closing(&mut phase) => None,
    };
    if let Some(guest) = guest {
        connection::serve(guest, peer, front, service, phase).await;
    }
}

/// Has the kernel find out that the other end is gone.
fn watch_over(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, limits::KEEPALIVE)?;
    Ok(sockopt::set_tcp_keepintvl(stream, limits::KEEPALIVE)?)
}

/// Errors of accept(2) that concern the one connection and not the listening socket.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_answer_to_too_many_clients_is_well_formed() {
        let text = std::str::from_utf8(super::FULL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
