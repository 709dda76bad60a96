//! The first message of a client that has shown no token in its handshake, where one is asked for: `auth` with a token,
//! within bounds of time and size, and nothing else.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use mhnos_protocol::{
    Authenticated, ErrorCode, ErrorReply, Parsed, PresentedToken, Reply, Request, parse_request_bytes,
};
use tokio::{sync::watch, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tracing::warn;

use super::{End, Phase, broken, discard, lane::Id};
use crate::{
    door::{Admission, Shown, Unauthorized},
    http::Front,
    limits,
    metrics::Refused,
    stream::{Excess, Stream},
};

type Socket = WebSocketStream<Stream>;

/// Waits for the token. Gives the connection back with its admission and the `id` of the request, which is to be
/// answered; or has closed it with a reason.
pub(super) async fn await_token(
    mut socket: Socket,
    peer: SocketAddr,
    front: &Front,
    mut phase: watch::Receiver<Phase>,
) -> Option<(Socket, Admission, Id)> {
    let first = tokio::select! {
        first = timeout(limits::AUTH_DEADLINE, first_message(&mut socket)) => first,
        () = Phase::closing(&mut phase) => Ok(First::Stopping),
    };
    let (id, why) = match first {
        Ok(First::Left) => return None,
        Ok(First::Stopping) => {
            let phase = *phase.borrow();
            let _ = timeout(phase.patience(), leave(&mut socket, phase)).await;
            return None;
        }
        Ok(First::Broken(code, reason)) => {
            send_away(socket, None, CloseFrame { code, reason: reason.into() }).await;
            return None;
        }
        Ok(First::TooMuch(excess)) => (None, excess.to_string()),
        Ok(First::Message(parsed)) => match judge(front, peer, parsed) {
            Ok((admission, id)) => {
                socket.get_mut().lift_allowance();
                return Some((socket, admission, id));
            }
            Err(refused) => refused,
        },
        Err(_) => (None, "no token was shown in time".to_owned()),
    };
    if let Some(left_out) = front.pace.next() {
        warn!(%peer, reason = why, left_out, "refused a client");
    }
    front.turn_away(peer, Refused::Token, &why);
    let told = Reply::Error(ErrorReply::new(ErrorCode::Unauthorized, why)).to_json(id.as_deref());
    let close = CloseFrame { code: CloseCode::Policy, reason: "a token is asked for".into() };
    send_away(socket, Some(told), close).await;
    None
}

/// Tells a client why it has to go, and takes what it still sends.
async fn send_away(mut socket: Socket, told: Option<String>, close: CloseFrame) {
    let farewell = async {
        if let Some(told) = told {
            socket.feed(Message::text(told)).await?;
        }
        socket.send(Message::Close(Some(close))).await
    };
    if let Ok(Ok(())) = timeout(limits::CLOSE_DEADLINE, farewell).await {
        discard(socket.into_inner()).await;
    }
}

/// What came first.
enum First {
    Message(Parsed),
    TooMuch(Excess),
    /// What breaks the rules of the WebSocket protocol; the close frame says which.
    Broken(CloseCode, &'static str),
    /// Nothing, and the service stops.
    Stopping,
    Left,
}

async fn first_message(socket: &mut Socket) -> First {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return First::Message(parse_request_bytes(text.as_bytes())),
            Some(Ok(Message::Binary(bytes))) => return First::Message(parse_request_bytes(&bytes)),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(Error::Io(error))) => return Excess::of(&error).map_or(First::Left, First::TooMuch),
            Some(Err(error)) => {
                return match broken(&error) {
                    End::Broken(code, reason) => First::Broken(code, reason),
                    _ => First::Left,
                };
            }
            Some(Ok(Message::Close(_))) | None => return First::Left,
        }
    }
}

/// Closes the connection as others are closed when the service stops, and waits until the client has, too.
async fn leave(socket: &mut Socket, phase: Phase) -> Result<(), Error> {
    let (code, reason) = phase.farewell();
    socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await?;
    while let Some(message) = socket.next().await {
        message?;
    }
    Ok(())
}

fn judge(front: &Front, peer: SocketAddr, parsed: Parsed) -> Result<(Admission, Id), (Id, String)> {
    match parsed.request {
        Ok(Request::Auth(PresentedToken(token))) => match front.access.judge(peer.ip(), Shown::Token(&token))
        {
            Ok(admission) => Ok((admission, parsed.id)),
            Err(unauthorized) => Err((parsed.id, unauthorized.to_string())),
        },
        _ => Err((parsed.id, Unauthorized::Missing.to_string())),
    }
}

/// The answer to `auth`.
pub(super) fn authenticated(admission: &Admission) -> Reply {
    Reply::Authenticated(Authenticated {
        name: admission.name().map(str::to_owned),
        scope: admission.scope(),
    })
}
