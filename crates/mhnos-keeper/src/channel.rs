//! The typed channel between bridge and keeper.
//!
//! One message is one `SOCK_SEQPACKET` datagram: a postcard-encoded enum, with the descriptors it speaks
//! of attached by `SCM_RIGHTS`. What does not fit a datagram travels in a sealed memfd (see
//! `mhnos_keeper::socket`). The keeper treats everything it receives here as hostile: bounded before it is
//! decoded, validated before it is acted on. No message lets the bridge choose a sandbox policy.

use std::net::IpAddr;

use mhnos_sandbox::{Enforcement, Launch, Limits, Outlet, Stdio};
use serde::{Deserialize, Serialize};

/// Our own number for a process: from [`FIRST_PID`] up, never reused while the service lives.
pub type Pid = u32;

/// Which channel this is, and which notes the keeper holds for bridges (`mhnos-process`, module `note`). A bridge of
/// another version ends at once, so that an upgrade is taken back.
pub const CHANNEL_VERSION: u32 = 5;

/// The first pid clients see. Lower numbers are the service's own probes.
pub const FIRST_PID: Pid = 1000;

/// The number of the network of programs that have none of their own and go out by a proxy: told as if it were a
/// sandbox's.
pub const HOST_NETWORK: u32 = u32::MAX;

/// The most bytes a [`ToKeeper::Note`] or [`Order::note`] may carry.
pub const MAX_NOTE: usize = 64 * 1024;

/// The most members of a tree that are named.
pub const MAX_MEMBERS: usize = 16;

/// The most ports of one process that are told.
pub const MAX_PORTS: usize = 64;

/// What the bridge may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToKeeper {
    /// First message of a bridge. Answered by [`FromKeeper::Welcome`], one [`FromKeeper::Adopt`] for each
    /// process and retained exit, then [`FromKeeper::Adopted`].
    Hello,
    /// Start a program. Answered by `Started` or `Refused` with the same pid.
    Spawn(Order),
    /// Send a signal. Silently ignored if nothing of that scope is left: the exit tells.
    Signal {
        /// Whom.
        pid: Pid,
        /// The kernel's signal number, 1..=64.
        signal: i32,
        /// How far.
        scope: Scope,
    },
    /// Close the keeper's own duplicate of the process's stdin, so that end of file can be seen.
    CloseStdin {
        /// Whose.
        pid: Pid,
    },
    /// Replace the opaque note kept with a process (or, with pid 0, with the service) for the next bridge.
    Note {
        /// Whose; 0 is the service's own note.
        pid: Pid,
        /// At most [`MAX_NOTE`] bytes; never parsed by the keeper.
        note: Vec<u8>,
    },
    /// Drop what is kept of an ended process: descriptors, output log, note, exit.
    Forget {
        /// Whose.
        pid: Pid,
    },
    /// The drain is over; the keeper ends what is left and exits with status 0.
    Drained,
    /// Who is left of a process's tree? Answered by [`FromKeeper::Members`].
    Members {
        /// Whose.
        pid: Pid,
    },
    /// Connect to what a process listens on. Answered by [`FromKeeper::Dialed`], unless its tree ends
    /// before: then it may not be answered at all.
    Dial {
        /// Whose.
        pid: Pid,
        /// Told back.
        token: u32,
        /// Which TCP port.
        port: u16,
    },
}

/// A program to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Chosen by the bridge; higher than every pid it has used before (probes count separately).
    pub pid: Pid,
    /// What to execute.
    pub launch: Launch,
    /// How its descriptors are connected.
    pub stdio: Stdio,
    /// In which sandbox.
    pub isolation: Isolation,
    /// Limits; the keeper lowers what exceeds its own.
    pub limits: Limits,
    /// Opaque to the keeper; given back in [`FromKeeper::Adopt`]. At most [`MAX_NOTE`] bytes.
    pub note: Vec<u8>,
}

/// In which sandbox a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// The workspace's own, shared by its processes.
    Shared,
    /// One of its own.
    Private,
}

/// How far a signal reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// The program itself.
    Leader,
    /// The program and all its descendants, whatever session or parent they have by now.
    Tree,
}

/// What the keeper tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromKeeper {
    /// Answer to `Hello`.
    Welcome(Welcome),
    /// One process that an earlier bridge started. Descriptors as in `Started`, those still open. Comes before
    /// `Adopted`, or after it for one that was told as `Starting`.
    Adopt(Adoption),
    /// A sandbox with a network of its own stands. What leads out of it is attached, in the order of `outlets`:
    /// sockets that listen, non-blocking. Told of each such sandbox, once to every bridge. So is, as if it were one more, of
    /// the proxy that programs without such a network are kept to.
    Network {
        /// The keeper's number for the sandbox; not used for another before `NetworkGone`.
        sandbox: u32,
        /// Whose sandbox it is, if it is a private one.
        process: Option<Pid>,
        /// What each attached descriptor is.
        outlets: Vec<Outlet>,
    },
    /// That sandbox is no more. Sockets of it are of no use, and keep its network from going away.
    NetworkGone {
        /// Which.
        sandbox: u32,
    },
    /// One that an earlier bridge has ordered and that is being started still: `Adopt` or `Refused` follows. It
    /// takes a place already.
    Starting {
        /// Which.
        pid: Pid,
    },
    /// All processes have been told.
    Adopted,
    /// The program was executed. The attached descriptors stand in the order of [`Descriptor`]s in `fds`.
    Started {
        /// Which.
        pid: Pid,
        /// The kernel's pid of the program, in the keeper's pid namespace where known, else the sandbox's.
        os_pid: i32,
        /// The walls it runs behind.
        enforcement: Enforcement,
        /// What each attached descriptor is.
        fds: Vec<Descriptor>,
    },
    /// The program was not executed; nothing of it is left.
    Refused {
        /// Which.
        pid: Pid,
        /// Why.
        failure: Failure,
    },
    /// The program itself has ended; descendants may live on, and output may still come.
    Exited {
        /// Which.
        pid: Pid,
        /// How.
        exit: Exit,
    },
    /// No process of the tree is left.
    Ended {
        /// Which.
        pid: Pid,
        /// Resources of the whole tree.
        usage: Usage,
    },
    /// The service was asked to stop (SIGTERM, SIGINT): drain, then `Drained`.
    Drain,
    /// This bridge is to be replaced: finish what has begun, send clients away, and end.
    Leave,
    /// The living of a tree: at most [`MAX_MEMBERS`], none if it is not known or has ended.
    Members {
        /// Whose.
        pid: Pid,
        /// Who.
        members: Vec<Member>,
    },
    /// The TCP ports a process tree listens on from now on: at most [`MAX_PORTS`]. None when it has ended, without a
    /// word.
    Ports {
        /// Whose.
        pid: Pid,
        /// All of them, sorted.
        ports: Vec<Port>,
    },
    /// Answer to `Dial`. Attached is a socket, non-blocking: connected, or about to be.
    Dialed {
        /// As asked.
        token: u32,
        /// Or why there is none.
        outcome: Result<(), DialFailure>,
    },
}

/// A TCP port that a process tree listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Which.
    pub port: u16,
    /// The address it is bound to.
    pub address: IpAddr,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DialFailure {
    /// No such process, or nothing of it is left.
    Gone,
    /// It does not listen there.
    Refused,
    /// Too many connections are on their way.
    Busy,
    /// The kernel's error number.
    Failed(i32),
}

/// A living process of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The sandbox's number for it.
    pub os_pid: i32,
    /// The name of its program (proc_pid_comm(5)): at most 15 bytes, of its own choice.
    pub name: String,
}

/// Answer to `Hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// 1 for the first bridge of this service, one more for each that follows.
    pub generation: u32,
    /// When the service started, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// What a shared sandbox enforces here.
    pub enforcement: Enforcement,
    /// The note stored with pid 0, empty at first.
    pub note: Vec<u8>,
}

/// One process or retained exit, told to a new bridge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adoption {
    /// Which.
    pub pid: Pid,
    /// The kernel's pid of the program.
    pub os_pid: i32,
    /// The walls it runs behind.
    pub enforcement: Enforcement,
    /// The note of the earlier bridge.
    pub note: Vec<u8>,
    /// How it ended, if it has.
    pub exit: Option<Exit>,
    /// Resources of the whole tree, if none of it is left.
    pub usage: Option<Usage>,
    /// What each attached descriptor is.
    pub fds: Vec<Descriptor>,
    /// The ports its tree listens on.
    pub ports: Vec<Port>,
}

/// What an attached descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Descriptor {
    /// Write end of the program's stdin, non-blocking.
    Stdin,
    /// Read end of its stdout, non-blocking.
    Stdout,
    /// Read end of its stderr, non-blocking.
    Stderr,
    /// Master of its terminal, non-blocking.
    Pty,
    /// Read end of its report pipe, non-blocking.
    Report,
    /// The memfd of its output log. The file position is shared with the keeper's duplicate: it is part of
    /// the log (see `mhnos_process::log`).
    Log,
    /// Both ends of a scratch pipe (read end first, as two descriptors), for output that cannot be spliced
    /// into the log in one step.
    ScratchRead,
    /// The other end.
    ScratchWrite,
}

/// How a program ended, as its parent's `waitpid` saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Code or signal.
    pub status: ExitStatus,
    /// When, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// A limit that ended it, where the keeper knows of one.
    pub limit: Option<LimitHit>,
    /// Resources until then, the program and the children it waited for.
    pub usage: Usage,
}

/// Code or signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// `exit(code)`, 0..=255.
    Code(u8),
    /// Ended by this signal number.
    Signal(i32),
    /// The sandbox around it vanished before its status could be read.
    Lost,
}

/// A limit that ended a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LimitHit {
    /// Memory of the tree.
    Memory,
    /// Processes of the tree.
    Pids,
}

/// Resources used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time, user and system, in microseconds.
    pub cpu_us: u64,
    /// The largest resident set of any one process, in bytes.
    pub max_rss: u64,
}

/// Why a program was not executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed.
    pub stage: Stage,
    /// The kernel's error number, 0 where there is none.
    pub errno: i32,
    /// What it was about: a path, a limit. May be empty.
    pub detail: String,
}

/// A step on the way to a running program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The order itself was refused (reused pid, bad descriptor number, NUL in a string).
    Order,
    /// Building the sandbox.
    Sandbox,
    /// Pipes, terminal, output log.
    Stdio,
    /// Creating the process.
    Fork,
    /// A confinement step in the new process.
    Confine,
    /// `chdir` to the working directory.
    Chdir,
    /// Finding or executing the program.
    Exec,
}
