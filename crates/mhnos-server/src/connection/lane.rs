//! The lane: the requests of one connection, in order.
//!
//! A request takes effect before the next is looked at; a push, then a spawn of the pushed file, works in one
//! burst. What merely takes long to be *answered* (a kill waiting for the end, a write waiting for room)
//! is begun in order and then put aside, so that it holds nothing up.

use std::{
    collections::HashSet,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use futures_util::{StreamExt, stream::FuturesUnordered, stream::SplitStream};
use mhnos_network::{Refusals, Refused};
use mhnos_process::{Pid, Process};
use mhnos_protocol::{ErrorCode, ErrorReply, Parsed, Reply, binary, parse_request_bytes};
use serde_json::value::RawValue;
use tokio::{sync::watch, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Bytes, Message},
};
use tracing::debug;

use super::{
    Dialect, End, Phase, broken,
    outbox::{Item, Outbox},
};
use crate::{
    audit::{Event, Who},
    crowd::Share,
    door::{self, Admission},
    limits,
    pulse::Pulse,
    service::Service,
    stream::Stream,
    web_os,
};

/// Something put aside, and what it gives when it is done.
type Later = Pin<Box<dyn Future<Output = Late> + Send>>;

/// What came of something that was put aside.
pub(super) struct Late {
    /// For the writer.
    pub(super) items: Vec<Item>,
    /// How many pending bytes it no longer holds.
    pub(super) bytes: usize,
    /// It has failed with this.
    pub(super) failed: Option<ErrorCode>,
}

impl Late {
    /// An answer, or none where all went well and nobody asked.
    pub(super) fn answer(dialect: Dialect, id: &Id, reply: Option<&Reply>, bytes: usize) -> Self {
        let messages = reply.map(|reply| messages(dialect, id, reply)).unwrap_or_default();
        let items = messages.into_iter().map(Item::text).collect();
        Self { items, bytes, failed: reply.and_then(error_code) }
    }
}

/// What came of watching a process.
pub(super) enum Watched {
    /// Its exit record is set, or the bridge is ending.
    Exit(Arc<Process>),
    /// Something was refused outside; and who tells of the next.
    Refused(Refused, Refusals),
}

/// The `id` of a request.
pub(super) type Id = Option<Box<RawValue>>;

pub(super) struct Lane<'c> {
    pub(super) service: &'c Arc<Service>,
    pub(super) outbox: &'c Outbox,
    pub(super) dialect: Dialect,
    /// Who this is, and what that allows.
    pub(super) admission: &'c Admission,
    /// What its messages hold.
    pub(super) share: &'c Share,
    pub(super) who: &'c Who,
    /// Processes this client has written to, as far as that was written down.
    pub(super) written: HashSet<Pid>,
    /// Requests that took effect and are not answered yet.
    pending: FuturesUnordered<Later>,
    pending_bytes: usize,
    /// Processes watched on this client's behalf, each once at most.
    pub(super) watches: FuturesUnordered<Pin<Box<dyn Future<Output = Watched> + Send>>>,
    /// Processes whose refusals outside are to be told; they are being watched while there are any.
    pub(super) egress: HashSet<Pid>,
    pub(super) watches_egress: bool,
    /// Whose exit is being watched.
    pub(super) exits: HashSet<Pid>,
}

impl<'c> Lane<'c> {
    pub(super) fn new(
        service: &'c Arc<Service>,
        outbox: &'c Outbox,
        dialect: Dialect,
        admission: &'c Admission,
        share: &'c Share,
        who: &'c Who,
    ) -> Self {
        Self {
            service,
            outbox,
            dialect,
            admission,
            share,
            who,
            written: HashSet::new(),
            pending: FuturesUnordered::new(),
            pending_bytes: 0,
            watches: FuturesUnordered::new(),
            egress: HashSet::new(),
            watches_egress: false,
            exits: HashSet::new(),
        }
    }

    /// Reads requests until the client leaves or breaks a rule. When the service stops, what is still
    /// unanswered is answered, then the connection is closed.
    pub(super) async fn run(
        mut self,
        stream: &mut SplitStream<WebSocketStream<Stream>>,
        pulse: &Pulse,
        mut phase: watch::Receiver<Phase>,
    ) -> End {
        let mut stopping = false;
        let mut ahead = Poll::Pending;
        loop {
            let next = async {
                self.room(pulse).await;
                match std::mem::replace(&mut ahead, Poll::Pending) {
                    Poll::Ready(next) => next,
                    Poll::Pending => self.beside(stream.next()).await,
                }
            };
            let next = tokio::select! {
                next = next => next,
                () = Phase::closing(&mut phase), if !stopping => {
                    stopping = true;
                    self.share.rest();
                    let phase = *phase.borrow();
                    self.stop(phase).await;
                    continue;
                }
            };
            let message = match next {
                None => return End::Left,
                Some(Err(error)) => return broken(&error),
                Some(Ok(message)) => message,
            };
            self.service.metrics.received_bytes.add(message.len() as u64);
            let (message, text) = match message {
                Message::Text(text) => (text.into(), true),
                Message::Binary(bytes) => (bytes, false),
                // They come between the fragments of a message, too, which may not be read on at once.
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                    self.share.rest();
                    continue;
                }
            };
            self.share.begin();
            if message.len() > limits::FREE_MESSAGE {
                // While it is there: the connection gets another buffer, and this one goes with the message.
                ahead = poll_fn(|cx| Poll::Ready(stream.poll_next_unpin(cx))).await;
            }
            self.share.rest();
            let _deaf = pulse.deaf();
            let parsed = self.parse(message, text).await;
            self.handle(parsed).await;
            self.share.end();
        }
    }

    /// Answers what is pending and has the connection closed. In a drain all processes have ended, so nothing keeps
    /// it.
    async fn stop(&mut self, phase: Phase) {
        let pending = async {
            while let Some(late) = self.pending.next().await {
                self.settle(late);
            }
        };
        if phase == Phase::Leaving {
            // A kill may take longer than a bridge that leaves: the next one carries it out, unanswered.
            let _ = timeout(limits::LEAVE_ANSWERS, pending).await;
        } else {
            pending.await;
        }
        let (code, reason) = phase.farewell();
        self.outbox.push(Item::close(code, reason, phase.rest()));
    }

    /// Reads a message, a large one on a thread of its own.
    async fn parse(&mut self, message: Bytes, text: bool) -> Parsed {
        let framed = self.dialect.binary && !text && message.first().is_some_and(|first| is_version(*first));
        let large = message.len() > limits::PARSE_INLINE;
        let parse =
            move || if framed { binary::parse_write(&message) } else { parse_request_bytes(&message) };
        if !large {
            return parse();
        }
        let parsed = self.beside(tokio::task::spawn_blocking(parse)).await;
        parsed.unwrap_or_else(|error| Parsed {
            id: None,
            request: Err(mhnos_protocol::Malformed {
                code: mhnos_protocol::ErrorCode::Internal,
                text: format!("the message could not be read: {error}"),
            }),
        })
    }

    async fn handle(&mut self, parsed: Parsed) {
        let id = parsed.id;
        match parsed.request {
            Err(malformed) => {
                debug!(error = %malformed, "refused a message");
                self.fail(&id, malformed.into());
            }
            Ok(request) if !door::covers(self.admission.scope(), &request) => {
                self.audit(&Event::Denied { request: request.type_name() });
                let text = format!("A token of scope view does not cover {}", request.type_name());
                self.fail(&id, ErrorReply::new(ErrorCode::NotAllowed, text));
            }
            Ok(request) => {
                debug!(request = request.type_name(), "request");
                self.service.metrics.request(&request);
                self.perform(id, request).await;
            }
        }
    }

    /// Answers a request.
    pub(super) fn reply(&self, id: &Id, reply: &Reply) {
        for message in messages(self.dialect, id, reply) {
            self.outbox.push(Item::text(message));
        }
    }

    /// Writes down what this client did.
    pub(super) fn audit(&self, event: &Event<'_>) {
        self.service.audit.tell(Some(self.who), event);
    }

    /// Answers a request that only wants to be told if it asked for it with an id.
    pub(super) fn acknowledge(&self, id: &Id, reply: &Reply) {
        if id.is_some() {
            self.reply(id, reply);
        }
    }

    pub(super) fn fail(&self, id: &Id, error: ErrorReply) {
        self.service.metrics.error(error.code);
        self.reply(id, &Reply::Error(error));
    }

    /// Lets something take effect now, and puts it aside if its answer takes longer. It holds `bytes` until
    /// then.
    pub(super) async fn begin(&mut self, bytes: usize, later: impl Future<Output = Late> + Send + 'static) {
        let mut later: Later = Box::pin(later);
        match poll_fn(|cx| Poll::Ready(later.as_mut().poll(cx))).await {
            Poll::Ready(late) => self.say(late),
            Poll::Pending => {
                self.pending_bytes += bytes;
                self.pending.push(later);
            }
        }
    }

    /// Waits for something while what was put aside moves on.
    pub(super) async fn beside<T>(&mut self, wanted: impl Future<Output = T>) -> T {
        let mut wanted = pin!(wanted);
        loop {
            tokio::select! {
                biased;
                Some(late) = self.pending.next(), if !self.pending.is_empty() => self.settle(late),
                Some(watched) = self.watches.next(), if !self.watches.is_empty() => self.seen(watched),
                done = &mut wanted => return done,
            }
        }
    }

    /// Waits until another request may be taken on.
    async fn room(&mut self, pulse: &Pulse) {
        while self.pending.len() >= limits::MAX_PENDING || self.pending_bytes >= limits::MAX_PENDING_BYTES {
            // A client that takes no answers is another matter: it does not live.
            let _deaf = pulse.deaf();
            let Some(late) = self.pending.next().await else { break };
            self.settle(late);
        }
        let outbox = self.outbox;
        self.beside(outbox.room()).await;
    }

    fn settle(&mut self, late: Late) {
        self.pending_bytes -= late.bytes;
        self.say(late);
    }

    fn say(&self, late: Late) {
        if let Some(code) = late.failed {
            self.service.metrics.error(code);
        }
        late.items.into_iter().for_each(|item| self.outbox.push(item));
    }
}

/// Whether a message begins with the version of a binary frame. JSON begins with a brace or white space.
fn is_version(first: u8) -> bool {
    first < b' ' && !matches!(first, b'\t' | b'\n' | b'\r')
}

/// The code of a reply that is an error.
pub(super) fn error_code(reply: &Reply) -> Option<ErrorCode> {
    if let Reply::Error(error) = reply { Some(error.code) } else { None }
}

/// A reply as messages of this dialect.
pub(super) fn messages(dialect: Dialect, id: &Id, reply: &Reply) -> Vec<String> {
    let mut messages = vec![reply.to_json(id.as_deref())];
    if dialect.web_os {
        messages.extend(web_os::twin(reply, id.as_deref()));
    }
    messages
}
