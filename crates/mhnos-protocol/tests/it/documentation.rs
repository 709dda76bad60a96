//! docs/protocol.md against the types: every example is a message that the other side reads.

use std::collections::BTreeSet;

use mhnos_protocol::{ErrorCode, ServerMessage, parse_request, parse_server_message};
use mhnos_testing::doc_examples::{PLACEHOLDERS, Role, Session, sessions, specimen};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");

fn documented() -> Vec<Session> {
    sessions(DOCUMENT).expect("the document is well formed")
}

#[test]
fn every_request_is_one_the_service_reads() {
    let mut seen = BTreeSet::new();
    for step in
        documented().iter().flat_map(|session| &session.steps).filter(|step| step.role == Role::Request)
    {
        let parsed = parse_request(&specimen(&step.message).to_string());
        assert_eq!(parsed.id.is_some(), step.message.get("id").is_some(), "line {}", step.line);
        match parsed.request {
            Ok(request) => _ = seen.insert(request.type_name()),
            Err(malformed) => {
                let text = Value::from(malformed.text);
                let code = serde_json::to_value(malformed.code).expect("a code is JSON");
                assert!(
                    is_expected(&text, &code),
                    "line {}: {text} {code} is not in the document",
                    step.line
                );
            }
        }
    }
    let all =
        "spawn attach detach write closeStdin resize kill list ports revokePreview status ping auth fsync";
    assert_eq!(seen, all.split(' ').collect());
}

/// Whether an example shows this error.
fn is_expected(text: &Value, code: &Value) -> bool {
    let sessions = documented();
    let mut steps = sessions.iter().flat_map(|session| &session.steps);
    steps.any(|step| {
        let message = &step.message;
        message["code"] == *code && (message["error"] == *text || message["error"] == "$STRING")
    })
}

#[test]
fn every_reply_is_one_a_client_reads() {
    let mut seen = BTreeSet::new();
    for step in
        documented().iter().flat_map(|session| &session.steps).filter(|step| step.role != Role::Request)
    {
        let kind = step.message["type"].as_str().expect("a type").to_owned();
        // A part of a message cannot be read as one, nor one whose parts are not shown.
        let whole = step.message.get("$MORE").is_none() && !step.message.to_string().contains("\"$OBJECT\"");
        let read = parse_server_message(&specimen(&step.message).to_string());
        match read {
            Ok(ServerMessage::Unknown { .. }) => panic!("line {}: {kind} is not known", step.line),
            Ok(_) => _ = seen.insert(kind),
            Err(error) if whole => panic!("line {}: {error}", step.line),
            Err(_) => {}
        }
    }
    let all = "connected spawned attached detached written stdinClosed resized killed processList ports \
               previewRevoked status pong authenticated \
               fsyncResult error stdout stderr exit gap port egress size";
    assert_eq!(seen, all.split_whitespace().map(str::to_owned).collect());
}

#[test]
fn every_code_and_every_placeholder_is_documented() {
    for code in ErrorCode::ALL {
        let name = serde_json::to_string(&code).expect("a code is JSON");
        assert!(DOCUMENT.contains(&format!("`{}`", name.trim_matches('"'))), "{name}");
    }
    for (kind, _, _) in PLACEHOLDERS {
        assert!(DOCUMENT.contains(&format!("`${kind}`")), "{kind}");
    }
}
