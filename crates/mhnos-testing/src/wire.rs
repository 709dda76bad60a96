//! A WebSocket client that knows nothing of our types: JSON in, JSON out.
//!
//! Tests of the wire contract use it so that they check what is really sent. Every wait has a deadline; what arrives while a
//! test waits for something else is kept, in order, and can be asked for later.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Longest wait for one message. Reached on failure only.
const DEADLINE: Duration = Duration::from_secs(90);
/// What one message may hold; the service's own bound is lower.
const MAX_MESSAGE: usize = 256 << 20;

/// How to open the connection.
#[derive(Debug, Clone, Default)]
pub struct WireOptions {
    headers: Vec<(String, String)>,
    path: Option<String>,
}

impl WireOptions {
    /// As a client that knows 1.1: the subprotocol `mhnos.v1`, no Origin.
    pub fn modern() -> Self {
        Self::default().header("Sec-WebSocket-Protocol", "mhnos.v1")
    }

    /// As a client that knows 1.1 and takes output as binary frames.
    pub fn binary() -> Self {
        Self::default().header("Sec-WebSocket-Protocol", "mhnos.v1.binary")
    }

    /// As the Web OS in a browser: an Origin, no subprotocol.
    pub fn browser() -> Self {
        Self::default().header("Origin", "http://localhost:8080")
    }

    /// Adds a header to the handshake.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another path than `/`.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }
}

/// One connection.
#[derive(Debug)]
pub struct Wire {
    socket: WebSocketStream<TcpStream>,
    kept: VecDeque<Value>,
    close: Option<CloseFrame>,
}

impl Wire {
    /// Connects without any header, as a plain tool would, and takes the `connected` message off.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> impl Future<Output = Self> {
        Self::connect_as(address, WireOptions::default())
    }

    /// Connects, takes the `connected` message off, panics where that does not come.
    pub async fn connect_as(address: SocketAddr, options: WireOptions) -> Self {
        let mut wire = Self::open(address, options).await.expect("the handshake is accepted");
        let hello = wire.next().await;
        assert_eq!(hello["type"], "connected", "the first message: {hello}");
        wire
    }

    /// Connects and takes nothing off; an error where the handshake is refused.
    pub async fn open(address: SocketAddr, options: WireOptions) -> Result<Self, Error> {
        let path = options.path.as_deref().unwrap_or("/");
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        for (name, value) in &options.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            let value = HeaderValue::from_str(value).expect("a header value");
            request.headers_mut().append(name, value);
        }
        let stream = TcpStream::connect(address).await.map_err(Error::Io)?;
        stream.set_nodelay(true).map_err(Error::Io)?;
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        Ok(Self { socket, kept: VecDeque::new(), close: None })
    }

    /// Sends one message.
    pub async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    /// Sends a text frame as it is.
    pub async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await.expect("the connection is open");
    }

    /// Sends any frame.
    pub async fn send_message(&mut self, message: Message) -> Result<(), Error> {
        timeout(DEADLINE, self.socket.send(message)).await.expect("the service reads")
    }

    /// The next message that nobody has taken; panics on a binary frame, on the end and after the deadline.
    pub async fn next(&mut self) -> Value {
        match self.kept.pop_front() {
            Some(value) => value,
            None => self.receive().await.unwrap_or_else(|| panic!("closed: {:?}", self.close)),
        }
    }

    /// The same, `None` at the end of the connection.
    pub async fn next_or_end(&mut self) -> Option<Value> {
        match self.kept.pop_front() {
            Some(value) => Some(value),
            None => self.receive().await,
        }
    }

    /// The first message for which `wanted` holds, whether it came before or comes now; others are kept in order.
    pub async fn next_where(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(index) = self.kept.iter().position(&wanted) {
            return self.kept.remove(index).expect("just found");
        }
        loop {
            let value = self
                .receive()
                .await
                .unwrap_or_else(|| panic!("closed ({:?}) while waiting; kept: {:?}", self.close, self.kept));
            if wanted(&value) {
                return value;
            }
            self.kept.push_back(value);
        }
    }

    /// Sends a request with an id and returns the answer to it.
    pub async fn request(&mut self, message: Value) -> Value {
        assert!(!message["id"].is_null(), "a request needs an id: {message}");
        self.send(&message).await;
        self.next_where(|value| value["id"] == message["id"]).await
    }

    /// Spawns and returns the pid; panics with the answer where it is no `spawned`.
    pub async fn spawn(&mut self, mut message: Value) -> u64 {
        message["type"] = "spawn".into();
        if message["id"].is_null() {
            message["id"] = "spawn".into();
        }
        let answer = self.request(message).await;
        assert_eq!(answer["type"], "spawned", "{answer}");
        answer["pid"].as_u64().expect("a pid is a number")
    }

    /// Takes all output of `pid` up to its `exit`: stdout, stderr, the exit.
    pub async fn run_to_exit(&mut self, pid: u64) -> (String, String, Value) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        loop {
            let value = self.next_where(|value| value["pid"] == pid && value["id"].is_null()).await;
            let data = value["data"].as_str().unwrap_or_default();
            match value["type"].as_str() {
                Some("stdout") => stdout += data,
                Some("stderr") => stderr += data,
                Some("exit") => return (stdout, stderr, value),
                _ => {}
            }
        }
    }

    /// Takes output of `pid` until stdout, taken together, contains `needle`; returns it.
    pub async fn stdout_until(&mut self, pid: u64, needle: &str) -> String {
        let mut stdout = String::new();
        while !stdout.contains(needle) {
            let value = self.next_where(|value| value["pid"] == pid && value["id"].is_null()).await;
            assert_ne!(value["type"], "exit", "ended before {needle:?}: {stdout:?} {value}");
            if value["type"] == "stdout" {
                stdout += value["data"].as_str().unwrap_or_default();
            }
        }
        stdout
    }

    /// The next frame as it is, kept messages left alone; None at the end of the connection.
    pub async fn next_frame(&mut self) -> Option<Message> {
        self.frame_before(Instant::now() + DEADLINE).await
    }

    async fn frame_before(&mut self, deadline: Instant) -> Option<Message> {
        let frame = timeout_at(deadline, self.socket.next()).await;
        let frame = frame.unwrap_or_else(|_| panic!("nothing for {DEADLINE:?}; kept: {:?}", self.kept));
        match frame {
            Some(Ok(Message::Close(close))) => {
                self.close = close;
                None
            }
            Some(Ok(message)) => Some(message),
            Some(Err(_)) | None => None,
        }
    }

    /// Reads to the end of the connection and returns the close frame, if there was one.
    pub async fn closed(&mut self) -> Option<CloseFrame> {
        while let Some(value) = self.receive().await {
            self.kept.push_back(value);
        }
        self.close.clone()
    }

    /// The next JSON message off the socket. The deadline is for a message: pings do not extend it.
    async fn receive(&mut self) -> Option<Value> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.frame_before(deadline).await? {
                Message::Text(text) => {
                    let value = serde_json::from_str(&text);
                    return Some(value.unwrap_or_else(|error| panic!("not JSON ({error}): {text}")));
                }
                Message::Ping(_) | Message::Pong(_) => {
                    assert!(Instant::now() < deadline, "nothing but pings; kept: {:?}", self.kept);
                }
                other => panic!("not a text frame: {other:?}"),
            }
        }
    }
}
