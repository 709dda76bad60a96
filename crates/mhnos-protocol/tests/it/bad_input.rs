//! Every kind of bad input that an earlier server was seen to mishandle, and its kin: what is sent, the
//! code, and a part of the text that names the field and what was given.

use mhnos_protocol::ErrorCode::{self, *};
use mhnos_protocol::{limits, parse_request, parse_request_bytes};

#[track_caller]
fn check(input: &str, code: ErrorCode, part: &str) {
    let shown: String = input.chars().take(200).collect();
    let malformed = parse_request(input).request.expect_err(&shown);
    assert_eq!(malformed.code, code, "{shown}: {malformed}");
    assert!(malformed.text.contains(part), "{shown}: {malformed}");
    assert!(malformed.text.len() < 600, "{shown}: the text is short");
}

#[test]
fn what_is_not_one_json_object_is_an_invalid_message() {
    for input in [
        "",
        " ",
        "\u{feff}{\"type\":\"ping\"}",
        "{",
        "}",
        "{}{}",
        "{\"type\":\"ping\"} {\"type\":\"ping\"}",
        "null",
        "42",
        "\"s\"",
        "[]",
        "true",
        "nul",
        "{\"type\":\"ping\",}",
        "{'type':'ping'}",
        "{type:\"ping\"}",
        "{\"type\":\"ping\"",
        "{\"type\"}",
        "{\"type\":}",
        "{\"type\":\"pi\nng\"}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":+1}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":[1,]}",
        "{\"a\":[1 2]}",
        "{\"a\":tru}",
        "// {}",
        "{\"files\":[1,2,}",
        "{\"files\":[{\"content\":[1,2,]}]}",
        "{\"files\":[{\"content\":[01]}]}",
        "{\"files\":[{\"content\":[,]}]}",
    ] {
        check(input, InvalidMessage, "Invalid message format");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_an_invalid_message() {
    let malformed = parse_request_bytes(b"{\"type\":\"ping\",\"id\":\"\xff\"}").request.unwrap_err();
    assert_eq!(malformed.code, InvalidMessage);
    assert!(parse_request_bytes(b"{\"type\":\"ping\"}").request.is_ok());
}

#[test]
fn nesting_is_bounded_and_costs_no_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |levels: usize| {
            format!("{{\"type\":\"ping\",\"x\":{}1{}}}", open.repeat(levels), close.repeat(levels))
        };
        assert!(parse_request(&nested(limits::MAX_DEPTH - 1)).request.is_ok());
        check(&nested(limits::MAX_DEPTH), InvalidMessage, "nested deeper than 128");
        check(&nested(1_000_000), InvalidMessage, "nested deeper than 128");
    }
    check(&"{\"a\":".repeat(1_000_000), InvalidMessage, "nested deeper than 128");
    check(&"[".repeat(1_000_000), InvalidMessage, "expected an object at byte 0");
}

#[test]
fn unknown_types_get_an_answer_whatever_javascript_objects_inherit() {
    for kind in ["constructor", "toString", "__proto__", "hasOwnProperty", "s3status", "", "PING", "ping "] {
        check(
            &format!(r#"{{"type":"{kind}","id":1}}"#),
            UnknownType,
            &format!("Unknown message type: {kind}"),
        );
    }
    check("{}", UnknownType, "Unknown message type: undefined");
    check(r#"{"type":null}"#, UnknownType, "null");
    check(r#"{"type":5}"#, UnknownType, "5");
    check(r#"{"type":["ping"]}"#, UnknownType, r#"["ping"]"#);
    check(r#"{"type":{"toString":"ping"}}"#, UnknownType, "toString");
    let long = "x".repeat(1_000_000);
    check(&format!(r#"{{"type":"{long}"}}"#), UnknownType, "…");
    check(r#"{"type":"a\u0000\u001b[31m"}"#, UnknownType, "a\u{fffd}\u{fffd}[31m");
}

#[test]
fn spawn_refuses_what_it_cannot_use() {
    let spawn =
        |rest: &str| format!(r#"{{"type":"spawn","id":"r","processType":"node","command":"a.js"{rest}}}"#);
    let cases: &[(&str, ErrorCode, &str)] = &[
        (r#","command":5"#, InvalidValue, "command must be a string, got 5"),
        (r#","command":["a"]"#, InvalidValue, "command must be a string"),
        (r#","command":"a\u0000b""#, InvalidValue, "command must be a string without NUL bytes"),
        (r#","args":"abc""#, InvalidValue, r#"args must be an array of strings, got "abc""#),
        (r#","args":7"#, InvalidValue, "args must be an array of strings, got 7"),
        (r#","args":null"#, InvalidValue, "args must be an array of strings, got null"),
        (r#","args":{"0":"a"}"#, InvalidValue, "args must be an array of strings"),
        (r#","args":["a",5]"#, InvalidValue, "args[1] must be a string, got 5"),
        (r#","args":[null]"#, InvalidValue, "args[0] must be a string, got null"),
        (r#","args":["x","y","a\u0000b"]"#, InvalidValue, "args[2] must be a string without NUL bytes"),
        (r#","options":null"#, InvalidValue, "options must be an object, got null"),
        (r#","options":"cwd""#, InvalidValue, "options must be an object"),
        (r#","options":[]"#, InvalidValue, "options must be an object"),
        (r#","options":{"cwd":5}"#, InvalidValue, "options.cwd must be a string, got 5"),
        (r#","options":{"cwd":"a\u0000"}"#, InvalidValue, "options.cwd must be a string without NUL"),
        (r#","options":{"env":"A=1"}"#, InvalidValue, "options.env must be an object"),
        (r#","options":{"env":["A=1"]}"#, InvalidValue, "options.env must be an object"),
        (r#","options":{"env":{"A":null}}"#, InvalidValue, "options.env.A must be a string, a number"),
        (r#","options":{"env":{"A":{}}}"#, InvalidValue, "options.env.A must be"),
        (r#","options":{"env":{"A":[1]}}"#, InvalidValue, "options.env.A must be"),
        (r#","options":{"env":{"A":"x\u0000"}}"#, InvalidValue, "options.env.A must be a string without NUL"),
        (r#","options":{"env":{"":"x"}}"#, InvalidValue, "options.env keys"),
        (r#","options":{"env":{"A=B":"x"}}"#, InvalidValue, "options.env keys"),
        (r#","options":{"env":{"A\u0000":"x"}}"#, InvalidValue, "options.env keys"),
        (r#","options":{"timeout":"5s"}"#, InvalidValue, "options.timeout must be a whole number"),
        (r#","options":{"timeout":-1}"#, InvalidValue, "options.timeout must be a whole number"),
        (r#","options":{"timeout":1.5}"#, InvalidValue, "options.timeout must be a whole number"),
        (r#","options":{"timeout":true}"#, InvalidValue, "options.timeout must be a whole number"),
        (r#","options":{"pty":1}"#, InvalidValue, "options.pty must be true, false or {cols, rows}"),
        (r#","options":{"pty":"yes"}"#, InvalidValue, "options.pty must be"),
        (r#","options":{"pty":{}}"#, MissingField, "options.pty.cols is missing"),
        (r#","options":{"pty":{"cols":80}}"#, MissingField, "options.pty.rows is missing"),
        (
            r#","options":{"pty":{"cols":80,"rows":0}}"#,
            InvalidValue,
            "options.pty.rows must be a whole number",
        ),
        (r#","options":{"stdin":"inherit"}"#, InvalidValue, r#"options.stdin must be "pipe" or "null""#),
        (r#","options":{"stdin":false}"#, InvalidValue, "options.stdin must be"),
        (r#","options":{"limits":5}"#, InvalidValue, "options.limits must be an object"),
        (r#","options":{"limits":{"memory":"1g"}}"#, InvalidValue, "options.limits.memory must be"),
        (r#","options":{"limits":{"memory":0}}"#, InvalidValue, "options.limits.memory must be"),
        (r#","options":{"limits":{"pids":-5}}"#, InvalidValue, "options.limits.pids must be"),
        (r#","options":{"limits":{"cpu":0}}"#, InvalidValue, "options.limits.cpu must be"),
        (r#","options":{"limits":{"cpu":1e99}}"#, InvalidValue, "options.limits.cpu must be"),
        (
            r#","options":{"isolation":"none"}"#,
            InvalidValue,
            r#"options.isolation must be "shared" or "private""#,
        ),
        (r#","options":{"name":5}"#, InvalidValue, "options.name must be a string"),
        (r#","options":{"name":"a\u001bb"}"#, InvalidValue, "options.name must be a string without control"),
        (
            r#","options":{"encoding":"latin1"}"#,
            InvalidValue,
            r#"options.encoding must be "utf8" or "base64""#,
        ),
    ];
    for (rest, code, part) in cases {
        check(&spawn(rest), *code, part);
    }
    for given in [r#""""#, r#""ruby""#, r#""Node""#, r#""constructor""#, "null", "5", r#"["node"]"#] {
        let input = format!(r#"{{"type":"spawn","id":1,"processType":{given}}}"#);
        check(&input, UnknownProcessType, &format!("Unknown process type: {}", given.trim_matches('"')));
    }
    check(r#"{"type":"spawn","id":1}"#, UnknownProcessType, "Unknown process type: undefined");
}

#[test]
fn more_than_a_program_can_be_given_is_refused_before_anything_starts() {
    let spawn = |rest: &str| format!(r#"{{"type":"spawn","processType":"node","command":"a.js",{rest}}}"#);
    let long = "x".repeat(limits::MAX_ARG_BYTES + 1);
    check(&spawn(&format!(r#""args":["{long}"]"#)), ArgumentsTooLong, "args[0] is too long");
    check(&spawn(&format!(r#""options":{{"env":{{"A":"{long}"}}}}"#)), ArgumentsTooLong, "options.env.A");
    let some = format!("\"{}\"", "x".repeat(100_000));
    check(&spawn(&format!(r#""args":[{}]"#, vec![some.as_str(); 30].join(","))), ArgumentsTooLong, "E2BIG");
    let many = vec!["\"\""; limits::MAX_ARGS + 1].join(",");
    check(&spawn(&format!(r#""args":[{many}]"#)), ArgumentsTooLong, "args has more than");
    let many: Vec<String> = (0..=limits::MAX_ENV).map(|n| format!("\"v{n}\":1")).collect();
    let many = many.join(",");
    check(
        &spawn(&format!(r#""options":{{"env":{{{many}}}}}"#)),
        ArgumentsTooLong,
        "options.env has more than",
    );
    let long = "x".repeat(limits::MAX_PATH_BYTES + 1);
    check(&spawn(&format!(r#""options":{{"cwd":"{long}"}}"#)), InvalidValue, "options.cwd must be at most");
    let long = "x".repeat(limits::MAX_NAME_BYTES + 1);
    check(&spawn(&format!(r#""options":{{"name":"{long}"}}"#)), InvalidValue, "options.name must be at most");
}

#[test]
fn pids_are_whole_numbers() {
    for kind in ["attach", "detach", "write", "closeStdin", "resize", "kill"] {
        check(&format!(r#"{{"type":"{kind}"}}"#), MissingField, "pid is missing");
        for given in [r#""1000""#, "null", "1000.5", "-1", "4294967296", "1e99", "{}", "[1000]", "true"] {
            let input = format!(r#"{{"type":"{kind}","pid":{given},"data":"x","cols":80,"rows":24}}"#);
            check(&input, InvalidValue, "pid must be a process's number");
        }
    }
}

#[test]
fn write_takes_strings_only() {
    for given in ["5", "null", "true", "{}", "[104,105]"] {
        let input = format!(r#"{{"type":"write","id":1,"pid":1000,"data":{given}}}"#);
        check(&input, InvalidValue, &format!("data must be a string, got {given}"));
    }
    check(r#"{"type":"write","pid":1000}"#, MissingField, "data is missing");
    for given in ["%%%", "aGk", "aGk=\\n", "a", "-_-_", "é"] {
        let input = format!(r#"{{"type":"write","pid":1000,"encoding":"base64","data":"{given}"}}"#);
        check(&input, InvalidValue, "data must be base64");
    }
    check(r#"{"type":"write","pid":1,"data":"","encoding":"hex"}"#, InvalidValue, "encoding must be");
}

#[test]
fn resize_takes_terminal_sizes_only() {
    for given in ["0", "-5", "null", r#""80""#, "80.5", "1e9", "65536", "{}"] {
        let cols = format!(r#"{{"type":"resize","pid":1000,"cols":{given},"rows":24}}"#);
        check(&cols, InvalidValue, "cols must be a whole number from 1 to 65535");
        let rows = format!(r#"{{"type":"resize","pid":1000,"cols":80,"rows":{given}}}"#);
        check(&rows, InvalidValue, "rows must be a whole number from 1 to 65535");
    }
    check(r#"{"type":"resize","pid":1000,"cols":80}"#, MissingField, "rows is missing");
    check(r#"{"type":"resize","pid":1000}"#, MissingField, "cols is missing");
}

#[test]
fn kill_takes_known_signals_only() {
    for given in [r#""SIGFOO""#, r#""SIG""#, "-1", "{}", "[]", "true", "64", "9.5", r#""0""#, r#""nein""#] {
        let input = format!(r#"{{"type":"kill","id":1,"pid":1000,"signal":{given}}}"#);
        check(&input, UnknownSignal, &format!("Unknown signal: {}", given.trim_matches('"')));
    }
    check(r#"{"type":"kill","pid":1,"scope":"all"}"#, InvalidValue, r#"scope must be "tree" or "leader""#);
}

#[test]
fn the_rest_is_strict_too() {
    check(r#"{"type":"list","all":"yes"}"#, InvalidValue, "all must be true or false");
    for given in ["-1", "1.5", r#""0""#, "1e30", "{}"] {
        let input = format!(r#"{{"type":"attach","pid":1000,"after":{given}}}"#);
        check(&input, InvalidValue, "after must be a position");
    }
    check(r#"{"type":"attach","pid":1000,"encoding":5}"#, InvalidValue, "encoding must be");
    for given in [r#""sync""#, "null", "5", r#"["push"]"#] {
        let input = format!(r#"{{"type":"fsync","operation":{given}}}"#);
        check(&input, UnknownOperation, &format!("Unknown operation: {}", given.trim_matches('"')));
    }
    check(r#"{"type":"fsync"}"#, UnknownOperation, "Unknown operation: undefined");
}

#[test]
fn an_error_keeps_the_id_whenever_the_message_is_json() {
    for id in ["1", "\"req-1\"", "null", "{\"a\":[1,2]}", "1.50", "\"\\u00e9\\ud800\"", "[]", "true"] {
        let parsed = parse_request(&format!(r#"{{"type":"spawn","processType":7,"id": {id} }}"#));
        assert!(parsed.request.is_err());
        assert_eq!(parsed.id.expect("an id").get(), id);
    }
    assert!(parse_request(r#"{"type":"nope"}"#).id.is_none());
    assert!(parse_request(r#"{"id":1,"type":"ping""#).id.is_none());
}

#[test]
fn an_id_cannot_be_used_to_make_the_service_talk() {
    let long = "x".repeat(limits::MAX_ID_BYTES);
    let parsed = parse_request(&format!(r#"{{"type":"ping","id":"{long}"}}"#));
    assert!(parsed.id.is_none());
    assert_eq!(parsed.request.unwrap_err().code, InvalidValue);
}
