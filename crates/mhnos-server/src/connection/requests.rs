//! What each request does.

use std::{future::pending, sync::Arc, time::Instant};

use futures_util::future::join_all;
use mhnos_process::{Gone, Process, Replay, Signal, SignalOutcome, WriteError};
use mhnos_protocol::{
    Attach, BadEntry, Content, Encoding, ErrorCode, ErrorReply, FileEntry, Kill, Killed, OfPid, Pid,
    PortList, ProcessList, PushError, PushResults, Reply, Request, Resize, Spawn, Spawned, Write,
};
use mhnos_sandbox::WindowSize;
use mhnos_workspace::{self as workspace, Workspace};

use super::{
    introduction,
    lane::{Id, Lane, Late, Watched, error_code, messages},
    outbox::Item,
    pull,
    view::{Manner, View},
};
use crate::{
    audit::Event as Audited,
    launcher, limits,
    preview::PortEvents,
    service, translate,
    web_os::{self, Input},
};

impl Lane<'_> {
    /// Lets a request take effect, and answers it now or later.
    pub(super) async fn perform(&mut self, id: Id, request: Request) {
        match request {
            // By far the largest of these futures: an idle connection need not hold room for it.
            Request::Spawn(spawn) => Box::pin(self.spawn(id, &spawn)).await,
            Request::Attach(attach) => self.attach(id, attach),
            Request::Detach { pid } => self.detach(&id, pid),
            Request::Write(write) => self.write(id, write).await,
            Request::CloseStdin { pid } => self.close_stdin(id, pid).await,
            Request::Resize(resize) => self.resize(&id, resize),
            Request::Kill(kill) => self.kill(id, kill).await,
            Request::List { all } => self.list(&id, all).await,
            Request::Ports { pid } => self.ports(&id, pid),
            Request::RevokePreview { pid } => self.revoke_preview(&id, pid),
            Request::Status => self.reply(&id, &Reply::Status(Box::new(self.service.status()))),
            Request::Ping => self.reply(&id, &Reply::Pong { time: service::now_ms() }),
            // Who is here has been let in already, by a token or without one being asked for.
            Request::Auth(_) => self.reply(&id, &introduction::authenticated(self.admission)),
            Request::Push { files } => self.push(&id, files).await,
            Request::Pull => self.pull(id).await,
        }
    }

    /// The process, or an answer that there is none.
    fn process(&self, id: &Id, pid: Pid) -> Option<Arc<Process>> {
        let process = self.service.processes.get(pid);
        if process.is_none() {
            self.fail(id, ErrorReply::process_not_found(pid));
        }
        process
    }

    async fn spawn(&mut self, id: Id, spawn: &Spawn) {
        let (service, asked) = (Arc::clone(self.service), Instant::now());
        // From before the start: a program may ask at once.
        let refusals = spawn.options.events.egress.then(|| service.gateway.refusals());
        let process = match self.beside(launcher::launch(&service, spawn)).await {
            Ok(process) => process,
            Err(error) => {
                service.metrics.not_spawned(error.code);
                self.audit(&translate::spawn_failed(spawn, error.code));
                return self.fail(&id, error);
            }
        };
        let spawned = Spawned {
            pid: process.pid(),
            status: mhnos_protocol::Success::Success,
            isolation: translate::isolation(process.enforcement()),
        };
        // The answer is queued before the view: it goes out before any output does.
        self.reply(&id, &Reply::Spawned(spawned));
        service.metrics.spawned(spawn.process_type, asked.elapsed());
        self.watch_egress(process.pid(), refusals);
        self.audit(&translate::spawned(spawn, &process));
        let viewer = process.attach(Replay::Retained, Arc::clone(&self.outbox.wake));
        let manner = self.manner(translate::encoding(process.info().encoding));
        let seat = self.service.frames.seat(process.pid());
        let view = View::spawned(process, viewer, seat, manner, self.dialect.web_os);
        self.outbox.push(Item::View(Box::new(view)));
    }

    fn attach(&mut self, id: Id, attach: Attach) {
        let Some(process) = self.process(&id, attach.pid) else { return };
        let Some(seat) = self.service.frames.seat_below(limits::MAX_VIEWERS, process.pid()) else {
            let text =
                format!("Process {} has {} viewers, and no more may be", attach.pid, limits::MAX_VIEWERS);
            return self.fail(&id, ErrorReply::new(ErrorCode::TooManyRequests, text).about(attach.pid));
        };
        let refusals = attach.events.egress.then(|| self.service.gateway.refusals());
        self.watch_egress(attach.pid, refusals);
        self.audit(&Audited::Attach { pid: attach.pid });
        let replay = attach.after.map_or(Replay::Retained, Replay::After);
        let viewer = process.attach(replay, Arc::clone(&self.outbox.wake));
        let encoding = attach.encoding.unwrap_or_else(|| translate::encoding(process.info().encoding));
        let view = View::attached(process, viewer, seat, self.manner(encoding), id);
        self.outbox.push(Item::View(Box::new(view)));
    }

    fn manner(&self, encoding: Encoding) -> Manner {
        Manner {
            format: self.dialect.format(encoding),
            gathers: self.dialect.web_os,
            sizes: !self.dialect.web_os,
            ports: PortEvents::new(Arc::clone(&self.service.previews), self.dialect.base),
        }
    }

    /// Answered for any pid, as the predecessor did: afterwards it is not viewed, which is what was asked.
    fn detach(&mut self, id: &Id, pid: Pid) {
        self.egress.remove(&pid);
        let tell_exit = self.service.processes.get(pid).filter(|_| self.dialect.web_os);
        let ended = tell_exit.as_ref().is_some_and(|process| process.exit().is_some());
        if let Some(process) = &tell_exit {
            self.watch_exit(process);
        }
        self.outbox.push(Item::Unview { pid, tell_exit, ended });
        self.reply(id, &Reply::Detached(OfPid { pid }));
    }

    async fn write(&mut self, id: Id, write: Write) {
        let Some(process) = self.process(&id, write.pid) else { return };
        let (pid, mut data) = (write.pid, write.data);
        self.audit_write(pid);
        if self.dialect.web_os {
            match web_os::translate_input(&mut data, process.stdio()) {
                Input::Text => {}
                Input::EndOfFile => return self.close_stdin(id, pid).await,
                Input::Interrupt => return self.interrupt(id, process).await,
            }
        }
        let (dialect, bytes, service) = (self.dialect, data.len(), Arc::clone(self.service));
        let kept = self.share.keep(bytes);
        let done = async move {
            let given_up = async {
                match &kept {
                    Some(kept) => kept.given_up().await,
                    None => pending().await,
                }
            };
            let written = process.write_unless(data.into(), given_up).await;
            let taken = written.map_or_else(WriteError::taken, |()| bytes);
            service.metrics.input_bytes.add(taken as u64);
            let reply = match written {
                Ok(()) => id.is_some().then_some(Reply::Written(OfPid { pid })),
                Err(error) => Some(Reply::Error(translate::write_error(error, pid))),
            };
            Late::answer(dialect, &id, reply.as_ref(), bytes)
        };
        self.begin(bytes, done).await;
    }

    /// The first write to a process says who has it in hand; one line for each key press would say no more.
    fn audit_write(&mut self, pid: Pid) {
        if !self.service.audit.is_on() || self.written.contains(&pid) {
            return;
        }
        // Those that are forgotten are never written to again.
        let processes = &self.service.processes;
        self.written.retain(|pid| processes.get(*pid).is_some());
        self.written.insert(pid);
        self.audit(&Audited::Write { pid });
    }

    async fn interrupt(&mut self, id: Id, process: Arc<Process>) {
        let (dialect, pid) = (self.dialect, process.pid());
        let done = async move {
            let reply = match process.interrupt().await {
                Ok(()) => id.is_some().then_some(Reply::Written(OfPid { pid })),
                Err(Gone) => Some(Reply::Error(translate::gone(pid))),
            };
            Late::answer(dialect, &id, reply.as_ref(), 0)
        };
        self.begin(0, done).await;
    }

    async fn close_stdin(&mut self, id: Id, pid: Pid) {
        let Some(process) = self.process(&id, pid) else { return };
        let dialect = self.dialect;
        let done = async move {
            let reply = match process.close_stdin().await {
                Ok(()) => id.is_some().then_some(Reply::StdinClosed(OfPid { pid })),
                Err(error) => Some(Reply::Error(translate::write_error(error, pid))),
            };
            Late::answer(dialect, &id, reply.as_ref(), 0)
        };
        self.begin(0, done).await;
    }

    fn resize(&mut self, id: &Id, resize: Resize) {
        let Some(process) = self.process(id, resize.pid) else { return };
        match process.resize(WindowSize { cols: resize.size.cols, rows: resize.size.rows }) {
            Ok(()) => self.acknowledge(id, &Reply::Resized(OfPid { pid: resize.pid })),
            Err(Gone) => self.fail(id, translate::gone(resize.pid)),
        }
    }

    async fn kill(&mut self, id: Id, kill: Kill) {
        let Some(process) = self.process(&id, kill.pid) else { return };
        let Some(signal) = Signal::from_number(kill.signal.number()) else {
            let text = format!("Unknown signal: {}", kill.signal.name());
            return self.fail(&id, ErrorReply::new(ErrorCode::UnknownSignal, text));
        };
        let (dialect, pid) = (self.dialect, kill.pid);
        self.audit(&translate::kill(kill));
        let scope = translate::scope(kill.scope);
        let done = async move {
            let sent = process.signal(signal, scope);
            let outcome = if dialect.web_os { web_os::in_time(sent).await } else { Some(sent.await) };
            let reply = match outcome {
                None => Reply::Error(web_os::still_ending(pid)),
                Some(outcome) => killed(pid, outcome),
            };
            let messages = messages(dialect, &id, &reply);
            let failed = error_code(&reply);
            Late { items: vec![Item::AfterExit { process, messages }], bytes: 0, failed }
        };
        self.begin(0, done).await;
    }

    async fn list(&mut self, id: &Id, all: bool) {
        let processes = self.service.processes.clone();
        let listed = processes.list(all);
        // Asked all at once, and seldom anybody at all.
        let lingering = listed.iter().map(|process| async {
            if process.lingers() { Some(processes.members(process).await) } else { None }
        });
        let lingering = self.beside(join_all(lingering)).await;
        let each = listed.iter().zip(lingering);
        let list = ProcessList {
            processes: each
                .map(|(process, lingering)| {
                    let ports = self.service.previews.ports(self.dialect.base, process);
                    translate::process(process, lingering, ports)
                })
                .collect(),
            stats: translate::stats(&processes.stats()),
        };
        self.reply(id, &Reply::ProcessList(list));
    }

    fn ports(&mut self, id: &Id, pid: Option<Pid>) {
        let listed = match pid {
            None => self.service.processes.list(true),
            Some(pid) => match self.process(id, pid) {
                None => return,
                Some(process) => vec![process],
            },
        };
        let (previews, base) = (&self.service.previews, self.dialect.base);
        let ports = listed.iter().flat_map(|process| previews.ports(base, process)).collect();
        self.reply(id, &Reply::Ports(PortList { ports }));
    }

    fn revoke_preview(&mut self, id: &Id, pid: Pid) {
        let Some(process) = self.process(id, pid) else { return };
        if !self.service.previews.is_keyed() {
            let text =
                "Previews have names that can be guessed, and nothing to revoke, unless a token is set";
            return self.fail(id, ErrorReply::new(ErrorCode::NotAllowed, text).about(pid));
        }
        process.change_key();
        self.audit(&Audited::RevokePreview { pid });
        self.reply(id, &Reply::PreviewRevoked(OfPid { pid }));
    }

    async fn push(&mut self, id: &Id, files: Vec<Result<FileEntry, BadEntry>>) {
        let (service, who) = (Arc::clone(self.service), self.who.clone());
        // Counted and written down where it is done: it is done to its end even if the connection goes meanwhile.
        let written = tokio::task::spawn_blocking(move || {
            let (results, bytes) = write_files(&service.workspace, files);
            service.metrics.pushed_files.add(results.synced);
            service.metrics.push_failures.add(results.failed);
            service.metrics.pushed_bytes.add(bytes);
            let (files, failed) = (results.synced, results.failed);
            service.audit.tell(Some(&who), &Audited::Push { files, failed, bytes });
            results
        });
        match self.beside(written).await {
            Ok(results) => self.reply(id, &Reply::Pushed(results)),
            Err(error) => {
                let text = format!("the files could not be written: {error}");
                self.fail(id, ErrorReply::new(ErrorCode::Internal, text));
            }
        }
    }

    async fn pull(&mut self, id: Id) {
        self.audit(&Audited::Pull);
        let workspace = self.service.workspace.clone();
        match self
            .beside(pull::begin(workspace, self.service.pull_settings(), id.clone(), self.dialect))
            .await
        {
            Ok(pulls) => pulls.into_iter().for_each(|pull| self.outbox.push(Item::Pull(Box::new(pull)))),
            Err(error) => self.fail(&id, error),
        }
    }

    /// Sees to it that the exit is told to a client that no longer views the process.
    fn watch_exit(&mut self, process: &Arc<Process>) {
        if process.exit().is_none() && self.exits.insert(process.pid()) {
            let process = Arc::clone(process);
            self.watches.push(Box::pin(async move {
                // An error means that this bridge ends, and the connection with it.
                let _ = process.exited().await;
                Watched::Exit(process)
            }));
        }
    }

    /// Acts on what watching has shown.
    pub(super) fn seen(&mut self, watched: Watched) {
        match watched {
            Watched::Exit(process) => {
                self.exits.remove(&process.pid());
                self.outbox.push(Item::Exited(process));
            }
            Watched::Refused(refused, refusals) => self.refused_outside(&refused, refusals),
        }
    }
}

/// The answer to a `kill`.
fn killed(pid: Pid, outcome: Result<SignalOutcome, Gone>) -> Reply {
    match outcome {
        Ok(SignalOutcome::Delivered) => Reply::Killed(Killed { pid, ended: false }),
        // Whoever asks for the end of what has ended has got it.
        Ok(SignalOutcome::Ended) | Err(Gone) => Reply::Killed(Killed { pid, ended: true }),
        Ok(SignalOutcome::Survives) => Reply::Error(survives(pid)),
    }
}

fn survives(pid: Pid) -> ErrorReply {
    let text = format!("Process {pid} was sent SIGKILL and the system has not ended it yet; this goes on");
    ErrorReply::new(ErrorCode::Internal, text).about(pid)
}

/// Writes the entries of a push, in order; one that is wrong does not take the others with it. The results, and
/// how many bytes were written.
fn write_files(workspace: &Workspace, files: Vec<Result<FileEntry, BadEntry>>) -> (PushResults, u64) {
    let (mut results, mut bytes, mut room) = (PushResults::default(), 0, limits::PUSH_ERRORS);
    for file in files {
        let size = file.as_ref().map_or(0, |file| match &file.content {
            Content::File(content) => content.len() as u64,
            Content::Directory => 0,
        });
        let written = match file {
            Err(bad) => Err(PushError { path: bad.path, error: bad.malformed.text }),
            Ok(file) => {
                let content = match &file.content {
                    Content::File(bytes) => workspace::Content::File(bytes),
                    Content::Directory => workspace::Content::Directory,
                };
                let entry = workspace::Entry { path: &file.path, content, mtime_ms: file.mtime_ms };
                let written = workspace.push_one(&entry);
                written.map_err(|error| PushError { error: error.to_string(), path: file.path })
            }
        };
        match written {
            Ok(()) => {
                results.synced += 1;
                bytes += size;
            }
            Err(error) => {
                results.failed += 1;
                let left = room.checked_sub(error.path.len() + error.error.len());
                if let Some(left) = left {
                    room = left;
                    results.errors.push(error);
                }
            }
        }
    }
    (results, bytes)
}
