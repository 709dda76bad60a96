//! The one way to open something: relative, beneath a directory, by `openat2`.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::{OpenError, PathError, limits, path, quota::Quota};

/// A directory whose files the API may reach, and nothing else.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: Arc<OwnedFd>,
    visible: Arc<str>,
    pub(crate) quota: Option<Arc<Quota>>,
}

impl Workspace {
    /// `root`: a descriptor of the directory, opened once at start. `visible`: the absolute path under which
    /// processes see it. Fails where `openat2` is not to be had, rather than doing without.
    pub fn open(root: OwnedFd, visible: &str) -> Result<Self, OpenError> {
        let plain = visible.starts_with('/')
            && !visible.contains('\0')
            && !visible.split('/').any(|name| name == "." || name == "..");
        if !plain {
            return Err(OpenError::VisiblePath(visible.to_owned()));
        }
        let visible = format!("/{}", path::components(visible).collect::<Vec<_>>().join("/"));
        match open_beneath(root.as_fd(), b"", OFlags::RDONLY | OFlags::DIRECTORY, Links::Inside) {
            Ok(_) => Ok(Self { root: Arc::new(root), visible: visible.into(), quota: None }),
            Err(error @ (Errno::NOSYS | Errno::PERM)) => Err(OpenError::NoOpenat2(error.into())),
            Err(error) => Err(OpenError::Directory(error.into())),
        }
    }

    /// The same with a bound, in bytes, on what pushes may make of it.
    #[must_use]
    pub fn with_quota(self, limit: u64) -> Self {
        Self { quota: Some(Arc::new(Quota::new(limit))), ..self }
    }

    /// The absolute path under which processes see the workspace, without a trailing slash.
    pub fn visible_path(&self) -> &str {
        &self.visible
    }

    /// Where `relative` is, as processes see it.
    pub(crate) fn visible(&self, relative: &str) -> String {
        match (relative, &*self.visible) {
            ("", visible) => visible.to_owned(),
            (relative, "/") => format!("/{relative}"),
            (relative, visible) => format!("{visible}/{relative}"),
        }
    }

    pub(crate) fn root_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a path relative to the root; symbolic links are followed as far as they stay inside.
    pub(crate) fn open_inside(&self, relative: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        open_beneath(self.root_fd(), relative.as_bytes(), flags, Links::Inside)
    }

    /// The error for what [`open_inside`](Self::open_inside) answered. `given` is the client's own words.
    pub(crate) fn refusal(
        &self,
        given: &str,
        relative: &str,
        operation: &'static str,
        error: Errno,
    ) -> PathError {
        let path = given.to_owned();
        match error {
            Errno::XDEV => PathError::Escapes { path },
            Errno::NOENT => PathError::Missing { path, visible: self.visible(relative) },
            Errno::NOTDIR => PathError::NotADirectory { path },
            Errno::ISDIR => PathError::IsADirectory { path },
            Errno::LOOP => PathError::Dangling { path },
            Errno::NAMETOOLONG => path::too_long(given),
            // What opening a socket answers.
            Errno::NXIO => PathError::Special { path, what: "a socket" },
            error => PathError::Io { path, operation, source: error.into() },
        }
    }
}

/// Which symbolic links an open follows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Those that stay beneath the directory.
    Inside,
    /// None at all.
    None,
}

/// `openat2` beneath `directory`; the empty path is the directory itself. Nothing blocks: a FIFO is opened
/// without a writer, and the caller looks at what it got before it reads.
pub(crate) fn open_beneath(
    directory: BorrowedFd<'_>,
    relative: &[u8],
    flags: OFlags,
    links: Links,
) -> rustix::io::Result<OwnedFd> {
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if links == Links::None {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    // O_PATH takes no other flags (openat2 answers EINVAL).
    let quiet =
        if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK | OFlags::NOCTTY };
    let flags = flags | quiet | OFlags::CLOEXEC;
    let path = if relative.is_empty() { b"." } else { relative };
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < limits::UNDECIDED_TRIES => tries += 1,
            result => return result,
        }
    }
}
