//! What a client can and cannot reach, against a real directory tree.

mod hostile;
mod pull;
mod push;
mod race;
mod resolve;
mod tree;
