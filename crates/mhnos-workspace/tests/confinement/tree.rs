//! A scratch directory with a workspace in it, a secret beside it, and a sibling with the same prefix.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use mhnos_workspace::Workspace;
use rustix::fs::{CWD, Mode};

/// Where processes would see the workspace; exists nowhere.
pub(crate) const VISIBLE: &str = "/data/ws";

pub(crate) struct Tree {
    base: PathBuf,
    pub(crate) workspace: Workspace,
}

impl Tree {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let base =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tree-{}-{number}", std::process::id()));
        let root = base.join("workspace");
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(base.join("workspace-evil")).unwrap();
        fs::write(base.join("secret"), "secret").unwrap();
        let workspace = Workspace::open(File::open(&root).unwrap().into(), VISIBLE).unwrap();
        Self { base, workspace }
    }

    /// The real path of something in the workspace.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.base.join("workspace").join(relative)
    }

    /// The real path of something beside the workspace.
    pub(crate) fn beside(&self, relative: &str) -> PathBuf {
        self.base.join(relative)
    }

    pub(crate) fn file(&self, relative: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(relative).parent().unwrap()).unwrap();
        fs::write(self.path(relative), content).unwrap();
    }

    pub(crate) fn directory(&self, relative: &str) {
        fs::create_dir_all(self.path(relative)).unwrap();
    }

    pub(crate) fn link(&self, relative: &str, target: impl AsRef<Path>) {
        std::os::unix::fs::symlink(target, self.path(relative)).unwrap();
    }

    pub(crate) fn fifo(&self, relative: &str) {
        rustix::fs::mkfifoat(CWD, self.path(relative), Mode::RUSR | Mode::WUSR).unwrap();
    }

    pub(crate) fn socket(&self, relative: &str) {
        // A relative address keeps below the 108 bytes that a socket's path may have.
        let parent = File::open(self.path("")).unwrap();
        let through = format!("/proc/self/fd/{}/{relative}", std::os::fd::AsRawFd::as_raw_fd(&parent));
        drop(std::os::unix::net::UnixListener::bind(through).unwrap());
    }

    pub(crate) fn read(&self, relative: &str) -> Vec<u8> {
        fs::read(self.path(relative)).unwrap()
    }

    pub(crate) fn names(&self, relative: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(relative))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}
