//! One client's WebSocket.
//!
//! A connection is one task in which two halves take turns: the *lane* reads requests and lets each take
//! effect before it looks at the next; the *writer* owns the socket's other direction and the viewers, and
//! pulls from them only when the socket takes more. What the lane has to say goes through the *outbox*, in
//! order. So a slow socket stalls its own viewers and nobody else's, and nothing is ever written under a
//! lock. Processes outlive all this: when the task ends, its viewers are gone and that is all.

mod egress;
mod introduction;
mod lane;
mod outbox;
mod presence;
mod pull;
mod requests;
mod view;
mod writer;

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt;
use mhnos_protocol as wire;
use tokio::{io::AsyncWriteExt, sync::watch, time::timeout};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    error::{CapacityError, ProtocolError},
    protocol::frame::coding::CloseCode,
};
use tracing::debug;

use self::{
    lane::Lane,
    outbox::{Item, Outbox, Rest},
    presence::Presence,
    writer::Writer,
};
use crate::{
    crowd::Share,
    door::{Admission, Visitor},
    frames::Format,
    http::{Front, Guest, Subprotocol},
    limits,
    preview::Base,
    pulse::Pulse,
    service::Service,
    stream::{Excess, Stream},
};

/// How a client wants to be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// Output in binary frames; input may come so too.
    pub(crate) binary: bool,
    /// The unmodified Web OS page, served through [`crate::web_os`].
    pub(crate) web_os: bool,
    /// How it reaches previews.
    pub(crate) base: Base,
}

impl Dialect {
    fn of(guest: &Guest) -> Self {
        Self {
            binary: guest.subprotocol == Subprotocol::V1Binary,
            base: guest.base,
            web_os: guest.subprotocol == Subprotocol::None && matches!(guest.visitor, Visitor::Page(_)),
        }
    }

    /// How output of a process with this encoding is framed.
    fn format(self, encoding: wire::Encoding) -> Format {
        match encoding {
            _ if self.binary => Format::Binary,
            wire::Encoding::Utf8 => Format::Text,
            wire::Encoding::Base64 => Format::Base64,
        }
    }
}

/// Whether the service goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It does.
    Serving,
    /// All processes have ended; connections say so and close.
    Closing,
    /// Another bridge takes over; clients are to come back.
    Leaving,
}

impl Phase {
    /// Waits until connections are to close.
    pub(crate) async fn closing(phase: &mut watch::Receiver<Self>) {
        // Without a sender the service is over as well.
        let _ = phase.wait_for(|phase| *phase != Self::Serving).await;
    }

    /// How connections are closed then.
    fn farewell(self) -> (CloseCode, &'static str) {
        match self {
            Self::Leaving => (CloseCode::Restart, "the service is being upgraded; connect again"),
            Self::Serving | Self::Closing => (CloseCode::Away, "the service is stopping"),
        }
    }

    /// What is still sent before that.
    fn rest(self) -> Rest {
        match self {
            Self::Leaving => Rest::Written,
            Self::Serving | Self::Closing => Rest::All,
        }
    }

    /// How long that may take.
    fn patience(self) -> Duration {
        match self {
            Self::Leaving => limits::LEAVE_CLOSE,
            Self::Serving | Self::Closing => limits::CLOSE_DEADLINE,
        }
    }
}

/// Why a connection is over, or about to be.
#[derive(Debug)]
enum End {
    /// The client closed it, or the network did.
    Left,
    /// Nothing more can be sent.
    Unwritable,
    /// It does not answer pings.
    Silent,
    /// It broke the rules of the WebSocket protocol, or a limit; the close frame says which.
    Broken(CloseCode, &'static str),
    /// The service stops.
    Stopping,
    /// Its token is no longer accepted.
    Revoked,
}

/// Serves a client until it leaves or the service stops.
pub(crate) async fn serve(
    guest: Guest,
    peer: SocketAddr,
    front: &Front,
    service: Arc<Service>,
    phase: watch::Receiver<Phase>,
) {
    let dialect = Dialect::of(&guest);
    let _until_the_end = guest.place;
    let outbox = Outbox::default();
    let connected = wire::Event::Connected(wire::Connected::new(service.wire_config()));
    outbox.push(Item::text(connected.to_json()));

    let (socket, admission) = if let Some(admission) = guest.admission {
        (guest.socket, admission)
    } else {
        let introduced = introduction::await_token(guest.socket, peer, front, phase.clone());
        let Some((socket, admission, id)) = Box::pin(introduced).await else { return };
        outbox.push(Item::text(introduction::authenticated(&admission).to_json(id.as_deref())));
        (socket, admission)
    };
    debug!(%peer, ?dialect, visitor = ?guest.visitor, token = admission.name(), "connected");
    let who = service.who(peer, &guest.visitor, admission.name());
    let presence = Presence::begin(&service, who, dialect);
    let pulse = socket.get_ref().pulse();
    let (sink, mut stream) = socket.split();
    let mut writer = Writer::new(sink, &outbox, &service.metrics, &pulse);
    // On the heap: whatever holds a future by value has room for it in each of its own states.
    let lane = Lane::new(&service, &outbox, dialect, &admission, &guest.share, presence.who());
    let lane = Box::pin(lane.run(&mut stream, &pulse, phase.clone()));
    let writing = Box::pin(writer.run());
    let heartbeat = heartbeat(service.config.ping_interval, &outbox, &pulse);
    let end = converse(lane, writing, heartbeat, &outbox, phase, admission.clone(), &guest.share).await;
    debug!(%peer, ?end, "disconnected");
    presence.ends(&end);
    if let (End::Broken(..) | End::Revoked, Ok(socket)) = (&end, stream.reunite(writer.into_sink())) {
        let socket = socket.into_inner();
        guest.share.forget();
        discard(socket).await;
    }
}

/// Lets both halves run until one has a reason to end, and then the other say what it still has to.
async fn converse(
    lane: impl Future<Output = End>,
    writer: impl Future<Output = Result<(), Error>>,
    heartbeat: impl Future<Output = ()>,
    outbox: &Outbox,
    mut phase: watch::Receiver<Phase>,
    mut admission: Admission,
    share: &Share,
) -> End {
    let (mut lane, mut writer) = (pin!(lane), pin!(writer));
    let end = tokio::select! {
        end = &mut lane => end,
        _ = &mut writer => End::Unwritable,
        () = heartbeat => End::Silent,
        () = Phase::closing(&mut phase) => End::Stopping,
        () = admission.revoked() => End::Revoked,
        () = share.given_up() => End::Broken(CloseCode::Again, "too many large messages at once: send it again later"),
    };
    // What follows need not read, and holds up nobody who does.
    share.rest();
    if matches!(end, End::Broken(..) | End::Revoked) {
        share.lose();
    }
    let patience = phase.borrow().patience();
    match &end {
        End::Left | End::Silent => {}
        // The client may have begun to close: then the lane answers that.
        End::Unwritable => {
            let _ = timeout(patience, lane).await;
        }
        End::Broken(code, reason) => {
            outbox.push(Item::close(*code, reason, Rest::Nothing));
            let _ = timeout(limits::CLOSE_DEADLINE, writer).await;
        }
        End::Revoked => {
            let reason = "the token of this connection is no longer accepted";
            outbox.push(Item::close(CloseCode::Policy, reason, Rest::Nothing));
            let _ = timeout(limits::CLOSE_DEADLINE, writer).await;
        }
        End::Stopping => {
            // The lane has the connection closed, and ends when the client has closed it too.
            let farewell = async {
                tokio::select! {
                    _ = &mut lane => {}
                    _ = &mut writer => { let _ = timeout(patience, &mut lane).await; }
                }
            };
            let _ = timeout(limits::CLOSE_DEADLINE, farewell).await;
        }
    }
    end
}

/// Takes what a client goes on sending after it was told off. If the socket were closed before that, the
/// kernel would answer with a reset, and the close frame would be lost on its way.
async fn discard(mut socket: Stream) {
    let ended = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut socket, &mut tokio::io::sink()).await
    };
    let _ = timeout(limits::CLOSE_DEADLINE, ended).await;
}

/// Pings in rounds; returns when the client has missed too many.
async fn heartbeat(every: Duration, outbox: &Outbox, pulse: &Pulse) {
    let mut rounds = tokio::time::interval(every);
    // The first tick is immediate.
    rounds.tick().await;
    loop {
        rounds.tick().await;
        if pulse.round() >= limits::MISSED_ROUNDS {
            return;
        }
        outbox.push(Item::Ping);
    }
}

/// What a failed read means for the client.
fn broken(error: &Error) -> End {
    match error {
        Error::Io(error) if Excess::of(error) == Some(Excess::Fragments) => {
            End::Broken(CloseCode::Policy, "a message may have at most 32768 fragments")
        }
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            End::Broken(CloseCode::Size, "a message may have at most 100 MiB")
        }
        Error::Utf8(_) => End::Broken(CloseCode::Invalid, "a text message must be UTF-8"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Left,
        Error::Protocol(_) => End::Broken(CloseCode::Protocol, "WebSocket protocol error"),
        _ => End::Left,
    }
}

/// How long until `deadline`, as a future; without one, for ever.
async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A whole text message, unchecked: what this service encodes is UTF-8.
fn text_message(payload: impl Into<bytes::Bytes>) -> Message {
    data_message(payload, true)
}

fn data_message(payload: impl Into<bytes::Bytes>, text: bool) -> Message {
    use tokio_tungstenite::tungstenite::protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    };
    let kind = if text { Data::Text } else { Data::Binary };
    Message::Frame(Frame::message(payload.into(), OpCode::Data(kind), true))
}

/// Time on the clock of [`limits`].
fn soon(after: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + after
}
