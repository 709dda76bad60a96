//! Every bound and timeout of this crate, each with the reason for its size.

use std::time::Duration;

/// Most bytes moved from one process into its log before its viewers are told and other tasks get their
/// turn. The capacity of a pipe, so that a writer blocked on a full pipe is freed as a whole.
pub const READ_TURN: usize = 64 * 1024;

/// The capacity of a pipe whose program writes more than is read in a turn. All pipes of a user may have 64 MiB
/// together (`fs.pipe-user-pages-soft`) before the kernel makes new ones smaller.
pub const WIDE_PIPE: usize = 256 * 1024;

/// The largest a pipe may be, unless a system says otherwise (`fs.pipe-max-size`, see pipe(7)).
pub const WIDEST_PIPE: usize = 1024 * 1024;

/// Reads in a row that have found something, after which the runtime is not to tell of more until one finds nothing.
pub const PLENTY: usize = 2;

/// How far a viewer may fall behind before it holds the reading of its process back. Four frames: enough
/// to keep a socket busy while the program is woken.
pub const VIEWER_WINDOW: u64 = 256 * 1024;

/// How long the viewers of a bridge that is gone are waited for before a program may write on beyond half of
/// its log. Browsers come back within a second or two; it is as long as a viewer may take nothing.
pub const RESUME_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of input that may wait for one process to read them.
pub const INPUT_QUEUE: usize = 1024 * 1024;

/// How long writes that do not fit into the queue wait for the process to take anything at all: from when the first of
/// them found no room, so that many to a program that does not read are refused together.
pub const INPUT_STALL: Duration = Duration::from_secs(2);

/// How long a bridge that is being replaced waits for processes to read the input it has taken for them. Less
/// than the keeper's patience (`mhnos_keeper::limits::LEAVE_TIMEOUT`).
pub const LEAVE_INPUT: Duration = Duration::from_secs(1);

/// Interval of looking whether they have.
pub const LEAVE_INPUT_INTERVAL: Duration = Duration::from_millis(2);

/// For the names of those that live of a tree. They are read from `/proc` in the sandbox.
pub const MEMBERS_DEADLINE: Duration = Duration::from_millis(500);

/// For a connection to what a process listens on to stand. On loopback that takes microseconds, unless the program
/// is too busy to accept.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// Letters of a process's [key](crate::Process::key): 80 bits.
pub const KEY_LETTERS: usize = 16;

/// Bytes of command and arguments that clients are told of a process: a list names all of them, to everyone.
pub const TOLD_BYTES: usize = 8 * 1024;

/// Bytes of a report pipe that are kept. What workerd reports is a line for each socket.
pub const REPORT_BYTES: usize = 16 * 1024;

/// How long the exit record waits, after the program's exit, for output that somebody else still holds open.
pub const OUTPUT_DRAIN: Duration = Duration::from_millis(500);

/// Bytes read from one descriptor after the program's exit with which all that it wrote before has come: the
/// largest pipe a program may have (`fs.pipe-max-size`, see pipe(7)).
pub const EXIT_BACKLOG: usize = 1024 * 1024;

/// How long the exit record waits, after the exit and the end of output, for the word that no descendant is
/// left. The two come microseconds apart unless descendants do live on.
pub const TREE_SETTLE: Duration = Duration::from_millis(50);

/// Interval at which SIGKILL is repeated while something of the tree is still alive: a fork can race with
/// one round of it.
pub const KILL_REPEAT: Duration = Duration::from_secs(1);

/// How long after SIGKILL a stop may take until the caller is told that the kernel has not ended the tree
/// (a process in uninterruptible sleep).
pub const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Longest single sleep of a process's timer. Later deadlines are slept towards in steps, so that a timeout
/// of any size works.
pub const LONGEST_SLEEP: Duration = Duration::from_hours(24);

/// Interval of looking again at a terminal that every program has closed while its leader still runs: it
/// may open `/dev/tty` again, and the kernel's hang-up flag hides that from epoll.
pub const HANGUP_RETRY: Duration = Duration::from_millis(100);

/// How long reading may fail, tried again at that interval, until what a program writes counts as ended.
pub const READ_PATIENCE: Duration = Duration::from_secs(5);

/// Requests to one process (signals) that may wait for its task.
pub const COMMANDS: usize = 32;

/// How long the keeper may take to answer the first message of a bridge, all adoptions included.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// How long clients wait for a new bridge to read the last output of what had ended before it. It is in pipes
/// whose writers are gone, so this takes milliseconds.
pub const SETTLE_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes the server may keep in the service's note (see [`crate::Processes::set_service_note`]).
pub const SERVICE_NOTE: usize = 32 * 1024;

/// Between two attempts to send a long message to the keeper when too many descriptors are on their way: it needs its turn.
pub const TOO_MANY_PAUSE: Duration = Duration::from_millis(1);
