//! A connection that is no longer HTTP (a WebSocket, mostly): bytes both ways, until either side ends it.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;

use crate::limits::PREVIEW_TUNNEL_BUFFER;

/// Both ends, promised by a 101.
#[derive(Debug)]
struct Ends {
    client: OnUpgrade,
    process: OnUpgrade,
}

/// Where an exchange leaves a tunnel for whoever runs the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Tunnel(Arc<Mutex<Option<Ends>>>);

impl Tunnel {
    pub(super) fn open(&self, client: OnUpgrade, process: OnUpgrade) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ends { client, process });
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Passes bytes until both directions have ended. Nothing if no tunnel was opened.
    pub(super) async fn run(&self) -> io::Result<()> {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Ends { client, process }) = ends else { return Ok(()) };
        let (client, process) = tokio::join!(client, process);
        let mut client = TokioIo::new(client.map_err(io::Error::other)?);
        let mut process = TokioIo::new(process.map_err(io::Error::other)?);
        let size = PREVIEW_TUNNEL_BUFFER;
        copy_bidirectional_with_sizes(&mut client, &mut process, size, size).await.map(drop)
    }
}
