//! TLS on the service's own port, with certificates made for the test.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use mhnos_testing::{Scratch, Server, eventually_async, http_get, http_raw};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::{SERVICE, options};

/// A certificate for localhost and its files.
struct Identity {
    scratch: Scratch,
    cert: PathBuf,
    key: PathBuf,
    root: CertificateDer<'static>,
}

impl Identity {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (cert, key) = (scratch.path().join("cert.pem"), scratch.path().join("key.pem"));
        let root = write(&cert, &key);
        Self { scratch, cert, key, root }
    }

    fn server(&self) -> Server {
        let with = options().env("MHNOS_TLS_CERT", self.cert.display().to_string());
        Server::start(with.env("MHNOS_TLS_KEY", self.key.display().to_string()))
    }
}

fn write(cert: &PathBuf, key: &PathBuf) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    // Both are new before the service looks at either: each is written beside and moved into place.
    for (path, text) in [(key, made.signing_key.serialize_pem()), (cert, made.cert.pem())] {
        fs::write(path.with_extension("new"), text).expect("written");
        fs::rename(path.with_extension("new"), path).expect("renamed");
    }
    made.cert.der().clone()
}

/// A connection that trusts this certificate alone.
async fn connect(
    address: SocketAddr,
    root: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn https_and_wss_are_spoken_on_the_one_port() {
    let identity = Identity::new();
    let server = identity.server();
    let address = server.address();
    let mut https = connect(address, &identity.root).await.expect("trusted");
    https.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    // The end may come without TLS's own farewell.
    let _ = https.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"version\""), "{answer}");

    let stream = connect(address, &identity.root).await.expect("trusted");
    let (mut wss, _) = client_async("wss://localhost/", stream).await.expect("a handshake");
    let hello = wss.next().await.expect("a message").expect("no error");
    assert!(hello.to_text().expect("text").contains("\"connected\""));
    wss.send(Message::text(r#"{"type":"ping","id":1}"#)).await.expect("open");
    assert!(
        wss.next().await.expect("a message").expect("no error").to_text().expect("text").contains("pong")
    );
}

/// `mhnos-runtime health` with this certificate in its settings.
fn health(server: &Server, certificate: &Path) -> Output {
    let mut command = Command::new(SERVICE);
    command.args(["health", "--host", "127.0.0.1"]).env_clear();
    command.arg("--runtime-port").arg(server.address().port().to_string());
    command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(certificate).output().expect("runs")
}

#[test]
fn health_is_asked_for_through_tls_and_another_certificate_is_told() {
    let identity = Identity::new();
    let server = identity.server();
    let whole = health(&server, &identity.cert);
    let body: serde_json::Value = serde_json::from_slice(&whole.stdout).expect("the service's answer");
    assert!(whole.status.success() && body["sandbox"]["tier"].is_string(), "{whole:?}");
    assert!(whole.stderr.is_empty(), "{whole:?}");
    let other = Identity::new();
    for (certificate, why) in
        [(&*other.cert, "certificate"), (Path::new("/nowhere/cert.pem"), "No such file")]
    {
        let short = health(&server, certificate);
        assert!(short.status.success() && short.stdout == b"{\"status\":\"ok\"}\n", "{short:?}");
        assert!(String::from_utf8_lossy(&short.stderr).contains(why), "{short:?}");
    }
    // Where TLS should be spoken and is not, something is wrong.
    let plain = crate::start();
    let output = health(&plain, &identity.cert);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[tokio::test]
async fn the_client_reaches_the_service_by_its_own_certificate_alone() {
    let identity = Identity::new();
    let server = identity.server();
    let url = format!("wss://{}/", server.address());
    let trusting = |certificate: &Path| {
        let trust = Some(fs::read_to_string(certificate).expect("there"));
        mhnos_client::Options { trust, ..mhnos_client::Options::default() }
    };
    let client = mhnos_client::connect(&url, trusting(&identity.cert)).await.expect("trusted");
    assert!(client.greeting().config.workspace.starts_with('/'));
    let error = mhnos_client::connect(&url, trusting(&Identity::new().cert)).await.expect_err("not trusted");
    assert!(matches!(error, mhnos_client::ConnectError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn half_and_broken_tls_is_cut_and_others_are_served_meanwhile() {
    crate::bad_clients::allow_many_files();
    let identity = Identity::new();
    let server = identity.server();
    let address = server.address();
    // A hello of which most is missing, from more than may wait at once: whoever came first is cut.
    let mut crowd = Vec::new();
    for _ in 0..700 {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"\x16\x03\x01\x01\xfe\x01\0\x01\xfa\x03\x03").await.expect("sent");
        crowd.push(stream);
    }
    let ended = timeout(Duration::from_mins(1), crowd[0].read(&mut [0; 64])).await.expect("cut long before");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    // Bytes below the protocol that were never encrypted, after a handshake that was right.
    for record in
        [&b"\x17\x03\x03\0\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"[..], b"\x17\x03\x03\xff\xff", b"nonsense"]
    {
        let mut broken = connect(address, &identity.root).await.expect("others are served");
        let (below, _) = broken.get_mut();
        below.write_all(record).await.expect("sent");
        below.shutdown().await.expect("open");
        let ended = timeout(Duration::from_mins(1), broken.read(&mut [0; 64])).await.expect("it ends");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    let mut other = connect(address, &identity.root).await.expect("others are served");
    other.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("open");
    let mut answer = [0; 12];
    other.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_plain_request_to_a_tls_port_is_told_so() {
    let server = Identity::new().server();
    let reply = http_get(server.address(), "/health", &[]).expect("an answer");
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(reply.body.contains("https://") && reply.body.contains("wss://"), "{reply:?}");
}

#[tokio::test]
async fn a_tls_client_at_a_plain_port_is_told_in_the_log() {
    let server = crate::start();
    let answer = http_raw(server.address(), b"\x16\x03\x01\x00\x05hello").unwrap_or_default();
    assert!(answer.is_empty(), "{answer:?}");
    let line = server.logged(Duration::from_secs(30), "a client speaks TLS");
    assert!(line.contains("MHNOS_TLS_CERT"), "{line}");
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_a_wrong_one_is_not() {
    let identity = Identity::new();
    let server = identity.server();
    fs::write(&identity.cert, "not a certificate").expect("written");
    server.logged(Duration::from_secs(30), "the old ones stay in force");
    connect(server.address(), &identity.root).await.expect("the old one is in force");
    let renewed = write(&identity.cert, &identity.key);
    eventually_async(Duration::from_secs(30), "the new one is in force", async || {
        connect(server.address(), &renewed).await.ok().map(drop)
    })
    .await;
    connect(server.address(), &identity.root).await.expect_err("the old one is gone");
    assert!(identity.scratch.path().exists());
}

#[test]
fn half_a_pair_or_a_wrong_one_stops_the_start() {
    let (one, other) = (Identity::new(), Identity::new());
    let path = |path: &PathBuf| path.display().to_string();
    let refused = |options, expected: &str| {
        let failure = Server::try_start(options).expect_err("refused");
        assert_eq!(failure.status.code(), Some(2), "{failure:?}");
        assert!(failure.stderr.contains(expected), "{expected}: {failure:?}");
    };
    refused(options().env("MHNOS_TLS_CERT", path(&one.cert)), "MHNOS_TLS_KEY beside it");
    refused(options().env("MHNOS_TLS_KEY", path(&one.key)), "MHNOS_TLS_CERT beside it");
    let pair = |cert: &PathBuf, key: &PathBuf| {
        options().env("MHNOS_TLS_CERT", path(cert)).env("MHNOS_TLS_KEY", path(key))
    };
    refused(pair(&one.cert, &other.key), "cannot be used");
    refused(pair(&one.key, &one.key), "no certificate in PEM");
    refused(pair(&one.cert, &one.cert), "no private key in PEM");
    refused(pair(&one.cert, &PathBuf::from("/nowhere/key.pem")), "No such file");
}
