//! The examples of docs/protocol.md, so that a test can hold them against the service.
//!
//! A fenced block marked `json request` holds messages to send, one marked `json reply` those that come back, in order;
//! `json example` is only looked at. The blocks under one heading are one session on a connection of its own, and the
//! sessions follow each other top to bottom: what one of them pushes, a later one may run.
//!
//! A string that begins with `$` is a placeholder for a kind of value ([`PLACEHOLDERS`]); digits at its end only keep two of
//! a kind apart. `$PID` and `$SEQ` are remembered for the rest of the session: met again, in a reply or a request, they
//! stand for the same value.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::wire::Wire;

/// The kinds of placeholder: what each of them stands for, and a specimen.
pub const PLACEHOLDERS: &[(&str, &str, &str)] = &[
    ("PID", "a process's number, remembered", "1000"),
    ("SEQ", "a position in an output log, remembered", "5"),
    ("TIME", "milliseconds since 1970", "1700000000000"),
    ("NUMBER", "any number", "1"),
    ("STRING", "any string", "\"text\""),
    ("BOOLEAN", "true or false", "true"),
    ("ARRAY", "any array", "[]"),
    ("OBJECT", "any object", "{}"),
    ("ANY", "any value", "null"),
];

/// As the last element of an array or as a key of an object: there may be more that the example does not show.
const MORE: &str = "$MORE";

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sent by the client.
    Request,
    /// Sent by the service after what stands before it.
    Reply,
    /// Shown only.
    Example,
}

/// One message of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The line of the block's fence, from 1.
    pub line: usize,
    /// What it is for.
    pub role: Role,
    /// The message, with its placeholders.
    pub message: Value,
}

/// The messages under one heading.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The heading's text.
    pub heading: String,
    /// In order; never empty.
    pub steps: Vec<Step>,
}

/// Reads the examples of a Markdown document. An error names the line.
pub fn sessions(markdown: &str) -> Result<Vec<Session>, String> {
    let mut sessions: Vec<Session> = Vec::new();
    let mut heading = String::new();
    let mut lines = (1..).zip(markdown.lines());
    while let Some((line, text)) = lines.next() {
        if let Some(info) = text.strip_prefix("```") {
            let body: Vec<&str> =
                lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```").collect();
            let steps = block(line, info, &body.join("\n"))?;
            match sessions.last_mut().filter(|session| session.heading == heading) {
                Some(session) => session.steps.extend(steps),
                None if steps.is_empty() => {}
                None => sessions.push(Session { heading: heading.clone(), steps }),
            }
        } else if text.starts_with('#') {
            text.trim_start_matches('#').trim().clone_into(&mut heading);
        }
    }
    Ok(sessions)
}

fn block(line: usize, info: &str, body: &str) -> Result<Vec<Step>, String> {
    let role = match info.trim() {
        "json request" => Role::Request,
        "json reply" => Role::Reply,
        "json example" => Role::Example,
        other if other.starts_with("json") => {
            return Err(format!("line {line}: '{other}' is neither request, reply nor example"));
        }
        _ => return Ok(Vec::new()),
    };
    let messages = serde_json::Deserializer::from_str(body).into_iter::<Value>();
    let steps: Result<Vec<Step>, _> =
        messages.map(|message| message.map(|message| Step { line, role, message })).collect();
    let steps = steps.map_err(|error| format!("line {line}: {error}"))?;
    match steps.iter().find(|step| !step.message["type"].is_string()) {
        Some(step) => Err(format!("line {line}: {} has no type", step.message)),
        None => Ok(steps),
    }
}

/// The name of a placeholder without its `$`, and its kind.
fn placeholder(value: &Value) -> Option<(&str, &'static str, &'static str)> {
    let name = value.as_str()?.strip_prefix('$')?;
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let (kind, _, specimen) = PLACEHOLDERS.iter().find(|(kind, _, _)| *kind == bare)?;
    Some((name, kind, specimen))
}

/// The message with a specimen in place of each placeholder: something a parser can be tried on.
pub fn specimen(message: &Value) -> Value {
    if let Some((_, _, specimen)) = placeholder(message) {
        return serde_json::from_str(specimen).expect("specimens are JSON");
    }
    match message {
        Value::Array(items) => items.iter().filter(|item| *item != MORE).map(specimen).collect(),
        Value::Object(fields) => {
            let shown = fields.iter().filter(|(key, _)| *key != MORE);
            Value::Object(shown.map(|(key, value)| (key.clone(), specimen(value))).collect())
        }
        other => other.clone(),
    }
}

/// What `$PID` and `$SEQ` have turned out to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered(BTreeMap<String, Value>);

impl Remembered {
    /// A request as it is to be sent.
    pub fn fill(&self, request: &Value) -> Result<Value, String> {
        if let Some((name, _, _)) = placeholder(request) {
            return self.0.get(name).cloned().ok_or_else(|| format!("${name} is not known yet"));
        }
        match request {
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(fields) => {
                let filled: Result<Map<_, _>, _> =
                    fields.iter().map(|(key, value)| Ok((key.clone(), self.fill(value)?))).collect();
                filled.map(Value::Object)
            }
            other => Ok(other.clone()),
        }
    }

    /// Holds a message against what is expected. The error names the place.
    pub fn check(&mut self, expected: &Value, got: &Value) -> Result<(), String> {
        self.compare("", expected, got)
    }

    fn compare(&mut self, place: &str, expected: &Value, got: &Value) -> Result<(), String> {
        if let Some((name, kind, _)) = placeholder(expected) {
            return self.take(place, name, kind, got);
        }
        match (expected, got) {
            (Value::Array(expected), Value::Array(got)) => {
                let shown = expected.split_last().filter(|(last, _)| *last == MORE).map(|(_, shown)| shown);
                let (expected, more) = shown.map_or((&expected[..], false), |shown| (shown, true));
                if got.len() < expected.len() || (got.len() > expected.len() && !more) {
                    return Err(format!(
                        "{place}: {} elements are expected, there are {}",
                        expected.len(),
                        got.len()
                    ));
                }
                let mut pairs = expected.iter().zip(got).enumerate();
                pairs.try_for_each(|(index, (expected, got))| {
                    self.compare(&format!("{place}[{index}]"), expected, got)
                })
            }
            (Value::Object(expected), Value::Object(got)) => self.compare_objects(place, expected, got),
            _ if expected == got => Ok(()),
            _ => Err(format!("{place}: {expected} is expected, it is {got}")),
        }
    }

    fn compare_objects(
        &mut self,
        place: &str,
        expected: &Map<String, Value>,
        got: &Map<String, Value>,
    ) -> Result<(), String> {
        let more = expected.contains_key(MORE);
        if let Some(extra) = got.keys().find(|key| !more && !expected.contains_key(*key)) {
            return Err(format!("{place}.{extra} is not documented"));
        }
        let mut shown = expected.iter().filter(|(key, _)| *key != MORE);
        shown.try_for_each(|(key, expected)| match got.get(key) {
            Some(got) => self.compare(&format!("{place}.{key}"), expected, got),
            None => Err(format!("{place}.{key} is missing")),
        })
    }

    fn take(&mut self, place: &str, name: &str, kind: &str, got: &Value) -> Result<(), String> {
        let fits = match kind {
            "PID" => got.as_u64().is_some_and(|pid| pid >= 1000),
            "SEQ" => got.is_u64(),
            // Later than 2020, in milliseconds: no count of seconds is.
            "TIME" => got.as_u64().is_some_and(|time| time > 1_577_836_800_000),
            "NUMBER" => got.is_number(),
            "STRING" => got.is_string(),
            "BOOLEAN" => got.is_boolean(),
            "ARRAY" => got.is_array(),
            "OBJECT" => got.is_object(),
            _ => true,
        };
        if !fits {
            return Err(format!("{place}: ${name} is expected, it is {got}"));
        }
        if kind == "PID" || kind == "SEQ" {
            let known = self.0.entry(name.to_owned()).or_insert_with(|| got.clone());
            if known != got {
                return Err(format!("{place}: ${name} is {known}, it is {got}"));
            }
        }
        Ok(())
    }
}

/// Plays a session on a connection that was just opened (by [`Wire::open`]: its `connected` not yet taken).
pub async fn play(wire: &mut Wire, session: &Session) -> Result<(), String> {
    let mut remembered = Remembered::default();
    let mut steps = session.steps.iter().filter(|step| step.role != Role::Example).peekable();
    if steps.peek().is_none_or(|step| step.message["type"] != "connected") {
        wire.next().await;
    }
    for step in steps {
        let told = |error: String| format!("'{}', line {}: {error}", session.heading, step.line);
        if step.role == Role::Request {
            wire.send(&remembered.fill(&step.message).map_err(told)?).await;
        } else {
            let got = receive(wire, &step.message).await;
            remembered
                .check(&step.message, &got)
                .map_err(|error| told(format!("{error}\n  the message: {got}")))?;
        }
    }
    Ok(())
}

/// The next message; output that came in more pieces than the example shows is put together.
async fn receive(wire: &mut Wire, expected: &Value) -> Value {
    let mut got = wire.next().await;
    let wanted = if expected["encoding"].is_null() { expected["data"].as_str() } else { None };
    while let (Some(wanted), Some(have)) = (wanted, got["data"].as_str())
        && have.len() < wanted.len()
        && wanted.starts_with(have)
    {
        let have = have.to_owned();
        let mut next = wire.next().await;
        if next["type"] != got["type"] || next["pid"] != got["pid"] {
            return next;
        }
        next["data"] = Value::from(have + next["data"].as_str().unwrap_or_default());
        got = next;
    }
    got
}
