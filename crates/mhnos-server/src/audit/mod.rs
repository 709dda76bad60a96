//! The audit log: who did what, when; one JSON object a line. Off unless asked for.
//!
//! It never stops or slows the service. [`Audit::tell`] hands a line to a bounded queue and returns; a thread
//! (`writer`) takes lines out and may block on a slow pipe as long as it likes. What finds no room or cannot
//! be written is lost, and that is told: in `/metrics`, in the log, and in the audit log itself as soon as it
//! can be written again.
//!
//! No contents go in: no input, no output, no file contents, no environment, no tokens; of a program's arguments
//! only their number, since passwords are passed there.

mod event;
mod file;
mod time;
mod writer;

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
};

pub(crate) use self::event::{Event, Who};
pub use self::file::{AuditFile, OpenError};
use self::{file::Sink, time::rfc3339};
use crate::limits;

/// Where lines go.
#[derive(Debug)]
pub enum Destination {
    /// Standard output, as it was inherited.
    Stdout,
    /// A file, opened by whoever started this.
    File(AuditFile),
}

/// The audit log, for everybody who has something to tell.
#[derive(Debug, Default)]
pub(crate) struct Audit(Option<Open>);

#[derive(Debug)]
struct Open {
    /// `None` after [`Audit::close`].
    lines: Mutex<Option<SyncSender<String>>>,
    /// Told when the writer has written all there was.
    written: Mutex<Receiver<()>>,
    lost: Arc<Lost>,
}

/// Lines that are not in the log.
#[derive(Debug, Default)]
struct Lost(AtomicU64);

impl Lost {
    fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Audit {
    /// Starts the writer.
    pub(crate) fn start(destination: Option<Destination>) -> io::Result<Self> {
        let Some(destination) = destination else { return Ok(Self(None)) };
        let sink = Sink::of(destination)?;
        let (lines, queue) = mpsc::sync_channel(limits::AUDIT_QUEUE);
        let (tell_written, written) = mpsc::channel();
        let lost = Arc::new(Lost::default());
        let of_writer = Arc::clone(&lost);
        // A thread and no task: it may block for ever, and then the process must still end.
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            writer::run(&queue, sink, &of_writer);
            // Nobody may be waiting.
            let _ = tell_written.send(());
        })?;
        Ok(Self(Some(Open { lines: Some(lines).into(), written: written.into(), lost })))
    }

    /// Whether anybody listens.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes an event down, soon.
    pub(crate) fn tell(&self, who: Option<&Who>, event: &Event<'_>) {
        let Some(open) = &self.0 else { return };
        let line = event::line(&rfc3339(crate::service::now_ms()), who, event);
        let lines = open.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.as_ref().map(|lines| lines.try_send(line)) {
            Some(Ok(())) => {}
            None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => open.lost.add(1),
        }
    }

    /// Lines lost by this bridge.
    pub(crate) fn lost(&self) -> u64 {
        self.0.as_ref().map_or(0, |open| open.lost.get())
    }

    /// Takes no more, and waits until all is written, for [`limits::AUDIT_CLOSE`] at most. Blocks.
    pub(crate) fn close(&self) {
        let Some(open) = &self.0 else { return };
        *open.lines.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let written = open.written.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever is not written by then is lost with this process.
        let _ = written.recv_timeout(limits::AUDIT_CLOSE);
    }
}

/// Standard output as a descriptor of our own.
fn stdout() -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?)
}
