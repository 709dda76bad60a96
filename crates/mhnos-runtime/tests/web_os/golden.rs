//! Golden transcripts: what the page and the service say to each other, recorded in the browser, kept in the repository, and
//! said again to the service by a plain client.
//!
//! A transcript is JSON lines: first the files that stand in the workspace, then `{"send": …}` and `{"receive": …}` in order.
//! What differs from run to run or from machine to machine (times, sizes of windows, what a terminal draws) stands there as
//! "…" and is only required to be there. Output in pieces is one line. In a browser run the frames are compared with the
//! transcript, so that it cannot grow old; `MHNOS_RECORD_GOLDEN=1` writes it anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mhnos_testing::{Server, Wire, WireOptions};
use serde_json::{Map, Value, json};

use crate::options;

/// Stands for a value that is only required to be there.
const ANY: &str = "…";
/// Fields of which only the presence is compared.
const VOLATILE: [&str; 14] = [
    "uptime",
    "version",
    "time",
    "runtime",
    "usage",
    "isolation",
    "startTime",
    "config",
    "limits",
    "tools",
    "seq",
    "mtime",
    "cols",
    "rows",
];

/// Files that stand in the workspace before the page connects: path and bytes.
pub(crate) type Placed = Map<String, Value>;

/// Output of one stream: pid and `stdout` or `stderr`.
type StreamKey = (u64, String);

/// Compares the frames of a page with the transcript of that name.
#[track_caller]
pub(crate) fn check(name: &str, placed: &Placed, frames: Vec<Value>) {
    let steps = joined(frames);
    let path = directory().join(format!("{name}.jsonl"));
    if std::env::var_os("MHNOS_RECORD_GOLDEN").is_some() {
        let lines = std::iter::once(json!({"workspace": placed})).chain(steps.into_iter().map(quiet));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        return;
    }
    let (_, golden) = read(&path);
    let (now, then) = (Projections::of(&steps), Projections::of(&golden));
    assert_eq!(now, then, "the frames are no longer those of {}", path.display());
}

/// What is compared of a transcript: the order of output among the rest depends on the moment.
#[derive(Debug, Default, PartialEq)]
struct Projections {
    sent: Vec<Value>,
    received: Vec<Value>,
    output: BTreeMap<StreamKey, String>,
}

impl Projections {
    fn of(steps: &[Value]) -> Self {
        let mut all = Self::default();
        for step in steps {
            if let Some(sent) = step.get("send") {
                all.sent.push(still(sent.clone()));
            } else if let Some((stream, data)) = output(&step["receive"]) {
                let whole = all.output.entry(stream).or_default();
                if data == ANY || whole == ANY { ANY.clone_into(whole) } else { *whole += data }
            } else {
                all.received.push(still(step["receive"].clone()));
            }
        }
        all
    }
}

/// Joins output that came in pieces; what terminals draw becomes "…".
fn joined(frames: Vec<Value>) -> Vec<Value> {
    let mut terminals = Vec::new();
    let mut steps: Vec<Value> = Vec::new();
    let mut shells = Vec::new();
    for mut frame in frames {
        if frame["send"]["processType"] == "shell" {
            shells.push(frame["send"]["id"].clone());
        }
        if shells.contains(&frame["receive"]["id"]) {
            terminals.push(frame["receive"]["pid"].clone());
        }
        let Some((stream, data)) = output(&frame["receive"]) else {
            steps.push(frame);
            continue;
        };
        let mut data = data.to_owned();
        let before =
            steps.last_mut().filter(|step| output(&step["receive"]).is_some_and(|(one, _)| one == stream));
        let drawn = terminals.contains(&frame["receive"]["pid"]);
        match before {
            Some(_) if drawn => {}
            Some(step) => {
                data.insert_str(0, step["receive"]["data"].as_str().unwrap_or_default());
                step["receive"]["data"] = data.into();
            }
            None => {
                if drawn {
                    frame["receive"]["data"] = ANY.into();
                }
                steps.push(frame);
            }
        }
    }
    steps
}

fn output(frame: &Value) -> Option<(StreamKey, &str)> {
    let kind = frame["type"].as_str().filter(|kind| matches!(*kind, "stdout" | "stderr"))?;
    Some(((frame["pid"].as_u64()?, kind.to_owned()), frame["data"].as_str()?))
}

/// A step as it is written down: what was sent stays as it was.
fn quiet(mut step: Value) -> Value {
    if let Some(received) = step.get_mut("receive") {
        *received = still(received.take());
    }
    step
}

/// A value with everything volatile in it replaced.
fn still(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            // A program may or may not have ended when it is attached to.
            let attached = fields.get("type").is_some_and(|kind| kind == "attached");
            let still_field = |(name, value): (String, Value)| {
                let volatile = VOLATILE.contains(&name.as_str()) || (attached && name == "status");
                let value = if volatile { ANY.into() } else { still(value) };
                (name, value)
            };
            Value::Object(fields.into_iter().map(still_field).collect())
        }
        Value::Array(items) => items.into_iter().map(still).collect(),
        value => value,
    }
}

fn read(path: &Path) -> (Placed, Vec<Value>) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let parse = |line: &str| -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display()))
    };
    let mut lines = text.lines().map(parse);
    let first = lines.next().unwrap_or_default();
    let placed = first["workspace"].as_object().cloned().unwrap_or_default();
    (placed, lines.collect())
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A plain client that says what the page said.
struct Replay {
    wire: Wire,
    name: String,
    output: BTreeMap<StreamKey, String>,
    /// Messages that are not output, not yet compared.
    others: std::collections::VecDeque<Value>,
}

impl Replay {
    async fn run(path: &Path) {
        let (placed, steps) = read(path);
        // What ends, ends by what it was told: there is no grace period that a busy machine could exceed.
        let server = Server::start(options().env("MHNOS_KILL_GRACE", "10m"));
        for (file, content) in &placed {
            let bytes = content.as_array().expect("bytes").iter();
            server.write(file, bytes.map(|byte| byte.as_u64().expect("a byte") as u8).collect::<Vec<u8>>());
        }
        let wire = Wire::open(server.address(), WireOptions::browser()).await.expect("the page is let in");
        let name = path.display().to_string();
        let mut replay =
            Self { wire, name, output: BTreeMap::new(), others: std::collections::VecDeque::new() };
        let mut expected: BTreeMap<StreamKey, String> = BTreeMap::new();
        for step in &steps {
            if let Some(sent) = step.get("send") {
                replay.wire.send(sent).await;
            } else if let Some((stream, data)) = output(&step["receive"]) {
                let whole = expected.entry(stream.clone()).or_default();
                if data == ANY {
                    ANY.clone_into(whole);
                } else {
                    *whole += data;
                }
                replay.read_output(&stream, whole).await;
            } else {
                let received = replay.next_other().await;
                assert_eq!(still(received), still(step["receive"].clone()), "{}", replay.name);
            }
        }
        for (stream, whole) in expected.iter().filter(|(_, whole)| *whole != ANY) {
            assert_eq!(replay.output.get(stream), Some(whole), "{}: {stream:?}", replay.name);
        }
    }

    /// Reads until a stream has as much output as the transcript had here.
    async fn read_output(&mut self, stream: &StreamKey, whole: &str) {
        let wanted = if whole == ANY { 1 } else { whole.len() };
        while self.output.get(stream).map_or(0, String::len) < wanted {
            self.read().await;
        }
    }

    async fn next_other(&mut self) -> Value {
        loop {
            if let Some(message) = self.others.pop_front() {
                return message;
            }
            self.read().await;
        }
    }

    async fn read(&mut self) {
        let message = self.wire.next().await;
        match output(&message) {
            Some((stream, data)) => *self.output.entry(stream).or_default() += data,
            None => self.others.push_back(message),
        }
    }
}

#[tokio::test]
async fn what_the_page_said_is_answered_as_it_was() {
    let mut transcripts: Vec<PathBuf> = std::fs::read_dir(directory())
        .expect("the transcripts are there")
        .map(|entry| entry.expect("a directory of ours").path())
        .collect();
    transcripts.sort();
    assert!(transcripts.len() >= 6, "{transcripts:?}");
    for transcript in &transcripts {
        println!("{}", transcript.display());
        Replay::run(transcript).await;
    }
}
