//! The client of the benches: a blocking socket that takes frames where they lie.
//!
//! What is measured is the service, so the client does as little as a client can: one read brings many frames, a frame is
//! looked at in the buffer it was read into, and nothing is decoded but the few messages that are answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// Holds any frame that the service sends: 64 KiB of output, each byte escaped to six.
const BUFFER: usize = 1 << 20;
/// Longest wait for bytes. Reached on failure only.
const DEADLINE: Duration = Duration::from_mins(1);
/// A client must mask what it sends; with which bytes does not matter.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0x99];

/// Two ends of a TCP connection that sends at once.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let one = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (other, _) = listener.accept().expect("connected above");
    for end in [&one, &other] {
        end.set_nodelay(true).expect("TCP");
    }
    (one, other)
}

/// What one frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
    Control,
}

pub(crate) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Socket {
    /// Opens a WebSocket. `headers` are lines of their own.
    pub(crate) fn open(address: SocketAddr, headers: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut socket = Self { stream, buffer: vec![0; BUFFER], begin: 0, end: 0 };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\n{headers}Upgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        socket.stream.write_all(request.as_bytes())?;
        let mut read = 0;
        loop {
            socket.fill(read + 1)?;
            let head = &socket.buffer[..socket.end];
            if let Some(at) = head.windows(4).position(|end| end == b"\r\n\r\n") {
                if !head.starts_with(b"HTTP/1.1 101") {
                    return Err(std::io::ErrorKind::ConnectionRefused.into());
                }
                socket.begin = at + 4;
                return Ok(socket);
            }
            read = socket.end;
        }
    }

    /// Connects to the service as a client of this subprotocol (`mhnos.v1` or `mhnos.v1.binary`).
    pub(crate) fn try_connect(address: SocketAddr, subprotocol: &str) -> std::io::Result<Self> {
        let mut socket = Self::open(address, &format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"))?;
        let hello = socket.take()?.1;
        assert!(hello.starts_with(b"{\"type\":\"connected\""), "{}", String::from_utf8_lossy(hello));
        Ok(socket)
    }

    /// Connects as the Web OS page does.
    pub(crate) fn connect_as_page(address: SocketAddr) -> Self {
        let mut socket =
            Self::open(address, "Origin: http://localhost:5173\r\n").expect("the service listens");
        let hello = socket.next().1;
        assert!(hello.starts_with(b"{\"type\":\"connected\""), "{}", String::from_utf8_lossy(hello));
        socket
    }

    pub(crate) fn connect(address: SocketAddr, subprotocol: &str) -> Self {
        Self::try_connect(address, subprotocol).expect("the service listens")
    }

    /// Sends a text frame.
    pub(crate) fn send(&mut self, text: &str) {
        let mut frame = Vec::with_capacity(text.len() + 14);
        frame.push(0x81);
        match text.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            long @ 126..0x1_0000 => {
                frame.push(0xfe);
                frame.extend((long as u16).to_be_bytes());
            }
            longer => {
                frame.push(0xff);
                frame.extend((longer as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&frame).expect("the service reads");
    }

    /// The next frame, where it lies. An error at the end of the connection.
    pub(crate) fn take(&mut self) -> std::io::Result<(Kind, &[u8])> {
        self.fill(2)?;
        let kind = match self.buffer[self.begin] & 15 {
            1 => Kind::Text,
            2 => Kind::Binary,
            _ => Kind::Control,
        };
        let (head, length) = match self.buffer[self.begin + 1] {
            126 => {
                self.fill(4)?;
                let bytes = self.buffer[self.begin + 2..self.begin + 4].try_into().expect("two of them");
                (4, usize::from(u16::from_be_bytes(bytes)))
            }
            127 => {
                self.fill(10)?;
                let bytes = self.buffer[self.begin + 2..self.begin + 10].try_into().expect("eight of them");
                (10, u64::from_be_bytes(bytes) as usize)
            }
            short => (2, usize::from(short)),
        };
        self.fill(head + length)?;
        let from = self.begin + head;
        self.begin = from + length;
        Ok((kind, &self.buffer[from..from + length]))
    }

    /// The next frame that is data.
    pub(crate) fn next(&mut self) -> (Kind, &[u8]) {
        // The borrow checker does not see that a frame that is passed over is no longer borrowed.
        loop {
            let (kind, length) = {
                let (kind, bytes) = self.take().expect("the connection stays");
                (kind, bytes.len())
            };
            if kind != Kind::Control {
                return (kind, &self.buffer[self.begin - length..self.begin]);
            }
        }
    }

    /// Sends a request and returns the answer; what comes before is passed over.
    pub(crate) fn request(&mut self, mut message: Value) -> Value {
        message["id"] = "bench".into();
        self.send(&message.to_string());
        loop {
            let (kind, bytes) = self.next();
            if kind == Kind::Text && bytes.windows(12).any(|part| part == b"\"id\":\"bench\"") {
                return serde_json::from_slice(bytes).expect("JSON");
            }
        }
    }

    /// Starts a program on pipes, or on a terminal.
    pub(crate) fn spawn(&mut self, script: &str, pty: bool) -> u64 {
        let answer = self.request(json!({"type": "spawn", "processType": "shell", "command": "bash",
            "args": ["-c", script], "options": {"pty": pty}}));
        answer["pid"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }

    /// Waits for a piece of output that contains this.
    pub(crate) fn until(&mut self, needle: &str) {
        while !self.next().1.windows(needle.len()).any(|part| part == needle.as_bytes()) {}
    }

    /// The bare socket; what was read ahead is gone.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Reads until `length` bytes are there.
    fn fill(&mut self, length: usize) -> std::io::Result<()> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        if self.begin + length > BUFFER {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        while self.end - self.begin < length {
            match self.stream.read(&mut self.buffer[self.end..])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => self.end += read,
            }
        }
        Ok(())
    }
}
