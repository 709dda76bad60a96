//! One message, one datagram: postcard over `SOCK_SEQPACKET`, descriptors by `SCM_RIGHTS`.
//!
//! What does not fit a datagram travels in a sealed memfd that is attached before the message's own
//! descriptors. The receiver trusts nothing: sizes are checked before anything is read, a truncated
//! datagram or descriptor list is an error, and whatever came with a bad message is closed.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::poll,
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create},
    io::{Errno, pread, write},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg,
        sendmsg, socketpair,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use crate::limits::TOO_MANY_PAUSE;

/// The largest message sent as a datagram; more goes through a memfd. Well under the kernel's default
/// socket buffer (`net.core.wmem_default`, 208 KiB), so that several fit.
pub const MAX_DATAGRAM: usize = 32 * 1024;

/// The largest message of all: arguments and environment the kernel would accept (2 MiB) and a worker's
/// generated configuration, with room.
pub const MAX_MESSAGE: usize = 24 * 1024 * 1024;

/// The most descriptors one message may carry.
pub const MAX_FDS: usize = 16;

/// First byte of a datagram: the message follows.
const INLINE: u8 = 0;
/// First byte of a datagram: the message is in the first attached descriptor.
const IN_MEMFD: u8 = 1;

/// One end of a channel between two of our own processes.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

/// A message and what came with it.
#[derive(Debug)]
pub struct Received<T> {
    /// The message.
    pub message: T,
    /// The attached descriptors, in order, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Whether all descriptors of a message have arrived.
#[derive(Clone, Copy, Debug)]
enum Attached {
    Whole,
    Lost,
}

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// A non-blocking socket has nothing.
    #[error("nothing to receive yet")]
    WouldBlock,
    /// The other end is gone.
    #[error("the other end has closed the channel")]
    Closed,
    /// Something arrived that is no message; it has been discarded.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// The kernel said no.
    #[error("cannot receive")]
    Io(#[source] io::Error),
}

impl From<Errno> for RecvError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN | Errno::INTR => Self::WouldBlock,
            Errno::CONNRESET | Errno::PIPE => Self::Closed,
            other => Self::Io(other.into()),
        }
    }
}

/// Whether a channel end waits or says `WouldBlock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// Waits.
    Yes,
    /// Says `WouldBlock`.
    No,
}

impl Socket {
    /// A connected pair, close-on-exec, both ends in the same mode.
    pub fn pair(blocking: Blocking) -> io::Result<(Self, Self)> {
        let mut flags = SocketFlags::CLOEXEC;
        if blocking == Blocking::No {
            flags |= SocketFlags::NONBLOCK;
        }
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Takes over an end that was inherited or received.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Gives the descriptor back.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Sends one message. `ErrorKind::WouldBlock` means that nothing was sent and the same call may be made
    /// again when the socket is writable; [`too_many_on_their_way`] that it may be made again in a while.
    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = postcard::to_stdvec(message).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        if bytes.len() > MAX_MESSAGE || fds.len() >= MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "message exceeds the channel's bounds"));
        }
        if bytes.len() <= MAX_DATAGRAM {
            return self.send_datagram(INLINE, &bytes, fds);
        }
        let file = sealed_memfd(&bytes)?;
        let all: Vec<_> = std::iter::once(file.as_fd()).chain(fds.iter().copied()).collect();
        self.send_datagram(IN_MEMFD, &[], &all)
    }

    /// The same, waiting while too many descriptors are on their way.
    pub(crate) fn send_patiently<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            match self.send(message, fds) {
                Err(error) if too_many_on_their_way(&error) => {
                    let _ = poll(&mut [], Some(&TOO_MANY_PAUSE));
                }
                other => return other,
            }
        }
    }

    fn send_datagram(&self, kind: u8, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let kind = [kind];
        let parts = [IoSlice::new(&kind), IoSlice::new(bytes)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        loop {
            match sendmsg(&self.fd, &parts, &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                other => return other.map(drop).map_err(Into::into),
            }
        }
    }

    /// Receives one message. One whose descriptors found no room in this process is malformed.
    pub fn recv<T: DeserializeOwned>(&self) -> Result<Received<T>, RecvError> {
        match self.take()? {
            (_, Attached::Lost) => Err(RecvError::Malformed("truncated")),
            (received, Attached::Whole) => Ok(received),
        }
    }

    /// The same, but a message whose descriptors found no room in this process comes with none of them: for who waits for
    /// its words above all.
    pub(crate) fn recv_words<T: DeserializeOwned>(&self) -> Result<Received<T>, RecvError> {
        self.take().map(|(received, _)| received)
    }

    fn take<T: DeserializeOwned>(&self) -> Result<(Received<T>, Attached), RecvError> {
        // Room for what is there and no more: a supervisor, of which there are many, would keep what it has touched once.
        let (_, size) = last_words(|| recv(&self.fd, &mut [0; 0], RecvFlags::PEEK | RecvFlags::TRUNC))?;
        let mut buffer = vec![0; size.clamp(1, MAX_DATAGRAM + 1)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let outcome = last_words(|| {
            recvmsg(&self.fd, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if outcome.bytes == 0 {
            return Err(RecvError::Closed);
        }
        if outcome.flags.contains(ReturnFlags::TRUNC) {
            return Err(RecvError::Malformed("truncated"));
        }
        let mut attached = Attached::Whole;
        if outcome.flags.contains(ReturnFlags::CTRUNC) {
            attached = Attached::Lost;
            fds.clear();
        }
        let message = match buffer[0] {
            INLINE => postcard::from_bytes(&buffer[1..outcome.bytes]),
            IN_MEMFD if !fds.is_empty() => postcard::from_bytes(&read_sealed(&fds.remove(0))?),
            _ => return Err(RecvError::Malformed("unknown framing")),
        };
        let message = message.map_err(|_| RecvError::Malformed("undecodable"))?;
        Ok((Received { message, fds }, attached))
    }
}

/// Whether a message was not sent because its user has as many descriptors on their way as one process may have open
/// (`ETOOMANYREFS`, unix(7)): whoever they are for has not had its turn yet.
pub fn too_many_on_their_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

/// If the other end has closed without having read everything, the kernel says that once, before it gives what that one has
/// said: why an init could not put up its walls, say.
fn last_words<T>(mut receive: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    match receive() {
        Err(Errno::CONNRESET) => receive(),
        other => other,
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A read-only file in memory with this content: sealed against every change.
pub fn sealed_memfd(content: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd_create("mhnos", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = content;
    while !rest.is_empty() {
        match write(&file, rest) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// The content of a sealed memfd. Unsealed or oversized files are refused before a byte is read: reading a
/// pipe or a file that shrinks meanwhile could block or fault.
fn read_sealed(file: &OwnedFd) -> Result<Vec<u8>, RecvError> {
    let needed = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
    if !fcntl_get_seals(file).is_ok_and(|seals| seals.contains(needed)) {
        return Err(RecvError::Malformed("unsealed memfd"));
    }
    let size = fstat(file)?.st_size as usize;
    if size > MAX_MESSAGE {
        return Err(RecvError::Malformed("oversized memfd"));
    }
    let mut content = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match pread(file, &mut content[filled..], filled as u64) {
            Ok(0) => return Err(RecvError::Malformed("short memfd")),
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    fn pair() -> (Socket, Socket) {
        Socket::pair(Blocking::No).expect("socketpair")
    }

    #[test]
    fn messages_of_every_size_arrive_whole_with_their_descriptors() {
        let (a, b) = pair();
        for size in [0, 1, MAX_DATAGRAM - 8, MAX_DATAGRAM, MAX_DATAGRAM + 1, 3 << 20] {
            let sent: Vec<u8> = (0..size).map(|i| i as u8).collect();
            a.send(&sent, &[b.as_fd()]).expect("send");
            let got: Received<Vec<u8>> = b.recv().expect("recv");
            assert!(got.message == sent, "{size} bytes");
            assert_eq!(got.fds.len(), 1, "{size} bytes");
        }
    }

    #[test]
    fn an_empty_channel_says_so_and_a_closed_one_too() {
        let (a, b) = pair();
        assert!(matches!(b.recv::<u8>(), Err(RecvError::WouldBlock)));
        drop(a);
        assert!(matches!(b.recv::<u8>(), Err(RecvError::Closed)));
    }

    #[test]
    fn what_was_said_before_the_end_is_heard_although_something_was_never_read() {
        let (a, b) = pair();
        a.send(&1_u8, &[]).expect("send");
        b.send(&2_u8, &[]).expect("send");
        drop(b);
        assert_eq!(a.recv::<u8>().expect("its last words").message, 2);
        assert!(matches!(a.recv::<u8>(), Err(RecvError::Closed)));
    }

    #[test]
    fn malformed_datagrams_are_refused() {
        let (a, b) = pair();
        for raw in [&[7u8, 1, 2][..], &[IN_MEMFD], &[INLINE]] {
            rustix::net::send(&a, raw, SendFlags::empty()).expect("send");
            assert!(matches!(b.recv::<u32>(), Err(RecvError::Malformed(_))), "{raw:?}");
        }
        a.send_datagram(IN_MEMFD, &[], &[a.as_fd()]).expect("send");
        assert!(matches!(b.recv::<u32>(), Err(RecvError::Malformed("unsealed memfd"))));
    }

    /// A process of its own, as the limit is one of the whole process.
    #[test]
    fn words_arrive_although_their_descriptors_find_no_room() {
        if !mhnos_testing::alone("socket::tests::words_arrive_although_their_descriptors_find_no_room") {
            return;
        }
        let (a, b) = pair();
        for message in 1..=3_u8 {
            a.send(&message, &[a.as_fd(), b.as_fd()]).expect("send");
        }
        let words = b.recv_words::<u8>().expect("all of it");
        assert_eq!((words.message, words.fds.len()), (1, 2));
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).expect("fewer");
        assert!(matches!(b.recv::<u8>(), Err(RecvError::Malformed(_))));
        let words = b.recv_words::<u8>().expect("the words");
        assert_eq!((words.message, words.fds.len()), (3, 0));
    }

    #[test]
    fn too_many_descriptors_are_refused_by_the_sender() {
        let (a, _b) = pair();
        let fds = [a.as_fd(); MAX_FDS];
        assert!(a.send(&1u8, &fds).is_err());
    }
}
