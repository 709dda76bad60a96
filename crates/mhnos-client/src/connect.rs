//! Connecting, and the bare connection.

use std::{fmt, time::Duration};

use futures_util::{SinkExt, StreamExt};
use mhnos_protocol::{Connected, Event, ServerMessage, parse_server_message};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::limits::{CONNECT_TIMEOUT, MAX_INCOMING_BYTES, REFUSAL_BODY_BYTES, REQUEST_TIMEOUT};
use crate::{Client, ConnectError, tls};

const PLAIN: &str = "ws";
const SECURE: &str = "wss";

/// The bytes below a WebSocket, plain or through TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Stream for S {}

/// A connection of either kind.
pub(crate) type Socket = WebSocketStream<Box<dyn Stream>>;

/// How to introduce oneself.
#[derive(Clone, Debug)]
pub struct Options {
    /// The WebSocket subprotocols to offer, in order; none makes this a client of version 1.0.
    pub subprotocols: Vec<String>,
    /// An `Origin` header, as a browser sends it.
    pub origin: Option<String>,
    /// Sent as `Authorization: Bearer …`.
    pub token: Option<String>,
    /// For `wss`: certificates in PEM form, of authorities or the service's own. No others are trusted.
    pub trust: Option<String>,
    /// How long an answer may take.
    pub request_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            subprotocols: vec![mhnos_protocol::SUBPROTOCOL.to_owned()],
            origin: None,
            token: None,
            trust: None,
            request_timeout: REQUEST_TIMEOUT,
        }
    }
}

impl Options {
    /// Output as binary frames, writes too.
    pub fn binary() -> Self {
        Self { subprotocols: vec![mhnos_protocol::SUBPROTOCOL_BINARY.to_owned()], ..Self::default() }
    }

    /// As the browser client connects: no subprotocol, an origin.
    pub fn browser(origin: &str) -> Self {
        Self { subprotocols: Vec::new(), origin: Some(origin.to_owned()), ..Self::default() }
    }
}

/// Connects and waits for `connected`.
pub async fn connect(url: &str, options: Options) -> Result<Client, ConnectError> {
    timeout(CONNECT_TIMEOUT, async {
        let mut raw = connect_raw(url, &options).await?;
        let greeting = greeting(&mut raw).await?;
        Ok(Client::start(raw, greeting, options.request_timeout))
    })
    .await
    .unwrap_or(Err(ConnectError::Timeout(CONNECT_TIMEOUT)))
}

/// Opens a WebSocket and reads nothing from it.
pub async fn connect_raw(url: &str, options: &Options) -> Result<RawConnection, ConnectError> {
    timeout(CONNECT_TIMEOUT, async {
        let request = request(url, options)?;
        let stream = open(url, &request, options).await?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_INCOMING_BYTES))
            .max_frame_size(Some(MAX_INCOMING_BYTES));
        let handshake = client_async_with_config(request, stream, Some(config));
        let (socket, response) = handshake.await.map_err(refusal)?;
        Ok(RawConnection { subprotocol: subprotocol(&response), socket })
    })
    .await
    .unwrap_or(Err(ConnectError::Timeout(CONNECT_TIMEOUT)))
}

/// Connects to the host of the request, through TLS if its scheme says so.
async fn open(url: &str, request: &Request, options: &Options) -> Result<Box<dyn Stream>, ConnectError> {
    let no_address = || ConnectError::Url { url: url.to_owned() };
    let secure = request.uri().scheme_str() == Some(SECURE);
    let host = request.uri().host().ok_or_else(no_address)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = request.uri().port_u16().unwrap_or(if secure { 443 } else { 80 });
    let tls = if secure {
        let config = tls::trusting(options.trust.as_deref().unwrap_or_default());
        let name = ServerName::try_from(host.clone()).map_err(|_| no_address())?;
        Some((TlsConnector::from(config.map_err(ConnectError::Trust)?), name))
    } else {
        None
    };
    let stream = TcpStream::connect((host.as_str(), port)).await;
    let stream = stream
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|source| ConnectError::Tcp { host: host.clone(), port, source })?;
    match tls {
        None => Ok(Box::new(stream)),
        Some((connector, name)) => match connector.connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(source) => Err(ConnectError::Tls { host, port, source }),
        },
    }
}

fn request(url: &str, options: &Options) -> Result<Request, ConnectError> {
    let no_address = || ConnectError::Url { url: url.to_owned() };
    let mut request = url.into_client_request().map_err(|_| no_address())?;
    if !matches!(request.uri().scheme_str(), Some(PLAIN | SECURE)) {
        return Err(no_address());
    }
    let headers = request.headers_mut();
    let value = |what, text: &str| HeaderValue::from_str(text).map_err(|_| ConnectError::Header { what });
    if !options.subprotocols.is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value("a subprotocol", &options.subprotocols.join(", "))?);
    }
    if let Some(origin) = &options.origin {
        headers.insert(ORIGIN, value("the origin", origin)?);
    }
    if let Some(token) = &options.token {
        headers.insert(AUTHORIZATION, value("the token", &format!("Bearer {token}"))?);
    }
    Ok(request)
}

fn refusal(error: WsError) -> ConnectError {
    match error {
        WsError::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(&body[..body.len().min(REFUSAL_BODY_BYTES)]).trim().to_owned();
            ConnectError::Refused { status: response.status().as_u16(), body }
        }
        error => ConnectError::Handshake(Box::new(error)),
    }
}

fn subprotocol(response: &Response) -> Option<String> {
    response.headers().get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok().map(str::to_owned)
}

async fn greeting(raw: &mut RawConnection) -> Result<Connected, ConnectError> {
    let refuse = |reason: String| ConnectError::NoGreeting { reason };
    match raw.recv_raw().await {
        Some(Ok(Message::Text(text))) => match parse_server_message(&text) {
            Ok(ServerMessage::Event(Event::Connected(connected))) => Ok(connected),
            Ok(other) => Err(refuse(format!("its first message is {other:?}"))),
            Err(error) => Err(refuse(error.to_string())),
        },
        Some(Ok(other)) => Err(refuse(format!("its first frame is {other:?}"))),
        Some(Err(error)) => Err(refuse(error.to_string())),
        None => Err(refuse("it closed the connection".to_owned())),
    }
}

/// A WebSocket, for messages and bytes of any kind.
#[derive(Debug)]
pub struct RawConnection {
    subprotocol: Option<String>,
    pub(crate) socket: Socket,
}

impl RawConnection {
    /// The subprotocol the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Sends one text frame, whatever it holds.
    pub async fn send_raw_text(&mut self, text: impl Into<String>) -> Result<(), WsError> {
        self.socket.send(Message::text(text.into())).await
    }

    /// Sends one binary frame.
    pub async fn send_raw_binary(&mut self, bytes: impl Into<bytes::Bytes>) -> Result<(), WsError> {
        self.socket.send(Message::binary(bytes.into())).await
    }

    /// Sends any frame, such as a ping or a close.
    pub async fn send_message(&mut self, message: Message) -> Result<(), WsError> {
        self.socket.send(message).await
    }

    /// Writes bytes below the WebSocket: frames that no library would send.
    pub async fn send_raw_bytes(&mut self, bytes: &[u8]) -> Result<(), std::io::Error> {
        let stream = self.socket.get_mut();
        stream.write_all(bytes).await?;
        stream.flush().await
    }

    /// The next frame of any kind; `None` after the end.
    pub async fn recv_raw(&mut self) -> Option<Result<Message, WsError>> {
        self.socket.next().await
    }

    /// The next text frame as JSON; `None` if the connection ends first, or sends what is not JSON.
    pub async fn recv_json(&mut self) -> Option<serde_json::Value> {
        loop {
            match self.recv_raw().await? {
                Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Reads JSON frames until one fits; returns it. What came before is dropped.
    pub async fn recv_until(
        &mut self,
        mut fits: impl FnMut(&serde_json::Value) -> bool,
    ) -> Option<serde_json::Value> {
        loop {
            let message = self.recv_json().await?;
            if fits(&message) {
                return Some(message);
            }
        }
    }
}
