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
    // With the value that each stands for.
    ($(#[$about:meta])* $name:ident of $from:ty { $($variant:ident = $text:literal for $what:pat),* $(,)? }) => {
        labels! { $(#[$about])* $name { $($variant = $text),* } }

        impl $name {
            pub(crate) fn of(from: $from) -> Self {
                match from { $($what => Self::$variant),* }
            }
        }
    };
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
    /// Why somebody was turned away before there was a WebSocket, or from a preview.
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
        /// A page that may not reach a preview, or a name of one with a key that is not its own.
        Preview = "preview",
        /// A program of the sandbox.
        Program = "program",
    }
}

impl Refused {
    pub(crate) fn by(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::BadHost => Self::BadHost,
            Refusal::ForeignHost(_) => Self::ForeignHost,
            Refusal::BadOrigin => Self::BadOrigin,
            Refusal::NullOrigin => Self::NullOrigin,
            Refusal::ForeignOrigin(_) | Refusal::Preview(_) => Self::ForeignOrigin,
        }
    }
}

labels! {
    /// What a client asked.
    Asked of &Request {
        Spawn = "spawn" for Request::Spawn(_),
        Attach = "attach" for Request::Attach(_),
        Detach = "detach" for Request::Detach { .. },
        Write = "write" for Request::Write(_),
        CloseStdin = "closeStdin" for Request::CloseStdin { .. },
        Resize = "resize" for Request::Resize(_),
        Kill = "kill" for Request::Kill(_),
        List = "list" for Request::List { .. },
        Ports = "ports" for Request::Ports { .. },
        RevokePreview = "revokePreview" for Request::RevokePreview { .. },
        Status = "status" for Request::Status,
        Ping = "ping" for Request::Ping,
        Auth = "auth" for Request::Auth(_),
        Push = "push" for Request::Push { .. },
        Pull = "pull" for Request::Pull,
    }
}

labels! {
    /// How a program wanted to get out.
    Way of Via {
        Proxy = "proxy" for Via::Proxy,
        Connection = "connection" for Via::Connection,
        Name = "name" for Via::Name,
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
