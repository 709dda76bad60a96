//! Every bound of the wire format. They bound memory and time before a message's meaning is known;
//! the server's own limits (rates, queues) are its affair.

/// The largest message a client may send, as before: a 6 MB file arrives as a 21 MB array of numbers.
pub const MAX_MESSAGE_BYTES: usize = 100 * 1024 * 1024;

/// The longest `id`, as JSON text. It is repeated in every answer, so it must not be a way to make the
/// server send megabytes.
pub const MAX_ID_BYTES: usize = 4 * 1024;

/// The deepest nesting of arrays and objects, the message itself included.
pub const MAX_DEPTH: usize = 128;

/// The most entries of `args`. The kernel's own bound (E2BIG) is on bytes: [`MAX_EXEC_BYTES`].
pub const MAX_ARGS: usize = 32 * 1024;

/// The most variables of `options.env`.
pub const MAX_ENV: usize = 4 * 1024;

/// The most bytes of arguments and environment together: what Linux grants a program with the usual
/// 8 MiB stack limit (execve(2): a quarter of it).
pub const MAX_EXEC_BYTES: usize = 2 * 1024 * 1024;

/// The longest single argument or variable (execve(2): MAX_ARG_STRLEN, 32 pages, its NUL included).
pub const MAX_ARG_BYTES: usize = 128 * 1024 - 1;

/// The longest path a client may name (PATH_MAX, its NUL included).
pub const MAX_PATH_BYTES: usize = 4095;

/// The longest `options.name`, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// The most names in `events`: each of those there are, many times over.
pub const MAX_EVENTS: usize = 16;

/// The most entries of one push. The browser client sends five.
pub const MAX_PUSH_ENTRIES: usize = 10_000;

/// The largest whole number that JavaScript holds exactly (`Number.MAX_SAFE_INTEGER`).
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;
