//! The floor: the same programs, started by the bench itself and read with nothing in between.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

/// A program of our own.
pub(crate) struct Direct {
    child: Child,
    output: File,
    input: File,
    /// Its end of the terminal, kept open as the service does not need to: the last bytes would be lost without.
    _terminal: Option<OwnedFd>,
}

impl Direct {
    pub(crate) fn start(script: &str, pty: bool) -> Self {
        if pty { Self::on_terminal(script) } else { Self::on_pipes(script) }
    }

    fn on_pipes(script: &str) -> Self {
        let mut child =
            bash(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash is there");
        let output = File::from(OwnedFd::from(child.stdout.take().expect("piped above")));
        let input = File::from(OwnedFd::from(child.stdin.take().expect("piped above")));
        Self { child, output, input, _terminal: None }
    }

    fn on_terminal(script: &str) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
        let terminal = ioctl_tiocgptpeer(&master, flags).expect("its other end");
        let end = || Stdio::from(terminal.try_clone().expect("a descriptor"));
        let child = bash(script).stdin(end()).stdout(end()).stderr(end()).spawn().expect("bash is there");
        let input = File::from(master.try_clone().expect("a descriptor"));
        Self { child, output: File::from(master), input, _terminal: Some(terminal) }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).expect("it reads");
    }

    /// Where its output comes from.
    pub(crate) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        self.output.read(buffer).expect("an end of ours")
    }

    /// Reads until all that came ends with this.
    pub(crate) fn until(&mut self, end: &[u8]) {
        let (mut buffer, mut seen) = ([0; 4096], Vec::new());
        while !seen.ends_with(end) {
            let read = self.read(&mut buffer);
            assert!(read > 0, "it ended before {:?}", String::from_utf8_lossy(end));
            seen.extend_from_slice(&buffer[..read]);
        }
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) {
        assert!(self.child.wait().expect("our own child").success());
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bash(script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script]).stderr(Stdio::null());
    command
}
