//! One process's stream: in order, complete, and never in the way of the rest of the connection.

use mhnos_client::limits::EVENTS_PER_PROCESS;
use mhnos_client::{Closed, Message, Options, ProcessEvent, RequestError, connect};
use mhnos_protocol::binary::{encode_output, parse_write};
use mhnos_protocol::{ErrorCode, ProcessType, Request, Scope, Signal, Spawn, SpawnOptions, Stream, Write};
use serde_json::json;

use crate::fake::{finish, serve};

fn shell() -> Spawn {
    let options = SpawnOptions::default();
    Spawn { process_type: ProcessType::Shell, command: None, args: vec!["-c".into(), "x".into()], options }
}

/// More frames than a stream holds.
const MANY: u64 = EVENTS_PER_PROCESS as u64 * 4;

#[tokio::test]
async fn a_run_gathers_every_byte_and_the_exit() {
    let (url, tasks) = serve(|mut peer| async move {
        peer.spawn(1000).await;
        peer.stdout(1000, "h\u{e9}\n", 4).await;
        peer.stdout(2000, "somebody else's", 1).await;
        peer.send(json!({"type":"stderr","data":"//4=","pid":1000,"seq":6,"encoding":"base64"})).await;
        peer.send(json!({"type":"gap","pid":1000,"from":6,"to":9})).await;
        peer.stdout(1000, "end", 12).await;
        peer.exit(1000).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let run = client.run(shell()).await.unwrap();
    assert_eq!(String::from_utf8(run.stdout).unwrap(), "h\u{e9}\nend");
    assert_eq!(run.stderr, [0xff, 0xfe]);
    assert_eq!((run.gaps[0].from, run.gaps[0].to), (6, 9));
    assert_eq!((run.exit.code, run.pid), (Some(0), 1000));
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn a_replay_longer_than_the_stream_comes_before_attached_and_in_order() {
    let (url, tasks) = serve(|mut peer| async move {
        let request = peer.expect("attach").await;
        assert_eq!((&request["pid"], &request["after"]), (&json!(1000), &json!(3)));
        for seq in 0..MANY {
            peer.stdout(1000, "x", seq).await;
        }
        peer.send(json!({"type":"attached","id":request["id"],"pid":1000,"status":"running","seq":MANY}))
            .await;
        peer.exit(1000).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let mut process = client.attach(1000, Some(3)).await.unwrap();
    for seq in 0..MANY {
        match process.next().await {
            Some(ProcessEvent::Output(output)) => assert_eq!(output.seq, Some(seq)),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(process.next().await, Some(ProcessEvent::Attached(attached)) if attached.seq == MANY));
    assert!(matches!(process.next().await, Some(ProcessEvent::Exit(_))));
    drop((process, client));
    finish(tasks).await;
}

#[tokio::test]
async fn a_refused_attach_is_an_error() {
    let (url, tasks) = serve(|mut peer| async move {
        let request = peer.expect("attach").await;
        let id = &request["id"];
        peer.send(json!({"type":"error","id":id,"error":"Process 5 not found","code":"PROCESS_NOT_FOUND"}))
            .await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let error = client.attach(5, None).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ProcessNotFound));
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn a_kill_is_answered_behind_a_flood_and_loses_none_of_it() {
    let (url, tasks) = serve(|mut peer| async move {
        peer.spawn(1000).await;
        let request = peer.expect("kill").await;
        for seq in 1..=MANY {
            peer.stdout(1000, "x", seq).await;
        }
        peer.exit(1000).await;
        peer.send(json!({"type":"killed","id":request["id"],"pid":1000,"ended":true})).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let mut process = client.spawn(shell()).await.unwrap();
    let killed = process.kill(Signal::TERM, Scope::Tree).await.unwrap();
    assert!(killed.ended);
    assert_eq!(process.collect().await.unwrap().stdout.len() as u64, MANY);
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn output_of_a_dropped_handle_holds_nothing_up() {
    let (url, tasks) = serve(|mut peer| async move {
        peer.spawn(1000).await;
        for seq in 0..MANY {
            peer.stdout(1000, "x", seq).await;
        }
        let request = peer.expect("ping").await;
        peer.send(json!({"type":"pong","id":request["id"],"time":1})).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    drop(client.spawn(shell()).await.unwrap());
    client.ping().await.unwrap();
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn attaching_again_does_not_mix_what_was_under_way_with_the_replay() {
    let (url, tasks) = serve(|mut peer| async move {
        peer.spawn(1000).await;
        peer.stdout(1000, "a", 1).await;
        let request = peer.expect("detach").await;
        peer.stdout(1000, "b", 2).await;
        peer.send(json!({"type":"detached","id":request["id"],"pid":1000})).await;
        let request = peer.expect("attach").await;
        peer.stdout(1000, "ab", 2).await;
        peer.send(json!({"type":"attached","id":request["id"],"pid":1000,"status":"exited","seq":2})).await;
        peer.exit(1000).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let first = client.spawn(shell()).await.unwrap();
    let again = client.attach(1000, None).await.unwrap();
    assert_eq!(again.collect().await.unwrap().stdout, b"ab");
    assert!(matches!(first.collect().await, Err(RequestError::NoExit { pid: 1000, .. })));
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn a_stream_without_exit_says_how_the_connection_ended() {
    let (url, tasks) = serve(|mut peer| async move {
        peer.spawn(1000).await;
        peer.stdout(1000, "a", 1).await;
        peer.send_message(Message::Close(None)).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    match client.run(shell()).await {
        Err(RequestError::NoExit { pid: 1000, closed: Closed::Frame { code: 1005, .. } }) => {}
        other => panic!("{other:?}"),
    }
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn binary_frames_carry_output_and_writes() {
    let (url, tasks) = serve(|mut peer| async move {
        assert_eq!(peer.headers["sec-websocket-protocol"], "mhnos.v1.binary");
        peer.spawn(1000).await;
        let Message::Binary(frame) = peer.receive().await else { panic!("a binary write") };
        let parsed = parse_write(&frame);
        assert!(parsed.id.is_none());
        assert_eq!(parsed.request.unwrap(), Request::Write(Write { pid: 1000, data: vec![0xff, 0] }));
        let mut frame = Vec::new();
        encode_output(&mut frame, Stream::Stderr, 1000, 2, &[0xff, 0]);
        peer.send_message(Message::binary(frame)).await;
        peer.exit(1000).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::binary()).await.unwrap();
    let process = client.spawn(shell()).await.unwrap();
    process.write_unanswered(&[0xff, 0]).await.unwrap();
    assert_eq!(process.collect().await.unwrap().stderr, [0xff, 0]);
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn writes_are_awaited_and_bytes_that_are_no_text_go_as_base64() {
    let (url, tasks) = serve(|mut peer| async move {
        peer.spawn(1000).await;
        for (data, encoding) in [(json!("text"), json!(null)), (json!("/w=="), json!("base64"))] {
            let request = peer.expect("write").await;
            assert_eq!((&request["data"], &request["encoding"]), (&data, &encoding));
            peer.send(json!({"type":"written","id":request["id"],"pid":1000})).await;
        }
        let request = peer.expect("closeStdin").await;
        peer.send(json!({"type":"stdinClosed","id":request["id"],"pid":1000})).await;
        peer.exit(1000).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let mut process = client.spawn(shell()).await.unwrap();
    process.write("text").await.unwrap();
    process.write([0xff]).await.unwrap();
    process.close_stdin().await.unwrap();
    assert_eq!(process.collect().await.unwrap().exit.code, Some(0));
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn an_exit_that_cannot_be_read_ends_the_events_of_its_process() {
    let (url, tasks) = serve(|mut peer| async move {
        peer.spawn(7).await;
        let usage = json!({"cpuMs":1,"maxRssBytes":2,"outputBytes":3});
        peer.send(json!({"type":"exit","code":0,"signal":null,"runtime":5,"pid":7,"reason":"from the future","seq":3,"usage":usage}))
            .await;
        let request = peer.expect("ping").await;
        peer.send(json!({"type":"pong","id":request["id"],"time":1})).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    let error = client.run(shell()).await.unwrap_err();
    assert!(matches!(error, RequestError::NoExit { pid: 7, .. }), "{error}");
    client.ping().await.unwrap();
    drop(client);
    finish(tasks).await;
}

#[tokio::test]
async fn of_what_has_ended_no_stream_is_kept() {
    const RUNS: u32 = 1000;
    let (url, tasks) = serve(|mut peer| async move {
        for pid in 1000..1000 + RUNS {
            peer.spawn(pid).await;
            peer.exit(pid).await;
        }
        let request = peer.expect("attach").await;
        peer.send(json!({"type":"error","id":request["id"],"error":"no","code":"PROCESS_NOT_FOUND","pid":5}))
            .await;
        // Of one that has been left frames may be under way.
        let request = peer.expect("detach").await;
        peer.stdout(1000, "late", 3).await;
        peer.send(json!({"type":"detached","id":request["id"],"pid":1000})).await;
        let request = peer.expect("attach").await;
        peer.send(json!({"type":"attached","id":request["id"],"pid":1000,"status":"exited","seq":3})).await;
        let request = peer.expect("detach").await;
        peer.send(json!({"type":"detached","id":request["id"],"pid":1000})).await;
        peer.gone().await;
    })
    .await;
    let client = connect(&url, Options::default()).await.unwrap();
    for _ in 0..RUNS {
        client.run(shell()).await.unwrap();
    }
    client.attach(5, None).await.unwrap_err();
    let streams = |count: usize| format!("streams: {count},");
    assert!(format!("{client:?}").contains(&streams(0)), "{client:?}");
    let mut again = client.attach(1000, None).await.unwrap();
    assert!(matches!(again.next().await, Some(ProcessEvent::Attached(_))));
    assert!(format!("{client:?}").contains(&streams(1)), "{client:?}");
    again.detach().await.unwrap();
    assert!(format!("{client:?}").contains(&streams(0)), "{client:?}");
    drop(client);
    finish(tasks).await;
}
