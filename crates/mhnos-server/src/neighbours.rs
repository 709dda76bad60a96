//! Programs that share this machine's network with the service, told from others at the other end of a connection.
//!
//! Where Landlock knows ports, it keeps programs from the service's; where it does not (T3+ before Linux 6.7) this does, and
//! the proxy that programs are kept to is for them alone in either case.

use std::net::SocketAddr;

use mhnos_network::is_own;
use mhnos_sandbox::maker;

/// The programs, by their user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Programs(pub(crate) u32);

impl Programs {
    /// Whether a connection, of its own address and the other end's, is one that a program has made.
    pub(crate) fn made(self, own: SocketAddr, peer: SocketAddr) -> bool {
        maker(peer, own) == Some(self.0)
    }

    /// Whether a program may have made it: nobody else has. From this machine each connection has a maker, unless that one
    /// has left and what it sent remains.
    pub(crate) fn may_have_made(self, own: SocketAddr, peer: SocketAddr) -> bool {
        is_own(peer.ip().to_canonical()) && maker(peer, own).is_none_or(|user| user == self.0)
    }
}
