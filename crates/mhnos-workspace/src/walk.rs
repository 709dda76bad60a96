//! One pass over all files of the workspace, depth first, each directory in the order of its names.
//!
//! Descends by descriptor, one name at a time and through no symbolic link, so that nothing a program
//! renames or replaces meanwhile can lead the walk outside.

use std::{
    os::fd::{AsFd, OwnedFd},
    vec,
};

use rustix::{
    fs::{Dir, FileType, OFlags},
    io::Errno,
};

use crate::{
    PullError, PullSettings, Workspace,
    confined::{Links, open_beneath},
    limits,
    push::TEMPORARY_PREFIX,
};

/// What the walk came to.
#[derive(Debug)]
pub(crate) enum Found {
    /// A regular file, open for reading.
    File { path: String, file: OwnedFd, size: u64, mtime_ms: i64 },
    /// A directory beneath which nothing was found.
    EmptyDirectory { path: String },
}

/// Where the walk is.
#[derive(Debug)]
pub(crate) struct Walk {
    /// The directories from the root to where it is; the last is being gone through.
    levels: Vec<Level>,
    /// The root, until the first step.
    start: Option<OwnedFd>,
    looked_at: u64,
    passed_over: u64,
}

#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    path: String,
    names: vec::IntoIter<String>,
    /// Whether anything beneath it was found.
    fruitful: bool,
}

impl Walk {
    pub(crate) fn new(workspace: &Workspace) -> Result<Self, PullError> {
        let root = workspace
            .open_inside("", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| unreadable("", error))?;
        Ok(Self { levels: Vec::new(), start: Some(root), looked_at: 0, passed_over: 0 })
    }

    pub(crate) fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// The next file or empty directory; `None` after the last.
    pub(crate) fn next(&mut self, settings: &PullSettings) -> Result<Option<Found>, PullError> {
        if let Some(root) = self.start.take() {
            let entries = Dir::read_from(&root).map_err(|error| unreadable("", error))?;
            self.descend(root, entries, String::new(), settings)?;
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.next() else {
                match self.ascend() {
                    Some(found) => return Ok(Some(found)),
                    None => continue,
                }
            };
            let path = if level.path.is_empty() { name.clone() } else { format!("{}/{name}", level.path) };
            let Some((file, stat)) = open_plain(level, &name, &path)? else {
                self.passed_over += 1;
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                match Dir::read_from(&file) {
                    // It may be read and not searched: nothing in it may be opened.
                    Err(Errno::ACCESS | Errno::PERM) => self.passed_over += 1,
                    entries => {
                        let entries = entries.map_err(|error| unreadable(&path, error))?;
                        self.descend(file, entries, path, settings)?;
                    }
                }
                continue;
            }
            level.fruitful = true;
            let mtime_ms =
                stat.st_mtime.saturating_mul(1000).saturating_add(stat.st_mtime_nsec as i64 / 1_000_000);
            return Ok(Some(Found::File { path, file, size: stat.st_size as u64, mtime_ms }));
        }
        Ok(None)
    }

    fn descend(
        &mut self,
        directory: OwnedFd,
        entries: Dir,
        path: String,
        settings: &PullSettings,
    ) -> Result<(), PullError> {
        if self.levels.len() > limits::DEPTH {
            let path = path.chars().take(limits::SHOWN_CHARACTERS).collect();
            return Err(PullError::TooDeep { path, max: limits::DEPTH });
        }
        let names = self.names(entries, &path, settings)?.into_iter();
        self.levels.push(Level { directory, path, names, fruitful: false });
        Ok(())
    }

    /// Leaves the last level; tells of it if nothing was found beneath, and it is not the root.
    fn ascend(&mut self) -> Option<Found> {
        let done = self.levels.pop()?;
        self.levels.last_mut()?.fruitful = true;
        (!done.fruitful).then_some(Found::EmptyDirectory { path: done.path })
    }

    fn names(&mut self, entries: Dir, path: &str, settings: &PullSettings) -> Result<Vec<String>, PullError> {
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(path, error))?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            self.looked_at += 1;
            if self.looked_at > settings.max_entries {
                return Err(PullError::TooMany { max: settings.max_entries });
            }
            // Devices and FIFOs are not even opened where the file system says what they are.
            let kind = entry.file_type();
            let plain = matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Unknown);
            match entry.file_name().to_str() {
                Ok(name) if name.starts_with(TEMPORARY_PREFIX) => {}
                Ok(name) if settings.skip.iter().any(|skipped| skipped == name) => {}
                Ok(name) if plain => names.push(name.to_owned()),
                _ => self.passed_over += 1,
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// Opens a regular file or directory of this level; `None` for anything else, for what may not be read, and
/// for what is no longer there.
fn open_plain(
    level: &Level,
    name: &str,
    path: &str,
) -> Result<Option<(OwnedFd, rustix::fs::Stat)>, PullError> {
    let file = match open_beneath(
        level.directory.as_fd(),
        name.as_bytes(),
        OFlags::RDONLY | OFlags::NOFOLLOW,
        Links::None,
    ) {
        // A link, nothing any more, no permission, a socket or a device without a driver.
        Err(Errno::LOOP | Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::NXIO | Errno::NODEV) => {
            return Ok(None);
        }
        result => result.map_err(|error| unreadable(path, error))?,
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| unreadable(path, error))?;
    let plain = matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory);
    Ok(plain.then_some((file, stat)))
}

fn unreadable(path: &str, error: Errno) -> PullError {
    let path = if path.is_empty() { "/" } else { path };
    PullError::Io { path: path.to_owned(), source: error.into() }
}
