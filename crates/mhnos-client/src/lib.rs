//! The Rust client: what the command line, the end-to-end tests and the benches speak to the service with.
//!
//! Two layers. [`RawConnection`] is a WebSocket and nothing more: for tests that must send what no sane
//! client would. [`Client`] runs one connection: it numbers requests and finds their answers, and gives
//! each process a stream of its own ([`Process`]).
//!
//! Nothing here grows without a bound. A process whose events nobody takes therefore holds up its whole
//! connection, which is how a slow reader slows a program down: take the events, or drop the handle.

mod client;
mod connect;
mod connection;
mod error;
pub mod limits;
mod process;
pub mod tls;

pub use client::Client;
pub use connect::{Options, RawConnection, connect, connect_raw};
pub use error::{Closed, ConnectError, RequestError};
pub use process::{Collected, Process, ProcessEvent};
pub use tokio_tungstenite::tungstenite::Message;
