//! Both output streams of the service, read to their ends by a thread each, so that it never blocks on a full pipe.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The words before the address in the readiness line.
const READY: &str = "listening on http://";

#[derive(Debug, Default)]
struct Streams {
    stdout: String,
    stderr: String,
    stdout_ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    streams: Mutex<Streams>,
    changed: Condvar,
}

impl Shared {
    /// A panic elsewhere does not spoil text that was appended whole.
    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the service has written.
#[derive(Debug)]
pub(super) struct Capture {
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
}

impl Capture {
    /// Takes the child's piped streams.
    pub(super) fn of(child: &mut Child) -> Self {
        let shared = Arc::new(Shared::default());
        let stdout = child.stdout.take().expect("piped at the spawn");
        let stderr = child.stderr.take().expect("piped at the spawn");
        let readers = vec![
            spawn_reader(Arc::clone(&shared), stdout, |streams, line| match line {
                Some(text) => streams.stdout.push_str(text),
                None => streams.stdout_ended = true,
            }),
            spawn_reader(Arc::clone(&shared), stderr, |streams, line| {
                streams.stderr.push_str(line.unwrap_or_default());
            }),
        ];
        Self { shared, readers }
    }

    /// Waits for the readiness line; None when stdout ends or the deadline passes first.
    pub(super) fn listening(&self, deadline: Duration) -> Option<SocketAddr> {
        let waiting = |streams: &mut Streams| address(&streams.stdout).is_none() && !streams.stdout_ended;
        let (streams, _) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), deadline, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        address(&streams.stdout)
    }

    /// All of stderr so far.
    pub(super) fn stderr(&self) -> String {
        self.shared.lock().stderr.clone()
    }

    /// All of stdout so far.
    pub(super) fn stdout(&self) -> String {
        self.shared.lock().stdout.clone()
    }

    /// Both streams to their ends; to be called when the child has ended.
    pub(super) fn finish(self) -> (String, String) {
        for reader in self.readers {
            reader.join().expect("a reader only appends");
        }
        let streams = self.shared.lock();
        (streams.stdout.clone(), streams.stderr.clone())
    }
}

/// The first address of the readiness line; there is one for each address family.
fn address(stdout: &str) -> Option<SocketAddr> {
    let complete = &stdout[..stdout.rfind('\n')?];
    let addresses = complete.lines().find_map(|line| line.strip_prefix(READY))?;
    addresses.split_whitespace().next()?.trim_end_matches('/').parse().ok()
}

/// `None` tells `append` that the stream has ended.
fn spawn_reader(
    shared: Arc<Shared>,
    stream: impl Read + Send + 'static,
    append: impl Fn(&mut Streams, Option<&str>) + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = stream.read_until(b'\n', &mut line).unwrap_or(0);
            let text = String::from_utf8_lossy(&line);
            append(&mut shared.lock(), (read > 0).then_some(&text));
            shared.changed.notify_all();
            if read == 0 {
                return;
            }
        }
    })
}
