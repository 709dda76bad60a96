//! HTTP in the plainest form: what a test says is what goes over the wire.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No answer of the service takes this long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer, read to the end of the connection.
#[derive(Debug, Clone)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, as it came (a chunked body is not decoded).
    pub body: String,
}

impl HttpReply {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// GET `path` with extra header lines (`Origin: …`, without line ends).
pub fn http_get(address: SocketAddr, path: &str, headers: &[&str]) -> std::io::Result<HttpReply> {
    let mut request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
        request.extend(["Host: ", &address.to_string(), "\r\n"]);
    }
    for line in headers {
        request += line;
        request += "\r\n";
    }
    request += "\r\n";
    let answer = http_raw(address, request.as_bytes())?;
    HttpReply::parse(&answer).ok_or_else(|| {
        let text = String::from_utf8_lossy(&answer);
        std::io::Error::new(std::io::ErrorKind::InvalidData, format!("no HTTP answer: {text:?}"))
    })
}

/// Sends these bytes and reads until the other side closes. A connection cut by the server ends what was read, without
/// an error: for a refused request that is an answer too.
pub fn http_raw(address: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(answer),
        Err(error) => Err(error),
    }
}

impl HttpReply {
    /// An answer as it came over the wire.
    pub fn parse(answer: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(answer);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(HttpReply { status, headers, body: body.to_owned() })
    }
}
