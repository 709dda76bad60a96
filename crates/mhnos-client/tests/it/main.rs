//! The client against a scripted server.

mod connecting;
mod fake;
mod processes;
mod requests;
