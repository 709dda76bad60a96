//! The operator's own proxy, where this machine reaches the outside through one only (`MHNOS_UPSTREAM_PROXY`).
//!
//! Whoever is asked to connect resolves the name, and that is the proxy: proxies are set up with names, and many take
//! nothing else. So an address is judged here as far as this machine can resolve it, and what is reached in the end is
//! the proxy's word (`dial`). Only the two ends of the conversation with it are here.

use std::{fmt, io, str::FromStr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    limits::MAX_HEAD,
    target::{Host, Target},
};

/// Where the proxy is: `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream(Target);

impl Upstream {
    pub(crate) fn host(&self) -> &Host {
        &self.0.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }
}

impl FromStr for Upstream {
    type Err = ();

    /// User and password are none: whatever is in the environment may be read by more than the service.
    fn from_str(text: &str) -> Result<Self, ()> {
        let place = text.strip_prefix("http://").ok_or(())?;
        let (host, port) = place.strip_suffix('/').unwrap_or(place).rsplit_once(':').ok_or(())?;
        let port = port.parse().map_err(|_| ())?;
        Target::parse(host, port).map(Self).ok_or(())
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// What the proxy said to a `CONNECT`, if it is not yes.
#[derive(Debug)]
pub(crate) enum Declined {
    /// An answer with another status.
    Status(u16),
    /// No answer that is HTTP, or none.
    Broken(io::Error),
}

/// Asks for a connection to `target` over one to the proxy. What comes after the proxy's answer is left where it is.
pub(crate) async fn tunnel(stream: &mut TcpStream, target: &Target) -> Result<(), Declined> {
    let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.map_err(Declined::Broken)?;
    let head = head(stream).await.map_err(Declined::Broken)?;
    match status(&head) {
        Some(200..=299) => Ok(()),
        Some(status) => Err(Declined::Status(status)),
        None => Err(Declined::Broken(io::ErrorKind::InvalidData.into())),
    }
}

/// Reads until an empty line and not a byte further: a server that speaks first may have done so.
async fn head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut piece = [0; 2048];
    loop {
        let seen = stream.peek(&mut piece).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = head.len();
        head.extend_from_slice(&piece[..seen]);
        let from = before.saturating_sub(3);
        let end = head[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4);
        head.truncate(end.unwrap_or(head.len()));
        let taken = head.len() - before;
        stream.read_exact(&mut piece[..taken]).await?;
        if end.is_some() {
            return Ok(head);
        }
        if head.len() > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = str::from_utf8(line).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next().filter(|code| code.len() == 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_and_a_port() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = text.parse::<Upstream>().ok().map(|proxy| proxy.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        };
        check("http://proxy.example.com:3128", Some("http://proxy.example.com:3128"));
        check("http://10.0.0.1:8080/", Some("http://10.0.0.1:8080"));
        check("http://[fd00::1]:8080", Some("http://[fd00::1]:8080"));
        for wrong in [
            "proxy:3128",
            "https://proxy:3128",
            "http://proxy",
            "http://u:p@proxy:3128",
            "http://proxy:0",
            "",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn an_answer_begins_with_a_version_and_a_status() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407 Proxy Authentication Required\r\nA: b\r\n\r\n"), Some(407));
        for strange in
            [&b"HTTP/2 200\r\n"[..], b"SSH-2.0-x\r\n", b"HTTP/1.1\r\n", b"HTTP/1.1 +20\r\n", b"\xff\r\n"]
        {
            assert!(!matches!(status(strange), Some(200..=299)), "{strange:?}");
        }
    }
}
