//! The values that labels may have: closed sets, each an enum.

use mhnos_network::Via;
use mhnos_protocol::{ErrorCode, Request};

use crate::door::Refusal;

/// A label whose values are known beforehand.
pub(crate) trait Label: Copy + PartialEq + 'static {
    /// Every value.
    fn all() -> impl Iterator<Item = Self>;
    /// As it stands in the exposition.
    fn name(self) -> String;
}

macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$what])* $variant),* }

        impl Label for $name {
            fn all() -> impl Iterator<Item = Self> {
                [$(Self::$variant),*].into_iter()
            }

            fn name(self) -> String {
                match self { $(Self::$variant => $text),* }.to_owned()
            }
        }
    };
}

labels! {
    /// How a client speaks.
    Client {
        /// The unmodified Web OS page.
        WebOs = "web_os",
        /// Output in text frames.
        Text = "text",
        /// Output in binary frames.
        Binary = "binary",
    }
}

labels! {
    /// How a WebSocket ended.
    Cut {
        Left = "left",
        Unwritable = "unwritable",
        Silent = "silent",
        Broken = "protocol_error",
        TooLarge = "too_large",
        Stopping = "stopping",
        /// Its token is no longer accepted.
        Revoked = "token_removed",
    }
}

labels! {
    /// Why somebody was turned away before there was a WebSocket.
    Refused {
        BadHost = "bad_host",
        ForeignHost = "foreign_host",
        BadOrigin = "bad_origin",
        NullOrigin = "null_origin",
        ForeignOrigin = "foreign_origin",
        /// A token was asked for, and none shown that is known.
        Token = "no_token",
        /// Not a WebSocket handshake as RFC 6455 has it.
        Handshake = "bad_handshake",
        /// Not HTTP, or a head beyond its bounds.
        Http = "bad_http",
        /// It was not done in time.
        Slow = "slow",
        /// All places were taken.
        Full = "too_many_connections",
    }
}

impl Refused {
    pub(crate) fn by(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::BadHost => Self::BadHost,
            Refusal::ForeignHost(_) => Self::ForeignHost,
            Refusal::BadOrigin => Self::BadOrigin,
            Refusal::NullOrigin => Self::NullOrigin,
            Refusal::ForeignOrigin(_) => Self::ForeignOrigin,
        }
    }
}

labels! {
    /// What a client asked.
    Asked {
        Spawn = "spawn",
        Attach = "attach",
        Detach = "detach",
        Write = "write",
        CloseStdin = "closeStdin",
        Resize = "resize",
        Kill = "kill",
        List = "list",
        Ports = "ports",
        RevokePreview = "revokePreview",
        Status = "status",
        Ping = "ping",
        Auth = "auth",
        Push = "push",
        Pull = "pull",
    }
}

impl Asked {
    pub(crate) fn of(request: &Request) -> Self {
        match request {
            Request::Spawn(_) => Self::Spawn,
            Request::Attach(_) => Self::Attach,
            Request::Detach { .. } => Self::Detach,
            Request::Write(_) => Self::Write,
            Request::CloseStdin { .. } => Self::CloseStdin,
            Request::Resize(_) => Self::Resize,
            Request::Kill(_) => Self::Kill,
            Request::List { .. } => Self::List,
            Request::Ports { .. } => Self::Ports,
            Request::RevokePreview { .. } => Self::RevokePreview,
            Request::Status => Self::Status,
            Request::Ping => Self::Ping,
            Request::Auth(_) => Self::Auth,
            Request::Push { .. } => Self::Push,
            Request::Pull => Self::Pull,
        }
    }
}

labels! {
    /// How a program wanted to get out.
    Way {
        Proxy = "proxy",
        Connection = "connection",
        Name = "name",
    }
}

impl Way {
    pub(crate) fn of(via: Via) -> Self {
        match via {
            Via::Proxy => Self::Proxy,
            Via::Connection => Self::Connection,
            Via::Name => Self::Name,
        }
    }
}

impl Label for ErrorCode {
    fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }

    fn name(self) -> String {
        // The wire's own name for it.
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }
}
