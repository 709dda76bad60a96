//! A server that does what a test tells it, on a port of its own.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::Message;

/// One accepted connection.
pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
    /// What the client's handshake held.
    pub(crate) headers: HeaderMap,
}

impl Peer {
    pub(crate) async fn send(&mut self, message: Value) {
        self.send_message(Message::text(message.to_string())).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.expect("the client listens");
    }

    /// The next message of the client.
    pub(crate) async fn receive(&mut self) -> Message {
        self.socket.next().await.expect("a message").expect("a whole message")
    }

    /// The next request of the client, which must be of this type.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        let message = self.receive().await;
        let request: Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
        assert_eq!(request["type"], kind, "{request}");
        request
    }

    /// Answers a `spawn` with this pid.
    pub(crate) async fn spawn(&mut self, pid: u32) {
        let request = self.expect("spawn").await;
        let isolation = json!({"tier": "none", "layers": []});
        let id = &request["id"];
        self.send(json!({"type":"spawned","id":id,"pid":pid,"status":"success","isolation":isolation})).await;
    }

    pub(crate) async fn stdout(&mut self, pid: u32, data: &str, seq: u64) {
        self.send(json!({"type":"stdout","data":data,"pid":pid,"seq":seq})).await;
    }

    pub(crate) async fn exit(&mut self, pid: u32) {
        let usage = json!({"cpuMs":1,"maxRssBytes":2,"outputBytes":3});
        self.send(json!({"type":"exit","code":0,"signal":null,"runtime":5,"pid":pid,"reason":"exited","seq":3,"usage":usage}))
            .await;
    }

    /// Waits until the client has gone.
    pub(crate) async fn gone(&mut self) {
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

/// Serves one connection, which is greeted; returns the address and the task that panics if the script does.
#[expect(clippy::result_large_err, reason = "the type of tungstenite's handshake callback")]
pub(crate) async fn serve<S>(script: impl FnOnce(Peer) -> S + Send + 'static) -> (String, JoinSet<()>)
where
    S: Future<Output = ()> + Send,
{
    let (url, listener) = listen().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        stream.set_nodelay(true).expect("an open socket");
        let mut headers = HeaderMap::new();
        let handshake = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            headers = request.headers().clone();
            if let Some(offered) = headers.get(SEC_WEBSOCKET_PROTOCOL) {
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, offered.clone());
            }
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, handshake).await.expect("a handshake");
        let mut peer = Peer { socket, headers };
        let config = json!({"workspace":"/workspace","sandboxMode":"none","allowOpenClaw":false,"maxProcesses":50,"maxMemory":1});
        peer.send(json!({"type":"connected","protocolVersion":"1.1.0","config":config})).await;
        script(peer).await;
    });
    (url, tasks)
}

/// Answers the first connection with these bytes, whatever it asks.
pub(crate) async fn serve_bytes(answer: &'static [u8]) -> (String, JoinSet<()>) {
    let (url, listener) = listen().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        stream.write_all(answer).await.expect("the client listens");
    });
    (url, tasks)
}

async fn listen() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}/", listener.local_addr().expect("an address"));
    (url, listener)
}

/// Fails the test if the script did.
pub(crate) async fn finish(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        ended.expect("the script runs to its end");
    }
}
