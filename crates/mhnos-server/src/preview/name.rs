//! The names of previews: `p<pid>-<port>[-<key>].<domain>`, and the addresses they make.

use hyper::{HeaderMap, header};
use mhnos_process::Pid;

use crate::door::split_authority;

/// Which preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) pid: Pid,
    pub(crate) port: u16,
    /// What nobody can guess, where that is asked for.
    pub(crate) key: Option<String>,
}

impl Name {
    /// From the one Host of a request.
    pub(super) fn of(headers: &HeaderMap, domain: &str) -> Option<Self> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next()?.to_str().ok()?;
        if hosts.next().is_some() { None } else { Self::parse(host, domain) }
    }

    /// From `host[:port]`. Numbers must be written as they are, so that no preview has two origins.
    pub(crate) fn parse(authority: &str, domain: &str) -> Option<Self> {
        let (host, _) = split_authority(authority)?;
        let host = host.strip_suffix('.').unwrap_or(&host);
        let label = host.strip_suffix(domain)?.strip_suffix('.')?;
        let mut parts = label.strip_prefix('p')?.splitn(3, '-');
        let (pid, port) = (parts.next()?, parts.next()?);
        let name =
            Self { pid: pid.parse().ok()?, port: port.parse().ok()?, key: parts.next().map(str::to_owned) };
        (name.label() == label && name.port != 0).then_some(name)
    }

    fn label(&self) -> String {
        let Self { pid, port, key } = self;
        match key {
            None => format!("p{pid}-{port}"),
            Some(key) => format!("p{pid}-{port}-{key}"),
        }
    }
}

/// How a client reaches this service, and so its previews: the port may be published under another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    secure: bool,
    port: Option<u16>,
}

impl Base {
    /// As the request of that client says.
    pub(crate) fn of(headers: &HeaderMap, secure: bool) -> Self {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let port = host.and_then(split_authority).and_then(|(_, port)| port);
        Self { secure: secure || is_forwarded_secure(headers), port }
    }

    pub(crate) fn url(self, name: &Name, domain: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{}.{domain}{port}/", name.label())
    }
}

/// Whether somebody in front of this service speaks TLS for it.
pub(super) fn is_forwarded_secure(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_in_their_one_spelling_only() {
        let plain = Name { pid: 1000, port: 3000, key: None };
        let keyed = Name { key: Some("abc-2".into()), ..plain.clone() };
        for (host, expected) in [
            ("p1000-3000.localhost:18790", Some(&plain)),
            ("P1000-3000.LocalHost", Some(&plain)),
            ("p1000-3000.localhost.:1", Some(&plain)),
            ("p1000-3000-abc-2.localhost:18790", Some(&keyed)),
            ("p01000-3000.localhost", None),
            ("p1000-03000.localhost", None),
            ("p1000-+3000.localhost", None),
            ("p1000-0.localhost", None),
            ("p1000-70000.localhost", None),
            ("p1000.localhost", None),
            ("1000-3000.localhost", None),
            ("x.p1000-3000.localhost", None),
            ("p1000-3000.localhost.evil.example", None),
            ("p1000-3000localhost", None),
            ("localhost:18790", None),
            ("", None),
        ] {
            assert_eq!(Name::parse(host, "localhost").as_ref(), expected, "{host}");
        }
    }

    #[test]
    fn an_address_has_the_port_the_client_came_to() {
        let name = Name { pid: 1000, port: 3000, key: None };
        for (host, secure, expected) in [
            ("127.0.0.1:18790", false, "http://p1000-3000.localhost:18790/"),
            ("[::1]:8080", false, "http://p1000-3000.localhost:8080/"),
            ("example.org", true, "https://p1000-3000.localhost/"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a value"));
            assert_eq!(Base::of(&headers, secure).url(&name, "localhost"), expected);
        }
    }
}
