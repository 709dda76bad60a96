//! Web origins and patterns for them. An origin is taken apart once, strictly; comparing happens on the
//! parts, never on prefixes or suffixes of text, where `localhost.evil.example` would pass.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::preview::Name;

/// A web origin as browsers send it (RFC 6454, section 6.1): scheme, host, port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: Scheme,
    /// Lower case; an IPv6 address without brackets in its canonical form.
    host: String,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn split(text: &str) -> Option<(Self, &str)> {
        let (scheme, rest) = text.split_once("://")?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => Some((Self::Http, rest)),
            "https" => Some((Self::Https, rest)),
            _ => None,
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Origin {
    /// `http://host[:port]` or `https://host[:port]` and nothing behind it.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = Scheme::split(text)?;
        let (host, port) = split_authority(authority)?;
        Some(Self { scheme, host, port: port.unwrap_or(scheme.default_port()) })
    }

    /// Whether it is an https page.
    pub fn is_secure(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// The host, in lower case; an IPv6 address without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether pages of this origin come from this `host[:port]`. The scheme is not compared: somebody in front of
    /// the service may speak TLS for it.
    pub(crate) fn is_at(&self, authority: &str) -> bool {
        let Some((host, port)) = split_authority(authority) else { return false };
        self.host == host && self.port == port.unwrap_or(self.scheme.default_port())
    }

    /// Whether this page was served by this machine itself.
    pub fn is_loopback(&self) -> bool {
        literal(&self.host).map_or_else(|| is_localhost(&self.host), |address| address.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.scheme, &self.host, self.port)
    }
}

/// Origins that are let in: one, or those of all subdomains of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    /// With `subdomains`, its host is the one whose subdomains are meant.
    origin: Origin,
    subdomains: bool,
}

impl OriginPattern {
    /// `scheme://host[:port]`, or `scheme://*.host[:port]` for the subdomains of a host, itself not included.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = Scheme::split(text)?;
        let (subdomains, authority) =
            authority.strip_prefix("*.").map_or((false, authority), |parent| (true, parent));
        let origin = Origin::parse(&format!("{}://{authority}", scheme.as_str()))?;
        // `*.example.org` is a choice; `*.org` is an accident.
        let fits = !subdomains || (literal(&origin.host).is_none() && origin.host.contains('.'));
        fits.then_some(Self { origin, subdomains })
    }

    /// Whether `origin` is meant.
    pub fn covers(&self, origin: &Origin) -> bool {
        self.origin.scheme == origin.scheme
            && self.origin.port == origin.port
            && self.covers_host(&origin.host)
    }

    /// Whether the page of some preview of `domain` is meant, on some scheme and port.
    pub(super) fn covers_previews_of(&self, domain: &str) -> bool {
        let any = format!("p1-1.{domain}");
        self.covers_host(&any) || (!self.subdomains && Name::parse(&self.origin.host, domain).is_some())
    }

    /// Whether origins of `host` (lower case) are meant, on some scheme and port.
    pub(super) fn covers_host(&self, host: &str) -> bool {
        if !self.subdomains {
            return self.origin.host == host;
        }
        host.strip_suffix(&self.origin.host)
            .and_then(|front| front.strip_suffix('.'))
            .is_some_and(|labels| !labels.is_empty())
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subdomains {
            let host = format!("*.{}", self.origin.host);
            return show(f, self.origin.scheme, &host, self.origin.port);
        }
        self.origin.fmt(f)
    }
}

fn show(f: &mut fmt::Formatter<'_>, scheme: Scheme, host: &str, port: u16) -> fmt::Result {
    let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
    write!(f, "{}://{open}{host}{close}", scheme.as_str())?;
    if port == scheme.default_port() { Ok(()) } else { write!(f, ":{port}") }
}

/// Takes `host[:port]` apart: the host in lower case without brackets, an IPv6 address in canonical form.
/// `None` for anything else, such as user info, an empty host, a path, or a name with strange characters.
pub(crate) fn split_authority(text: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        return Some((address.to_string(), port_after(rest)?));
    }
    let end = text.find(':').unwrap_or(text.len());
    let (host, rest) = text.split_at(end);
    let host = host.to_ascii_lowercase();
    let name = host.strip_suffix('.').unwrap_or(&host);
    let fine = host.len() <= 253 && name.split('.').all(is_label);
    // A last label of digits makes it an IPv4 address to browsers; then it must be one.
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    let fine = fine && (!numeric || host.parse::<Ipv4Addr>().is_ok());
    fine.then_some((host, port_after(rest)?))
}

/// `""` is no port, `":8080"` is one; the outer `None` is for anything else.
#[allow(clippy::option_option, reason = "an absent port is fine, a malformed one is not")]
fn port_after(rest: &str) -> Option<Option<u16>> {
    if rest.is_empty() {
        return Some(None);
    }
    let digits = rest.strip_prefix(':')?;
    let fine = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    fine.then(|| digits.parse().ok()).flatten().map(Some)
}

/// A label of a name, as resolvers really accept them: letters, digits, hyphens, underscores.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
}

/// The host as an address, if it is one.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The one name that means this machine by definition (RFC 6761, section 6.3). Its subdomains do not count:
/// previews are served there.
pub(super) fn is_localhost(host: &str) -> bool {
    host.strip_suffix('.').unwrap_or(host) == "localhost"
}
