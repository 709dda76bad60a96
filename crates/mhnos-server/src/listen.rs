//! Accepting connections, and letting go of them.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::net::{SendFlags, sockopt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::{
    connection::{self, Phase},
    descriptors::Descriptors,
    http::{self, Arrival, Front, Guest},
    limits,
    metrics::Refused,
    service::Service,
    stream::Stream,
};

/// What a client gets whose first request takes too long, or that is in the way of others.
const SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 33\r\nConnection: close\r\n\r\n\
    The request did not come in time\n";

/// What a client gets that speaks plain HTTP where TLS is spoken.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 69\r\nConnection: close\r\n\r\n\
    This port speaks TLS: use https:// or wss:// instead of http or ws.\r\n";

/// First byte of a TLS connection: a record with a handshake message (RFC 8446, section 5.1).
const TLS_HELLO: u8 = 22;

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
                tokio::select! {
                    () = until_there_is_room(service.room) => {}
                    () = Phase::closing(&mut phase) => break,
                }
                let (front, service, phase) = (Arc::clone(&front), Arc::clone(&service), phase.clone());
                connections.spawn(async move { attend(stream, peer, &front, service, phase).await });
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

/// The client that has come waits, and all behind it, until others leave.
async fn until_there_is_room(room: Descriptors) {
    if room.are_left() {
        return;
    }
    warn!("no file may be opened for more clients: they wait until others leave");
    while !room.are_left() {
        tokio::time::sleep(limits::ACCEPT_PAUSE).await;
    }
}

async fn attend(
    stream: TcpStream,
    peer: SocketAddr,
    front: &Arc<Front>,
    service: Arc<Service>,
    mut phase: watch::Receiver<Phase>,
) {
    if is_strange(&stream, peer, front) {
        return front.turn_away(
            peer,
            Refused::Program,
            "A program of the sandbox must not reach the service.",
        );
    }
    // Echoing a key press must not wait for an acknowledgement (Nagle's algorithm).
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "TCP_NODELAY");
    }
    if let Err(error) = watch_over(&stream) {
        debug!(%peer, %error, "SO_KEEPALIVE");
    }
    // Both on the heap, at their own size: a task is as large as the largest of its states, for as long as it lives.
    if let Some(guest) = Box::pin(welcome(stream, peer, front, &mut phase)).await {
        Box::pin(connection::serve(guest, peer, front, service, phase)).await;
    }
}

fn is_strange(stream: &TcpStream, peer: SocketAddr, front: &Front) -> bool {
    let Some(strangers) = front.strangers else { return false };
    stream.local_addr().is_ok_and(|own| strangers.may_have_made(own, peer))
}

/// Has the kernel find out that the other end is gone.
fn watch_over(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, limits::KEEPALIVE)?;
    Ok(sockopt::set_tcp_keepintvl(stream, limits::KEEPALIVE)?)
}

/// The way from a connection to a WebSocket, if it leads there, within its deadline. A client of previews is served on
/// the way.
async fn welcome(
    stream: TcpStream,
    peer: SocketAddr,
    front: &Arc<Front>,
    phase: &mut watch::Receiver<Phase>,
) -> Option<Guest> {
    // Through TLS nothing can be said beside it.
    let second = if front.tls.is_none() { stream.as_fd().try_clone_to_owned().ok() } else { None };
    let arrival = Arc::new(Arrival::new(front, peer).told_by(second));
    let way = async {
        let stream = open(stream, peer, front).await?;
        http::receive(stream, front, &arrival).await
    };
    tokio::select! {
        came = arrival.exchanges.beside(way) => {
            if let Some(guest) = came {
                return guest;
            }
        }
        () = Phase::closing(phase) => return None,
        () = arrival.visit.cut() => {}
    }
    if arrival.exchanges.served() {
        debug!(%peer, "closed a preview's connection that was not used");
        return None;
    }
    debug!(%peer, "a first request took too long, or others needed the room");
    front.turn_away(peer, Refused::Slow, "The request did not come in time.");
    if let Some(socket) = arrival.socket() {
        // Its buffer takes this at once, or the client gets nothing.
        let _ = rustix::net::send(&socket, SLOW, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
    None
}

/// Plain or through TLS; a client that speaks the other is told, as far as it can be.
async fn open(stream: TcpStream, peer: SocketAddr, front: &Front) -> Option<Stream> {
    let Some(tls) = &front.tls else {
        let mut first = [0];
        if matches!(stream.peek(&mut first).await, Ok(1)) && first[0] == TLS_HELLO {
            if let Some(left_out) = front.pace.next() {
                let remedy = "use http:// or ws://, or set MHNOS_TLS_CERT and MHNOS_TLS_KEY";
                warn!(%peer, remedy, left_out, "a client speaks TLS, which this port does not");
            }
            front.turn_away(peer, Refused::Http, "This port does not speak TLS.");
            return None;
        }
        return Some(Stream::plain(stream));
    };
    let mut first = [0];
    if matches!(stream.peek(&mut first).await, Ok(1)) && first[0] != TLS_HELLO {
        front.turn_away(peer, Refused::Http, "This port speaks TLS.");
        say(stream, PLAIN).await;
        return None;
    }
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
    match acceptor.accept(stream).await {
        Ok(stream) => Some(Stream::tls(stream)),
        Err(error) => {
            debug!(%peer, %error, "the TLS handshake failed");
            front.turn_away(peer, Refused::Http, "The TLS handshake failed.");
            None
        }
    }
}

/// Says a last thing. What has come is read, or the kernel answers it with a reset and the words are lost.
async fn say(mut stream: TcpStream, words: &[u8]) {
    let said = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(limits::MAX_REQUEST_HEAD as u64), &mut tokio::io::sink())
            .await
    };
    let _ = tokio::time::timeout(limits::CLOSE_DEADLINE, said).await;
}

/// Errors of accept(2) that concern the one connection and not the listening socket.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    #[test]
    fn answers_that_are_written_by_hand_are_well_formed() {
        for answer in [super::SLOW, super::PLAIN] {
            let text = std::str::from_utf8(answer).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        }
    }
}
