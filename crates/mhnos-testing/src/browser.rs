//! A real browser, for what only a page can show: Chromium without a window, driven over its DevTools protocol.
//!
//! One is started for all tests of a binary that run at the same time, each with tabs of its own in a browser context of its own
//! (cookies, files and windows apart), and ended with the last of them. The protocol is JSON over a WebSocket, so nothing
//! beyond what the other tests use is needed; a missing Chromium fails the test with the command that installs it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::eventually::eventually;
use crate::scratch::Scratch;

mod site;
mod tab;

pub use site::Site;
pub use tab::{Key, Tab};

/// From start to the DevTools port; a second is normal, a loaded machine may take many.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// Names under which distributions have it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// No window, no sandbox of its own (the tests run as root in containers), no traffic but what a test causes, and no page
/// slowed down because another is in front of it.
const FLAGS: [&str; 14] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-port=0",
];

/// A running Chromium. Dropping it ends it with all its processes.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    endpoint: String,
    _profile: Scratch,
}

impl Browser {
    /// The browser that the tests of this binary share; started if no test has it now.
    #[track_caller]
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Browser>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let browser = Arc::new(Self::start());
            *shared = Arc::downgrade(&browser);
            browser
        })
    }

    #[track_caller]
    fn start() -> Self {
        let program = find();
        let profile = Scratch::new();
        let log_path = profile.path().join("chromium.log");
        let log = std::fs::File::create(&log_path).expect("the scratch directory is ours");
        let mut child = Command::new(&program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        // Two lines, port and path, written when it listens.
        let port_file = profile.path().join("DevToolsActivePort");
        let endpoint = eventually(START_DEADLINE, "Chromium listens for DevTools", || {
            if let Some(status) = child.try_wait().expect("our own child") {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                panic!("{} ended at once ({status}):\n{log}", program.display());
            }
            let text = std::fs::read_to_string(&port_file).ok()?;
            let (port, path) = text.split_once('\n')?;
            path.contains("/devtools/").then(|| format!("ws://127.0.0.1:{port}{}", path.trim()))
        });
        Self { child, endpoint, _profile: profile }
    }

    /// Where its DevTools listen.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The group of a child that has not been waited for cannot be anybody else's.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

#[track_caller]
fn find() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let all = NAMES.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    let found = all.into_iter().find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("Chromium is missing; to install it: deploy/tools/install test"))
}
