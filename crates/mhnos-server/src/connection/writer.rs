//! The writer half of a connection. It alone owns the socket's sending side and the views.
//!
//! What the lane queued goes first; then each view in turn may send one frame, so that a flood of one
//! process leaves room for the others. The views are asked only when the socket has taken what it got before:
//! a client that does not read leaves its viewers where they are, and `mhnos-process` does the rest.

use std::{
    collections::{HashSet, VecDeque},
    future::poll_fn,
    pin::pin,
    sync::Arc,
};

use futures_util::{SinkExt, stream::SplitSink};
use mhnos_process::{Pid, Process};
use tokio::time::Instant;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, protocol::CloseFrame},
};

use super::{
    outbox::{Item, Outbox, Rest},
    pull::PullMessage,
    text_message, until,
    view::View,
};
use crate::{limits, metrics::Metrics, pulse::Pulse, stream::Stream, translate};

type Sink = SplitSink<WebSocketStream<Stream>, Message>;

pub(super) struct Writer<'c> {
    sink: Sink,
    outbox: &'c Outbox,
    views: Vec<View>,
    /// Whose turn it is.
    turn: usize,
    /// Processes no longer viewed whose exit is still to be told.
    owed: HashSet<Pid>,
    /// To be sent before anything else is looked at.
    ready: VecDeque<Message>,
    closing: Option<(CloseFrame, Rest)>,
    metrics: &'c Metrics,
    pulse: &'c Pulse,
}

/// How a round of sending ended.
enum Round {
    /// There may be more.
    Full,
    /// All is sent that there was.
    Empty,
}

impl<'c> Writer<'c> {
    pub(super) fn new(sink: Sink, outbox: &'c Outbox, metrics: &'c Metrics, pulse: &'c Pulse) -> Self {
        Self {
            sink,
            outbox,
            views: Vec::new(),
            turn: 0,
            owed: HashSet::new(),
            ready: VecDeque::new(),
            closing: None,
            metrics,
            pulse,
        }
    }

    /// The socket's direction, when there is nothing more to send.
    pub(super) fn into_sink(self) -> Sink {
        self.sink
    }

    /// Sends until the socket fails or a close frame has gone out.
    pub(super) async fn run(&mut self) -> Result<(), Error> {
        loop {
            match self.round().await? {
                Round::Full => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Round::Empty => seen_to_take(self.pulse, self.sink.flush()).await?,
            }
            if let Some((close, _)) = self.closing.take() {
                return self.sink.send(Message::Close(Some(close))).await;
            }
            tokio::select! {
                () = self.outbox.wake.notified() => {}
                () = until(self.deadline()) => self.deadline_passed(),
            }
        }
    }

    /// Hands one batch to the socket.
    async fn round(&mut self) -> Result<Round, Error> {
        let mut sent = 0;
        let round = loop {
            if sent >= limits::WRITE_BATCH {
                break Round::Full;
            } else if let Some(message) = self.ready.pop_front() {
                sent += message.len();
                self.feed(message).await?;
            } else if let Some(item) = self.outbox.take() {
                self.act(item).await?;
            } else if !self.advance_views() {
                break Round::Empty;
            }
        };
        self.metrics.sent_bytes.add(sent as u64);
        Ok(round)
    }

    async fn act(&mut self, item: Item) -> Result<(), Error> {
        match item {
            Item::Text(message) => self.ready.push_back(text_message(message)),
            Item::Ping => self.ready.push_back(Message::Ping(bytes::Bytes::new())),
            Item::View(view) => self.view(*view),
            Item::Unview { pid, tell_exit, ended } => self.unview(pid, tell_exit.as_deref(), ended),
            Item::Exited(process) => self.tell_owed(&process),
            Item::AfterExit { process, messages } => self.after_exit(&process, messages),
            Item::Pull(pull) => self.send_pull(*pull).await?,
            Item::Close(frame, rest) => {
                match rest {
                    Rest::All => {}
                    Rest::Written => self.views.iter_mut().for_each(View::ends_here),
                    Rest::Nothing => self.views.clear(),
                }
                self.views.iter_mut().for_each(|view| view.release_exit(&mut self.ready));
                self.closing = Some((frame, rest));
            }
        }
        Ok(())
    }

    fn view(&mut self, mut view: View) {
        self.owed.remove(&view.pid());
        match self.closing {
            None | Some((_, Rest::All)) => {}
            Some((_, Rest::Written)) => view.ends_here(),
            Some((_, Rest::Nothing)) => return,
        }
        match self.views.iter_mut().find(|other| other.pid() == view.pid()) {
            Some(place) => {
                std::mem::swap(place, &mut view);
                place.replace(view, &mut self.ready);
            }
            None => self.views.push(view),
        }
    }

    fn unview(&mut self, pid: Pid, tell_exit: Option<&Process>, ended: bool) {
        let position = self.views.iter().position(|view| view.pid() == pid);
        // One that had ended and is not viewed any more was told of, or was never asked about.
        let mut told = ended;
        if let Some(view) = position.map(|position| self.views.swap_remove(position)) {
            told = view.has_seen_exit();
            view.finish(&mut self.ready);
        }
        if let Some(process) = tell_exit.filter(|_| !told) {
            self.owed.insert(pid);
            self.tell_owed(process);
        }
    }

    fn tell_owed(&mut self, process: &Process) {
        let pid = process.pid();
        if let Some(record) = process.exit().filter(|_| self.owed.remove(&pid)) {
            self.ready.push_back(text_message(translate::exit(pid, &record).to_json()));
        }
    }

    fn after_exit(&mut self, process: &Arc<Process>, messages: Vec<String>) {
        if let Some(view) = self.views.iter_mut().find(|view| view.pid() == process.pid()) {
            view.after_exit(messages, &mut self.ready);
        } else {
            self.tell_owed(process);
            self.ready.extend(messages.into_iter().map(text_message));
        }
    }

    /// Lets the next view that has something put it into `ready`. `false` if none has.
    fn advance_views(&mut self) -> bool {
        for _ in 0..self.views.len() {
            if self.turn >= self.views.len() {
                self.turn = 0;
            }
            let view = &mut self.views[self.turn];
            let moved = view.advance(&mut self.ready, self.closing.is_some(), self.metrics);
            if !moved && view.is_over() {
                self.views.swap_remove(self.turn);
                continue;
            }
            self.turn += 1;
            if moved {
                return true;
            }
        }
        false
    }

    fn deadline(&self) -> Option<Instant> {
        self.views.iter().filter_map(View::deadline).min()
    }

    fn deadline_passed(&mut self) {
        let now = Instant::now();
        for view in &mut self.views {
            if view.held_until().is_some_and(|deadline| deadline <= now) {
                view.tell_exit(&mut self.ready);
            }
        }
    }

    /// Streams the answer to a pull: one message in many fragments, read from disk as the socket takes them.
    async fn send_pull(&mut self, mut pull: PullMessage) -> Result<(), Error> {
        while let Some(message) = self.ready.pop_front() {
            self.feed(message).await?;
        }
        while let Some(fragment) = pull.next().await {
            self.metrics.pulled_bytes.add(fragment.len() as u64);
            self.feed(fragment).await?;
        }
        if let Some(code) = pull.failed() {
            self.metrics.error(code);
        }
        Ok(())
    }

    async fn feed(&mut self, message: Message) -> Result<(), Error> {
        seen_to_take(self.pulse, self.sink.feed(message)).await
    }
}

/// A socket that was full and takes more shows that its client reads, though the ping may still be on its way behind all
/// that is to be read before it.
async fn seen_to_take<T>(pulse: &Pulse, sending: impl Future<Output = T>) -> T {
    let (mut sending, mut waited) = (pin!(sending), false);
    let sent = poll_fn(|cx| {
        let poll = sending.as_mut().poll(cx);
        waited |= poll.is_pending();
        poll
    });
    let sent = sent.await;
    if waited {
        pulse.heard();
    }
    sent
}
