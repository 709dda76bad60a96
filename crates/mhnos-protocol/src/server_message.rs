//! The client's side of the contract: what the service sends, typed.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::fields::Fields;
use crate::files::{Bounds, scan_entries};
use crate::scan::{Raw, Scanner};
use crate::{
    Attached, Authenticated, BadEntry, Connected, Egress, ErrorReply, Event, Exit, FileEntry, Gap, Killed,
    Malformed, OfPid, Pid, Port, PortList, ProcessList, PushResults, Reply, Size, Spawned, Status, Stream,
    binary,
};

/// One message from the service.
#[derive(Debug)]
pub enum ServerMessage {
    /// `stdout` or `stderr`.
    Output(Output),
    /// Something the service tells.
    Event(Event),
    /// An answer.
    Reply {
        /// The `id` of the request it answers.
        id: Option<Box<RawValue>>,
        /// The answer.
        reply: Reply,
    },
    /// The answer to a pull.
    Pulled {
        /// The `id` of the request it answers.
        id: Option<Box<RawValue>>,
        /// What the workspace holds.
        files: Vec<FileEntry>,
    },
    /// A `type` this client does not know; to be ignored.
    Unknown {
        /// The type.
        kind: String,
    },
}

/// One frame of output, however it was encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Which stream.
    pub stream: Stream,
    /// Whose.
    pub pid: Pid,
    /// The position just after `data`; absent in 1.0.
    pub seq: Option<u64>,
    /// The bytes; of a text frame, its UTF-8.
    pub data: Vec<u8>,
}

/// What came is no message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent what is no message of this protocol: {reason}")]
pub struct NotAServerMessage {
    /// Why.
    pub reason: String,
    /// Set if it is JSON with a type, as a later version may send with values that are not known yet: what comes
    /// behind it can be read all the same.
    pub unread: Option<Unread>,
}

/// What is known of a message whose fields are not those of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Its type.
    pub kind: String,
    /// Its `id`, as JSON.
    pub id: Option<String>,
    /// Its `pid`.
    pub pid: Option<Pid>,
}

/// Reads a text frame.
pub fn parse_server_message(text: &str) -> Result<ServerMessage, NotAServerMessage> {
    let refuse = |reason: String| NotAServerMessage { reason, unread: None };
    let mut fields = Fields::new("", ["type", "id", "pid", "seq", "data", "encoding", "operation"]);
    let mut files = None;
    let mut scanner = Scanner::new(text);
    scanner
        .object(|scanner, key| {
            if key == "files" {
                files = Some(scan_entries(scanner, Bounds::PULL)?);
                return Ok(());
            }
            fields.field(scanner, &key)
        })
        .and_then(|()| scanner.end())
        .map_err(|malformed| refuse(malformed.text))?;
    let kind = fields.raw("type").and_then(Raw::as_string).ok_or_else(|| refuse("no type".to_owned()))?;
    whole(&kind, &fields, files, text).map_err(|reason| {
        let id = fields.raw("id").map(|raw| raw.0.to_owned());
        let unread = Unread { kind: kind.to_string(), id, pid: fields.pid().ok() };
        NotAServerMessage { reason, unread: Some(unread) }
    })
}

/// `files`, as far as they can be read.
type Files = Result<Vec<Result<FileEntry, BadEntry>>, Malformed>;

/// A message of this type.
fn whole(
    kind: &str,
    fields: &Fields<'_, 7>,
    files: Option<Files>,
    text: &str,
) -> Result<ServerMessage, String> {
    let stream = match kind {
        "stdout" => Some(Stream::Stdout),
        "stderr" => Some(Stream::Stderr),
        _ => None,
    };
    if let Some(stream) = stream {
        return output(stream, fields).map(ServerMessage::Output).map_err(|malformed| malformed.text);
    }
    let id = fields.raw("id").and_then(|raw| RawValue::from_string(raw.0.to_owned()).ok());
    if let Some(files) = files.filter(|_| kind != "error") {
        let entries = files.map_err(|malformed| malformed.text)?;
        let files: Result<Vec<FileEntry>, _> = entries.into_iter().collect();
        let files = files.map_err(|bad| format!("{}: {}", bad.path, bad.malformed))?;
        return Ok(ServerMessage::Pulled { id, files });
    }
    typed(kind, id, text).map_err(|error| format!("{kind}: {error}"))
}

impl ServerMessage {
    /// Reads a binary frame.
    pub fn from_binary(frame: &[u8]) -> Result<Self, NotAServerMessage> {
        let output = binary::decode_output(frame)
            .map_err(|malformed| NotAServerMessage { reason: malformed.text, unread: None })?;
        Ok(Self::Output(Output {
            stream: output.stream,
            pid: output.pid,
            seq: Some(output.seq),
            data: output.data.to_vec(),
        }))
    }
}

fn output(stream: Stream, fields: &Fields<'_, 7>) -> Result<Output, Malformed> {
    let encoding = fields.optional("encoding", crate::parse::encoding)?.unwrap_or(crate::Encoding::Utf8);
    let data =
        fields.required("data", "the output", |field, raw| crate::parse::data_bytes(field, raw, encoding))?;
    let seq = fields.optional("seq", crate::fields::position)?;
    Ok(Output { stream, pid: fields.pid()?, seq, data })
}

fn typed(kind: &str, id: Option<Box<RawValue>>, text: &str) -> Result<ServerMessage, serde_json::Error> {
    #[derive(Deserialize)]
    struct Pong {
        time: u64,
    }
    #[derive(Deserialize)]
    struct Pushed {
        results: PushResults,
    }
    fn body<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
        serde_json::from_str(text)
    }
    let reply = match kind {
        "connected" => return Ok(ServerMessage::Event(Event::Connected(body::<Connected>(text)?))),
        "exit" => return Ok(ServerMessage::Event(Event::Exit(body::<Exit>(text)?))),
        "gap" => return Ok(ServerMessage::Event(Event::Gap(body::<Gap>(text)?))),
        "size" => return Ok(ServerMessage::Event(Event::Size(body::<Size>(text)?))),
        "egress" => return Ok(ServerMessage::Event(Event::Egress(body::<Egress>(text)?))),
        "port" => return Ok(ServerMessage::Event(Event::Port(body::<Port>(text)?))),
        "spawned" => Reply::Spawned(body::<Spawned>(text)?),
        "attached" => Reply::Attached(body::<Attached>(text)?),
        "detached" => Reply::Detached(body::<OfPid>(text)?),
        "written" => Reply::Written(body::<OfPid>(text)?),
        "stdinClosed" => Reply::StdinClosed(body::<OfPid>(text)?),
        "resized" => Reply::Resized(body::<OfPid>(text)?),
        "killed" => Reply::Killed(body::<Killed>(text)?),
        "processList" => Reply::ProcessList(body::<ProcessList>(text)?),
        "ports" => Reply::Ports(body::<PortList>(text)?),
        "previewRevoked" => Reply::PreviewRevoked(body::<OfPid>(text)?),
        "status" => Reply::Status(Box::new(body::<Status>(text)?)),
        "pong" => Reply::Pong { time: body::<Pong>(text)?.time },
        "authenticated" => Reply::Authenticated(body::<Authenticated>(text)?),
        "fsyncResult" => Reply::Pushed(body::<Pushed>(text)?.results),
        "error" => Reply::Error(body::<ErrorReply>(text)?),
        _ => return Ok(ServerMessage::Unknown { kind: kind.to_owned() }),
    };
    Ok(ServerMessage::Reply { id, reply })
}
