//! Tokens: who is let in by one, what each may do, and that it is found nowhere but where it belongs.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use mhnos_testing::{Options, Scratch, Server, Wire, WireOptions, eventually, http_get};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{
    abuse::strict_hosts,
    options,
    requests::{assert_serves, bash, bridge},
};

const TOKEN: &str = "correct-horse-battery-staple";
const VIEW: &str = "look-but-do-not-touch-anything";

/// A service with tokens in the environment and in a file.
struct Guarded {
    server: Server,
    file: std::path::PathBuf,
    _scratch: Scratch,
}

fn guarded() -> Guarded {
    let scratch = Scratch::new();
    let file = scratch.path().join("tokens");
    // Readable for the account the service becomes, as a change is to be seen.
    fs::write(&file, format!("# people\nscreen view {VIEW}\n")).expect("written");
    let with =
        options().env("MHNOS_AUTH_TOKEN", TOKEN).env("MHNOS_AUTH_TOKEN_FILE", file.display().to_string());
    Guarded { server: Server::start(with), file, _scratch: scratch }
}

fn bearer(token: &str) -> WireOptions {
    WireOptions::modern().header("Authorization", &format!("Bearer {token}"))
}

fn refused_with(error: &Error) -> u16 {
    let Error::Http(response) = error else { panic!("not refused: {error}") };
    response.status().as_u16()
}

#[tokio::test]
async fn a_token_is_shown_in_a_header_a_subprotocol_or_the_first_message() {
    let server = guarded().server;
    let address = server.address();
    let mut by_header = Wire::connect_as(address, bearer(TOKEN)).await;
    assert_serves(&mut by_header).await;
    let offered = format!("mhnos.v1, mhnos.token.{TOKEN}");
    let mut by_offer =
        Wire::connect_as(address, WireOptions::default().header("Sec-WebSocket-Protocol", &offered)).await;
    assert_serves(&mut by_offer).await;

    let mut by_message = Wire::open(address, WireOptions::modern()).await.expect("it may still show one");
    by_message.send(&json!({"type": "auth", "id": "me", "token": VIEW})).await;
    assert_eq!(by_message.next().await["type"], "connected");
    let answer = by_message.next().await;
    assert_eq!(answer, json!({"type": "authenticated", "id": "me", "name": "screen", "scope": "view"}));
    assert_serves(&mut by_message).await;

    for wrong in ["wrong-but-long-enough", "", &TOKEN[1..], &format!("{TOKEN}x")] {
        let error = Wire::open(address, bearer(wrong)).await.expect_err("not known");
        assert_eq!(refused_with(&error), 401, "{wrong:?}");
    }
    server.logged(Duration::from_secs(30), "refused a token");
}

#[tokio::test]
async fn nothing_is_taken_before_the_token() {
    let server = guarded().server;
    for (first, id) in [
        (json!({"type": "list", "id": 1}), Some(1)),
        (json!({"type": "auth", "id": 2, "token": "wrong-but-long-enough"}), Some(2)),
        (json!({"type": "auth", "id": 3, "token": [TOKEN]}), Some(3)),
        (json!("nonsense"), None),
    ] {
        let mut wire = Wire::open(server.address(), WireOptions::modern()).await.expect("a handshake");
        wire.send(&first).await;
        wire.send(&json!({"type": "auth", "token": TOKEN})).await;
        let answer = wire.next().await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("UNAUTHORIZED")), "{answer}");
        assert_eq!(answer["id"].as_i64(), id, "{answer}");
        assert_eq!(wire.closed().await.map(|close| u16::from(close.code)), Some(1008), "{first}");
    }
}

#[tokio::test]
async fn health_tells_little_without_a_token() {
    let server = guarded().server;
    let health = |headers: &[&str]| http_get(server.address(), "/health", headers).expect("an answer");
    assert_eq!(health(&[]).body, r#"{"status":"ok"}"#);
    let whole = health(&[&format!("Authorization: Bearer {TOKEN}")]);
    assert!(whole.body.contains("\"version\"") && whole.body.contains("\"processes\""), "{whole:?}");
    let wrong = health(&["Authorization: Bearer wrong-but-long-enough"]);
    assert_eq!((wrong.status, wrong.header("www-authenticate").is_some()), (401, true), "{wrong:?}");
    let other = http_get(server.address(), "/other", &[]).expect("an answer");
    assert_eq!(other.status, 401, "{other:?}");
    assert!(other.body.contains("Authorization: Bearer"), "{other:?}");
}

#[tokio::test]
async fn a_view_token_looks_on() {
    let server = guarded().server;
    let mut owner = Wire::connect_as(server.address(), bearer(TOKEN)).await;
    let pid = owner.spawn(bash("echo shown; read line; echo $line")).await;
    owner.stdout_until(pid, "shown").await;
    let mut viewer = Wire::connect_as(server.address(), bearer(VIEW)).await;
    for refused in [
        json!({"type": "spawn", "processType": "shell", "command": "bash", "args": ["-c", "true"]}),
        json!({"type": "write", "pid": pid, "data": "no\n"}),
        json!({"type": "closeStdin", "pid": pid}),
        json!({"type": "resize", "pid": pid, "cols": 1, "rows": 1}),
        json!({"type": "kill", "pid": pid}),
        json!({"type": "fsync", "operation": "pull"}),
        json!({"type": "fsync", "operation": "push", "files": [{"path": "a", "kind": "file", "content": "x"}]}),
    ] {
        let mut request = refused.clone();
        request["id"] = "no".into();
        let answer = viewer.request(request).await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!("NOT_ALLOWED")),
            "{refused}: {answer}"
        );
    }
    for (allowed, answer) in [("list", "processList"), ("status", "status"), ("ping", "pong")] {
        assert_eq!(viewer.request(json!({"type": allowed, "id": allowed})).await["type"], answer);
    }
    viewer.send(&json!({"type": "attach", "id": 1, "pid": pid})).await;
    assert_eq!(viewer.stdout_until(pid, "shown").await, "shown\n");
    owner.send(&json!({"type": "write", "pid": pid, "data": "end\n"})).await;
    assert_eq!(viewer.run_to_exit(pid).await.0, "end\n");
    assert!(fs::read_dir(server.workspace()).expect("there").next().is_none(), "nothing was pushed");
}

#[tokio::test]
async fn a_token_that_is_removed_ends_its_connections_and_no_others() {
    let guarded = guarded();
    let address = guarded.server.address();
    let mut stays = Wire::connect_as(address, bearer(TOKEN)).await;
    let mut goes = Wire::connect_as(address, bearer(VIEW)).await;
    assert_serves(&mut goes).await;
    fs::write(&guarded.file, "too short\n").expect("written");
    guarded.server.logged(Duration::from_secs(30), "the token file is wrong");
    assert_serves(&mut goes).await;
    fs::write(&guarded.file, "screen view another-token-altogether\n").expect("written");
    let close = goes.closed().await.expect("a close frame");
    assert_eq!(u16::from(close.code), 1008, "{close:?}");
    assert_eq!(refused_with(&Wire::open(address, bearer(VIEW)).await.expect_err("gone")), 401);
    assert_serves(&mut Wire::connect_as(address, bearer("another-token-altogether")).await).await;
    assert_serves(&mut stays).await;
}

/// However much there is to send: what is written from then on is not this client's to see.
#[tokio::test]
async fn a_token_that_is_removed_ends_its_connections_amid_a_flood() {
    let guarded = guarded();
    let address = guarded.server.address();
    let pid = Wire::connect_as(address, bearer(TOKEN)).await.spawn(bash("exec yes")).await;
    let mut goes = Wire::connect_as(address, bearer(VIEW)).await;
    goes.send(&json!({"type": "attach", "id": 1, "pid": pid})).await;
    goes.stdout_until(pid, "y").await;
    fs::write(&guarded.file, "screen view another-token-altogether\n").expect("written");
    while goes.next_or_end().await.is_some() {}
    let close = goes.closed().await.expect("a close frame");
    assert_eq!(u16::from(close.code), 1008, "{close:?}");
}

#[tokio::test]
async fn whoever_has_shown_no_token_yet_is_told_that_the_service_goes_too() {
    let server = guarded().server;
    for (signal, code) in [(Signal::USR2, 1012), (Signal::TERM, 1001)] {
        let mut wire =
            Wire::open(server.address(), WireOptions::modern()).await.expect("it may still show one");
        server.signal(signal);
        assert_eq!(wire.closed().await.map(|close| u16::from(close.code)), Some(code), "{signal:?}");
        if signal == Signal::USR2 {
            server.logged(Duration::from_secs(20), "the new bridge has taken over");
        }
    }
}

#[tokio::test]
async fn tokens_hold_over_a_bridge_that_is_killed() {
    let server = guarded().server;
    let mut wire = Wire::connect_as(server.address(), bearer(TOKEN)).await;
    let before = bridge(&server).expect("a bridge");
    rustix::process::kill_process(before, Signal::KILL).expect("killed");
    assert!(wire.closed().await.is_none());
    eventually(Duration::from_secs(30), "another bridge", || bridge(&server).filter(|now| *now != before));
    assert_serves(&mut Wire::connect_as(server.address(), bearer(TOKEN)).await).await;
    assert_eq!(
        refused_with(
            &Wire::open(server.address(), bearer("wrong-but-long-enough")).await.expect_err("refused")
        ),
        401
    );
}

/// Everything of a process that others might see, its writable memory included.
fn exposed(pid: i32) -> Vec<u8> {
    let mut all = Vec::new();
    for name in ["environ", "cmdline", "status", "comm"] {
        all.extend(fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default());
    }
    let Ok(memory) = fs::File::open(format!("/proc/{pid}/mem")) else { return all };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    for line in
        maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|flags| flags.starts_with("rw")))
    {
        let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) else {
            continue;
        };
        let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16)) else {
            continue;
        };
        let mut page = vec![0; 4096];
        for at in (from..to).step_by(page.len()) {
            if memory.read_exact_at(&mut page, at).is_err() {
                break;
            }
            all.extend_from_slice(&page);
        }
    }
    all
}

fn has(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// Abuse 41: whatever a program, a client or an account of this machine can look at.
#[tokio::test]
async fn the_token_is_found_nowhere_outside_the_bridge() {
    let server = guarded().server;
    let mut wire = Wire::connect_as(server.address(), bearer(TOKEN)).await;
    let script =
        "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; echo done; read line";
    let pid = wire.spawn(bash(script)).await;
    let mut seen = wire.stdout_until(pid, "done").await;
    for request in [json!({"type": "list", "id": 1}), json!({"type": "status", "id": 2})] {
        seen += &wire.request(request).await.to_string();
    }
    Wire::open(server.address(), bearer(&TOKEN.to_uppercase())).await.expect_err("refused");
    seen += &server.log();
    assert!(!seen.contains(TOKEN) && !seen.contains(&TOKEN.to_uppercase()), "{seen}");

    let the_bridge = bridge(&server).expect("a bridge").as_raw_nonzero().get();
    let others: Vec<i32> = server.descendants().iter().map(|process| process.os_pid).collect();
    assert!(others.len() > 2, "bridge, init, supervisor, program");
    for process in others.into_iter().chain([server.os_pid()]).filter(|process| *process != the_bridge) {
        assert!(
            !has(&exposed(process), TOKEN),
            "process {process}: {:?}",
            fs::read_to_string(format!("/proc/{process}/comm"))
        );
    }
    assert!(has(&exposed(the_bridge), TOKEN), "the search finds what is there");
    assert!(!has(&fs::read(format!("/proc/{the_bridge}/environ")).expect("root reads it"), TOKEN));
    for process in [the_bridge, server.os_pid()] {
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).expect("there");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
        // Now, and it can never be raised again.
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
        // What belongs to root though the process does not is what nobody else may look into.
        assert_eq!(fs::metadata(format!("/proc/{process}/environ")).expect("there").uid(), 0);
    }
}

#[test]
fn a_token_file_that_programs_could_read_stops_the_start_in_any_tier() {
    for host in strict_hosts() {
        let scratch = Scratch::new();
        let workspace = scratch.path().join("workspace");
        fs::create_dir(&workspace).expect("made");
        let at = |file: &Path| {
            fs::write(file, format!("{TOKEN}\n")).expect("written");
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("ours");
            let with = options().env("MHNOS_AUTH_TOKEN_FILE", file.display().to_string());
            Server::try_start(with.workspace(&workspace).on(host))
        };
        let failure = at(&workspace.join("tokens")).expect_err("refused");
        assert!(failure.stderr.contains("programs could read the file of"), "{host}: {}", failure.stderr);
        // The control: as readable, and out of sight.
        let unseen = Path::new("/var/tmp").join(format!("mhnos-tokens-{}", std::process::id()));
        at(&unseen).expect("starts");
        fs::remove_file(unseen).expect("ours");
    }
}

#[test]
fn wrong_tokens_stop_the_start_and_are_not_repeated() {
    let scratch = Scratch::new();
    let file = scratch.path().join("tokens");
    fs::write(&file, "a view secret\n").expect("written");
    let check = |options: Options, expected: &str| {
        let failure = Server::try_start(options).expect_err("refused");
        assert_eq!(failure.status.code(), Some(2), "{failure:?}");
        assert!(failure.stderr.contains(expected) && !failure.stderr.contains("secret\""), "{failure:?}");
    };
    check(options().env("MHNOS_AUTH_TOKEN", "secret"), "MHNOS_AUTH_TOKEN");
    check(options().env("MHNOS_AUTH_TOKEN_FILE", file.display().to_string()), "line 1");
    check(options().env("MHNOS_AUTH_TOKEN_FILE", "/nowhere/tokens"), "No such file");
    check(options().arg("--auth-token=secret-but-long-enough"), "others can see flags");
    check(options().env("MHNOS_HOST", "0.0.0.0"), "MHNOS_AUTH_TOKEN_FILE");
}

#[tokio::test]
async fn another_address_is_listened_to_with_a_token() {
    let server = Server::start(options().env("MHNOS_HOST", "0.0.0.0").env("MHNOS_AUTH_TOKEN", TOKEN));
    let address = format!("127.0.0.1:{}", server.address().port()).parse().expect("an address");
    let mut wire = Wire::connect_as(address, bearer(TOKEN)).await;
    let answer: Value = wire.request(json!({"type": "auth", "id": 1, "token": "anything"})).await;
    assert_eq!(answer, json!({"type": "authenticated", "id": 1, "name": "default", "scope": "control"}));
    wire.send_message(Message::Close(None)).await.expect("open");
}
