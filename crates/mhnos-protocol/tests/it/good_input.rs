//! What is accepted, and that nothing is lost on the way.

use std::time::Duration;

use mhnos_protocol::{
    Attach, Content, Encoding, Events, FileEntry, IsolationMode, Kill, LimitsRequest, ProcessType, Pty,
    Request, Resize, Scope, Signal, Spawn, SpawnOptions, StdinMode, WindowSize, Write, parse_request,
};
use proptest::prelude::*;

#[track_caller]
fn parsed(input: &str) -> Request {
    parse_request(input).request.expect(input)
}

fn spawned(input: &str) -> Spawn {
    let Request::Spawn(spawn) = parsed(input) else { panic!("{input} is no spawn") };
    *spawn
}

#[test]
fn the_specifications_own_spawn_is_read() {
    let spawn = spawned(
        r#"{"type":"spawn","id":"request-123","processType":"node","command":"/workspace/script.js",
            "args":["--port","3000"],"options":{"cwd":"/workspace","env":{"NODE_ENV":"production"},"timeout":0}}"#,
    );
    assert_eq!(spawn.process_type, ProcessType::Node);
    assert_eq!(spawn.command.as_deref(), Some("/workspace/script.js"));
    assert_eq!(spawn.args, ["--port", "3000"]);
    let options = SpawnOptions {
        cwd: Some("/workspace".into()),
        env: vec![("NODE_ENV".into(), "production".into())],
        ..SpawnOptions::default()
    };
    assert_eq!(spawn.options, options);
}

#[test]
fn optional_fields_may_be_null_or_absent() {
    let bare = spawned(r#"{"type":"spawn","processType":"shell"}"#);
    let nulls = spawned(
        r#"{"type":"spawn","processType":"shell","command":null,"options":{"cwd":null,"env":null,"timeout":null,
            "pty":null,"stdin":null,"limits":null,"isolation":null,"name":null,"encoding":null,"events":null}}"#,
    );
    assert_eq!(bare, nulls);
    let limits = spawned(
        r#"{"type":"spawn","processType":"shell","options":{"limits":{"memory":null,"pids":null,"cpu":null}}}"#,
    );
    assert_eq!(bare, limits);
    assert_eq!(parsed(r#"{"type":"list","all":null}"#), Request::List { all: false });
    assert_eq!(parsed(r#"{"type":"ports","pid":null}"#), Request::Ports { pid: None });
    let attach = Attach { pid: 1000, after: None, encoding: None, events: Events::default() };
    assert_eq!(
        parsed(r#"{"type":"attach","pid":1000,"after":null,"encoding":null,"events":null}"#),
        Request::Attach(attach)
    );
}

#[test]
fn the_last_of_duplicate_keys_counts_and_unknown_ones_are_ignored() {
    let input = r#"{"type":"kill","pid":1,"type":"detach","pid":1000,"zzz":{"pid":5,"type":[]}}"#;
    assert_eq!(parsed(input), Request::Detach { pid: 1000 });
    let env = spawned(
        r#"{"type":"spawn","processType":"node","options":{"env":{"A":"1","B":"2","A":"3","__proto__":"x"}}}"#,
    );
    let expected = [("A", "3"), ("B", "2"), ("__proto__", "x")];
    assert_eq!(env.options.env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(parsed("{\"\\u0074ype\":\"p\\u0069ng\"}"), Request::Ping);
}

#[test]
fn numbers_and_booleans_of_the_environment_become_their_own_text() {
    let spawn = spawned(
        r#"{"type":"spawn","processType":"node","options":{"env":{"N":3000,"F":1.50,"T":true,"E":""}}}"#,
    );
    let expected = [("N", "3000"), ("F", "1.50"), ("T", "true"), ("E", "")];
    assert_eq!(spawn.options.env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn whole_numbers_may_be_written_as_javascript_would() {
    for pid in ["1000", "1e3", "1000.0", "1000.000e0", "10000e-1"] {
        assert_eq!(parsed(&format!(r#"{{"type":"detach","pid":{pid}}}"#)), Request::Detach { pid: 1000 });
    }
}

#[test]
fn a_timeout_of_any_size_is_a_timeout() {
    let timeout = |given: &str| {
        spawned(&format!(r#"{{"type":"spawn","processType":"node","options":{{"timeout":{given}}}}}"#))
            .options
            .timeout
    };
    assert_eq!(timeout("0"), None);
    assert_eq!(timeout("1"), Some(Duration::from_millis(1)));
    assert_eq!(timeout("2147483648"), Some(Duration::from_millis(1 << 31)));
    assert_eq!(timeout("1e15"), Some(Duration::from_secs(1_000_000_000_000)));
    assert_eq!(timeout("1e300"), Some(Duration::from_millis(u64::MAX)));
    assert_eq!(timeout("1e999"), Some(Duration::from_millis(u64::MAX)));
}

#[test]
fn signals_are_understood_in_every_usual_spelling() {
    let signal = |given: &str| {
        let Request::Kill(kill) = parsed(&format!(r#"{{"type":"kill","pid":1000,"signal":{given}}}"#)) else {
            panic!("{given}")
        };
        assert_eq!(kill.scope, Scope::Tree);
        kill.signal
    };
    for given in [r#""SIGTERM""#, r#""sigterm""#, r#""TERM""#, "15", r#""15""#, r#""""#, "null", "0", "1.5e1"]
    {
        assert_eq!(signal(given), Signal::TERM, "{given}");
    }
    assert_eq!(signal("9"), Signal::KILL);
    assert_eq!(signal("\"int\""), Signal::INT);
    let kill = Kill { pid: 1000, signal: Signal::TERM, scope: Scope::Leader };
    assert_eq!(parsed(r#"{"type":"kill","pid":1000,"scope":"leader"}"#), Request::Kill(kill));
}

#[test]
fn written_text_arrives_as_its_bytes() {
    let data = |message: &str| {
        let Request::Write(write) = parsed(message) else { panic!("{message}") };
        write.data
    };
    assert_eq!(
        data(r#"{"type":"write","pid":1,"data":"h\u00e9\ud83d\ude00\n\u0003\u0000\/"}"#),
        "hé😀\n\u{3}\0/".as_bytes()
    );
    assert_eq!(data(r#"{"type":"write","pid":1,"data":""}"#), b"");
    // JavaScript can send half a surrogate pair; it is a character that cannot be encoded.
    let lone = r#"{"type":"write","pid":1,"data":"a\ud83dz\ude00\ud83d\ud83d\ude00"}"#;
    assert_eq!(data(lone), "a\u{fffd}z\u{fffd}\u{fffd}😀".as_bytes());
    assert_eq!(data(r#"{"type":"write","pid":1,"data":"//4A","encoding":"base64"}"#), [0xff, 0xfe, 0]);
    assert_eq!(data(r#"{"type":"write","pid":1,"data":"\/\/4A","encoding":"base64"}"#), [0xff, 0xfe, 0]);
}

fn any_spawn() -> impl Strategy<Value = Spawn> {
    let size = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(cols, rows)| WindowSize { cols, rows });
    let pty = prop_oneof![Just(Pty::Off), Just(Pty::DefaultSize), size.prop_map(Pty::Size)];
    let limits = (
        proptest::option::of(1..=u64::MAX),
        proptest::option::of(1..=u32::MAX),
        proptest::option::of(1..=u32::MAX),
    )
        .prop_map(|(memory, pids, cpu_millis)| LimitsRequest { memory, pids, cpu_millis });
    let text = "[^\0]{0,20}";
    let how = (proptest::option::of(pty), limits, proptest::option::of("[^\\p{Cc}]{0,20}"), any::<u64>());
    let env = proptest::collection::hash_map("[^\0=]{1,8}", text, 0..4);
    let what = (
        proptest::sample::select(&ProcessType::ALL[..]),
        proptest::option::of(text),
        proptest::collection::vec(text, 0..4),
    );
    (what, how, env, proptest::option::of(text), any::<[bool; 3]>()).prop_map(
        |((process_type, command, args), (pty, limits, name, timeout), env, cwd, [a, b, c])| Spawn {
            process_type,
            command,
            args,
            options: SpawnOptions {
                cwd,
                env: env.into_iter().collect(),
                timeout: (timeout > 0).then(|| Duration::from_millis(timeout)),
                pty,
                stdin: a.then_some(if b { StdinMode::Pipe } else { StdinMode::Null }),
                limits,
                isolation: b.then_some(if c { IsolationMode::Shared } else { IsolationMode::Private }),
                name,
                encoding: c.then_some(if a { Encoding::Utf8 } else { Encoding::Base64 }),
                events: Events { egress: a },
            },
        },
    )
}

fn any_entry() -> impl Strategy<Value = FileEntry> {
    let content = prop_oneof![
        Just(Content::Directory),
        any::<Vec<u8>>().prop_map(Content::File),
        ".{0,40}".prop_map(|text: String| Content::File(text.into_bytes())),
    ];
    let time = proptest::option::of(-8_640_000_000_000_000_i64..=8_640_000_000_000_000);
    ("[^\0]{1,20}", content, time).prop_map(|(path, content, mtime_ms)| FileEntry { path, content, mtime_ms })
}

fn any_request() -> impl Strategy<Value = Request> {
    let pid = any::<u32>();
    prop_oneof![
        any_spawn().prop_map(|spawn| Request::Spawn(Box::new(spawn))),
        (pid, proptest::option::of(0..=limits_max())).prop_map(|(pid, after)| {
            let events = Events { egress: pid % 2 == 0 };
            Request::Attach(Attach { pid, after, encoding: after.map(|_| Encoding::Base64), events })
        }),
        pid.prop_map(|pid| Request::Detach { pid }),
        (pid, any::<Vec<u8>>()).prop_map(|(pid, data)| Request::Write(Write { pid, data })),
        (pid, ".*").prop_map(|(pid, text)| Request::Write(Write { pid, data: text.into_bytes() })),
        pid.prop_map(|pid| Request::CloseStdin { pid }),
        (pid, 1..=u16::MAX, 1..=u16::MAX)
            .prop_map(|(pid, cols, rows)| Request::Resize(Resize { pid, size: WindowSize { cols, rows } })),
        (pid, 1..=31_i64, any::<bool>()).prop_map(|(pid, number, tree)| {
            let signal = Signal::from_number(number).expect("1..=31");
            Request::Kill(Kill { pid, signal, scope: if tree { Scope::Tree } else { Scope::Leader } })
        }),
        any::<bool>().prop_map(|all| Request::List { all }),
        Just(Request::Status),
        Just(Request::Ping),
        proptest::collection::vec(any_entry().prop_map(Ok), 0..4).prop_map(|files| Request::Push { files }),
        Just(Request::Pull),
    ]
}

fn limits_max() -> u64 {
    mhnos_protocol::limits::MAX_SAFE_INTEGER
}

proptest! {
    #[test]
    fn what_a_client_writes_the_service_reads(request in any_request(), id in any::<u64>()) {
        let id = serde_json::value::to_raw_value(&id).unwrap();
        let json = request.to_json(Some(&id));
        let parsed = parse_request(&json);
        let got = parsed.id.expect("an id");
        prop_assert_eq!(got.get(), id.get());
        prop_assert_eq!(sorted(parsed.request.unwrap()), sorted(request));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".*", cut in any::<proptest::sample::Index>(), request in any_request()) {
        let _ = parse_request(&text);
        let json = request.to_json(None);
        let at = json.floor_char_boundary(cut.index(json.len()));
        let _ = parse_request(&json[..at]);
        let _ = parse_request(&format!("{}{text}{}", &json[..at], &json[at..]));
    }
}

/// Pushes drop no good entry and keep their order; environments are compared as sets.
fn sorted(mut request: Request) -> Request {
    if let Request::Spawn(spawn) = &mut request {
        spawn.options.env.sort();
    }
    request
}
