//! A directory that a test owns, with a name no other test has.
//!
//! The name doubles as a marker: it shows in the command line, environment or mount table of every process that belongs
//! to the server using it, which is how survivors are found after the server has gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A directory under the system's temporary directory, removed on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a new, empty directory that everybody may enter (the sandbox's user is not the test's).
    #[track_caller]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.subsec_nanos());
        let name = format!("mhnos-test-{}-{number}-{nanos:08x}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory's own name, unique among all tests that run.
    pub fn marker(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).expect("made from ASCII in new()")
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A directory that cannot be removed is left for the system's own cleaning; a test has its verdict by now.
        let _ = fs::remove_dir_all(&self.path);
    }
}
