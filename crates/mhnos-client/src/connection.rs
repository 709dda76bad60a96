//! One running connection: a task that reads, a task that writes, and the table that joins answers to
//! requests. The reader alone takes entries out of the table, so an answer is delivered once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use mhnos_protocol::{
    ErrorReply, Event, NotAServerMessage, Pid, Reply, Request, ServerMessage, Unread, parse_server_message,
};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::connect::Socket;
use crate::limits::{CLOSE_TIMEOUT, EVENTS_PER_PROCESS, OUTGOING_MESSAGES, STRAY_ERRORS};
use crate::process::ProcessEvent;
use crate::{Closed, RequestError};

/// What a process's stream carries.
#[derive(Debug)]
pub(crate) enum Item {
    /// An event.
    Event(ProcessEvent),
    /// The `attach` that asked for the stream was refused.
    Refused(ErrorReply),
    /// It was answered with what this client cannot read.
    Unreadable(String),
}

/// An answer, with the stream of the process if it is a new one.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) message: ServerMessage,
    pub(crate) stream: Option<mpsc::Receiver<Item>>,
}

/// Why an answer cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable(pub(crate) String);

/// What a caller waits with.
pub(crate) type Awaited = oneshot::Receiver<Result<Answer, Unreadable>>;

/// Who waits for an answer.
enum Waiting {
    /// A caller.
    Caller(oneshot::Sender<Result<Answer, Unreadable>>),
    /// A process's stream: the answer to `attach` comes in order with the replay.
    Stream(Pid),
}

#[derive(Default)]
struct Table {
    waiting: HashMap<u64, Waiting>,
    streams: HashMap<Pid, mpsc::Sender<Item>>,
    /// Processes of which nobody takes anything any more, and the service was not told: frames of theirs may be under way.
    left: HashSet<Pid>,
    stray: Vec<ErrorReply>,
    closed: Option<Closed>,
}

impl Table {
    fn view(&mut self, pid: Pid, stream: mpsc::Sender<Item>) {
        self.left.remove(&pid);
        self.streams.insert(pid, stream);
    }

    fn leave(&mut self, pid: Pid) {
        self.streams.remove(&pid);
        self.left.insert(pid);
    }

    /// Leaves a process if nobody takes from its stream: it may have been replaced by a new one in the meantime.
    fn leave_closed(&mut self, pid: Pid) {
        if self.streams.get(&pid).is_some_and(mpsc::Sender::is_closed) {
            self.leave(pid);
        }
    }

    /// The service sends nothing more of this process, unless another attach to it is under way.
    fn detached(&mut self, pid: Pid) {
        let attaches = |waiting: &Waiting| matches!(waiting, Waiting::Stream(other) if *other == pid);
        if !self.waiting.values().any(attaches) {
            self.streams.remove(&pid);
            self.left.remove(&pid);
        }
    }
}

/// Shared by a client, its processes and its reader.
pub(crate) struct Connection {
    table: Arc<Mutex<Table>>,
    outgoing: mpsc::Sender<Message>,
    next_id: AtomicU64,
    ended: watch::Receiver<bool>,
    /// Ends with the last handle.
    _tasks: JoinSet<()>,
}

impl Connection {
    pub(crate) fn start(socket: Socket) -> Self {
        let (sink, stream) = socket.split();
        let (outgoing, queue) = mpsc::channel(OUTGOING_MESSAGES);
        let (end, ended) = watch::channel(false);
        let table = Arc::new(Mutex::new(Table::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(write(sink, queue));
        tasks.spawn(read(stream, Arc::clone(&table), end));
        Self { table, outgoing, next_id: AtomicU64::new(1), ended, _tasks: tasks }
    }

    /// Sends a request; its answer comes through the receiver.
    ///
    /// # Cancel safety
    /// Dropped before it returns, the request may or may not have been sent; an answer is then ignored.
    pub(crate) async fn request(&self, request: &Request) -> Result<Awaited, RequestError> {
        let (sender, receiver) = oneshot::channel();
        let id = self.register(Waiting::Caller(sender))?;
        self.send(Message::text(request.to_json(Some(&id)))).await?;
        Ok(receiver)
    }

    /// Sends an `attach`; everything about the process, the answer included, comes through the stream.
    pub(crate) async fn attach(
        &self,
        pid: Pid,
        request: &Request,
    ) -> Result<mpsc::Receiver<Item>, RequestError> {
        let (sender, receiver) = mpsc::channel(EVENTS_PER_PROCESS);
        let id = self.register(Waiting::Stream(pid))?;
        lock(&self.table).view(pid, sender);
        self.send(Message::text(request.to_json(Some(&id)))).await?;
        Ok(receiver)
    }

    /// Whether events of this process may still come.
    pub(crate) fn views(&self, pid: Pid) -> bool {
        let table = lock(&self.table);
        table.streams.contains_key(&pid) || table.left.contains(&pid)
    }

    /// The handle that took from this stream is gone.
    pub(crate) fn let_go(&self, pid: Pid, stream: &mut mpsc::Receiver<Item>) {
        stream.close();
        lock(&self.table).leave_closed(pid);
    }

    /// How many processes are viewed.
    pub(crate) fn streams(&self) -> usize {
        lock(&self.table).streams.len()
    }

    /// Sends a message that is not answered.
    pub(crate) async fn send(&self, message: Message) -> Result<(), RequestError> {
        let sent = self.outgoing.send(message).await;
        sent.map_err(|_| RequestError::Closed(self.closed_or("it can no longer be written to")))
    }

    fn register(&self, waiting: Waiting) -> Result<Box<RawValue>, RequestError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut table = lock(&self.table);
        if let Some(closed) = &table.closed {
            return Err(RequestError::Closed(closed.clone()));
        }
        table.waiting.insert(id, waiting);
        Ok(RawValue::from_string(id.to_string()).expect("a number is JSON"))
    }

    /// How the connection ended, or `otherwise` if it has not been seen to end.
    pub(crate) fn closed_or(&self, otherwise: &str) -> Closed {
        let closed = lock(&self.table).closed.clone();
        closed.unwrap_or_else(|| Closed::Broken { reason: otherwise.to_owned() })
    }

    pub(crate) fn take_stray_errors(&self) -> Vec<ErrorReply> {
        std::mem::take(&mut lock(&self.table).stray)
    }

    /// Resolves when the connection has ended.
    pub(crate) async fn ended(&self) -> Closed {
        let mut ended = self.ended.clone();
        // An error means that the reader is gone, which is the end too.
        let _ = ended.wait_for(|ended| *ended).await;
        self.closed_or("its reader ended")
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Nothing panics while it holds the table; if something did, the table would still be whole.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends what is queued, and flushes whenever nothing more is: many small messages cost one write.
async fn write(mut sink: SplitSink<Socket, Message>, mut queue: mpsc::Receiver<Message>) {
    while let Some(message) = queue.recv().await {
        let mut sent = sink.feed(message).await;
        while let (Ok(()), Ok(message)) = (&sent, queue.try_recv()) {
            sent = sink.feed(message).await;
        }
        // A failed write ends this task, and with it the queue; the reader learns why.
        if sent.is_err() || sink.flush().await.is_err() {
            return;
        }
    }
}

async fn read(mut stream: SplitStream<Socket>, table: Arc<Mutex<Table>>, end: watch::Sender<bool>) {
    let closed = loop {
        let message = match stream.next().await {
            Some(Ok(Message::Text(text))) => parse_server_message(&text),
            Some(Ok(Message::Binary(frame))) => ServerMessage::from_binary(&frame),
            Some(Ok(Message::Close(frame))) => {
                break frame.map_or(Closed::Frame { code: 1005, reason: String::new() }, |frame| {
                    Closed::Frame { code: frame.code.into(), reason: frame.reason.to_string() }
                });
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => break Closed::Broken { reason: error.to_string() },
            None => break Closed::Broken { reason: "the server hung up".to_owned() },
        };
        match message {
            Ok(message) => dispatch(&table, message).await,
            Err(NotAServerMessage { reason, unread: Some(unread) }) => {
                unreadable(&table, reason, unread).await;
            }
            Err(error) => break Closed::Broken { reason: error.to_string() },
        }
    };
    finish(&table, closed);
    end.send_replace(true);
    // Reading on sends the answer to a close frame, and ends when the server hangs up.
    let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = stream.next().await {} }).await;
}

fn finish(table: &Mutex<Table>, closed: Closed) {
    let mut table = lock(table);
    table.closed = Some(closed);
    // Dropping the senders tells everyone who waits.
    table.waiting.clear();
    table.streams.clear();
    table.left.clear();
}

async fn dispatch(table: &Mutex<Table>, message: ServerMessage) {
    let (pid, event) = match message {
        ServerMessage::Output(output) => (output.pid, ProcessEvent::Output(output)),
        ServerMessage::Event(Event::Exit(exit)) => (exit.pid, ProcessEvent::Exit(exit)),
        ServerMessage::Event(Event::Gap(gap)) => (gap.pid, ProcessEvent::Gap(gap)),
        ServerMessage::Event(Event::Size(size)) => (size.pid, ProcessEvent::Size(size)),
        ServerMessage::Event(Event::Port(port)) => (port.pid, ProcessEvent::Port(port)),
        // This client never asks for what is refused.
        ServerMessage::Event(Event::Connected(_) | Event::Egress(_)) | ServerMessage::Unknown { .. } => {
            return;
        }
        answer => return answered(table, answer).await,
    };
    deliver(table, pid, Item::Event(event)).await;
}

/// Gives a process's stream its next item. Waits while it is full; drops what nobody wants any more.
async fn deliver(table: &Mutex<Table>, pid: Pid, item: Item) {
    let Some(stream) = lock(table).streams.get(&pid).cloned() else { return };
    if stream.send(item).await.is_err() {
        lock(table).leave_closed(pid);
    }
}

/// Who waits for the answer with this id.
fn take_waiting(table: &Mutex<Table>, id: Option<&str>) -> Option<Waiting> {
    let number = id?.parse::<u64>().ok()?;
    lock(table).waiting.remove(&number)
}

/// A message that cannot be read fails the request it answers. Output or an exit ends the stream of its process, which
/// would lack something else.
async fn unreadable(table: &Mutex<Table>, reason: String, unread: Unread) {
    match (take_waiting(table, unread.id.as_deref()), unread) {
        // A caller that has gone away wants no answer.
        (Some(Waiting::Caller(caller)), _) => _ = caller.send(Err(Unreadable(reason))),
        (Some(Waiting::Stream(pid)), _) => deliver(table, pid, Item::Unreadable(reason)).await,
        (None, Unread { kind, pid: Some(pid), .. })
            if matches!(&*kind, "stdout" | "stderr" | "gap" | "exit") =>
        {
            lock(table).leave(pid);
        }
        (None, _) => {}
    }
}

async fn answered(table: &Mutex<Table>, message: ServerMessage) {
    let (ServerMessage::Reply { id, .. } | ServerMessage::Pulled { id, .. }) = &message else { return };
    let waiting = take_waiting(table, id.as_ref().map(|id| id.get()));
    match (waiting, message) {
        (Some(Waiting::Caller(caller)), message) => {
            let stream = match &message {
                ServerMessage::Reply { reply: Reply::Detached(of), .. } => {
                    lock(table).detached(of.pid);
                    None
                }
                ServerMessage::Reply { reply: Reply::Spawned(spawned), .. } => {
                    let (sender, receiver) = mpsc::channel(EVENTS_PER_PROCESS);
                    lock(table).view(spawned.pid, sender);
                    Some(receiver)
                }
                _ => None,
            };
            // A caller that has gone away wants no answer.
            let _ = caller.send(Ok(Answer { message, stream }));
        }
        (Some(Waiting::Stream(pid)), ServerMessage::Reply { reply, .. }) => {
            let item = match reply {
                Reply::Attached(attached) => Item::Event(ProcessEvent::Attached(attached)),
                Reply::Error(error) => Item::Refused(error),
                _ => return,
            };
            deliver(table, pid, item).await;
        }
        (None, ServerMessage::Reply { id: None, reply: Reply::Error(error) }) => {
            let mut table = lock(table);
            if table.stray.len() == STRAY_ERRORS {
                table.stray.remove(0);
            }
            table.stray.push(error);
        }
        _ => {}
    }
}
