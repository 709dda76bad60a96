//! The network of programs that have one of their own: out through a policy, or not at all.
//!
//! A sandbox's network leads nowhere (`mhnos_sandbox::network`). What leads out are the sockets that its init has
//! opened inside, and this crate is who accepts on them: an HTTP and SOCKS proxy (`proxy`, `socks`), connections
//! to ports 22, 80 and 443 of any address, caught without the program's help (`captured`), and names (`names`). Whatever
//! the way, a destination is a name or an address with a port, and takes the same course: the policy admits it by
//! name, the name is resolved out here, every address is judged, and one that was judged is connected to (`dial`).
//! A name is never resolved twice, and what a program believes an address to be is never asked.
//!
//! Nothing here knows processes, sandboxes or the keeper; the server brings the sockets and says whose they are.

mod address;
mod captured;
mod dial;
mod dns;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gateway;
pub mod limits;
mod names;
mod pace;
mod pipe;
mod policy;
mod proxy;
mod report;
mod resolve;
mod socks;
mod target;
mod upstream;

pub use address::is_own;
pub use gateway::{Admits, Gateway, Outlets, Owner, Room};
pub use limits::{Bounds, DESCRIPTORS as MAX_DESCRIPTORS};
pub use policy::{Egress, Rule};
pub use report::{Refusals, Refused, Via};
pub use resolve::{Resolver, SystemResolver};
pub use upstream::Upstream;
