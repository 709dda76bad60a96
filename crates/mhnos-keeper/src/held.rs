//! What the keeper holds of one process: its descriptors, its output log, the channel to its
//! supervisor, the bridge's note, and how it ended.

use std::{io, os::fd::OwnedFd, rc::Rc};

use mhnos_sandbox::{
    Enforcement, ExtraFdKind, Launch, Limits, Stdio,
    cgroup::{Group, Word},
};
use rustix::{
    fs::{OFlags, fcntl_setfl},
    pipe::{PipeFlags, pipe_with},
};

use crate::{
    channel::{
        Adoption, Descriptor, Exit, ExitStatus, Failure, FromKeeper, LimitHit, Order, Pid, Port, Scope, Usage,
    },
    inner::ToSupervisor,
    log_file,
    outbox::{Attached, Outbox},
    recruit::{Recruit, Started},
    socket::sealed_memfd,
    spares::Ready,
};

/// One process or retained exit.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) pid: Pid,
    pub(crate) note: Vec<u8>,
    /// Number of the sandbox it runs in.
    pub(crate) sandbox: u32,
    /// The bridge that ordered it.
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    pub(crate) enforcement: Enforcement,
    /// What its tree listens on.
    pub(crate) ports: Vec<Port>,
    /// Connections that its supervisor has not answered.
    pub(crate) dials: usize,
    fds: Outside,
    limits: Limits,
    group: Option<Group>,
    killed: bool,
    /// Its sandbox has ended before it.
    homeless: bool,
}

/// How far it is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Its process has not said yet whether it has become the program.
    Starting { control: Outbox<ToSupervisor>, recruit: Recruit },
    /// It runs, or descendants of it do.
    Running { os_pid: i32, exit: Option<Exit>, control: Outbox<ToSupervisor> },
    /// Nothing of it is left.
    Ended { os_pid: i32, exit: Exit, usage: Usage },
}

/// The ends of a new process's descriptors that go inside.
pub(crate) struct Inside {
    pub(crate) launch: Launch,
    pub(crate) slots: Vec<u32>,
    pub(crate) fds: Attached,
}

/// The ends of a new process's descriptors that stay outside.
pub(crate) type Outside = Vec<(Descriptor, Rc<OwnedFd>)>;

impl Inside {
    /// Makes pipes and log for a process about to be started.
    pub(crate) fn prepare(order: &Order, log_bytes: u64) -> io::Result<(Self, Outside)> {
        let mut inside = Self { launch: order.launch.clone(), slots: Vec::new(), fds: Vec::new() };
        let mut fds = Vec::new();
        match order.stdio {
            Stdio::Pipes { stdin } => {
                if stdin {
                    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                    inside.place(0, read);
                    fcntl_setfl(&write, OFlags::NONBLOCK)?;
                    fds.push((Descriptor::Stdin, write.into()));
                }
                fds.push((Descriptor::Stdout, inside.output(1)?.into()));
                fds.push((Descriptor::Stderr, inside.output(2)?.into()));
            }
            Stdio::Pty(_) => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                fds.push((Descriptor::ScratchRead, read.into()));
                fds.push((Descriptor::ScratchWrite, write.into()));
            }
        }
        for extra in std::mem::take(&mut inside.launch.extra_fds) {
            match extra.kind {
                ExtraFdKind::Content(content) => inside.place(extra.fd, sealed_memfd(&content)?),
                ExtraFdKind::Report => fds.push((Descriptor::Report, inside.output(extra.fd)?.into())),
            }
        }
        fds.push((Descriptor::Log, log_file::create(log_bytes)?.into()));
        Ok((inside, fds))
    }

    fn place(&mut self, number: u32, fd: OwnedFd) {
        self.slots.push(number);
        self.fds.push(Rc::new(fd));
    }

    /// A pipe the program writes to as `number`; returns the end that is read, non-blocking.
    fn output(&mut self, number: u32) -> io::Result<OwnedFd> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        self.place(number, write);
        fcntl_setfl(&read, OFlags::NONBLOCK)?;
        Ok(read)
    }
}

impl Held {
    /// A process that has been ordered.
    pub(crate) fn new(
        order: &mut Order,
        sandbox: u32,
        generation: u32,
        enforcement: Enforcement,
        fds: Outside,
        ready: Ready,
    ) -> Self {
        Self {
            pid: order.pid,
            note: std::mem::take(&mut order.note),
            sandbox,
            generation,
            phase: Phase::Starting { control: ready.control, recruit: ready.recruit },
            enforcement,
            ports: Vec::new(),
            dials: 0,
            fds,
            limits: order.limits,
            group: ready.group,
            killed: false,
            homeless: false,
        }
    }

    /// The channel to its supervisor, while there is one.
    pub(crate) fn control(&mut self) -> Option<&mut Outbox<ToSupervisor>> {
        match &mut self.phase {
            Phase::Starting { control, .. } | Phase::Running { control, .. } => Some(control),
            Phase::Ended { .. } => None,
        }
    }

    /// Sends what waits for its supervisor, or for its process.
    pub(crate) fn flush(&mut self) {
        if let Phase::Starting { recruit, .. } = &mut self.phase {
            recruit.flush();
        }
        if let Some(control) = self.control() {
            let _ = control.flush();
        }
    }

    /// Whether something waits to be sent to its supervisor, or to its process.
    pub(crate) fn is_waiting(&self) -> bool {
        match &self.phase {
            Phase::Starting { control, recruit } => control.is_waiting() || recruit.is_waiting(),
            Phase::Running { control, .. } => control.is_waiting(),
            Phase::Ended { .. } => false,
        }
    }

    pub(crate) fn started(&mut self, Started { os_pid, master }: Started) {
        self.fds.extend(master.map(|fd| (Descriptor::Pty, fd.into())));
        self.phase = match std::mem::replace(&mut self.phase, nothing()) {
            Phase::Starting { control, .. } => Phase::Running { os_pid, exit: None, control },
            other => other,
        };
    }

    /// The program has ended; what is returned says also if a limit was the reason.
    pub(crate) fn exited(&mut self, mut exit: Exit) -> Exit {
        exit.limit = exit.limit.or(self.limit_hit(exit.status));
        // Where there is a pid namespace nobody is left to say what it was; all tiers tell the same.
        if self.homeless && exit.limit.is_none() && exit.status == ExitStatus::Signal(libc::SIGKILL) {
            exit.status = ExitStatus::Lost;
        }
        if let Phase::Running { exit: known, .. } = &mut self.phase {
            known.get_or_insert(exit);
        }
        exit
    }

    fn limit_hit(&self, status: ExitStatus) -> Option<LimitHit> {
        // Whatever its status: a program may have outlived what was killed, and yet it was not done as it should be.
        if self.was_killed_for_memory() {
            return Some(LimitHit::Memory);
        }
        let group = self.group.as_ref()?;
        let failed = status != ExitStatus::Code(0);
        // Being killed is being refused to fork, too.
        (failed && !self.killed && group.fork_refusals() > 0).then_some(LimitHit::Pids)
    }

    /// Kills the whole tree: at once, where the kernel can. The supervisor reaps what that left, or kills it itself.
    pub(crate) fn kill(&mut self) {
        self.killed = true;
        if let Some(group) = &self.group {
            group.kill();
        }
        self.signal(libc::SIGKILL, Scope::Tree);
    }

    /// Whether the kernel has killed some of its tree for want of memory.
    pub(crate) fn was_killed_for_memory(&self) -> bool {
        self.group.as_ref().is_some_and(Group::ran_out_of_memory)
    }

    /// Where the kernel says that its tree may be out of memory, and does not end all of it.
    pub(crate) fn word(&self) -> Option<&Word> {
        self.group.as_ref().and_then(Group::word)
    }

    /// Has the supervisor send a signal.
    pub(crate) fn signal(&mut self, signal: i32, scope: Scope) {
        let terminal = self.fds.iter().any(|(descriptor, _)| *descriptor == Descriptor::Pty);
        if let Some(control) = self.control() {
            let _ = control.send(ToSupervisor::Signal { signal, scope, terminal }, Vec::new());
        }
    }

    /// Its sandbox's init has ended. The pid namespace takes all of it along; where there is none, its supervisor does, which
    /// nobody would miss any more if that were killed, too.
    pub(crate) fn lose_sandbox(&mut self) {
        self.homeless = true;
        self.kill();
    }

    /// Whether its supervisor can be given another program.
    pub(crate) fn has_sandbox(&self) -> bool {
        !self.homeless
    }

    /// The tree is over, or out of reach: then the exit is a lost one. The channel to its supervisor is returned too.
    pub(crate) fn ended(&mut self, usage: Usage, lost: Exit) -> (Exit, Option<Outbox<ToSupervisor>>) {
        let (os_pid, exit, control) = match std::mem::replace(&mut self.phase, nothing()) {
            Phase::Running { os_pid, exit, control } => (os_pid, exit.unwrap_or(lost), Some(control)),
            Phase::Ended { os_pid, exit, .. } => (os_pid, exit, None),
            Phase::Starting { control, .. } => (0, lost, Some(control)),
        };
        self.phase = Phase::Ended { os_pid, exit, usage };
        self.ports.clear();
        (exit, control)
    }

    /// The control group of a tree that is over, if another program may have it as it is: nothing has been set,
    /// counted or left there. Otherwise it is removed, which may wait for somebody who is joining another.
    pub(crate) fn take_group(&mut self, usual: &Limits) -> Option<Group> {
        let group = self.group.take()?;
        (!self.killed && self.limits == *usual && group.is_as_new()).then_some(group)
    }

    pub(crate) fn close_stdin(&mut self) {
        self.fds.retain(|(descriptor, _)| *descriptor != Descriptor::Stdin);
    }

    /// The message that tells a bridge of the start, with what it needs.
    pub(crate) fn start_message(&self) -> (FromKeeper, Attached) {
        let (fds, attached) = self.attached();
        let os_pid = self.os_pid();
        let message =
            FromKeeper::Started { pid: self.pid, os_pid, enforcement: self.enforcement.clone(), fds };
        (message, attached)
    }

    /// The message that tells a new bridge of a process it did not start.
    pub(crate) fn adoption(&self) -> (FromKeeper, Attached) {
        let (fds, attached) = self.attached();
        let (exit, usage) = match &self.phase {
            Phase::Starting { .. } => (None, None),
            Phase::Running { exit, .. } => (*exit, None),
            Phase::Ended { exit, usage, .. } => (Some(*exit), Some(*usage)),
        };
        let adoption = Adoption {
            pid: self.pid,
            os_pid: self.os_pid(),
            enforcement: self.enforcement.clone(),
            note: self.note.clone(),
            exit,
            usage,
            fds,
            ports: self.ports.clone(),
        };
        (FromKeeper::Adopt(adoption), attached)
    }

    fn os_pid(&self) -> i32 {
        match &self.phase {
            Phase::Starting { .. } => 0,
            Phase::Running { os_pid, .. } | Phase::Ended { os_pid, .. } => *os_pid,
        }
    }

    fn attached(&self) -> (Vec<Descriptor>, Attached) {
        self.fds.iter().cloned().unzip()
    }
}

/// A phase to stand in while another is being made.
fn nothing() -> Phase {
    let exit = Exit { status: ExitStatus::Lost, time_ms: 0, limit: None, usage: Usage::default() };
    Phase::Ended { os_pid: 0, exit, usage: Usage::default() }
}

/// Refuses an order that this service would never make: the first wall against a bridge gone wrong.
pub(crate) fn check(order: &Order) -> Result<(), Failure> {
    let refuse = |detail: &str| {
        Err(Failure { stage: crate::channel::Stage::Order, errno: 0, detail: detail.to_owned() })
    };
    let launch = &order.launch;
    let strings = launch.argv.iter().chain([&launch.program, &launch.cwd]);
    let env = launch.env.iter().flat_map(|(name, value)| [name, value]);
    if strings.chain(env).any(|text| text.contains('\0')) {
        return refuse("arguments and environment must not contain NUL bytes");
    }
    if launch.argv.is_empty() || launch.program.is_empty() || !launch.cwd.starts_with('/') {
        return refuse("a program, its name and an absolute working directory are needed");
    }
    if launch.env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
        return refuse("names in the environment must be neither empty nor contain '='");
    }
    let mut numbers: Vec<u32> = launch.extra_fds.iter().map(|extra| extra.fd).collect();
    numbers.sort_unstable();
    let reports = launch.extra_fds.iter().filter(|extra| extra.kind == ExtraFdKind::Report).count();
    let in_range = numbers.iter().all(|number| (3..mhnos_sandbox::ExtraFd::MAX).contains(number));
    if !in_range || numbers.windows(2).any(|pair| pair[0] == pair[1]) || reports > 1 || numbers.len() > 8 {
        return refuse("extra descriptors must be distinct, from 3 to 15, at most 8, one report at most");
    }
    if let Stdio::Pty(size) = order.stdio
        && (size.cols == 0 || size.rows == 0)
    {
        return refuse("a terminal needs at least one column and one row");
    }
    if order.note.len() > crate::channel::MAX_NOTE {
        return refuse("the note is too long");
    }
    Ok(())
}
