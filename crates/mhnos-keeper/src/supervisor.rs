//! One supervisor per program, forked by init: it forks the process that becomes the program, is the parent whose
//! `waitpid` saw the exit, and ends the whole tree.
//!
//! Theory of operation: a supervisor may be there before it is known what is to run, with the process that will become
//! the program ([`recruit`]). The order goes past it, from the keeper to that process. The supervisor is a child subreaper, so that every descendant whose parent dies (a
//! double fork, a `setsid` daemon) becomes its child instead of init's. The tree is over when the supervisor
//! has no children left; then it can be given another program, or ends. To kill the tree it walks its descendants in
//! `/proc`, stops and then kills what it finds, again and again until `wait4` says that there is no child: whatever
//! forks during a walk is found by the next one. What daemonises itself faster than it is found is stopped by
//! its control group, which lets it fork no more; without one, by a Landlock domain around the supervisor that
//! signals do not leave, so that a single `kill(-1)` is a kill of the whole tree and of nothing else.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mhnos_sandbox::{
    Enclosed, Walls,
    closings::Closings,
    listening::Diagnosis,
    sys::{self, Reap, Reaped},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, WaitId, getpid, kill_process_group, set_child_subreaper},
};

use crate::{
    channel::{Exit, ExitStatus, Failure, LimitHit, Scope, Stage, Usage},
    init::is_stopped,
    inner::{FromSupervisor, ToSupervisor, call_failure, failure},
    limits::{HANGUP_AGAIN, TREE_KILL_INTERVAL, TREE_STOP_WALKS},
    ports::{Lookout, Ports},
    recruit,
    socket::{RecvError, Socket},
    tree::{descendants, has_executed, meet_descendants, named},
    watchdog::Watchdog,
};

/// Supervises programs, one after the other; for a process just forked from init, which ends with it. `fds` are those
/// of [`ToInit::Supervise`](crate::inner::ToInit::Supervise).
pub(crate) fn run(fds: Vec<OwnedFd>, walls: &Walls) -> ! {
    let kept: Vec<_> = fds.iter().map(AsFd::as_fd).chain(walls.descriptors()).collect();
    let closed = sys::close_all_but(&kept);
    let mut fds = fds.into_iter();
    let (Some(control), Some(channel)) = (fds.next().map(Socket::from_fd), fds.next()) else {
        sys::exit_now(1)
    };
    let closed = closed.map_err(|error| call_failure(Stage::Fork, "close init's descriptors", &error));
    if let Err(failure) = closed.and_then(|()| serve(&control, channel, fds.collect(), walls)) {
        report(&control, &FromSupervisor::Failed(failure));
    }
    sys::exit_now(0)
}

/// In the place of a supervisor that init could not fork: tells the keeper, whose channel is the first of `fds`.
pub(crate) fn could_not(fds: Vec<OwnedFd>, error: &io::Error) {
    if let Some(control) = fds.into_iter().next().map(Socket::from_fd) {
        let failure = call_failure(Stage::Fork, "create the supervisor", error);
        // A new channel has room for it.
        let _ = control.send(&FromSupervisor::Failed(failure), &[]);
    }
}

fn serve(
    control: &Socket,
    mut channel: OwnedFd,
    mut doors: Vec<OwnedFd>,
    walls: &Walls,
) -> Result<(), Failure> {
    let os = |error: io::Error| Failure {
        stage: Stage::Fork,
        errno: error.raw_os_error().unwrap_or(0),
        detail: "prepare the supervisor".to_owned(),
    };
    set_child_subreaper(Some(getpid()))
        .and_then(|()| rustix::thread::set_name(c"mhnos-supervise"))
        .map_err(|errno| os(errno.into()))?;
    let children = sys::signal_fd(&sys::HANDLED).map_err(os)?;
    // Not to be had behind the filter.
    let diagnosis = Diagnosis::of_this_network();
    let closings = Closings::of_this_network().ok();
    let enclosure = walls.around_supervisor().map_err(|error| failure(Stage::Confine, &error))?;
    let lookout = Lookout { diagnosis, closings, notices: enclosure.notices };
    loop {
        let leader = recruit::fork(channel, &doors, walls)?;
        Supervisor::of(leader, &children, enclosure.signals.as_ref(), &lookout).watch(control);
        let Some((its, others)) = renewal(control, &children) else { return Ok(()) };
        channel = its;
        if !others.is_empty() {
            doors = others;
        }
    }
}

/// Waits for another program to come, and gives its process's end of the channel to the keeper and the doors of its
/// control group; none for those the last one had.
fn renewal(control: &Socket, children: &OwnedFd) -> Option<(OwnedFd, Vec<OwnedFd>)> {
    loop {
        match control.recv::<ToSupervisor>() {
            Ok(received) if matches!(received.message, ToSupervisor::Renew) => {
                let mut fds = received.fds.into_iter();
                return fds.next().map(|channel| (channel, fds.collect()));
            }
            // Meant for the program that has ended.
            Ok(_) | Err(RecvError::Malformed(_)) => {}
            Err(RecvError::WouldBlock) => {
                let _ = poll(
                    &mut [PollFd::new(control, PollFlags::IN), PollFd::new(children, PollFlags::IN)],
                    None,
                );
                while sys::next_signal(children).is_some() {}
            }
            Err(RecvError::Closed | RecvError::Io(_)) => return None,
        }
    }
}

struct Supervisor<'a> {
    leader: Option<Pid>,
    /// The leader is known to be the program.
    started: bool,
    children: &'a OwnedFd,
    /// Signals stay among this process and its descendants.
    enclosed: Option<&'a Enclosed>,
    /// Where no control group limits the tree.
    watchdog: Option<Watchdog>,
    ports: Ports<'a>,
    /// When the tree is told again that its terminal is gone; for as long as there is a tree.
    hangup: Option<Instant>,
    ending: Ending,
    /// What those that have been reaped used.
    usage: Usage,
}

/// Whether the tree is being killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// No.
    Not,
    /// Because somebody said so.
    Told,
    /// Because it went over a limit.
    Over(LimitHit),
}

impl<'a> Supervisor<'a> {
    fn of(leader: Pid, children: &'a OwnedFd, enclosed: Option<&'a Enclosed>, lookout: &'a Lookout) -> Self {
        Self {
            leader: Some(leader),
            started: false,
            children,
            enclosed,
            watchdog: None,
            ports: Ports::new(lookout),
            hangup: None,
            ending: Ending::Not,
            usage: Usage::default(),
        }
    }

    /// Reports and obeys until nothing of the tree is left.
    fn watch(&mut self, control: &Socket) {
        loop {
            if self.reap(control) {
                report(control, &FromSupervisor::Ended(self.usage));
                return;
            }
            self.let_start();
            if self.ending == Ending::Not
                && let Some(limit) = self.watchdog.as_mut().and_then(|watchdog| watchdog.look(self.leader))
            {
                self.ending = Ending::Over(limit);
            }
            if self.ending != Ending::Not {
                self.signal_all(libc::SIGKILL);
            }
            if self.hangup.is_some_and(|due| due <= Instant::now()) {
                self.hang_up();
            }
            if let Some(ports) = self.ports.look() {
                report(control, &FromSupervisor::Ports(ports));
            }
            self.wait(control);
            while sys::next_signal(self.children).is_some() {}
            self.obey(control);
        }
    }

    /// Sleeps until a child has ended or the keeper speaks; during a kill not for long, since what forked
    /// while it was looked for must be found too.
    fn wait(&mut self, control: &Socket) {
        let ending = (self.ending != Ending::Not).then_some(TREE_KILL_INTERVAL);
        let watchdog = self.watchdog.as_ref().map(Watchdog::left);
        let hangup = self.hangup.map(|due| due.saturating_duration_since(Instant::now()));
        let interval = ending.or_else(|| watchdog.into_iter().chain(self.ports.left()).chain(hangup).min());
        // Rounded up: to wake just before the time is to wake twice.
        let timeout = interval.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: (left.subsec_nanos() + 1).min(999_999_999).into(),
        });
        let mut fds = vec![PollFd::new(self.children, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        let (notices, closings) = (self.ports.notices(), self.ports.closings());
        fds.extend(notices.into_iter().chain(closings).map(|fd| PollFd::new(fd, PollFlags::IN)));
        let _ = poll(&mut fds, timeout.as_ref());
        let mut news = fds[2..].iter().map(PollFd::revents);
        let noticed = notices.is_some() && news.next().is_some_and(|found| found.contains(PollFlags::IN));
        // That some were lost is an error, and news.
        let closed = closings.is_some() && news.next().is_some_and(|found| !found.is_empty());
        if noticed {
            self.ports.noticed();
        }
        if closed {
            self.ports.heard();
        }
    }

    /// Reaps what has ended; true when there are no children any more.
    fn reap(&mut self, control: &Socket) -> bool {
        loop {
            let reaped = match sys::reap() {
                Reap::Ended(reaped) => reaped,
                Reap::NoneYet => return false,
                Reap::NoChildren => return true,
            };
            self.usage.cpu_us += reaped.cpu_us;
            self.usage.max_rss = self.usage.max_rss.max(reaped.max_rss);
            if Some(reaped.pid) == self.leader {
                self.leader = None;
                let limit = match self.ending {
                    Ending::Over(limit) => Some(limit),
                    Ending::Not | Ending::Told => None,
                };
                report(control, &FromSupervisor::Exited(exit(&reaped, limit)));
            }
        }
    }

    /// Lets the process go on that is to be a program, if it was stopped before it is one. Who may signal it may, and it would be
    /// starting for ever: an exec is all that ends a start.
    fn let_start(&mut self) {
        let Some(leader) = self.leader.filter(|_| !self.started) else { return };
        if is_stopped(WaitId::Pid(leader)) {
            self.started = has_executed(leader);
            if !self.started {
                let _ = sys::kill(leader, libc::SIGCONT);
            }
        }
    }

    fn obey(&mut self, control: &Socket) {
        loop {
            match control.recv::<ToSupervisor>() {
                Ok(received) => match received.message {
                    ToSupervisor::Limit(limits) => self.watchdog = Some(Watchdog::new(limits)),
                    ToSupervisor::Signal { signal, scope, terminal } => {
                        self.signal(signal, scope, terminal);
                    }
                    ToSupervisor::Members => report(control, &FromSupervisor::Members(named())),
                    ToSupervisor::Dial { token, port } => self.dial(control, token, port),
                    // It has one.
                    ToSupervisor::Renew => {}
                },
                Err(RecvError::WouldBlock) => return,
                Err(RecvError::Malformed(_)) => {}
                // The keeper is gone, and with it all that it kept.
                Err(RecvError::Closed | RecvError::Io(_)) => return self.kill_tree(),
            }
        }
    }

    fn dial(&mut self, control: &Socket, token: u32, port: u16) {
        let (socket, errno) = match self.ports.dial(port) {
            Ok(socket) => (Some(socket), 0),
            Err(error) => (None, error.raw_os_error().unwrap_or(libc::EIO)),
        };
        let attached: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
        if let Err(error) = tell(control, &FromSupervisor::Dialed { token, errno }, &attached) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            report(control, &FromSupervisor::Dialed { token, errno });
        }
    }

    fn signal(&mut self, signal: i32, scope: Scope, terminal: bool) {
        match scope {
            Scope::Leader => {
                if let Some(leader) = self.leader {
                    let _ = sys::kill(leader, signal);
                }
            }
            Scope::Tree if signal == libc::SIGKILL => {
                if self.ending == Ending::Not {
                    self.ending = Ending::Told;
                }
            }
            Scope::Tree => {
                self.signal_all(signal);
                if signal == libc::SIGTERM && terminal {
                    self.hang_up();
                } else if signal == libc::SIGTERM {
                    self.signal_all(libc::SIGCONT);
                }
            }
        }
    }

    /// Interactive shells ignore SIGTERM; a closing terminal is what they end on. What is stopped has to run to end.
    fn hang_up(&mut self) {
        self.signal_all(libc::SIGHUP);
        self.signal_all(libc::SIGCONT);
        self.hangup = Some(Instant::now() + HANGUP_AGAIN);
    }

    /// A signal to all descendants.
    fn signal_all(&self, signal: i32) {
        if let Some(enclosed) = self.enclosed {
            return enclosed.signal_all(signal);
        }
        if signal == libc::SIGKILL {
            self.stop_all();
        }
        for member in descendants() {
            // Gone meanwhile is as good as signalled.
            let _ = sys::kill(member.pid, signal);
        }
    }

    /// Stops descendants until a walk finds no new one. What was killed at once would leave its place below the process
    /// limit to what forks faster than it is found; what is stopped keeps it, and leaves the processor to this process.
    fn stop_all(&self) {
        // Most of most storms by one call. Until it is reaped, the leader's number is its group's and nobody else's.
        if let Some(leader) = self.leader {
            let _ = kill_process_group(leader, Signal::STOP);
        }
        let mut stopped = HashSet::new();
        for _ in 0..TREE_STOP_WALKS {
            let before = stopped.len();
            meet_descendants(|pid| {
                if stopped.insert(pid) {
                    let _ = sys::kill(pid, libc::SIGSTOP);
                }
            });
            if stopped.len() == before {
                return;
            }
        }
    }

    /// Kills until nothing is left, for a supervisor that has nobody to report to.
    fn kill_tree(&mut self) {
        loop {
            self.signal_all(libc::SIGKILL);
            loop {
                match sys::reap() {
                    Reap::Ended(_) => {}
                    Reap::NoneYet => break,
                    Reap::NoChildren => sys::exit_now(0),
                }
            }
            let interval = Timespec { tv_sec: 0, tv_nsec: TREE_KILL_INTERVAL.subsec_nanos().into() };
            let _ = poll(&mut [PollFd::new(self.children, PollFlags::IN)], Some(&interval));
            while sys::next_signal(self.children).is_some() {}
        }
    }
}

fn exit(reaped: &Reaped, limit: Option<LimitHit>) -> Exit {
    Exit {
        status: match reaped.status {
            Ok(code) => ExitStatus::Code(code),
            Err(signal) => ExitStatus::Signal(signal),
        },
        time_ms: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64,
        limit,
        usage: Usage { cpu_us: reaped.cpu_us, max_rss: reaped.max_rss },
    }
}

/// Tells the keeper, waiting if it is busy. A keeper that is gone is seen by the next `recv`.
fn report(control: &Socket, message: &FromSupervisor) {
    let _ = tell(control, message, &[]);
}

/// The same, with descriptors, of which there may be too many on their way.
fn tell(control: &Socket, message: &FromSupervisor, attached: &[BorrowedFd<'_>]) -> io::Result<()> {
    loop {
        match control.send(message, attached) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(control, PollFlags::OUT)], None);
            }
            other => return other,
        }
    }
}
