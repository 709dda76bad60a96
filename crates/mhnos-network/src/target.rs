//! Where a program wants to go: a name or an address, and a port. Made from text here and nowhere else, so that
//! what is checked is what is used.

use std::{fmt, net::IpAddr};

use crate::{address::plain, limits::MAX_NAME};

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// A name, or an address in its plain form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// Lower case, without the dot that may end it.
    Name(String),
    Address(IpAddr),
}

impl Target {
    /// `host` is a name, an address, or an IPv6 address in brackets.
    pub(crate) fn parse(host: &str, port: u16) -> Option<Self> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match bare {
            Some(address) => Host::Address(IpAddr::V6(address.parse().ok()?)),
            None => match host.parse().or_else(|_| undotted(host).parse().map(IpAddr::V4)) {
                Ok(address) => Host::Address(address),
                Err(_) => Host::Name(name(host)?),
            },
        };
        let host = match host {
            Host::Address(address) => Host::Address(plain(address)),
            name @ Host::Name(_) => name,
        };
        (port != 0).then_some(Self { host, port })
    }
}

/// Without the dot that may end a host, and an IPv4 address too (URL standard, "ends in a number").
fn undotted(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// A host name in the form in which it is compared; `None` if it is none. Underscores are none of RFC 952's letters,
/// and in use all the same.
pub(crate) fn name(text: &str) -> Option<String> {
    let text = undotted(text);
    let label = |label: &str| {
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        (1..=63).contains(&label.len()) && letters
    };
    let valid = text.len() <= MAX_NAME && text.split('.').all(label);
    valid.then(|| text.to_ascii_lowercase())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        let check = |host: &str, expected: Option<&str>| {
            let found = Target::parse(host, 80).map(|target| target.to_string());
            assert_eq!(found.as_deref(), expected, "{host}");
        };
        check("Registry.Example.ORG.", Some("registry.example.org:80"));
        check("127.0.0.1", Some("127.0.0.1:80"));
        check("127.0.0.1.", Some("127.0.0.1:80"));
        check("127.0.0.1..", None);
        check("[::1]", Some("[::1]:80"));
        check("::1", Some("[::1]:80"));
        check("[::ffff:10.0.0.1]", Some("10.0.0.1:80"));
        check("_dmarc.example.org", Some("_dmarc.example.org:80"));
        // Spellings that only a resolver understands: its answer is what is judged.
        check("2130706433", Some("2130706433:80"));
        check("0x7f.1", Some("0x7f.1:80"));
        check("", None);
        check(".", None);
        check("a..b", None);
        check("[127.0.0.1]", None);
        check("[fe80::1%eth0]", None);
        check("exa mple.org", None);
        check("user@example.org", None);
        check("example.org\0.evil", None);
        check(&format!("{}.org", "a".repeat(64)), None);
        assert_eq!(Target::parse("example.org", 0), None);
    }
}
