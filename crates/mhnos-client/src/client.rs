//! The typed client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mhnos_protocol::{
    Attach, BadEntry, Connected, Encoding, ErrorReply, Events, FileEntry, Kill, Killed, Pid, ProcessList,
    PushResults, Reply, Request, SUBPROTOCOL_BINARY, Scope, ServerMessage, Signal, Spawn, Status,
};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::connection::{Answer, Awaited, Connection, Unreadable};
use crate::limits::CLOSE_TIMEOUT;
use crate::{Closed, Collected, Process, RawConnection, RequestError};

/// One connection to the service. Clones share it; it ends with the last of them and of their processes.
#[derive(Clone)]
pub struct Client {
    pub(crate) connection: Arc<Connection>,
    greeting: Arc<Connected>,
    request_timeout: Duration,
    binary: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("binary", &self.binary)
            .field("streams", &self.connection.streams())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Must be called within a tokio runtime.
    pub(crate) fn start(raw: RawConnection, greeting: Connected, request_timeout: Duration) -> Self {
        let binary = raw.subprotocol() == Some(SUBPROTOCOL_BINARY);
        let connection = Arc::new(Connection::start(raw.socket));
        Self { connection, greeting: Arc::new(greeting), request_timeout, binary }
    }

    /// The server's `connected`.
    pub fn greeting(&self) -> &Connected {
        &self.greeting
    }

    /// Whether output and writes go as binary frames.
    pub(crate) fn is_binary(&self) -> bool {
        self.binary
    }

    /// Starts a program; its events come through the handle, from the first byte on.
    pub async fn spawn(&self, spawn: Spawn) -> Result<Process, RequestError> {
        let request = Request::Spawn(Box::new(spawn));
        let answer = self.answer(&request).await?;
        match (answer.message, answer.stream) {
            (ServerMessage::Reply { reply: Reply::Spawned(spawned), .. }, Some(stream)) => {
                Ok(Process::new(self.clone(), spawned.pid, Some(spawned), stream))
            }
            (other, _) => Err(unexpected("spawn", &other)),
        }
    }

    /// Starts a program and gathers what it writes until it ends.
    pub async fn run(&self, spawn: Spawn) -> Result<Collected, RequestError> {
        self.spawn(spawn).await?.collect().await
    }

    /// Views a process: its retained output, or what comes after a position, and all that follows. An
    /// earlier handle of the same process on this connection gets nothing more.
    pub async fn attach(&self, pid: Pid, after: Option<u64>) -> Result<Process, RequestError> {
        self.attach_with(Attach { pid, after, encoding: None, events: Events::default() }).await
    }

    /// The same in base64, which loses nothing even on a text connection.
    pub async fn attach_base64(&self, pid: Pid, after: Option<u64>) -> Result<Process, RequestError> {
        self.attach_with(Attach { pid, after, encoding: Some(Encoding::Base64), events: Events::default() })
            .await
    }

    async fn attach_with(&self, attach: Attach) -> Result<Process, RequestError> {
        if self.connection.views(attach.pid) {
            // Frames of the earlier view are under way. The answer to a `detach` parts them from the replay;
            // that there is nothing to detach from is no failure.
            match self.reply(&Request::Detach { pid: attach.pid }).await {
                Ok(_) | Err(RequestError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let stream = self.connection.attach(attach.pid, &Request::Attach(attach)).await?;
        let mut process = Process::new(self.clone(), attach.pid, None, stream);
        let first = timeout(self.request_timeout, process.wait_for_first()).await;
        first.map_err(|_| self.timed_out("attach"))??;
        Ok(process)
    }

    /// Signals a process, whether this client views it or not.
    pub async fn kill(&self, pid: Pid, signal: Signal, scope: Scope) -> Result<Killed, RequestError> {
        match self.reply(&Request::Kill(Kill { pid, signal, scope })).await? {
            Reply::Killed(killed) => Ok(killed),
            other => Err(unexpected_reply("kill", &other)),
        }
    }

    /// Names the processes.
    pub async fn list(&self, all: bool) -> Result<ProcessList, RequestError> {
        match self.reply(&Request::List { all }).await? {
            Reply::ProcessList(list) => Ok(list),
            other => Err(unexpected_reply("list", &other)),
        }
    }

    /// Describes the service.
    pub async fn status(&self) -> Result<Status, RequestError> {
        match self.reply(&Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected_reply("status", &other)),
        }
    }

    /// The server's time, milliseconds since the Unix epoch.
    pub async fn ping(&self) -> Result<u64, RequestError> {
        match self.reply(&Request::Ping).await? {
            Reply::Pong { time } => Ok(time),
            other => Err(unexpected_reply("ping", &other)),
        }
    }

    /// Writes files into the workspace.
    pub async fn push(&self, files: Vec<FileEntry>) -> Result<PushResults, RequestError> {
        let files = files.into_iter().map(Ok::<_, BadEntry>).collect();
        match self.reply(&Request::Push { files }).await? {
            Reply::Pushed(results) => Ok(results),
            other => Err(unexpected_reply("fsync push", &other)),
        }
    }

    /// Reads the workspace's files.
    pub async fn pull(&self) -> Result<Vec<FileEntry>, RequestError> {
        match self.answer(&Request::Pull).await?.message {
            ServerMessage::Pulled { files, .. } => Ok(files),
            other => Err(unexpected("fsync pull", &other)),
        }
    }

    /// Sends any request and waits for its answer, which is never `error`.
    pub async fn reply(&self, request: &Request) -> Result<Reply, RequestError> {
        match self.answer(request).await?.message {
            ServerMessage::Reply { reply, .. } => Ok(reply),
            other => Err(unexpected(request.type_name(), &other)),
        }
    }

    /// Sends a request that wants no answer: without an id.
    pub async fn send(&self, request: &Request) -> Result<(), RequestError> {
        self.connection.send(Message::text(request.to_json(None))).await
    }

    /// `error` messages that came without an id since the last call: what requests without one led to.
    pub fn take_stray_errors(&self) -> Vec<ErrorReply> {
        self.connection.take_stray_errors()
    }

    /// Closes the connection and waits for the server to agree, for a bounded time.
    pub async fn close(self) -> Closed {
        // If it cannot be sent, the connection is closed already.
        let _ = self.connection.send(Message::Close(None)).await;
        let ended = timeout(CLOSE_TIMEOUT, self.connection.ended()).await;
        ended.unwrap_or_else(|_| Closed::Broken {
            reason: "the server did not answer the close frame".to_owned(),
        })
    }

    /// Resolves when the connection has ended.
    pub async fn closed(&self) -> Closed {
        self.connection.ended().await
    }

    async fn answer(&self, request: &Request) -> Result<Answer, RequestError> {
        let receiver = self.connection.request(request).await?;
        self.wait(request.type_name(), receiver).await
    }

    pub(crate) async fn wait(
        &self,
        request: &'static str,
        receiver: Awaited,
    ) -> Result<Answer, RequestError> {
        match timeout(self.request_timeout, receiver).await {
            Ok(Ok(Ok(Answer {
                message: ServerMessage::Reply { reply: Reply::Error(error), .. }, ..
            }))) => Err(RequestError::Refused(error)),
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(Unreadable(reason)))) => Err(RequestError::Unreadable { request, reason }),
            Ok(Err(_)) => Err(RequestError::Closed(self.connection.closed_or("it ended"))),
            Err(_) => Err(self.timed_out(request)),
        }
    }

    fn timed_out(&self, request: &'static str) -> RequestError {
        RequestError::Timeout { request, after: self.request_timeout }
    }
}

pub(crate) fn unexpected(request: &'static str, answer: &ServerMessage) -> RequestError {
    match answer {
        ServerMessage::Reply { reply, .. } => unexpected_reply(request, reply),
        other => RequestError::Unexpected { request, answer: format!("{other:?}") },
    }
}

pub(crate) fn unexpected_reply(request: &'static str, reply: &Reply) -> RequestError {
    RequestError::Unexpected { request, answer: reply.type_name().to_owned() }
}
