//! One process as one client sees it: the replay, then what it writes, then its end.
//!
//! ```text
//! Replaying ──caught up──► Live ──exit record──► Ended (told or held back) ──nothing lingers──► gone
//! ```
//!
//! Everything a client must see in order about one process passes through here: `attached` after the replay,
//! `exit` after the output, answers to kills after the `exit`.

use std::{collections::VecDeque, sync::Arc};

use mhnos_process::{Next, Pid, Piece, Process, Viewer};
use mhnos_protocol as wire;
use mhnos_sandbox::{Stdio, WindowSize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::{data_message, soon, text_message};
use crate::{
    frames::{Format, Seat, room_at},
    limits,
    metrics::Metrics,
    preview::PortEvents,
    translate, web_os,
};

/// Where a view stands.
#[derive(Debug)]
enum Stage {
    /// Up to a position, then the `attach` with this id is answered.
    Replaying { until: u64, id: Option<Box<RawValue>> },
    /// Whatever comes. `hold`: the exit is to be held back (see [`crate::web_os`]).
    Live { hold: bool },
    /// Ended; the exit is told at the deadline, or earlier if something else needs it told.
    Holding { exit: String, deadline: Instant },
    /// The exit has been told.
    Ended,
}

/// One process as one client sees it.
#[derive(Debug)]
pub(super) struct View {
    process: Arc<Process>,
    viewer: Viewer,
    seat: Seat,
    format: Format,
    /// Whether output waits for more and ends with whole lines (see [`crate::web_os`]).
    gathers: bool,
    /// Until when live output waits for more.
    gathering: Option<Instant>,
    /// How much had been written to the process when output was last sent: see [`Process::inputs`].
    inputs: u64,
    /// The last output that was sent from a terminal: its bytes, and when.
    sent: Option<(u64, Instant)>,
    /// The terminal's size the client knows of, if it is to be told of others.
    size: Option<WindowSize>,
    stage: Stage,
    /// Output after this is left to another connection.
    last: Option<u64>,
    /// What the client knows of the process's ports.
    ports: PortEvents,
    /// Messages that must come after the exit.
    after_exit: Vec<String>,
}

/// How a client wants to see output.
#[derive(Debug)]
pub(super) struct Manner {
    pub(super) format: Format,
    /// Small output is gathered, and lines are kept whole.
    pub(super) gathers: bool,
    /// Told when somebody changes the terminal's size.
    pub(super) sizes: bool,
    /// Told when the process begins or ends to listen.
    pub(super) ports: PortEvents,
}

impl View {
    /// A view that answers an `attach` when it has caught up.
    pub(super) fn attached(
        process: Arc<Process>,
        viewer: Viewer,
        seat: Seat,
        manner: Manner,
        id: Option<Box<RawValue>>,
    ) -> Self {
        let until = process.end_position();
        Self::new(process, viewer, seat, manner, Stage::Replaying { until, id })
    }

    /// The view of the client that has just spawned the process.
    pub(super) fn spawned(
        process: Arc<Process>,
        viewer: Viewer,
        seat: Seat,
        manner: Manner,
        hold_exit: bool,
    ) -> Self {
        Self::new(process, viewer, seat, manner, Stage::Live { hold: hold_exit })
    }

    fn new(process: Arc<Process>, viewer: Viewer, seat: Seat, manner: Manner, stage: Stage) -> Self {
        let Manner { format, gathers, sizes, ports } = manner;
        let size = process.window_size().filter(|_| sizes);
        Self {
            inputs: process.inputs(),
            process,
            viewer,
            seat,
            format,
            gathers,
            gathering: None,
            sent: None,
            size,
            stage,
            last: None,
            ports,
            after_exit: Vec::new(),
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Moves one step; what is to be sent goes to `ready`. `false`: there is nothing to do for now. `hurry`:
    /// output waits for nothing more.
    pub(super) fn advance(&mut self, ready: &mut VecDeque<Message>, hurry: bool, metrics: &Metrics) -> bool {
        if self.has_got_last() {
            return false;
        }
        // Somebody who has written to a terminal waits for the echo.
        let inputs = self.process.inputs();
        if hurry || self.is_terminal() && inputs != self.inputs {
            self.gathering = None;
        } else if self.waits_for_more() {
            return false;
        }
        if self.tell_size(ready) || self.tell_ports(ready) {
            return true;
        }
        let (seat, format, before) = (&self.seat, self.format, self.viewer.position());
        let encode = |piece: Piece<'_>| seat.frame(&piece, format);
        let next = if self.gathers {
            self.viewer.next_cut(limits::FRAME_BYTES as usize, web_os::whole_lines, encode)
        } else {
            self.viewer.next(room_at(self.viewer.position()), encode)
        };
        let moved = match next {
            Next::Output(frame) => {
                // What is left is the beginning of a line.
                let rest = self.gathers && self.viewer.behind() > 0;
                self.gathering = rest.then(|| soon(limits::WEB_OS_LINE));
                self.inputs = inputs;
                if self.is_terminal() {
                    self.sent = Some((self.viewer.position() - before, Instant::now()));
                }
                ready.extend(frame.map(|frame| data_message(frame, format.is_text())));
                true
            }
            Next::Gap { from, to } => {
                metrics.gaps.add(1);
                metrics.gap_bytes.add(to - from);
                let gap = wire::Event::Gap(wire::Gap { pid: self.pid(), from, to });
                ready.push_back(text_message(gap.to_json()));
                true
            }
            Next::Exit(record) => {
                self.caught_up(ready);
                self.exited(&translate::exit(self.pid(), &record).to_json(), ready);
                return true;
            }
            Next::Nothing => false,
        };
        if let Stage::Replaying { until, .. } = self.stage
            && (!moved || self.viewer.position() >= until)
        {
            self.caught_up(ready);
            return true;
        }
        moved
    }

    /// What is written from now on is left to another connection.
    pub(super) fn ends_here(&mut self) {
        self.last = Some(self.process.end_position());
    }

    /// Whether nothing is left for this one: an attach is answered yet, and an exit that is there is told.
    fn has_got_last(&self) -> bool {
        self.last.is_some_and(|last| self.viewer.position() >= last)
            && !matches!(self.stage, Stage::Replaying { .. })
            && (self.process.exit().is_none() || self.has_seen_exit())
    }

    /// Tells the terminal's size if somebody has changed it, the client itself included.
    fn tell_size(&mut self, ready: &mut VecDeque<Message>) -> bool {
        if self.size.is_none() || matches!(self.stage, Stage::Replaying { .. }) {
            return false;
        }
        let Some(now) = self.process.window_size().filter(|now| self.size != Some(*now)) else {
            return false;
        };
        self.size = Some(now);
        let size = wire::Size { pid: self.pid(), cols: now.cols, rows: now.rows };
        ready.push_back(text_message(wire::Event::Size(size).to_json()));
        true
    }

    fn tell_ports(&mut self, ready: &mut VecDeque<Message>) -> bool {
        if matches!(self.stage, Stage::Replaying { .. }) {
            return false;
        }
        let events = self.ports.due(&self.process);
        let any = !events.is_empty();
        ready.extend(events.iter().map(|event| text_message(event.to_json())));
        any
    }

    /// Answers the `attach` that began this view, if that has not been done.
    pub(super) fn caught_up(&mut self, ready: &mut VecDeque<Message>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Live { hold: false });
        let Stage::Replaying { id, .. } = stage else {
            self.stage = stage;
            return;
        };
        let size = self.process.window_size();
        self.size = self.size.and(size);
        let attached = wire::Attached {
            pid: self.pid(),
            status: translate::status(&self.process.state()),
            seq: self.viewer.position(),
            pty: size.map(translate::window_size),
        };
        ready.push_back(text_message(wire::Reply::Attached(attached).to_json(id.as_deref())));
    }

    fn exited(&mut self, exit: &str, ready: &mut VecDeque<Message>) {
        let hold = matches!(self.stage, Stage::Live { hold: true }) && self.after_exit.is_empty();
        self.stage = Stage::Holding { exit: exit.to_owned(), deadline: soon(limits::EXIT_HOLD) };
        if !hold {
            self.tell_exit(ready);
        }
    }

    /// Tells an exit that is being held back, and what waits for it.
    pub(super) fn tell_exit(&mut self, ready: &mut VecDeque<Message>) {
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Holding { exit, .. } => {
                ready.push_back(text_message(exit));
                ready.extend(self.after_exit.drain(..).map(text_message));
            }
            stage => self.stage = stage,
        }
    }

    /// Holds no exit back from now on.
    pub(super) fn release_exit(&mut self, ready: &mut VecDeque<Message>) {
        if let Stage::Live { hold } = &mut self.stage {
            *hold = false;
        }
        self.tell_exit(ready);
    }

    /// Until when an exit is being held back.
    pub(super) fn held_until(&self) -> Option<Instant> {
        if let Stage::Holding { deadline, .. } = self.stage { Some(deadline) } else { None }
    }

    /// When this view has something to do although nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.held_until().into_iter().chain(self.gathering).min()
    }

    /// Sends messages after the exit: at once if that has been told.
    pub(super) fn after_exit(&mut self, messages: Vec<String>, ready: &mut VecDeque<Message>) {
        let ended = matches!(self.stage, Stage::Ended);
        self.after_exit.extend(messages);
        self.tell_exit(ready);
        if ended || self.process.exit().is_none() {
            ready.extend(self.after_exit.drain(..).map(text_message));
        }
    }

    fn is_terminal(&self) -> bool {
        matches!(self.process.stdio(), Stdio::Pty(_))
    }

    /// Whether the output that waits may still become more; decided anew when the time is over. A replay
    /// waits for nothing.
    fn waits_for_more(&mut self) -> bool {
        let waiting = self.viewer.behind();
        let until = match self.sent {
            _ if waiting == 0 || matches!(self.stage, Stage::Replaying { .. }) => None,
            _ if self.gathers => (waiting < web_os::GATHER_BYTES)
                .then(|| *self.gathering.get_or_insert_with(|| soon(limits::WEB_OS_GATHER))),
            // A terminal brings 4 KiB at a time, however much is written to it.
            Some((bytes, at)) if bytes >= limits::TERMINAL_PIECE && waiting < limits::TERMINAL_JOINED => {
                Some(at + limits::TERMINAL_GATHER)
            }
            _ => None,
        };
        self.gathering = until;
        until.is_some_and(|until| until > Instant::now())
    }

    /// Whether nothing will ever come again.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ended)
            && !self.process.lingers()
            && self.viewer.behind() == 0
            && !self.ports.any_open()
    }

    /// Whether the exit has been seen here, told or held back.
    pub(super) fn has_seen_exit(&self) -> bool {
        matches!(self.stage, Stage::Ended | Stage::Holding { .. })
    }

    /// Takes over from an earlier view of the same process: what that one promised is answered now, what
    /// must come after the exit waits for this view's.
    pub(super) fn replace(&mut self, mut earlier: Self, ready: &mut VecDeque<Message>) {
        earlier.caught_up(ready);
        self.after_exit = earlier.after_exit;
    }

    /// Ends this view: what was promised is answered now.
    pub(super) fn finish(mut self, ready: &mut VecDeque<Message>) {
        self.caught_up(ready);
        self.tell_exit(ready);
        ready.extend(self.after_exit.drain(..).map(text_message));
    }
}
