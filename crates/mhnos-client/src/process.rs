//! One process, as its client sees it.

use std::collections::VecDeque;

use bytes::Bytes;
use mhnos_protocol::{
    Attached, Exit, Gap, Kill, Killed, Output, Pid, Port, Reply, Request, Resize, Scope, ServerMessage,
    Signal, Size, Spawned, Stream, WindowSize, Write, binary,
};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::client::{unexpected, unexpected_reply};
use crate::connection::{Answer, Item};
use crate::limits::{COLLECTED_BYTES, HELD_BYTES};
use crate::{Client, RequestError};

/// Something that happened to a process, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum ProcessEvent {
    /// It wrote.
    Output(Output),
    /// Output between two positions can no longer be had.
    Gap(Gap),
    /// The answer to `attach`: the replay is complete.
    Attached(Attached),
    /// It listens on a port, or no longer does.
    Port(Port),
    /// Its terminal has another size.
    Size(Size),
    /// It has ended. What its descendants write later may follow.
    Exit(Exit),
}

/// All that a process wrote, and how it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Collected {
    /// Which.
    pub pid: Pid,
    /// The bytes of its stdout, or of its terminal.
    pub stdout: Vec<u8>,
    /// The bytes of its stderr.
    pub stderr: Vec<u8>,
    /// What could not be had of it.
    pub gaps: Vec<Gap>,
    /// How it ended.
    pub exit: Exit,
}

/// A process that this client views. Dropped, the client takes no more of its output; the process runs on.
#[derive(Debug)]
pub struct Process {
    client: Client,
    pid: Pid,
    spawned: Option<Spawned>,
    stream: mpsc::Receiver<Item>,
    /// Events that came while an answer was waited for.
    held: VecDeque<ProcessEvent>,
    held_bytes: usize,
}

impl Process {
    pub(crate) fn new(
        client: Client,
        pid: Pid,
        spawned: Option<Spawned>,
        stream: mpsc::Receiver<Item>,
    ) -> Self {
        Self { client, pid, spawned, stream, held: VecDeque::new(), held_bytes: 0 }
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The answer to the `spawn`, if this client spawned it.
    pub fn spawned(&self) -> Option<&Spawned> {
        self.spawned.as_ref()
    }

    /// The next event; `None` once the connection has ended, another handle took the stream over, or something came
    /// of which this client cannot read what it says.
    ///
    /// # Cancel safety
    /// Dropped before it returns, no event is lost.
    pub async fn next(&mut self) -> Option<ProcessEvent> {
        if let Some(event) = self.held.pop_front() {
            self.held_bytes -= weight(&event);
            return Some(event);
        }
        match self.stream.recv().await? {
            Item::Event(event) => Some(event),
            Item::Refused(_) | Item::Unreadable(_) => None,
        }
    }

    /// Gathers output until the process ends.
    pub async fn collect(mut self) -> Result<Collected, RequestError> {
        let (mut stdout, mut stderr, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(event) = self.next().await {
            match event {
                ProcessEvent::Output(output) => {
                    if stdout.len() + stderr.len() + output.data.len() > COLLECTED_BYTES {
                        return Err(RequestError::TooMuchOutput { limit: COLLECTED_BYTES });
                    }
                    match output.stream {
                        Stream::Stdout => stdout.extend_from_slice(&output.data),
                        Stream::Stderr => stderr.extend_from_slice(&output.data),
                    }
                }
                ProcessEvent::Gap(gap) => gaps.push(gap),
                ProcessEvent::Attached(_) | ProcessEvent::Port(_) | ProcessEvent::Size(_) => {}
                ProcessEvent::Exit(exit) => {
                    return Ok(Collected { pid: self.pid, stdout, stderr, gaps, exit });
                }
            }
        }
        let closed = self
            .client
            .connection
            .closed_or("another handle took the stream over, or what came cannot be read");
        Err(RequestError::NoExit { pid: self.pid, closed })
    }

    /// Writes to its stdin and waits until the service has taken the bytes.
    pub async fn write(&mut self, data: impl Into<Vec<u8>>) -> Result<(), RequestError> {
        let request = Request::Write(Write { pid: self.pid, data: data.into() });
        match self.reply(&request).await? {
            Reply::Written(_) => Ok(()),
            other => Err(unexpected_reply("write", &other)),
        }
    }

    /// Writes to its stdin and waits for nothing; a failure becomes a stray error.
    pub async fn write_unanswered(&self, data: &[u8]) -> Result<(), RequestError> {
        if self.client.is_binary() {
            let mut frame = Vec::new();
            binary::encode_write(&mut frame, self.pid, 0, data);
            return self.client.connection.send(Message::Binary(Bytes::from(frame))).await;
        }
        self.client.send(&Request::Write(Write { pid: self.pid, data: data.to_vec() })).await
    }

    /// End of file on its stdin, after what was written.
    pub async fn close_stdin(&mut self) -> Result<(), RequestError> {
        match self.reply(&Request::CloseStdin { pid: self.pid }).await? {
            Reply::StdinClosed(_) => Ok(()),
            other => Err(unexpected_reply("closeStdin", &other)),
        }
    }

    /// Changes the size of its terminal.
    pub async fn resize(&mut self, size: WindowSize) -> Result<(), RequestError> {
        match self.reply(&Request::Resize(Resize { pid: self.pid, size })).await? {
            Reply::Resized(_) => Ok(()),
            other => Err(unexpected_reply("resize", &other)),
        }
    }

    /// Signals it. What it writes meanwhile, and its exit, are still to be taken afterwards.
    pub async fn kill(&mut self, signal: Signal, scope: Scope) -> Result<Killed, RequestError> {
        match self.reply(&Request::Kill(Kill { pid: self.pid, signal, scope })).await? {
            Reply::Killed(killed) => Ok(killed),
            other => Err(unexpected_reply("kill", &other)),
        }
    }

    /// Takes no more of its output. The process runs on.
    pub async fn detach(mut self) -> Result<(), RequestError> {
        match self.reply(&Request::Detach { pid: self.pid }).await? {
            Reply::Detached(_) => Ok(()),
            other => Err(unexpected_reply("detach", &other)),
        }
    }

    /// Waits until the `attach` has led to something, and says so if it was refused.
    pub(crate) async fn wait_for_first(&mut self) -> Result<(), RequestError> {
        match self.stream.recv().await {
            Some(Item::Event(event)) => {
                self.hold(event);
                Ok(())
            }
            Some(Item::Refused(error)) => Err(RequestError::Refused(error)),
            Some(Item::Unreadable(reason)) => Err(RequestError::Unreadable { request: "attach", reason }),
            None => Err(RequestError::Closed(self.client.connection.closed_or("it ended"))),
        }
    }

    /// Sends a request about this process. While it waits it sets the process's events aside, for the
    /// answer comes behind them.
    async fn reply(&mut self, request: &Request) -> Result<Reply, RequestError> {
        let client = self.client.clone();
        let receiver = client.connection.request(request).await?;
        let mut answer = std::pin::pin!(client.wait(request.type_name(), receiver));
        let answer: Answer = loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer?,
                item = self.stream.recv(), if self.held_bytes < HELD_BYTES && !self.stream.is_closed() => {
                    if let Some(Item::Event(event)) = item {
                        self.hold(event);
                    }
                }
            }
        };
        match answer.message {
            ServerMessage::Reply { reply, .. } => Ok(reply),
            other => Err(unexpected(request.type_name(), &other)),
        }
    }

    fn hold(&mut self, event: ProcessEvent) {
        self.held_bytes += weight(&event);
        self.held.push_back(event);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.client.connection.let_go(self.pid, &mut self.stream);
    }
}

/// What an event counts for while it is held.
fn weight(event: &ProcessEvent) -> usize {
    let data = match event {
        ProcessEvent::Output(output) => output.data.len(),
        _ => 0,
    };
    data + size_of::<ProcessEvent>()
}
