//! The audit log's file: opened before the service gives up root, followed when it is rotated.
//!
//! Rotation needs no signal. Before it writes, the writer looks whether its file still has its name; if
//! not, it opens what has the name now, or makes it, in the directory that was opened at the start. Where the account of
//! the service may do neither, lines go on into the renamed file, and the log says so. `copytruncate` always works, because
//! every write is an append.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat},
    io::Errno,
};
use tracing::warn;

use super::{Destination, stdout};

/// An open file and where it is.
#[derive(Debug)]
pub struct AuditFile {
    dir: OwnedFd,
    name: OsString,
    file: OwnedFd,
}

/// Why it cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path has no file name.
    #[error("{0} names no file")]
    NoName(String),
    /// Its directory cannot be opened.
    #[error(
        "the directory of {path} cannot be opened; make it, or choose another place with MHNOS_AUDIT_LOG"
    )]
    Directory {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be opened or made.
    #[error("{path} cannot be opened for writing; choose another place with MHNOS_AUDIT_LOG")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl AuditFile {
    /// Opens the file, or makes it, readable for its owner and group. The second value says whether it was made.
    pub fn open(path: &Path) -> Result<(Self, bool), OpenError> {
        let shown = || path.display().to_string();
        let name = path.file_name().ok_or_else(|| OpenError::NoName(shown()))?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(rustix::fs::CWD, parent.unwrap_or(Path::new(".")), flags, Mode::empty());
        let dir = dir.map_err(|error| OpenError::Directory { path: shown(), source: error.into() })?;
        let (file, made) = open_or_make(&dir, &name)
            .map_err(|error| OpenError::File { path: shown(), source: error.into() })?;
        Ok((Self { dir, name, file }, made))
    }

    /// One that another process has opened: its directory and the file itself.
    pub fn inherited(path: &Path, dir: OwnedFd, file: OwnedFd) -> Option<Self> {
        Some(Self { dir, name: path.file_name()?.to_owned(), file })
    }

    /// The descriptors to hand on: the directory, the file.
    pub fn into_fds(self) -> [OwnedFd; 2] {
        [self.dir, self.file]
    }

    /// The file itself.
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }
}

fn open_or_make(dir: &OwnedFd, name: &OsString) -> Result<(OwnedFd, bool), Errno> {
    // Not blocking: a FIFO that nobody reads must stop nothing. Opened for both, since it cannot be opened for writing
    // alone then; a file for both, so that its last byte can be looked at.
    let flags = OFlags::APPEND | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = |more: OFlags| openat(dir, name, flags | more, Mode::from_raw_mode(0o640));
    match open(OFlags::RDWR) {
        Ok(file) => Ok((file, false)),
        Err(Errno::NOENT) => match open(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
            // Somebody else was faster.
            Err(Errno::EXIST) => Ok((open(OFlags::RDWR)?, false)),
            made => Ok((made?, true)),
        },
        Err(Errno::ACCESS) => Ok((open(OFlags::WRONLY)?, false)),
        Err(error) => Err(error),
    }
}

/// Where the writer writes.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    /// Where the file is, and which one it is.
    place: Option<(OwnedFd, OsString)>,
    identity: (u64, u64),
    /// The last line is not whole: the next one begins anew.
    torn: bool,
    /// Following a rotation has failed, and that was logged.
    stuck: bool,
}

impl Sink {
    pub(super) fn of(destination: Destination) -> io::Result<Self> {
        let (file, place) = match destination {
            Destination::Stdout => (stdout()?, None),
            Destination::File(AuditFile { dir, name, file }) => (file, Some((dir, name))),
        };
        let mut sink = Self { file: file.into(), place, identity: (0, 0), torn: false, stuck: false };
        sink.recognise();
        Ok(sink)
    }

    /// Notes which file it is, and whether a writer that was killed or met a full disk has left half a line.
    fn recognise(&mut self) {
        let Ok(stat) = fstat(&self.file) else { return };
        self.identity = identity(&stat);
        let mut last = [b'\n'];
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if regular
            && stat.st_size > 0
            && rustix::io::pread(&self.file, &mut last, stat.st_size as u64 - 1).is_ok()
        {
            self.torn = last != *b"\n";
        }
    }

    /// Goes to the file that has the name now.
    pub(super) fn follow(&mut self) {
        let Some((dir, name)) = &self.place else { return };
        let moved = match statat(dir, name, AtFlags::empty()) {
            Ok(stat) => identity(&stat) != self.identity,
            Err(error) => error == Errno::NOENT,
        };
        if !moved {
            return;
        }
        match open_or_make(dir, name) {
            Ok((file, _)) => {
                self.file = file.into();
                self.stuck = false;
                self.torn = false;
                self.recognise();
            }
            Err(error) if !self.stuck => {
                self.stuck = true;
                warn!(
                    error = %io::Error::from(error),
                    "the audit log was moved and cannot be opened anew; lines still go into the old file. Let the \
                     rotation make the file for the account of the service, or copy and truncate it"
                );
            }
            Err(_) => {}
        }
    }

    /// Writes a whole line. If the other side takes nothing for `patience`, that is an error too.
    pub(super) fn write(&mut self, line: &str, patience: Duration) -> io::Result<()> {
        if self.torn {
            self.write_all(b"\n", patience)?;
            self.torn = false;
        }
        let mut done = 0;
        let written = self.write_some(line.as_bytes(), &mut done, patience);
        self.torn = written.is_err() && done > 0;
        written
    }

    fn write_all(&mut self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        self.write_some(bytes, &mut 0, patience)
    }

    fn write_some(&mut self, bytes: &[u8], done: &mut usize, patience: Duration) -> io::Result<()> {
        while *done < bytes.len() {
            match self.file.write(&bytes[*done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => *done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !writable(&self.file, patience)? {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads it"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn writable(file: &File, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
    let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::OUT)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
