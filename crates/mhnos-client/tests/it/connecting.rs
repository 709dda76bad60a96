//! Getting a connection, and what is said when there is none.

use std::sync::Arc;

use mhnos_client::{Closed, ConnectError, Message, Options, connect, connect_raw};
use rcgen::{BasicConstraints, CertificateParams, CertifiedKey, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::ring::default_provider, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

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
    for url in ["", "localhost:1", "http://localhost:1/", "ws:///"] {
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

/// A server of TLS with this certificate and key, for one connection that is hung up on.
async fn tls_server(made: &CertifiedKey<KeyPair>) -> (u16, JoinSet<()>) {
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // One that does not trust it ends the handshake.
        if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn wss_trusts_what_it_is_told_to_and_nothing_else() {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let signing_key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&signing_key, &issuer)
        .unwrap();
    let signed = CertifiedKey { cert, signing_key };
    // As `openssl req -x509` makes it: its own authority.
    let key = KeyPair::generate().unwrap();
    let mut own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = CertifiedKey { cert: own.self_signed(&key).unwrap(), signing_key: key };
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (server, trust, host, trusted) in [
        (&signed, Some(root.pem()), "localhost", true),
        (&signed, Some(root.pem()), "127.0.0.1", false),
        (&signed, Some(signed.cert.pem()), "127.0.0.1", true),
        (&own, Some(own.cert.pem()), "localhost", true),
        (&own, Some(other.cert.pem()), "localhost", false),
        (&own, Some(format!("{}{}", other.cert.pem(), own.cert.pem())), "127.0.0.1", true),
    ] {
        let (port, tasks) = tls_server(server).await;
        let options = Options { trust, ..Options::default() };
        let error = connect(&format!("wss://{host}:{port}/"), options).await.unwrap_err();
        match error {
            ConnectError::Refused { status: 403, .. } => assert!(trusted),
            ConnectError::Tls { .. } => assert!(!trusted, "{error:?}"),
            other => panic!("{other:?}"),
        }
        finish(tasks).await;
    }
    for trust in [None, Some("nonsense".to_owned())] {
        let options = Options { trust, ..Options::default() };
        let error = connect("wss://127.0.0.1:1/", options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Trust(_)), "{error:?}");
    }
}
