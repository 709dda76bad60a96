//! Connections to what a process listens on: asked of the keeper, made by the process's supervisor from within its
//! network.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use mhnos_keeper::channel::{DialFailure, Pid, ToKeeper};
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use crate::{limits::DIAL_DEADLINE, process::Process, registry::Inner};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nothing is left of the process.
    #[error("the process has ended")]
    Gone,
    /// It does not listen on that port.
    #[error("the process does not listen on this port")]
    Refused,
    /// Too many connections to it are being made.
    #[error("too many connections to the process are being made at once")]
    Busy,
    /// It accepts none, or the keeper does not answer, within [`DIAL_DEADLINE`].
    #[error("the process has accepted no connection for {} seconds", DIAL_DEADLINE.as_secs())]
    Timeout,
    /// The kernel refused it.
    #[error("the connection failed")]
    Failed(#[source] io::Error),
}

type Answer = Result<OwnedFd, DialFailure>;

/// Who waits for a connection, by the token the keeper tells back.
#[derive(Debug)]
pub(crate) struct Dials(Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    next: u32,
    by_token: HashMap<u32, oneshot::Sender<Answer>>,
}

impl Dials {
    /// For the bridge of this generation: what an earlier one asked for must not be taken for this one's.
    pub(crate) fn new(generation: u32) -> Self {
        Self(Mutex::new(Waiting { next: generation << 24, by_token: HashMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> (Turn<'_>, oneshot::Receiver<Answer>) {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.lock();
        while waiting.by_token.contains_key(&waiting.next) {
            waiting.next = waiting.next.wrapping_add(1);
        }
        let token = waiting.next;
        waiting.next = token.wrapping_add(1);
        waiting.by_token.insert(token, sender);
        (Turn { dials: self, token }, answer)
    }

    /// The keeper has answered. A connection that nobody waits for any more is closed.
    pub(crate) fn answered(&self, token: u32, outcome: Result<(), DialFailure>, socket: Option<OwnedFd>) {
        let Some(sender) = self.lock().by_token.remove(&token) else { return };
        let answer = outcome.and_then(|()| socket.ok_or(DialFailure::Failed(libc_eio())));
        // Nobody may be waiting any more.
        _ = sender.send(answer);
    }
}

/// What stands for a connection that was said to be attached and is not.
fn libc_eio() -> i32 {
    rustix::io::Errno::IO.raw_os_error()
}

/// Waits no longer when it is dropped.
struct Turn<'a> {
    dials: &'a Dials,
    token: u32,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.dials.lock().by_token.remove(&self.token);
    }
}

pub(crate) async fn dial(inner: &Inner, process: &Process, port: u16) -> Result<TcpStream, DialError> {
    tokio::select! {
        biased;
        dialed = timeout(DIAL_DEADLINE, connect(inner, process.pid, port)) => {
            dialed.map_err(|_| DialError::Timeout)?
        }
        // A supervisor whose tree is over does not answer what was meant for that.
        _ = process.until(|view| view.tree_ended) => Err(DialError::Gone),
    }
}

async fn connect(inner: &Inner, pid: Pid, port: u16) -> Result<TcpStream, DialError> {
    let (turn, answer) = inner.dials.begin();
    let message = ToKeeper::Dial { pid, token: turn.token, port };
    inner.link.send(&message).await.map_err(|_| DialError::Gone)?;
    let socket = match answer.await.map_err(|_| DialError::Gone)? {
        Ok(socket) => socket,
        Err(DialFailure::Gone) => return Err(DialError::Gone),
        Err(DialFailure::Refused) => return Err(DialError::Refused),
        Err(DialFailure::Busy) => return Err(DialError::Busy),
        Err(DialFailure::Failed(errno)) => {
            return Err(DialError::Failed(io::Error::from_raw_os_error(errno)));
        }
    };
    let stream = TcpStream::from_std(socket.into()).map_err(DialError::Failed)?;
    // It may be on its way still, if the program is slow to accept.
    stream.writable().await.map_err(DialError::Failed)?;
    match stream.take_error().map_err(DialError::Failed)? {
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(DialError::Refused),
        Some(error) => Err(DialError::Failed(error)),
        None => Ok(stream),
    }
}
