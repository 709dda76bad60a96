//! Requests and their answers, and what becomes of both when the connection ends.

use std::time::Duration;

use mhnos_client::{Closed, Message, Options, RequestError, connect};
use mhnos_protocol::{Content, ErrorCode, FileEntry, Request, Resize, Scope, Signal, WindowSize};
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::fake::{finish, serve};

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let (url, tasks) = serve(|mut peer| async move {
        let (first, second) = (peer.expect("ping").await, peer.expect("ping").await);
        assert_ne!(first["id"], second["id"]);
        peer.send(json!({"type":"pong","id":second["id"],"time":2})).await;
        peer.send(json!({"type":"from the future","id":first["id"]})).await;
        peer.send(json!({"type":"pong","id":"somebody else's","time":9})).await;
        peer.send(json!({"type":"pong","id":first["id"],"time":1})).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let (first, second) = tokio::join!(client.ping(), client.ping());
    assert_eq!((first.unwrap(), second.unwrap()), (1, 2));
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn an_error_is_the_answer_of_the_request_it_names() {
    let (url, tasks) = serve(|mut peer| async move {
        let request = peer.expect("kill").await;
        assert_eq!(request["signal"], "SIGKILL");
        assert_eq!(request["scope"], "tree");
        let id = &request["id"];
        peer.send(
            json!({"type":"error","id":id,"error":"Process 7 not found","code":"PROCESS_NOT_FOUND","pid":7}),
        )
        .await;
        let request = peer.expect("list").await;
        peer.send(json!({"type":"pong","id":request["id"],"time":1})).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let error = client.kill(7, Signal::KILL, Scope::Tree).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ProcessNotFound));
    assert_eq!(error.to_string(), "Process 7 not found");
    let error = client.list(false).await.unwrap_err();
    assert_eq!(error.to_string(), "the answer to list is a pong");
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn files_go_there_and_back() {
    let entry = |path: &str, bytes: &[u8]| FileEntry {
        path: path.into(),
        content: Content::File(bytes.to_vec()),
        mtime_ms: Some(5),
    };
    let (url, tasks) = serve(|mut peer| async move {
        let request = peer.expect("fsync").await;
        assert_eq!(request["files"][0]["content"], "text");
        assert_eq!(request["files"][1]["encoding"], "base64");
        let results = json!({"synced":1,"failed":1,"errors":[{"path":"b","error":"no"}]});
        peer.send(json!({"type":"fsyncResult","id":request["id"],"operation":"push","status":"success","results":results})).await;
        let request = peer.expect("fsync").await;
        let files = json!([{"path":"a","kind":"file","content":[0,255],"mtime":5}]);
        peer.send(json!({"type":"fsyncResult","id":request["id"],"operation":"pull","status":"success","files":files})).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let results = client.push(vec![entry("a", b"text"), entry("b", &[0xff])]).await.unwrap();
    assert_eq!((results.synced, results.failed), (1, 1));
    assert_eq!(client.pull().await.unwrap(), [entry("a", &[0, 255])]);
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn a_pull_may_hold_what_no_push_may() {
    const FILES: usize = 10_001;
    let long = "x/".repeat(2500);
    let expected = long.clone();
    let (url, tasks) = serve(move |mut peer| async move {
        let request = peer.expect("fsync").await;
        let mut files = vec![json!({"path":"a","kind":"file","content":"","mtime":5}); FILES];
        files[0] = json!({"path":long,"kind":"file","content":"","mtime":9e15});
        peer.send(json!({"type":"fsyncResult","id":request["id"],"operation":"pull","status":"success","files":files})).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let files = client.pull().await.unwrap();
    assert_eq!(files.len(), FILES);
    assert_eq!((&files[0].path, files[0].mtime_ms), (&expected, Some(9_000_000_000_000_000)));
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn what_cannot_be_read_fails_its_request_alone() {
    let (url, tasks) = serve(|mut peer| async move {
        let request = peer.expect("kill").await;
        peer.send(json!({"type":"error","id":request["id"],"error":"no","code":"FROM_THE_FUTURE"})).await;
        let request = peer.expect("fsync").await;
        let files = json!([{"path":"a","kind":"socket"}]);
        peer.send(json!({"type":"fsyncResult","id":request["id"],"operation":"pull","files":files})).await;
        let request = peer.expect("attach").await;
        peer.send(json!({"type":"attached","id":request["id"],"pid":7,"status":"dreaming"})).await;
        for _ in 0..2 {
            let request = peer.expect("ping").await;
            peer.send(json!({"type":"pong","id":request["id"],"time":1})).await;
            // As to the Web OS page, which knows no pong.
            peer.send(json!({"type":"status","id":request["id"],"time":1})).await;
        }
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::browser("http://localhost")).await.unwrap();
    let error = client.kill(7, Signal::KILL, Scope::Tree).await.unwrap_err();
    assert!(error.to_string().contains("cannot be read: error: unknown variant"), "{error}");
    assert!(matches!(client.pull().await, Err(RequestError::Unreadable { .. })));
    assert!(matches!(client.attach(7, None).await, Err(RequestError::Unreadable { .. })));
    assert_eq!((client.ping().await.unwrap(), client.ping().await.unwrap()), (1, 1));
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn whoever_waits_learns_how_the_connection_ended() {
    let (url, tasks) = serve(|mut peer| async move {
        peer.expect("ping").await;
        let reason = CloseFrame { code: CloseCode::Away, reason: "shutting down".into() };
        peer.send_message(Message::Close(Some(reason))).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let expected = Closed::Frame { code: 1001, reason: "shutting down".into() };
    match client.ping().await {
        Err(RequestError::Closed(closed)) => assert_eq!(closed, expected),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.closed().await, expected);
    match client.ping().await {
        Err(RequestError::Closed(closed)) => assert_eq!(closed, expected, "later requests fail at once"),
        other => panic!("{other:?}"),
    }
    finish(tasks).await;
}

#[tokio::test]
async fn a_connection_that_breaks_is_reported_too() {
    let (url, tasks) = serve(|mut peer| async move {
        peer.expect("ping").await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    assert!(matches!(client.ping().await, Err(RequestError::Closed(Closed::Broken { .. }))));
    finish(tasks).await;
    let (url, tasks) = serve(|mut peer| async move {
        peer.send_message(Message::text("no message")).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let Closed::Broken { reason } = client.closed().await else { panic!("broken") };
    assert!(reason.contains("no message of this protocol"), "{reason}");
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn a_request_that_is_not_answered_times_out() {
    let (url, tasks) = serve(|mut peer| async move { peer.gone().await }).await;
    let options = Options { request_timeout: Duration::from_millis(20), ..Options::default() };
    let client = connect(&url, options).await.unwrap();
    assert!(matches!(client.ping().await, Err(RequestError::Timeout { request: "ping", .. })));
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn errors_of_unanswered_requests_are_kept_for_whoever_asks() {
    let (url, tasks) = serve(|mut peer| async move {
        let request = peer.expect("resize").await;
        assert!(request.get("id").is_none());
        peer.send(json!({"type":"error","error":"Process 5 not found","code":"PROCESS_NOT_FOUND","pid":5}))
            .await;
        let request = peer.expect("ping").await;
        peer.send(json!({"type":"pong","id":request["id"],"time":1})).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let size = WindowSize { cols: 80, rows: 24 };
    client.send(&Request::Resize(Resize { pid: 5, size })).await.unwrap();
    client.ping().await.unwrap();
    let stray = client.take_stray_errors();
    assert_eq!((stray.len(), stray[0].pid), (1, Some(5)));
    assert!(client.take_stray_errors().is_empty());
    drop(client);
    finish(tasks).await;
}
