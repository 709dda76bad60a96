//! What the lane has for the writer, in order. Bounded in number and bytes: the lane reads nothing more
//! while there is no room, so a client that asks without listening is the one who waits.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mhnos_process::{Pid, Process};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use super::{pull::PullMessage, view::View};
use crate::limits;

/// One thing for the writer to do.
pub(super) enum Item {
    /// Send a text message.
    Text(String),
    /// Send a ping.
    Ping,
    /// Show a process's output from now on, instead of an earlier view of it.
    View(Box<View>),
    /// Show it no longer. `tell_exit`: its exit is still to be told; if it had `ended` before, only one that was viewed.
    Unview { pid: Pid, tell_exit: Option<Arc<Process>>, ended: bool },
    /// A process that is not viewed has ended, and its exit was still to be told.
    Exited(Arc<Process>),
    /// Send these messages, after the exit if that is still to be told.
    AfterExit { process: Arc<Process>, messages: Vec<String> },
    /// Send this answer as it is read from disk.
    Pull(Box<PullMessage>),
    /// Send this after what is queued and that much of output, then nothing more.
    Close(CloseFrame, Rest),
}

/// How much of output a client that is sent away still gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// All there will be: nothing writes any more.
    All,
    /// What has been written by now, for which there is time; it resumes after that. A flood has no end.
    Written,
    /// None.
    Nothing,
}

impl Item {
    pub(super) fn text(message: String) -> Self {
        Self::Text(message)
    }

    pub(super) fn close(code: CloseCode, reason: &'static str, rest: Rest) -> Self {
        Self::Close(CloseFrame { code, reason: reason.into() }, rest)
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Text(message) => message.len(),
            Self::AfterExit { messages, .. } => messages.iter().map(String::len).sum(),
            _ => 0,
        }
    }
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Queue {
    fn has_room(&self) -> bool {
        self.items.len() < limits::MAX_QUEUED && self.bytes < limits::MAX_QUEUED_BYTES
    }
}

#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// Wakes the writer: something is queued, or a viewer has something new.
    pub(super) wake: Arc<Notify>,
    /// Wakes the lane: there is room again.
    room: Notify,
}

impl Outbox {
    /// Queues an item. Always succeeds; the lane asks for [`room`](Self::room) before it takes on more.
    pub(super) fn push(&self, item: Item) {
        let mut queue = self.lock();
        queue.bytes += item.bytes();
        queue.items.push_back(item);
        drop(queue);
        self.wake.notify_one();
    }

    pub(super) fn take(&self) -> Option<Item> {
        let mut queue = self.lock();
        let had_room = queue.has_room();
        let item = queue.items.pop_front()?;
        queue.bytes -= item.bytes();
        if !had_room && queue.has_room() {
            self.room.notify_one();
        }
        Some(item)
    }

    /// Waits until the lane may take on more.
    pub(super) async fn room(&self) {
        while !self.lock().has_room() {
            self.room.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
