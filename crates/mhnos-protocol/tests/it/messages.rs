//! What the service sends: exact shapes with their key order, and that the client's side reads them.

use mhnos_protocol::{
    Attached, Authenticated, Config, Connected, DoorLimits, Egress, Encoding, ErrorCode, ErrorReply, Event,
    Exit, Gap, Isolation, Killed, OfPid, Port, PortState, ProcessInfo, ProcessList, ProcessStatus,
    ProcessType, PushError, PushResults, Reason, Reply, ServerMessage, Spawned, Stats, Status, Success,
    TokenScope, ToolStatus, Usage, WindowSize, WireLimits, parse_server_message,
};
use serde_json::value::RawValue;

fn config() -> Config {
    Config {
        workspace: "/workspace".into(),
        sandbox_mode: "strict".into(),
        allow_openclaw: false,
        max_processes: 50,
        max_memory: 1 << 30,
    }
}

fn isolation() -> Isolation {
    Isolation { tier: "T1".into(), layers: vec!["user-namespace".into()] }
}

#[track_caller]
fn check_reply(reply: &Reply, expected: &str) {
    let id = RawValue::from_string(r#"{"any": "value"}"#.to_owned()).unwrap();
    let json = reply.to_json(Some(&id));
    assert_eq!(json, expected.replace("ID", id.get()));
    let ServerMessage::Reply { id: Some(got), reply: read } = parse_server_message(&json).unwrap() else {
        panic!("{json}")
    };
    assert_eq!(got.get(), id.get());
    assert_eq!(&read, reply);
    assert!(!reply.to_json(None).contains("\"id\""), "no id, no key");
}

#[track_caller]
fn check_event(event: &Event, expected: &str) {
    let json = event.to_json();
    assert_eq!(json, expected);
    let ServerMessage::Event(read) = parse_server_message(&json).unwrap() else { panic!("{json}") };
    assert_eq!(&read, event);
}

#[test]
fn replies_keep_their_old_keys_in_their_old_order() {
    check_reply(
        &Reply::Spawned(Spawned { pid: 1000, status: Success::Success, isolation: isolation() }),
        r#"{"type":"spawned","id":ID,"pid":1000,"status":"success","isolation":{"tier":"T1","layers":["user-namespace"]}}"#,
    );
    check_reply(
        &Reply::Attached(Attached {
            pid: 1000,
            status: ProcessStatus::Running,
            seq: 7,
            pty: Some(WindowSize { cols: 80, rows: 24 }),
        }),
        r#"{"type":"attached","id":ID,"pid":1000,"status":"running","seq":7,"pty":{"cols":80,"rows":24}}"#,
    );
    let of = OfPid { pid: 1000 };
    check_reply(&Reply::Detached(of), r#"{"type":"detached","id":ID,"pid":1000}"#);
    check_reply(&Reply::Written(of), r#"{"type":"written","id":ID,"pid":1000}"#);
    check_reply(&Reply::StdinClosed(of), r#"{"type":"stdinClosed","id":ID,"pid":1000}"#);
    check_reply(&Reply::Resized(of), r#"{"type":"resized","id":ID,"pid":1000}"#);
    check_reply(
        &Reply::Killed(Killed { pid: 1000, ended: true }),
        r#"{"type":"killed","id":ID,"pid":1000,"ended":true}"#,
    );
    check_reply(&Reply::Pong { time: 1_700_000_000_000 }, r#"{"type":"pong","id":ID,"time":1700000000000}"#);
    check_reply(
        &Reply::Authenticated(Authenticated { name: Some("laptop".into()), scope: TokenScope::View }),
        r#"{"type":"authenticated","id":ID,"name":"laptop","scope":"view"}"#,
    );
    check_reply(
        &Reply::Pushed(PushResults {
            synced: 1,
            failed: 1,
            errors: vec![PushError { path: "a".into(), error: "no".into() }],
        }),
        r#"{"type":"fsyncResult","id":ID,"operation":"push","status":"success","results":{"synced":1,"failed":1,"errors":[{"path":"a","error":"no"}]}}"#,
    );
    check_reply(
        &Reply::Error(ErrorReply::process_not_found(7)),
        r#"{"type":"error","id":ID,"error":"Process 7 not found","code":"PROCESS_NOT_FOUND","pid":7}"#,
    );
    check_reply(
        &Reply::Error(ErrorReply::new(ErrorCode::StdinFull, "full").about(7).after_taking(65_536)),
        r#"{"type":"error","id":ID,"error":"full","code":"STDIN_FULL","pid":7,"taken":65536}"#,
    );
}

#[test]
fn a_list_names_each_process() {
    let process = ProcessInfo {
        pid: 1000,
        process_type: ProcessType::OpenClaw,
        command: None,
        args: vec![],
        start_time: 1_700_000_000_000,
        status: ProcessStatus::Running,
        name: None,
        pty: None,
        encoding: Encoding::Utf8,
        seq: 0,
        isolation: isolation(),
        exit: None,
        lingering: None,
        ports: Vec::new(),
    };
    let stats = Stats { total_spawned: 3, total_killed: 1, active: 1 };
    check_reply(
        &Reply::ProcessList(ProcessList { processes: vec![process], stats }),
        r#"{"type":"processList","id":ID,"processes":[{"pid":1000,"type":"openclaw","command":null,"args":[],"startTime":1700000000000,"status":"running","pty":null,"encoding":"utf8","seq":0,"isolation":{"tier":"T1","layers":["user-namespace"]}}],"stats":{"totalSpawned":3,"totalKilled":1,"active":1}}"#,
    );
}

#[test]
fn status_begins_as_it_always_did() {
    let tool = ToolStatus {
        process_type: ProcessType::Workerd,
        available: false,
        path: None,
        version: None,
        problem: Some("workerd is not installed: npm i -g workerd".into()),
    };
    let limits = WireLimits {
        max_message_bytes: 1,
        output_log_bytes: 2,
        viewer_window_bytes: 3,
        stall_deadline_ms: 4,
        stdin_queue_bytes: 5,
        max_pull_bytes: 6,
        retained_processes: 7,
        retained_ms: 8,
        kill_grace_ms: 9,
        door: DoorLimits { handshake_ms: 10, ping_interval_ms: 11, ..DoorLimits::default() },
    };
    let status = Status {
        config: config(),
        stats: Stats::default(),
        version: "0.1.0".into(),
        protocol_version: "1.1.0".into(),
        uptime: 1.5,
        isolation: isolation(),
        tools: vec![tool],
        limits,
    };
    let expected = r#"{"type":"status","id":ID,"config":{"workspace":"/workspace","sandboxMode":"strict","allowOpenClaw":false,"maxProcesses":50,"maxMemory":1073741824},"stats":{"totalSpawned":0,"totalKilled":0,"active":0},"version":"0.1.0","protocolVersion":"1.1.0","uptime":1.5,"isolation":{"tier":"T1","layers":["user-namespace"]},"tools":[{"type":"workerd","available":false,"problem":"workerd is not installed: npm i -g workerd"}],"limits":{"maxMessageBytes":1,"outputLogBytes":2,"viewerWindowBytes":3,"stallDeadlineMs":4,"stdinQueueBytes":5,"maxPullBytes":6,"retainedProcesses":7,"retainedMs":8,"killGraceMs":9,"handshakeMs":10,"authMs":0,"maxHandshakes":0,"maxHeaderBytes":0,"maxConnections":0,"maxConnectionsPerAddress":0,"maxFragments":0,"framesPerSecond":0,"messageBudgetBytes":0,"maxPendingRequests":0,"maxQueuedBytes":0,"spawnsPerSecond":0,"maxViewers":0,"pingIntervalMs":11}}"#;
    check_reply(&Reply::Status(Box::new(status)), expected);
}

#[test]
fn events_keep_their_old_keys_in_their_old_order() {
    check_event(
        &Event::Connected(Connected::new(config())),
        r#"{"type":"connected","protocolVersion":"1.1.0","config":{"workspace":"/workspace","sandboxMode":"strict","allowOpenClaw":false,"maxProcesses":50,"maxMemory":1073741824}}"#,
    );
    let usage = Usage { cpu_ms: 1, max_rss_bytes: 2, output_bytes: 3 };
    check_event(
        &Event::Exit(Exit {
            code: None,
            signal: Some("SIGTERM".into()),
            runtime: 5000,
            pid: 1000,
            reason: Reason::Killed,
            seq: 3,
            usage,
        }),
        r#"{"type":"exit","code":null,"signal":"SIGTERM","runtime":5000,"pid":1000,"reason":"killed","seq":3,"usage":{"cpuMs":1,"maxRssBytes":2,"outputBytes":3}}"#,
    );
    check_event(
        &Event::Gap(Gap { pid: 1000, from: 5, to: 9 }),
        r#"{"type":"gap","pid":1000,"from":5,"to":9}"#,
    );
    check_event(
        &Event::Port(Port {
            pid: 1000,
            port: 8080,
            url: "http://127.0.0.1:8080/".into(),
            state: PortState::Open,
        }),
        r#"{"type":"port","pid":1000,"port":8080,"url":"http://127.0.0.1:8080/","state":"open"}"#,
    );
    check_event(
        &Event::Egress(Egress {
            pid: None,
            host: "10.0.0.1".into(),
            port: Some(80),
            rule: "private".into(),
            via: "proxy".into(),
            count: 2,
            others: 0,
        }),
        r#"{"type":"egress","pid":null,"host":"10.0.0.1","port":80,"rule":"private","via":"proxy","count":2,"others":0}"#,
    );
}

#[test]
fn a_reply_may_be_sent_under_another_type() {
    let id = RawValue::from_string("\"req-1\"".to_owned()).unwrap();
    let json = Reply::Pong { time: 5 }.to_json_as("status", Some(&id));
    assert_eq!(json, r#"{"type":"status","id":"req-1","time":5}"#);
}

#[test]
fn every_code_has_one_name() {
    let names: std::collections::BTreeSet<String> =
        ErrorCode::ALL.iter().map(|code| serde_json::to_string(code).unwrap()).collect();
    assert_eq!(names.len(), ErrorCode::ALL.len());
    assert!(names.contains("\"PATH_OUTSIDE_WORKSPACE\""));
}

#[test]
fn a_client_ignores_types_it_does_not_know_and_refuses_what_is_no_message() {
    let unknown = parse_server_message(r#"{"type":"future","id":1}"#).unwrap();
    assert!(matches!(unknown, ServerMessage::Unknown { kind } if kind == "future"));
    for text in ["", "[]", "{}", r#"{"type":5}"#, r#"{"type":"stdout"}"#, r#"{"type":"exit","pid":"x"}"#] {
        parse_server_message(text).expect_err(text);
    }
}

#[test]
fn a_client_reads_output_of_version_1_0() {
    let text = r#"{"type":"stdout","data":"a\u00e9\n","timestamp":1700000000000,"pid":1000}"#;
    let ServerMessage::Output(output) = parse_server_message(text).unwrap() else { panic!("output") };
    assert_eq!((output.data.as_slice(), output.pid, output.seq), ("aé\n".as_bytes(), 1000, None));
}
