//! The bridge's front: HTTP and WebSocket, the door, connections, and the settings of the service.

pub mod config;
pub mod door;
pub mod limits;
