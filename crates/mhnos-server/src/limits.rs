//! Every bound and timeout of the server, each with the reason for its size. What a client can see of them
//! stands in `status.limits`.

use std::time::Duration;

/// WebSockets and clients of previews at once, unless set otherwise. One costs about 16 KiB; a thousand is the largest load
/// the service is measured with. More are answered 503.
pub const MAX_CONNECTIONS: usize = 4096;

/// Those of one address, unless set otherwise: nobody takes all of them. More are answered 429.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 1024;

/// Connections whose first request is not done yet. One more cuts the oldest, with 408.
pub const MAX_HANDSHAKES: usize = 512;

/// From accepting a connection to the end of its HTTP exchange (the 101 of an upgrade, or the whole answer
/// to a plain request). Browsers give a WebSocket five seconds to open; slow handshakes are cut.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of one HTTP request head. Cookies of every service on localhost arrive here too, and browsers send
/// up to about 16 KiB of them. More is answered 431.
pub const MAX_REQUEST_HEAD: usize = 32 * 1024;

/// Header lines of one HTTP request. More is answered 431.
pub const MAX_REQUEST_HEADERS: usize = 100;

/// Descriptors a running process takes of the bridge: its log, its terminal or pipes, what moves them, and the sockets of
/// a network of its own.
pub const PROCESS_DESCRIPTORS: usize = 32;

/// Those of the bridge itself: its listening sockets, the keeper's, sandboxes' sockets, files that are read or written.
pub const OWN_DESCRIPTORS: usize = 256;

/// Connections to the previews of one process. A browser opens six or so for each preview, and one for each
/// WebSocket; a load test a thousand.
pub const MAX_PREVIEW_CONNECTIONS: usize = 1024;

/// The same for all previews together: less than [`MAX_CONNECTIONS`], of which their clients are a part.
pub const MAX_PREVIEWS_CONNECTIONS: usize = MAX_CONNECTIONS - 1024;

/// How long a client's connection to a preview may stay without a request. Browsers keep theirs for about as long.
pub const PREVIEW_IDLE: Duration = Duration::from_mins(1);

/// For a process to begin its answer, from the last byte of the request that moved. Some answer a poll only when there
/// is news.
pub const PREVIEW_ANSWER: Duration = Duration::from_mins(10);

/// For a kept connection to a process to be free for the next request. It is as soon as its last answer has come whole,
/// which it has; one that is in any other state is given up.
pub const PREVIEW_REUSE: Duration = Duration::from_millis(100);

/// Bytes read from a process at once; and so the largest head of an answer. Each connection holds as many at most.
pub const PREVIEW_BUFFER: usize = 256 * 1024;

/// Times the two sides of a preview's exchange may wake each other before other tasks have their turn. A piece of a body takes two
/// or three.
pub const PREVIEW_TURNS: usize = 64;

/// Header lines of a process's answer.
pub const MAX_PREVIEW_HEADERS: usize = 200;

/// Bytes of a tunnel that are on their way, in each direction.
pub const PREVIEW_TUNNEL_BUFFER: usize = 64 * 1024;

/// Between signs of life of a client that a kernel asks for, and how many may be missing: a tunnel or an event stream
/// may be silent for hours, and its other end gone.
pub const KEEPALIVE: Duration = Duration::from_mins(1);

/// The shortest token: 16 random characters cannot be guessed over a network.
pub const MIN_TOKEN: usize = 16;

/// The longest token; signed ones of other systems have some hundred characters.
pub const MAX_TOKEN: usize = 512;

/// Tokens of one service. More people than that need an identity provider in front.
pub const MAX_TOKENS: usize = 1000;

/// Bytes of a file with tokens, a certificate or a key.
pub const MAX_SECRET_FILE: u64 = 1024 * 1024;

/// How often such files are looked at for a change.
pub const SECRET_POLL: Duration = Duration::from_secs(2);

/// From the end of the handshake to the `auth` message, where the handshake showed no token.
pub const AUTH_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of that message and of what comes with it: a token, an `id` and some white space.
pub const MAX_AUTH_MESSAGE: usize = 8 * 1024;

/// Refused tokens of one address in a row that are each looked at and told why.
pub const REFUSED_TOKENS: f64 = 20.0;

/// How fast that many are granted again.
pub const REFUSED_TOKENS_PER_SECOND: f64 = 0.5;

/// Addresses of which refusals are remembered.
pub const REFUSED_ADDRESSES: usize = 4096;

/// Log lines about refusals in a row, so that nobody outside can fill a disk.
pub const REFUSAL_LINES: f64 = 30.0;

/// How fast that many are granted again.
pub const REFUSAL_LINES_PER_SECOND: f64 = 0.5;

/// How long an accept loop waits after an error that waiting may cure (out of descriptors or memory).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of one message, and of one frame, from a client: a 6 MB file pushed as an array of numbers is a
/// 21 MB frame. More closes the connection with 1009.
pub const MAX_MESSAGE: usize = 100 * 1024 * 1024;

/// Fragments of one message. Browsers and libraries send pieces of 16 KiB and more; this many of 4 KiB are more than
/// the largest message. More closes the connection with 1008.
pub const MAX_FRAGMENTS: usize = 32 * 1024;

/// Frames of one connection that may come at once, pings and fragments included, ahead of the pace.
pub const FRAME_BURST: f64 = 20_000.0;

/// The pace of frames after that: the connection is read no faster. A client that waits for each answer does not come
/// near it.
pub const FRAMES_PER_SECOND: f64 = 20_000.0;

/// Bytes of messages that are arriving or being carried out, over all connections: two of the largest and some. When
/// they are more, the message that arrives slowest is given up and its connection closed with 1013.
pub const MESSAGE_BUDGET: usize = 256 * 1024 * 1024;

/// Bytes of a message whose memory is given back to the kernel when it has gone.
pub const LARGE_MESSAGE: usize = 1024 * 1024;

/// How long that is kept for the next one: who pushes many files sends one message after the other.
pub const KEEP_FREE_MEMORY: Duration = Duration::from_secs(1);

/// Bytes of a message that are not counted there: what a connection may hold anyway.
pub const FREE_MESSAGE: usize = 64 * 1024;

/// Bytes that a connection reads of a larger message before others have their turn: some ten microseconds' work.
pub const LARGE_TURN: usize = 64 * 1024;

/// Spawns that may come at once, ahead of the pace; more are answered with TOO_MANY_REQUESTS.
pub const SPAWN_BURST: f64 = 1000.0;

/// The pace of spawns after that: about as many as two cores can do.
pub const SPAWNS_PER_SECOND: f64 = 250.0;

/// Viewers of one process; another `attach` is answered with TOO_MANY_REQUESTS.
pub const MAX_VIEWERS: usize = 2048;

/// Bytes read from a socket at once; allocated for every connection as soon as it opens. A frame that is larger gets
/// room of its own size.
pub const READ_BUFFER: usize = 4 * 1024;

/// Bytes gathered before they are written to a socket, unless nothing more is waiting.
pub const WRITE_BUFFER: usize = 64 * 1024;

/// Bytes handed to one connection's socket before other tasks get their turn on the thread.
pub const WRITE_BATCH: usize = 256 * 1024;

/// Raw bytes of output in one frame. Frames end at multiples of it, so that viewers that are behind get
/// equal frames and share their encoding.
pub const FRAME_BYTES: u64 = 64 * 1024;

/// Encoded frames kept per process while it has more than one viewer.
pub const CACHED_FRAMES: usize = 8;

/// Messages larger than this are parsed on a thread of their own, so that a push of many megabytes does not
/// hold up the other connections of a worker thread.
pub const PARSE_INLINE: usize = 128 * 1024;

/// Requests of one connection that are executed but not answered yet (kills that wait for an end, pulls).
/// At this number the connection is read no further until one is answered.
pub const MAX_PENDING: usize = 256;

/// Bytes of the same: input that waits for a process to read. One message more at most.
pub const MAX_PENDING_BYTES: usize = 4 * 1024 * 1024;

/// Answers that wait for the socket. At this number the connection is read no further until the client
/// takes some: whoever asks without listening waits.
pub const MAX_QUEUED: usize = 256;

/// Bytes of the same; one answer more at most.
pub const MAX_QUEUED_BYTES: usize = 1024 * 1024;

/// Bytes of the errors that a push's answer lists, as they are before JSON makes up to six of one; the rest are counted.
pub const PUSH_ERRORS: usize = 256 * 1024;

/// Bytes of a file read at once for a pull.
pub const PULL_BUFFER: usize = 64 * 1024;

/// Bytes of a pull's answer that are in memory at once; one buffer's worth more at most.
pub const PULL_FRAGMENT: usize = 256 * 1024;

/// Interval of the server's pings, unless set otherwise. Proxies cut connections that are idle for a minute.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Ping rounds without any sign of life after which a connection is dropped.
pub const MISSED_ROUNDS: u32 = 2;

/// How long a closing connection may take to send what is left and to answer the close frame.
pub const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// How long a bridge that is being replaced waits for answers that take long.
pub const LEAVE_ANSWERS: Duration = Duration::from_millis(500);

/// How long it waits for a client to answer the close frame. All clients wait for the slowest of them.
pub const LEAVE_CLOSE: Duration = Duration::from_millis(100);

/// How long a program may take to tell its version when the service starts: spawns wait for it.
pub const DISCOVERY_DEADLINE: Duration = Duration::from_secs(10);

/// The same when it is asked again: nobody waits, and a hundred megabytes may have to come from a slow disk.
pub const DISCOVERY_DEADLINE_LATER: Duration = Duration::from_mins(1);

/// Between two looks at least, and before a program that gave no answer is asked again; doubled each time.
pub const DISCOVERY_PAUSE: Duration = Duration::from_secs(1);

/// The longest such pause.
pub const DISCOVERY_LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Between SIGTERM and SIGKILL for such a program.
pub const DISCOVERY_GRACE: Duration = Duration::from_millis(500);

/// Bytes of output read from a program that tells its version.
pub const DISCOVERY_OUTPUT: usize = 4096;

/// How long the exit of a process is held back from a Web OS connection that has not attached to it yet.
pub const EXIT_HOLD: Duration = Duration::from_secs(15);

/// How long the next piece of a terminal's flood waits for more: shorter than anybody notices.
pub const TERMINAL_GATHER: Duration = Duration::from_millis(1);

/// Waiting output of a terminal of this many bytes is worth a frame at once.
pub const TERMINAL_JOINED: u64 = 32 * 1024;

/// A terminal that brings this many bytes at once is being flooded: no key and no prompt does.
pub const TERMINAL_PIECE: u64 = 2 * 1024;

/// How long small output waits for more before it goes to a Web OS connection, which draws every frame as a
/// line of its own.
pub const WEB_OS_GATHER: Duration = Duration::from_millis(4);

/// The same for the beginning of a line, after the lines before it have been sent: longer than a program
/// that writes without pause is usually kept waiting, shorter than a person notices of a prompt.
pub const WEB_OS_LINE: Duration = Duration::from_millis(20);

/// A Web OS client gives up on any request after 30 s. What may take longer, a kill whose grace period is set
/// that long, is answered by then.
pub const WEB_OS_ANSWER: Duration = Duration::from_secs(25);

/// Exited processes kept for late attaches, and for how long.
pub const RETAINED_PROCESSES: usize = 100;

/// How long an exited process is kept.
pub const RETAINED_FOR: Duration = Duration::from_mins(10);

/// How long a viewer may take nothing before it stops holding its process back.
pub const STALL_DEADLINE: Duration = Duration::from_secs(10);

/// Between two counts of a workspace that has a quota, at least.
pub const QUOTA_INTERVAL: Duration = Duration::from_secs(1);

/// The same, in times of what a count takes: a large workspace costs a twentieth of one core.
pub const QUOTA_PAUSE_FACTOR: u32 = 20;

/// The same, at most: programs can make files that take no room, so that counts take long.
pub const QUOTA_LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Counts in a row that may fail, for want of a descriptor, say, before programs are ended for it.
pub const QUOTA_FAILURES: u32 = 3;

/// What a workspace beyond its quota may grow before programs are stopped: a shell that cleans up writes its history.
pub const QUOTA_GROWTH: u64 = 1 << 20;

/// Lines that wait to be written to the audit log; some hundred bytes each, 2 KiB at most. A burst of spawns and
/// connections is far below; only a pipe that nobody reads fills it.
pub const AUDIT_QUEUE: usize = 4096;

/// How long the audit log's reader may take nothing before a line counts as lost.
pub const AUDIT_PATIENCE: Duration = Duration::from_secs(1);

/// How long a bridge that ends waits for its last audit lines to be written.
pub const AUDIT_CLOSE: Duration = Duration::from_secs(1);
