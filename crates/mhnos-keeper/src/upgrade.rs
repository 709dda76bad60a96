//! A new program for the bridge, found where the old one was.
//!
//! The keeper is asked for an upgrade by a signal, which carries no path: what it may start is decided by
//! whoever may write to the directory the service was started from. That directory is opened while the service
//! still has the account it was started with, so that its parents need not be reachable for the account
//! it runs as; the directory itself and the program in it must be (search and execute permission).
//!
//! Only the bridge is replaced. The keeper and the inits it forks stay what they were until the service is
//! started anew; a bridge that speaks another version of their channel says so and ends, and the old program
//! is taken back.

use std::{ffi::OsString, io, os::fd::OwnedFd, path::Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

/// Where the bridge's program is found anew.
#[derive(Debug)]
pub struct ProgramPlace {
    directory: OwnedFd,
    name: OsString,
}

impl ProgramPlace {
    /// The place of the program at this path.
    pub fn of(program: &Path) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (program.parent(), program.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { directory: openat(CWD, directory, flags, Mode::empty())?, name: name.to_owned() })
    }

    /// The program that is there now, open for execution.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let program = openat(&self.directory, &self.name, flags, Mode::empty())?;
        let kind = FileType::from_raw_mode(fstat(&program)?.st_mode);
        if kind == FileType::RegularFile { Ok(program) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}
