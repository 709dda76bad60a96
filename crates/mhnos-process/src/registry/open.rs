//! From the keeper's descriptors to a process and its task: the same way for a new process and an adopted one.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use mhnos_keeper::channel::{Descriptor, Pid, Port};
use mhnos_sandbox::{Enforcement, Stdio, WindowSize};
use rustix::termios::tcgetwinsize;
use tokio::{
    io::Interest,
    sync::{Notify, mpsc, watch},
};

use super::Inner;
use crate::{
    exit::State,
    input::{Input, Sink},
    limits::COMMANDS,
    log::{Stream, recover},
    note::Note,
    process::{Mail, Process, Report, Terminal, View},
    reader::Reader,
    state::Machine,
    task::Task,
    watched::watch,
};

/// What the keeper says of a process.
pub(super) struct Told {
    pub(super) pid: Pid,
    pub(super) os_pid: i32,
    pub(super) enforcement: Enforcement,
    pub(super) descriptors: Descriptors,
    pub(super) ports: Vec<Port>,
}

/// A process's descriptors by what they are.
#[derive(Default)]
pub(super) struct Descriptors {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    pty: Option<OwnedFd>,
    report: Option<OwnedFd>,
    log: Option<OwnedFd>,
    scratch_read: Option<OwnedFd>,
    scratch_write: Option<OwnedFd>,
}

impl Descriptors {
    /// `None` if names and descriptors do not match.
    pub(super) fn new(names: &[Descriptor], fds: Vec<OwnedFd>) -> Option<Self> {
        let mut all = Self::default();
        if names.len() != fds.len() {
            return None;
        }
        for (name, fd) in names.iter().zip(fds) {
            let place = match name {
                Descriptor::Stdin => &mut all.stdin,
                Descriptor::Stdout => &mut all.stdout,
                Descriptor::Stderr => &mut all.stderr,
                Descriptor::Pty => &mut all.pty,
                Descriptor::Report => &mut all.report,
                Descriptor::Log => &mut all.log,
                Descriptor::ScratchRead => &mut all.scratch_read,
                Descriptor::ScratchWrite => &mut all.scratch_write,
            };
            *place = Some(fd);
        }
        Some(all)
    }
}

/// A process and its task, which does not run yet.
pub(super) fn open(inner: &Arc<Inner>, told: Told, note: Note) -> io::Result<Task> {
    let Told { pid, os_pid, enforcement, descriptors, ports } = told;
    let log = descriptors.log.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no output log"))?;
    let scratch = descriptors.scratch_read.zip(descriptors.scratch_write);
    let mut reader = Reader::new(recover(log, scratch)?);
    let mut terminal = Terminal::default();
    let mut sink = Sink::Closed;
    if let Stdio::Pty(size) = note.stdio {
        terminal.size = Some(size);
        if let Some(master) = descriptors.pty {
            let now = tcgetwinsize(&master)?;
            terminal.size = Some(WindowSize { cols: now.ws_col, rows: now.ws_row });
            reader.add_terminal(master.try_clone()?)?;
            let master = Arc::new(watch(master, Interest::WRITABLE)?);
            terminal.master = Some(master.clone());
            sink = Sink::Terminal(master);
        }
    } else if let Some(stdin) = descriptors.stdin {
        sink = Sink::Pipe(Arc::new(watch(stdin, Interest::WRITABLE)?));
    }
    for (stream, pipe) in [(Stream::Stdout, descriptors.stdout), (Stream::Stderr, descriptors.stderr)] {
        pipe.map_or(Ok(()), |pipe| reader.add_pipe(stream, pipe))?;
    }
    let report = Report { bytes: note.report.clone(), ended: descriptors.report.is_none() };
    descriptors.report.map_or(Ok(()), |pipe| reader.add_report(pipe))?;
    reader.end_missing();
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let poke = Arc::new(Notify::new());
    let machine = Machine::adopted(note.memory, note.recorded_at.is_some());
    let state =
        machine.stopping().map_or(State::Running, |(reason, signal)| State::Stopping { reason, signal });
    let process = Process {
        pid,
        os_pid,
        info: note.info(),
        enforcement,
        isolation: note.isolation,
        limits: note.limits,
        started_ms: note.started_ms,
        stdio: note.stdio,
        grace: Duration::from_millis(note.memory.grace),
        log: reader.log().clone(),
        input: Input::new(sink, poke.clone()),
        commands,
        view: watch::Sender::new(View { state, tree_ended: false, gone: false }),
        report: watch::Sender::new(report),
        terminal: Mutex::new(terminal),
        mail: Mutex::new(Mail::default()),
        asking: Mutex::default(),
        ports: Mutex::new(ports.into()),
        key: Mutex::new(note.key.clone()),
        poke,
    };
    Ok(Task { process: Arc::new(process), inner: inner.clone(), commands: receiver, reader, machine, note })
}
