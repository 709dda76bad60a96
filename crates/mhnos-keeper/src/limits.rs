//! Every bound of the keeper, in one place.

use std::time::Duration;

use rustix::event::Timespec;

/// Supervisors that wait for an order: as many programs as are started at once by hand. Two small processes each.
pub const SPARE_SUPERVISORS: usize = 4;

/// From the use of one to its replacement, which would otherwise take its CPU time from a program that starts.
pub const SPARES_PAUSE: Duration = Duration::from_millis(10);

/// Supervisors without a program that are kept for the next ones: as many as a busy workspace starts at once. Some
/// 50 KiB each, for a short time.
pub const RESTING_SUPERVISORS: usize = 16;

/// How long, after the last one came.
pub const REST: Duration = Duration::from_secs(1);

/// How long the service's own processes run before others have their turn, the kernel's shortest: so their own turn comes
/// soon, though programs keep every processor busy.
pub const TIME_SLICE: Duration = Duration::from_micros(100);

/// Between two walks over a tree that is being killed.
pub const TREE_KILL_INTERVAL: Duration = Duration::from_millis(2);

/// From the hang-up of a terminal to the next, until its tree has ended: a shell that is just starting may miss one, or, on a
/// busy machine, get two as one and miss that, and would live until the end of its grace period.
pub const HANGUP_AGAIN: Duration = Duration::from_millis(200);

/// Walks over such a tree that only stop what they find, before it is killed: each finds what forked during the last,
/// and there is an end to that at the process limit.
pub const TREE_STOP_WALKS: u32 = 64;

/// Between two looks at a tree that no control group limits.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// The same when it comes near its limit of memory or processes: at 2 GiB/s of allocation this overshoots by tens of
/// megabytes (measured), and by hundreds what begins just after a look at [`WATCH_INTERVAL`].
pub const WATCH_INTERVAL_CLOSE: Duration = Duration::from_millis(50);

/// From the kernel's word that a control group is out of memory to the next look whether somebody of it was killed: the kill comes
/// within microseconds, if the kernel's part of it is not interrupted. Doubled each time.
pub const MEMORY_LOOK: Duration = Duration::from_millis(1);

/// The longest such pause: who has lost nobody until then has not been meant.
pub const MEMORY_PATIENCE: Duration = Duration::from_secs(1);

/// Where "near" begins.
pub const WATCH_CLOSELY_ABOVE_PERCENT: u64 = 60;

/// The priority of a tree that comes near its limit of processes where no control group shares the processor out: the
/// lowest. Of a thousand such processes on two processors the supervisor gets an eighth of one.
pub const CROWDED_NICE: i32 = 19;

/// Between two looks for a socket that is about to listen: a call takes microseconds once it goes on. Doubled each
/// time, up to the slowest.
pub const LISTEN_RETRY: Duration = Duration::from_micros(200);

/// See [`LISTEN_RETRY`].
pub const LISTEN_RETRY_SLOWEST: Duration = Duration::from_millis(500);

/// How long such a socket is looked for; after that its call has failed. On a busy machine the caller, behind everybody
/// else, may not have its turn for seconds.
pub const LISTEN_PATIENCE: Duration = Duration::from_secs(10);

/// For how long the list of all that listens serves connections (each of which still asks who accepts it). To walk it costs the kernel
/// 40 to 200 µs, and a page opens many at once.
pub const LISTED_FOR: Duration = Duration::from_secs(1);

/// Between two looks whether the ports of a tree are still open, just after a change. Doubled each time, up to the
/// slowest: so a port that is closed has been told as open for at most as long again as nothing had changed.
pub const PORTS_LOOK: Duration = Duration::from_millis(250);

/// See [`PORTS_LOOK`]. At a look each two seconds fifty idle servers cost 0.3 % of a core together, at this 0.02 %. The kernel
/// tells when a socket has closed; this is for what it may have failed to tell.
pub const PORTS_LOOK_SLOWEST: Duration = Duration::from_secs(30);

/// Between two looks because a socket has closed: who closes them all day long does not keep every supervisor of its
/// network busy.
pub const CLOSINGS_PAUSE: Duration = Duration::from_millis(50);

/// The same as [`PORTS_LOOK_SLOWEST`] where the kernel does not tell of listen(2) or of closed sockets, and looking is what finds out.
pub const PORTS_SEARCH_SLOWEST: Duration = Duration::from_secs(2);

/// Connections into one process's network that its supervisor has not answered yet. More than a browser opens at
/// once; each is answered in microseconds.
pub const MAX_DIALS: usize = 64;

/// Connected sockets that wait for a bridge that does not read. Each is a descriptor of the keeper's.
pub const MAX_WAITING_DIALS: usize = 64;

/// For the first sandbox to stand, at start. Measured at 3 ms; a loaded machine gets ten thousand times that, since
/// whoever takes too long gets a weaker tier.
pub const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Processes and retained exits the keeper holds at most, whatever a bridge asks.
pub const MAX_HELD: usize = 16_384;

/// Descriptors that orders leave to the keeper: a bridge must be started whatever others have ordered, which takes two here and
/// a dozen in its process before it executes; and what is being started brings a few.
pub const RESERVED_DESCRIPTORS: u64 = 32;

/// In a sandbox that processes share, and wherever they have no user namespace, each kernel task of all of them counts
/// against one limit (`RLIMIT_NPROC`); this many times one process's share is allowed. What holds for one tree is its control
/// group's matter, or the watchdog's.
pub const SHARED_PIDS_FACTOR: u64 = 16;

/// Bridges that end before any has ever said hello, until the service gives up.
pub const MAX_FAILED_BRIDGES: u32 = 5;

/// The longest pause before a bridge that keeps dying is started again.
pub const MAX_BRIDGE_BACKOFF: Duration = Duration::from_secs(5);

/// For a bridge that is being replaced to finish what it has begun and leave.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// For the first bridge of a new program to say hello, which takes milliseconds. Until then nobody is served.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A bridge that lived this long is not crashing in a loop.
pub const HEALTHY_BRIDGE: Duration = Duration::from_secs(10);

/// Messages waiting for a bridge, an init or a supervisor that does not read.
pub const MAX_OUTBOX: usize = 65_536;

/// Between two attempts to send a descriptor when too many are on their way: whoever they are for needs a turn.
pub const TOO_MANY_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Messages handled from one channel before the others get their turn.
pub const BATCH: usize = 64;

/// After a drain, for killed processes to be gone.
pub const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
