//! Who may come in. The service runs programs for whoever reaches its socket, and every web page can reach
//! localhost; so each HTTP request is judged by its Host and Origin before anything else of it is read.
//!
//! *Host* defeats DNS rebinding: a page of `evil.example` whose name suddenly resolves to 127.0.0.1 still
//! says `Host: evil.example`. *Origin* keeps out pages that connect openly: browsers always send it with a
//! WebSocket, and pages cannot forge it. A request without Origin comes from a program, not from a page.
//! What remains for a stranger is a program on this machine, or on a network somebody has vouched for.
//!
//! Everything here is a pure function of the request's text and the settings.

mod access;
mod attempts;
mod explain;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod origin;
mod token;

use std::net::IpAddr;

use crate::preview::Name;

pub(crate) use access::{Access, Admission, Shown, Unauthorized};
pub(crate) use attempts::{Bucket, LogPace, one_client};
pub use explain::{Remark, explain};
pub(crate) use origin::split_authority;
pub use origin::{Origin, OriginPattern};
pub(crate) use token::covers;
pub use token::{Principal, TokenMistake, Tokens};

/// The policy, from the settings.
#[derive(Clone, Debug)]
pub struct Door {
    listen: Vec<IpAddr>,
    allowed: Vec<OriginPattern>,
    /// Where previews are served, whose pages no pattern lets in.
    previews: Option<String>,
}

/// Who came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visitor {
    /// A program; it sent no Origin.
    Program,
    /// A web page of this origin.
    Page(Origin),
}

/// Why a request is turned away. The text is for the client; [`Refusal::remedy`] is for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No Host header, or several, or one that is no host.
    #[error("This request has no valid Host header.")]
    BadHost,
    /// A host this service is not known by.
    #[error("This service does not answer to the host {0:?}.")]
    ForeignHost(String),
    /// Several Origin headers, or bytes that are no text.
    #[error("This request has no valid Origin header.")]
    BadOrigin,
    /// An opaque origin: a sandboxed frame, a `file:` or `data:` page.
    #[error("Pages without an origin of their own (Origin: null) may not connect to this service.")]
    NullOrigin,
    /// A page that a program of this service serves.
    #[error("Pages of previews ({0}) may not connect to this service.")]
    Preview(String),
    /// A page that is not let in.
    #[error("Pages of {0} may not connect to this service.")]
    ForeignOrigin(String),
}

impl Refusal {
    /// What the operator can do about it, if it is not as it should be.
    pub fn remedy(&self) -> String {
        match self {
            Self::BadHost | Self::BadOrigin => "none: the request is malformed".to_owned(),
            Self::ForeignHost(host) => {
                format!("MHNOS_ALLOWED_ORIGINS with an origin of {host:?} lets this host in")
            }
            Self::NullOrigin => "serve the page over http from localhost".to_owned(),
            Self::Preview(_) => "none: what programs serve may not use the service".to_owned(),
            Self::ForeignOrigin(origin) => format!("MHNOS_ALLOWED_ORIGINS={origin} lets these pages in"),
        }
    }
}

impl Refusal {
    /// What whoever reads the answer can do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::BadHost | Self::BadOrigin => "The request is malformed.",
            Self::ForeignHost(_) => {
                "Use localhost or an address, or have the operator set MHNOS_ALLOWED_ORIGINS to an origin of this host."
            }
            Self::NullOrigin => "Serve the page over http from localhost.",
            Self::Preview(_) => "What programs serve may not use the service.",
            Self::ForeignOrigin(_) => {
                "The operator of this service can let them in with the setting MHNOS_ALLOWED_ORIGINS."
            }
        }
    }
}

impl Door {
    /// The policy for a service that listens on `listen` and lets `allowed` in beside loopback origins.
    pub fn new(listen: Vec<IpAddr>, allowed: Vec<OriginPattern>) -> Self {
        // Compared with hosts in this form: `::ffff:192.0.2.7` is 192.0.2.7.
        let listen = listen.into_iter().map(|address| address.to_canonical()).collect();
        Self { listen, allowed, previews: None }
    }

    /// The same, with no page of a preview below this domain let in: what a pattern for a whole domain says is meant
    /// for pages that somebody wrote, not for what programs serve.
    #[must_use]
    pub fn but_for_previews_of(mut self, domain: &str) -> Self {
        self.previews = Some(domain.to_owned());
        self
    }

    /// Judges a request by the values of all its Host and all its Origin headers.
    pub fn judge(&self, hosts: &[&[u8]], origins: &[&[u8]]) -> Result<Visitor, Refusal> {
        let [host] = hosts else { return Err(Refusal::BadHost) };
        let host = str::from_utf8(host).map_err(|_| Refusal::BadHost)?;
        self.admit_host(host)?;
        match origins {
            [] => Ok(Visitor::Program),
            [origin] => {
                let origin = str::from_utf8(origin).map_err(|_| Refusal::BadOrigin)?;
                self.admit_origin(origin).map(Visitor::Page)
            }
            _ => Err(Refusal::BadOrigin),
        }
    }

    /// The origins that may show previews in a frame, beside loopback ones: of those that are let in the ones that are no
    /// preview's, whatever its number.
    pub(crate) fn framers(&self) -> impl Iterator<Item = &OriginPattern> {
        let admits_previews = |pattern: &OriginPattern| {
            self.previews.as_ref().is_some_and(|domain| pattern.covers_previews_of(domain))
        };
        self.allowed.iter().filter(move |pattern| !admits_previews(pattern))
    }

    /// Whether pages of this origin may use the service.
    pub(crate) fn admits(&self, origin: &Origin) -> bool {
        !self.is_preview(origin)
            && (origin.is_loopback() || self.allowed.iter().any(|pattern| pattern.covers(origin)))
    }

    fn is_preview(&self, origin: &Origin) -> bool {
        self.previews.as_ref().is_some_and(|domain| Name::parse(origin.host(), domain).is_some())
    }

    /// Whether the service is known by this `host[:port]`. Any port is: it may be published under another.
    fn admit_host(&self, text: &str) -> Result<(), Refusal> {
        let (host, _) = origin::split_authority(text).ok_or(Refusal::BadHost)?;
        let listening =
            |address: IpAddr| self.listen.iter().any(|own| *own == address || own.is_unspecified());
        let known = match origin::literal(&host) {
            // An address cannot be rebound: whoever says it has reached it.
            Some(address) => address.is_loopback() || listening(address),
            None => origin::is_localhost(&host),
        };
        if known || self.allowed.iter().any(|pattern| pattern.covers_host(&host)) {
            Ok(())
        } else {
            Err(Refusal::ForeignHost(text.to_owned()))
        }
    }

    fn admit_origin(&self, text: &str) -> Result<Origin, Refusal> {
        if text == "null" {
            return Err(Refusal::NullOrigin);
        }
        let foreign = || Refusal::ForeignOrigin(text.to_owned());
        let origin = Origin::parse(text).ok_or_else(foreign)?;
        if self.is_preview(&origin) {
            return Err(Refusal::Preview(text.to_owned()));
        }
        if self.admits(&origin) { Ok(origin) } else { Err(foreign()) }
    }
}

#[cfg(test)]
mod tests;
