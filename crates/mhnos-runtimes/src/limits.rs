//! Every bound of this crate.

use std::time::Duration;

/// How long OpenClaw may take from SIGTERM to its end, if the service's own grace period is not longer. Idle,
/// it ends in 0.3–1.2 s; busy, it announces up to 325 s for running work. A client gives up on its `kill`
/// after 30 s, so what is left for an orderly end must be well below that.
pub const OPENCLAW_GRACE: Duration = Duration::from_secs(20);

/// Share of a process's memory limit that V8's old generation may use, in percent. The rest is for the young
/// generation, code, buffers and native memory; beyond it the program would be killed by the limit instead
/// of getting its own clean "heap out of memory".
pub const HEAP_PERCENT: u64 = 75;

/// What Node.js takes besides the old generation, in MiB, with a small heap: this and half of the heap, at most
/// [`NODE_MOST_MIB`]. Measured with Node.js 24 when the heap is full: 72 beside 32, 83 beside 64, 100 beside 128, 136 beside
/// 192, 149 beside 384, 159 beside 768.
pub const NODE_LEAST_MIB: u64 = 64;

/// The same with a large heap.
pub const NODE_MOST_MIB: u64 = 192;

/// The smallest heap V8 is ever given, in MiB; below this Node does not come up.
pub const MIN_HEAP_MIB: u64 = 32;

/// Modules a generated worker may consist of.
pub const WORKER_MODULES: usize = 1000;

/// Names that its modules may import, whether there is such a module or not: each is looked for.
pub const WORKER_IMPORTS: usize = 4 * WORKER_MODULES;

/// Bytes of all modules of a generated worker together. They travel inside its configuration.
pub const WORKER_BYTES: usize = 16 * 1024 * 1024;

/// How far behind the word `import` its specifier is looked for, in bytes: comments may stand between. Keeps
/// the search linear whatever the text.
pub const IMPORT_REACH: usize = 512;
