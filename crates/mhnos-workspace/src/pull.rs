//! The workspace's files to a client, piece by piece, so that no more than a buffer is ever in memory.
//!
//! A cursor rather than a callback: an async caller takes a few pieces on a blocking thread, sends them, and
//! comes back for more when the client has taken them.

use std::os::fd::OwnedFd;

use crate::{
    PullError, Workspace, limits,
    walk::{Found, Walk},
};

/// What a pull takes, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSettings {
    /// Names that are passed over wherever they stand, with all that is in them.
    pub skip: Vec<String>,
    /// The most content, in bytes.
    pub max_bytes: u64,
    /// The most files and directories to look at, skipped ones included.
    pub max_entries: u64,
}

impl Default for PullSettings {
    /// Passes over what the Web OS client's own push passes over: `node_modules`, `.git`, `dist`, `.cache`.
    fn default() -> Self {
        Self {
            skip: ["node_modules", ".git", "dist", ".cache"].map(str::to_owned).to_vec(),
            max_bytes: limits::PULL_BYTES,
            max_entries: limits::PULL_ENTRIES,
        }
    }
}

/// What a pull would carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories that would be listed, because nothing in them is.
    pub directories: u64,
    /// Symbolic links, special files, names that are not UTF-8, and files or directories that may not be
    /// read or vanished meanwhile: never carried. What the settings skip by name is not counted.
    pub passed_over: u64,
}

/// The next piece of a [`Pull`]. Paths are relative to the workspace, without a leading slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A directory that has nothing else to show for it.
    Directory {
        /// Relative path.
        path: &'a str,
    },
    /// A file begins; [`Piece::Content`] follows until [`Piece::FileEnd`].
    File {
        /// Relative path.
        path: &'a str,
        /// Bytes at the time it was opened. Never more follow; fewer do if it was cut meanwhile.
        size: u64,
        /// Modification time, milliseconds since 1970.
        mtime_ms: i64,
    },
    /// Some bytes of the file that began last; never empty.
    Content(&'a [u8]),
    /// The file is complete.
    FileEnd,
}

/// A pull in progress. Owns its descriptors; dropping it ends it.
#[derive(Debug)]
pub struct Pull {
    walk: Walk,
    settings: PullSettings,
    /// Path of the piece last given out.
    path: String,
    open: Option<OpenFile>,
    carried: Survey,
}

#[derive(Debug)]
struct OpenFile {
    file: OwnedFd,
    left: u64,
}

impl Workspace {
    /// Walks all that a pull would carry without reading it. [`PullError::TooLarge`] names the whole size.
    pub fn survey(&self, settings: &PullSettings) -> Result<Survey, PullError> {
        let mut walk = Walk::new(self)?;
        let mut survey = Survey::default();
        while let Some(found) = walk.next(settings)? {
            match found {
                Found::File { size, .. } => {
                    survey.files += 1;
                    survey.bytes = survey.bytes.saturating_add(size);
                }
                Found::EmptyDirectory { .. } => survey.directories += 1,
            }
        }
        survey.passed_over = walk.passed_over();
        let Survey { bytes: size, files, .. } = survey;
        if size > settings.max_bytes {
            return Err(PullError::TooLarge { size, files, max: settings.max_bytes });
        }
        Ok(survey)
    }

    /// Begins a pull. Run [`survey`](Self::survey) first, so that what is too large is refused before anything
    /// is sent; the bounds hold here again, because files may grow meanwhile.
    pub fn pull(&self, settings: PullSettings) -> Result<Pull, PullError> {
        let walk = Walk::new(self)?;
        Ok(Pull { walk, settings, path: String::new(), open: None, carried: Survey::default() })
    }
}

impl Pull {
    /// The next piece, `None` at the end. Content is read into `buffer`, which must not be empty; 64 KiB is
    /// a good size. After an error the pull is over.
    pub fn next<'a>(&'a mut self, buffer: &'a mut [u8]) -> Result<Option<Piece<'a>>, PullError> {
        if let Some(mut open) = self.open.take() {
            let count = self.read(&mut open, buffer)?;
            if count == 0 {
                return Ok(Some(Piece::FileEnd));
            }
            self.open = Some(open);
            return Ok(Some(Piece::Content(&buffer[..count])));
        }
        match self.walk.next(&self.settings)? {
            None => Ok(None),
            Some(Found::EmptyDirectory { path }) => {
                self.carried.directories += 1;
                self.path = path;
                Ok(Some(Piece::Directory { path: &self.path }))
            }
            Some(Found::File { path, file, size, mtime_ms }) => {
                self.carried.files += 1;
                self.carried.bytes = self.carried.bytes.saturating_add(size);
                let Survey { bytes, files, .. } = self.carried;
                if bytes > self.settings.max_bytes {
                    return Err(PullError::TooLarge { size: bytes, files, max: self.settings.max_bytes });
                }
                self.path = path;
                self.open = Some(OpenFile { file, left: size });
                Ok(Some(Piece::File { path: &self.path, size, mtime_ms }))
            }
        }
    }

    /// What this pull has carried, and passed over, so far.
    pub fn carried(&self) -> Survey {
        Survey { passed_over: self.walk.passed_over(), ..self.carried }
    }

    fn read(&self, open: &mut OpenFile, buffer: &mut [u8]) -> Result<usize, PullError> {
        let wanted = buffer.len().min(usize::try_from(open.left).unwrap_or(usize::MAX));
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&open.file, &mut buffer[..wanted]))
            .map_err(|error| PullError::Io { path: self.path.clone(), source: error.into() })?;
        open.left -= count as u64;
        Ok(count)
    }
}
