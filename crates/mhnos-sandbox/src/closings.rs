//! Tells when a TCP socket that listened is gone (sock_diag(7), `SKNLGRP_INET_TCP_DESTROY`): 0.1 ms after it was closed,
//! and at no cost while none is. The kernel lets everybody hear that of a network namespace.
//!
//! What it tells of every other socket is filtered out before anybody is woken. It makes up a message for each
//! connection that ends as long as somebody listens to the group, so who has nothing to hear of leaves it.

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind, getsockname,
        netlink::{SOCK_DIAG, SocketAddrNetlink},
        recv, socket_with,
    },
};

use crate::sys::{Instruction, filter_socket};

/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY` (linux/sock_diag.h), as bits.
const GROUPS: u32 = 1 << 0 | 1 << 2;

/// Where a message has the socket's own port and the other end's: after `struct nlmsghdr`, in `struct inet_diag_msg`.
const OWN_PORT: u32 = 20;
const OTHER_PORT: u32 = 22;

/// Messages taken at once; each is some 250 bytes of a buffer of some 200 KiB.
const MOST: usize = 4096;

/// Lets sockets with a port of their own and no other end pass: such as listened, or were bound and no more.
const FILTER: [Instruction; 6] = [
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, OWN_PORT, 0, 0),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, 0),
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, OTHER_PORT, 0, 0),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 0, 1),
    instruction(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
];

const fn instruction(code: u32, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code: code as u16, jump_true, jump_false, operand }
}

/// Hears of closed sockets in the network namespace that it was made in.
#[derive(Debug)]
pub struct Closings {
    socket: OwnedFd,
    /// The socket's own number.
    own: u32,
}

impl Closings {
    /// Those of this process's network; nothing is heard yet. Fails where the kernel does not tell.
    pub fn of_this_network() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))?;
        filter_socket(&socket, &FILTER)?;
        // To be told is to be refused what is refused: now, and not when there is something to hear.
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        let own = SocketAddrNetlink::try_from(getsockname(&socket)?)?.pid();
        let closings = Self { socket, own };
        closings.hear(false)?;
        Ok(closings)
    }

    /// Begins to hear, or ends to. What was heard before is forgotten.
    pub fn hear(&self, hear: bool) -> io::Result<()> {
        bind(&self.socket, &SocketAddrNetlink::new(self.own, if hear { GROUPS } else { 0 }))?;
        self.forget();
        Ok(())
    }

    /// What is ready, in whatever way, when there is news.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Takes the news.
    pub fn forget(&self) {
        let mut message = [0; 512];
        for _ in 0..MOST {
            match recv(&self.socket, &mut message[..], RecvFlags::DONTWAIT) {
                // Some were lost: news all the same.
                Ok(_) | Err(Errno::NOBUFS) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_ready(closings: &Closings, most: i64) -> bool {
        let wait = Timespec { tv_sec: most, tv_nsec: 0 };
        poll(&mut [PollFd::new(closings.socket(), PollFlags::IN)], Some(&wait)).expect("a poll") == 1
    }

    /// Other tests close sockets too: what is shown is that it is heard, and, by the filter itself, what is not.
    #[test]
    fn a_socket_that_listened_is_heard_to_close_for_as_long_as_somebody_listens() {
        let closings = Closings::of_this_network().expect("the kernel tells");
        for place in ["127.0.0.1:0", "[::1]:0"] {
            closings.hear(true).expect("heard");
            drop(TcpListener::bind(place).expect("a port"));
            assert!(is_ready(&closings, 60), "{place}");
        }
        closings.hear(false).expect("left");
        drop(TcpListener::bind("127.0.0.1:0").expect("a port"));
        assert!(!is_ready(&closings, 0));
    }

    #[test]
    fn what_is_heard_has_a_port_and_no_other_end() {
        let closings = Closings::of_this_network().expect("the kernel tells");
        closings.hear(true).expect("heard");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        drop((listener.accept().expect("it came"), near));
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let mut of_it = 0;
        while of_it == 0 {
            assert!(is_ready(&closings, 60));
            let mut message = [0; 512];
            while let Ok((length, _)) = recv(&closings.socket, &mut message[..], RecvFlags::DONTWAIT) {
                let part = |at: u32| u16::from_be_bytes([message[at as usize], message[at as usize + 1]]);
                assert!(length > 24 && part(OTHER_PORT) == 0 && part(OWN_PORT) != 0);
                of_it += usize::from(part(OWN_PORT) == port);
            }
        }
        assert_eq!(of_it, 1, "its connection's ends were told of, too");
    }
}
