//! What can go wrong between a client and the service.

use std::time::Duration;

use mhnos_protocol::ErrorReply;
use tokio_tungstenite::tungstenite;

use crate::tls::TrustError;

/// No connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be used.
    #[error("{url} is no address of the form ws://host:port/ or wss://host:port/")]
    Url {
        /// What was given.
        url: String,
    },
    /// Nobody listens there, or the network does not reach it.
    #[error("cannot connect to {host}:{port}")]
    Tcp {
        /// Whom.
        host: String,
        /// Where.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// For `wss` it must be said whom to trust, and this is no such thing.
    #[error("wss needs certificates to trust (Options::trust)")]
    Trust(#[source] TrustError),
    /// The server does not speak TLS, or is not to be trusted.
    #[error("no TLS with {host}:{port}")]
    Tls {
        /// Whom.
        host: String,
        /// Where.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server answered, but not with a WebSocket.
    #[error("the server refused the connection with HTTP status {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// The handshake broke.
    #[error("the WebSocket handshake failed")]
    Handshake(#[source] Box<tungstenite::Error>),
    /// An option cannot be sent as a header.
    #[error("{what} cannot be sent in a header")]
    Header {
        /// Which option.
        what: &'static str,
    },
    /// The server's first message was not `connected`.
    #[error("the server did not introduce itself: {reason}")]
    NoGreeting {
        /// What came instead.
        reason: String,
    },
    /// It took too long.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
}

/// A request got no answer, or not the one it asks for.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The service answered with an `error`.
    #[error("{}", .0.error)]
    Refused(ErrorReply),
    /// The connection ended first.
    #[error("the connection is closed: {0}")]
    Closed(Closed),
    /// No answer came in time.
    #[error("no answer to {request} within {after:?}")]
    Timeout {
        /// The request's type.
        request: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// An answer came that does not belong to the request.
    #[error("the answer to {request} is a {answer}")]
    Unexpected {
        /// The request's type.
        request: &'static str,
        /// What came.
        answer: String,
    },
    /// An answer came that does not have the fields of its type, as this client knows it.
    #[error("the answer to {request} cannot be read: {reason}")]
    Unreadable {
        /// The request's type.
        request: &'static str,
        /// What is the matter.
        reason: String,
    },
    /// The process wrote more than is gathered.
    #[error("the process wrote more than {limit} bytes")]
    TooMuchOutput {
        /// The bound.
        limit: usize,
    },
    /// The process's stream ended without an `exit`.
    #[error("the events of process {pid} ended without its exit: {closed}")]
    NoExit {
        /// Which.
        pid: mhnos_protocol::Pid,
        /// How the connection ended, as far as it did.
        closed: Closed,
    },
}

impl RequestError {
    /// The service's own code, if it answered.
    pub fn code(&self) -> Option<mhnos_protocol::ErrorCode> {
        match self {
            Self::Refused(reply) => Some(reply.code),
            _ => None,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// With a close frame.
    #[error("code {code} {reason}")]
    Frame {
        /// RFC 6455 section 7.4; 1005 if the frame had none.
        code: u16,
        /// The text beside it.
        reason: String,
    },
    /// Without one.
    #[error("{reason}")]
    Broken {
        /// What happened.
        reason: String,
    },
}
