//! The task that owns one process: reads its output, drives its state machine, performs the effects.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use mhnos_keeper::channel::{Exit, ExitStatus, FIRST_PID, Scope, ToKeeper};
use tokio::{io::Interest, sync::mpsc, time::sleep_until};

use crate::{
    clock::unix_ms,
    exit::{ExitRecord, State, Usage},
    limits::{LONGEST_SLEEP, REPORT_BYTES},
    log::Held,
    note::Note,
    process::{Gone, Mail, Process, View},
    reader::{Reader, Turn},
    registry::Inner,
    request::{End, OnEnd},
    signal::{Command, Signal},
    state::{Cause, Event, Machine, Verdict},
    watched::watch,
};

/// The task of one process, before it runs.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) process: Arc<Process>,
    pub(crate) inner: Arc<Inner>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) reader: Reader,
    pub(crate) machine: Machine,
    pub(crate) note: Note,
}

/// A task that has panicked, with all it held: whoever waits for the process is not to be told that it has ended.
#[derive(Debug)]
pub(crate) struct Panicked {
    pub(crate) task: Task,
    pub(crate) what: String,
}

/// What the task was woken by.
enum Wake {
    Mail,
    Command(Command),
    Deadline,
    Room,
    Turn(Turn),
    Flushed,
}

impl Task {
    /// Runs until nothing can happen to the process any more, or it is forgotten.
    pub(crate) async fn run(mut self) -> Result<(), Box<Panicked>> {
        let outcome = {
            let mut life = pin!(self.live());
            // What a panic leaves behind is only kept, never used again.
            let poll = |cx: &mut Context<'_>| match catch_unwind(AssertUnwindSafe(|| life.as_mut().poll(cx)))
            {
                Ok(poll) => poll.map(Ok),
                Err(payload) => Poll::Ready(Err(payload)),
            };
            poll_fn(poll).await
        };
        outcome.map_err(|payload| Box::new(Panicked { task: self, what: words(&*payload) }))
    }

    async fn live(&mut self) {
        if self.reader.is_ended() {
            self.apply(Event::OutputEnded).await;
        }
        self.look_at_caught_up().await;
        loop {
            let forgotten = self.take_mail().await;
            if forgotten || self.machine.is_gone() {
                break;
            }
            match self.wake().await {
                Wake::Mail | Wake::Room | Wake::Flushed => {}
                Wake::Command(command) => self.command(command).await,
                Wake::Deadline => self.deadline().await,
                Wake::Turn(turn) => self.turn(turn).await,
            }
        }
        while let Some(bytes) = self.reader.rest_of_report() {
            self.report(&bytes).await;
        }
        self.process.report.send_modify(|report| report.ended = true);
        self.process.input.closed_told();
        // A terminal's master is shared with the process that outlives this task.
        self.process.lock_terminal().master = None;
    }

    /// Waits for whatever comes first.
    async fn wake(&mut self) -> Wake {
        // Once the program has ended there is nothing to slow down: what it left is bounded by its pipes, and
        // its exit must not wait for a viewer that is asleep.
        let nothing_to_hold = self.machine.tree_ended() || self.machine.awaits_output();
        let held = if nothing_to_hold {
            Held::Free
        } else {
            self.process.log.held(self.inner.settings.stall_deadline)
        };
        let hold_ends = match held {
            Held::Free => None,
            Held::Until(at) => Some(at),
        };
        let due = self.machine.next_deadline().map(|at| self.inner.clock.wake_at(at));
        let retry = self.reader.retry_at().filter(|_| held == Held::Free);
        let deadline = due.into_iter().chain(hold_ends).chain(retry).min();
        let far = tokio::time::Instant::now() + LONGEST_SLEEP;
        let process = &self.process;
        tokio::select! {
            biased;
            () = process.poke.notified() => Wake::Mail,
            Some(command) = self.commands.recv() => Wake::Command(command),
            () = sleep_until(deadline.unwrap_or(far)), if deadline.is_some() => Wake::Deadline,
            () = poll_fn(|cx| process.input.poll_flush(cx)), if process.input.waiting() => Wake::Flushed,
            () = process.log.room(), if held != Held::Free => Wake::Room,
            turn = poll_fn(|cx| self.reader.poll_turn(cx)), if held == Held::Free => Wake::Turn(turn),
        }
    }

    /// Takes what the keeper and the process's users have left. Returns whether the process is forgotten.
    async fn take_mail(&mut self) -> bool {
        let mail: Mail = std::mem::take(&mut *self.process.lock_mail());
        if let Some(exit) = mail.exit {
            if let Some(usage) = mail.ended.filter(|_| self.note.recorded_at.is_some()) {
                // The record is made at once, and is of the whole tree.
                self.apply(Event::Ended(usage)).await;
            }
            self.exited(exit).await;
        }
        if let Some(usage) = mail.ended {
            if !self.machine.program_ended() {
                // The keeper tells exits first; a tree that is gone without one has lost it.
                let limit = None;
                self.exited(Exit { status: ExitStatus::Lost, time_ms: unix_ms(), limit, usage }).await;
            }
            self.apply(Event::Ended(usage)).await;
        }
        if mail.drain {
            self.apply(Event::Ask { signal: Signal::TERM, scope: Scope::Tree, cause: Cause::Drain }).await;
        }
        if mail.over_quota {
            // What may write for another while is over the quota by what it writes.
            self.apply(Event::Ask { signal: Signal::KILL, scope: Scope::Tree, cause: Cause::Quota }).await;
        }
        if mail.new_key {
            self.note.key = self.process.key();
            self.send_note().await;
        }
        if self.process.input.to_be_closed() {
            self.tell(&ToKeeper::CloseStdin { pid: self.process.pid }).await;
            self.process.input.closed_told();
        }
        mail.forget
    }

    async fn exited(&mut self, exit: Exit) {
        self.reader.program_exited();
        self.apply(Event::Exited(exit)).await;
        self.look_at_caught_up().await;
    }

    async fn command(&mut self, command: Command) {
        let Command { signal, scope, stop, sent } = command;
        let reachable = self.machine.reachable(scope);
        if stop {
            self.apply(Event::Ask { signal, scope, cause: Cause::Client }).await;
        } else {
            self.apply(Event::Send { signal, scope }).await;
        }
        // Nobody may be waiting any more.
        _ = sent.send(if reachable { Ok(()) } else { Err(Gone) });
    }

    async fn deadline(&mut self) {
        let now = self.inner.clock.now();
        if self.machine.next_deadline().is_some_and(|due| due <= now) {
            self.apply(Event::Tick).await;
        }
        self.reader.retry_due();
    }

    async fn turn(&mut self, turn: Turn) {
        if turn.news {
            self.process.log.wake_viewers();
        }
        if turn.reopened {
            self.terminal_reopened();
        }
        if let Some(bytes) = turn.report {
            self.report(&bytes).await;
        }
        if turn.news && self.reader.is_ended() {
            self.apply(Event::OutputEnded).await;
        }
        self.look_at_caught_up().await;
        if turn.more {
            tokio::task::yield_now().await;
        }
    }

    /// The runtime never forgets that a descriptor was hung up; a duplicate begins anew.
    fn terminal_reopened(&mut self) {
        let mut terminal = self.process.lock_terminal();
        let Some(master) = &terminal.master else { return };
        let again = master.get_ref().try_clone().and_then(|fd| watch(fd, Interest::WRITABLE));
        match again.map(Arc::new) {
            Ok(master) => {
                self.reader.reopen_terminal();
                self.process.input.replace_terminal(&master);
                terminal.master = Some(master);
            }
            Err(error) => tracing::warn!(%error, "cannot wait for a terminal; looking at it at intervals"),
        }
    }

    async fn look_at_caught_up(&mut self) {
        if self.machine.awaits_output() && self.reader.caught_up() {
            self.apply(Event::CaughtUp).await;
        }
    }

    /// Keeps what the report pipe said; nothing means its end.
    async fn report(&mut self, bytes: &[u8]) {
        let room = REPORT_BYTES - self.note.report.len();
        self.note.report.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.process.report.send_modify(|report| {
            report.bytes.clone_from(&self.note.report);
            report.ended |= bytes.is_empty();
        });
        if !bytes.is_empty() && room > 0 {
            self.send_note().await;
        }
    }

    /// One step of the state machine and its effects. The note goes first: if this bridge dies in between, the
    /// next one knows what was meant.
    async fn apply(&mut self, event: Event) {
        let was_over = self.machine.is_over();
        let (machine, effects) = self.machine.step(self.inner.clock.now(), event);
        self.machine = machine;
        if effects.remember {
            self.note.memory = self.machine.memory;
            self.send_note().await;
        }
        if let Some((signal, scope)) = effects.signal {
            self.tell(&ToKeeper::Signal { pid: self.process.pid, signal: signal.number(), scope }).await;
        }
        // As it was told by an earlier bridge, if it was.
        let verdict = effects.record.map(|verdict| match self.note.recorded {
            Some((reason, usage)) => Verdict { reason, usage, ..verdict },
            None => verdict,
        });
        let record = verdict.map(|verdict| self.record(&verdict));
        if let Some(record) = record {
            self.inner.recorded(self.process.pid, record.reason.is_kill());
        }
        let earlier = self.note.recorded_at.is_some();
        // What lives on may be killed, and what it used is counted then: no part of the record.
        let lives_on = !self.reader.is_ended() || !self.machine.tree_ended();
        if record.is_some() && lives_on {
            self.note.recorded_at = record.map(|record| record.end_position);
            self.note.recorded = verdict.map(|verdict| (verdict.reason, verdict.usage));
            self.send_note().await;
        }
        // Before anybody is told: who is told may start the next process at once.
        let over = self.machine.is_over() && !was_over;
        if over {
            self.inner.over(self.process.pid);
        }
        self.show(record, earlier);
        if over {
            // When the tree of one that has lived on ended is not known to a later bridge.
            let ended_ms = self.process.exit().map(|record| record.ended_ms);
            self.inner.shown_over(self.process.pid, ended_ms.filter(|_| self.note.recorded_at.is_none()));
        }
    }

    fn record(&self, verdict: &Verdict) -> ExitRecord {
        let Verdict { exit, reason, usage } = verdict;
        let end_position = self.note.recorded_at.unwrap_or_else(|| self.process.log.end());
        ExitRecord {
            status: exit.status,
            reason: *reason,
            runtime_ms: exit.time_ms.saturating_sub(self.process.started_ms),
            ended_ms: exit.time_ms,
            end_position,
            usage: Usage { cpu_ms: usage.cpu_us / 1000, max_rss: usage.max_rss, output_bytes: end_position },
        }
    }

    /// Shows the state to whoever looks or waits. An earlier bridge may have told of the end.
    fn show(&self, record: Option<ExitRecord>, earlier: bool) {
        let before = self.process.view.borrow().state;
        let state = match (record, before, self.machine.stopping()) {
            (Some(record), ..) | (None, State::Exited(record), _) => State::Exited(record),
            (None, _, Some((reason, signal))) => State::Stopping { reason, signal },
            (None, _, None) => State::Running,
        };
        let view = View { state, tree_ended: self.machine.tree_ended(), gone: self.machine.is_gone() };
        if let Some(record) = record {
            self.process.input.exited();
            let ExitRecord { status, reason, runtime_ms, .. } = record;
            if self.process.pid >= FIRST_PID {
                tracing::info!(
                    pid = self.process.pid,
                    ?status,
                    reason = reason.as_str(),
                    runtime_ms,
                    "ended"
                );
                if let Some(OnEnd(tell)) = &self.inner.settings.on_end {
                    let earlier = earlier || self.inner.had_ended(self.process.pid);
                    tell(&End { process: &self.process, record: &record, earlier });
                }
            }
        }
        self.process.view.send_replace(view);
        // Last: whoever is told of the exit finds the process ended.
        if let Some(record) = record {
            self.process.log.set_exit(record);
            self.process.log.wake_viewers();
        }
    }

    async fn send_note(&self) {
        self.tell(&ToKeeper::Note { pid: self.process.pid, note: self.note.encode() }).await;
    }

    async fn tell(&self, message: &ToKeeper) {
        // A keeper that is gone takes everything with it: the driver ends.
        if let Err(error) = self.inner.link.send(message).await {
            tracing::debug!(%error, pid = self.process.pid, "the keeper is gone");
        }
    }
}

/// What a panic says.
fn words(payload: &(dyn Any + Send)) -> String {
    let literal = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    literal.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}
