//! Getting a connection, and what is said when there is none.

use mhnos_client::{Closed, ConnectError, Message, Options, connect, connect_raw};

use crate::fake::{finish, serve, serve_bytes};

#[tokio::test]
async fn a_client_introduces_itself_as_its_options_say() {
    let (url, tasks) = serve(|mut peer| async move {
        assert_eq!(peer.headers["origin"], "http://localhost:8080");
        assert_eq!(peer.headers["authorization"], "Bearer secret");
        assert_eq!(peer.headers["sec-websocket-protocol"], "mhnos.v1");
        peer.gone().await;
    })
    .await;
    let options = Options {
        origin: Some("http://localhost:8080".into()),
        token: Some("secret".into()),
        ..Options::default()
    };
    let client = connect(&url, options).await.unwrap();
    assert_eq!(client.greeting().protocol_version, "1.1.0");
    assert_eq!(client.greeting().config.workspace, "/workspace");
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn a_browser_offers_no_subprotocol() {
    let (url, tasks) = serve(|mut peer| async move {
        assert!(!peer.headers.contains_key("sec-websocket-protocol"));
        peer.gone().await;
    })
    .await;
    drop(connect(&url, Options::browser("http://localhost:8080")).await.unwrap());
    finish(tasks).await;
}

#[tokio::test]
async fn a_refusal_says_what_the_server_said() {
    let (url, _tasks) =
        serve_bytes(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\n\r\nOrigin not allowed").await;
    match connect(&url, Options::default()).await {
        Err(ConnectError::Refused { status: 403, body }) => assert!(body.starts_with("Origin not"), "{body}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_websocket_server_is_an_error() {
    let (url, _tasks) = serve_bytes(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    assert!(matches!(connect(&url, Options::default()).await, Err(ConnectError::Handshake(_))));
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = connect(&format!("ws://{address}/"), Options::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tcp { port, .. } if port == address.port()), "{error:?}");
    for url in ["", "localhost:1", "http://localhost:1/", "wss://localhost:1/", "ws:///"] {
        let error = connect(url, Options::default()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Url { .. }), "{url}: {error:?}");
    }
    let options = Options { token: Some("line\nbreak".into()), ..Options::default() };
    let error = connect("ws://127.0.0.1:1/", options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Header { what: "the token" }), "{error:?}");
}

#[tokio::test]
async fn a_raw_connection_sends_and_receives_anything() {
    let (url, tasks) = serve(|mut peer| async move {
        assert_eq!(peer.receive().await, Message::text("{nonsense"));
        assert_eq!(peer.receive().await, Message::binary(vec![0xff, 0]));
        // A masked empty text frame, written by hand.
        assert_eq!(peer.receive().await, Message::text(""));
        peer.send_message(Message::binary(vec![1, 2, 3])).await;
        peer.send(serde_json::json!({"type":"a"})).await;
        peer.send(serde_json::json!({"type":"b"})).await;
        peer.gone().await;
    })
    .await;
    let mut raw = connect_raw(&url, &Options::default()).await.unwrap();
    assert_eq!(raw.recv_json().await.unwrap()["type"], "connected");
    raw.send_raw_text("{nonsense").await.unwrap();
    raw.send_raw_binary(vec![0xff, 0]).await.unwrap();
    raw.send_raw_bytes(&[0x81, 0x80, 1, 2, 3, 4]).await.unwrap();
    assert_eq!(raw.recv_raw().await.unwrap().unwrap(), Message::binary(vec![1, 2, 3]));
    assert_eq!(raw.recv_until(|message| message["type"] == "b").await.unwrap()["type"], "b");
    drop(raw);
    finish(tasks).await;
}

#[tokio::test]
async fn a_close_is_answered_and_reported() {
    let (url, tasks) = serve(|mut peer| async move { peer.gone().await }).await;
    let client = connect(&url, Options::default()).await.unwrap();
    assert!(matches!(client.close().await, Closed::Frame { .. }));
    finish(tasks).await;
}
