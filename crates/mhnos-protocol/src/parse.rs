//! From a client's text to a [`Request`], in one pass over the message.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::error::{ErrorCode, Malformed, shorten};
use crate::fields::{Fields, boolean, one_of, position};
use crate::files::{Bounds, scan_entries};
use crate::limits::{MAX_EVENTS, MAX_ID_BYTES};
use crate::request::{Attach, Kill, PresentedToken, Resize, Write};
use crate::scan::{Raw, Scanner};
use crate::spawn_parse::parse_spawn;
use crate::{BadEntry, Encoding, Events, FileEntry, Request, Scope, Signal};

/// What a message turned out to be.
#[derive(Debug)]
pub struct Parsed {
    /// The request's `id`, verbatim, whatever kind of value it is; `None` if it has none (`null` is one).
    /// Kept when the rest of the message is wrong, as long as it is JSON.
    pub id: Option<Box<RawValue>>,
    /// The request, or what is wrong with it.
    pub request: Result<Request, Malformed>,
}

/// Every field of every request. `files` is read apart.
pub(crate) type MessageFields<'a> = Fields<'a, 18>;

const FIELDS: [&str; 18] = [
    "type",
    "id",
    "pid",
    "processType",
    "command",
    "args",
    "options",
    "after",
    "encoding",
    "events",
    "data",
    "cols",
    "rows",
    "signal",
    "scope",
    "all",
    "operation",
    "token",
];

type Entries = Vec<Result<FileEntry, BadEntry>>;

/// Reads one message. Never panics, never recurses deeper than
/// [`MAX_DEPTH`](crate::limits::MAX_DEPTH), and holds at most a small multiple of the message in memory.
pub fn parse_request(text: &str) -> Parsed {
    let mut fields = Fields::new("", FIELDS);
    let mut files = None;
    if let Err(malformed) = read_message(&mut Scanner::new(text), &mut fields, &mut files) {
        return Parsed { id: None, request: Err(malformed) };
    }
    match id(&fields) {
        Ok(id) => Parsed { id, request: request(&fields, files) },
        Err(malformed) => Parsed { id: None, request: Err(malformed) },
    }
}

/// The same for a message that came as bytes: 1.0 clients may send JSON in binary frames.
pub fn parse_request_bytes(bytes: &[u8]) -> Parsed {
    simdutf8::basic::from_utf8(bytes).map_or_else(
        |_| {
            let text = "Invalid message format: it is not UTF-8";
            Parsed { id: None, request: Err(Malformed::new(ErrorCode::InvalidMessage, text)) }
        },
        parse_request,
    )
}

fn read_message<'a>(
    scanner: &mut Scanner<'a>,
    fields: &mut MessageFields<'a>,
    files: &mut Option<Result<Entries, Malformed>>,
) -> Result<(), Malformed> {
    scanner.object(|scanner, key| {
        if key == "files" {
            *files = Some(scan_entries(scanner, Bounds::PUSH)?);
            return Ok(());
        }
        fields.field(scanner, &key)
    })?;
    scanner.end()
}

fn id(fields: &MessageFields<'_>) -> Result<Option<Box<RawValue>>, Malformed> {
    let Some(raw) = fields.raw("id") else { return Ok(None) };
    if raw.0.len() > MAX_ID_BYTES {
        let given = format!("{} bytes", raw.0.len());
        return Err(Malformed::value("id", &format!("at most {MAX_ID_BYTES} bytes of JSON"), &given));
    }
    let id = RawValue::from_string(raw.0.to_owned());
    id.map(Some).map_err(|error| Malformed::new(ErrorCode::InvalidMessage, format!("Invalid id: {error}")))
}

fn request(
    fields: &MessageFields<'_>,
    files: Option<Result<Entries, Malformed>>,
) -> Result<Request, Malformed> {
    let kind = match fields.raw("type") {
        Some(raw) => raw.as_string().ok_or_else(|| unknown_type(raw.0))?,
        None => return Err(unknown_type("undefined")),
    };
    Ok(match &*kind {
        "spawn" => Request::Spawn(Box::new(parse_spawn(fields)?)),
        "attach" => Request::Attach(attach(fields)?),
        "detach" => Request::Detach { pid: fields.pid()? },
        "write" => Request::Write(write(fields)?),
        "closeStdin" => Request::CloseStdin { pid: fields.pid()? },
        "resize" => Request::Resize(Resize { pid: fields.pid()?, size: fields.window_size()? }),
        "kill" => Request::Kill(kill(fields)?),
        "list" => Request::List { all: fields.optional("all", boolean)?.unwrap_or(false) },
        "ports" => Request::Ports { pid: fields.optional("pid", |_, _| fields.pid())? },
        "revokePreview" => Request::RevokePreview { pid: fields.pid()? },
        "status" => Request::Status,
        "ping" => Request::Ping,
        "auth" => Request::Auth(token(fields)?),
        "fsync" => fsync(fields, files)?,
        _ => return Err(unknown_type(&kind)),
    })
}

fn unknown_type(given: &str) -> Malformed {
    Malformed::new(ErrorCode::UnknownType, format!("Unknown message type: {}", shorten(given)))
}

/// What stands there instead of a token is not repeated: it may be one, misplaced.
fn token(fields: &MessageFields<'_>) -> Result<PresentedToken, Malformed> {
    fields.required("token", "the token", |field, raw| {
        let wrong = || Malformed::new(ErrorCode::InvalidValue, format!("{field} must be a string"));
        raw.as_string().map(|text| PresentedToken(text.into_owned())).ok_or_else(wrong)
    })
}

fn attach(fields: &MessageFields<'_>) -> Result<Attach, Malformed> {
    Ok(Attach {
        pid: fields.pid()?,
        after: fields.optional("after", position)?,
        encoding: fields.optional("encoding", encoding)?,
        events: fields.optional("events", events)?.unwrap_or_default(),
    })
}

/// `encoding`, wherever it stands.
pub(crate) fn encoding(field: &str, raw: Raw<'_>) -> Result<Encoding, Malformed> {
    one_of(field, raw, &[("utf8", Encoding::Utf8), ("base64", Encoding::Base64)])
}

/// `events`, wherever it stands: an array of names. Longer than there are names to tell apart it is nonsense.
pub(crate) fn events(field: &str, raw: Raw<'_>) -> Result<Events, Malformed> {
    let accepted = "an array of \"egress\"";
    if !raw.is_array() {
        return Err(Malformed::value(field, accepted, raw.0));
    }
    let mut events = Events::default();
    Scanner::new(raw.0).array(|scanner, index| {
        if index == MAX_EVENTS {
            return Err(Malformed::value(field, &format!("at most {MAX_EVENTS} names"), "more"));
        }
        one_of(&format!("{field}[{index}]"), scanner.value()?, &[("egress", ())])?;
        events.egress = true;
        Ok(())
    })?;
    Ok(events)
}

fn write(fields: &MessageFields<'_>) -> Result<Write, Malformed> {
    let pid = fields.pid()?;
    let encoding = fields.optional("encoding", encoding)?.unwrap_or(Encoding::Utf8);
    let data = fields.required("data", "the text to write", |field, raw| data_bytes(field, raw, encoding))?;
    Ok(Write { pid, data })
}

/// The bytes that a string stands for.
pub(crate) fn data_bytes(field: &str, raw: Raw<'_>, encoding: Encoding) -> Result<Vec<u8>, Malformed> {
    let text = raw.as_string().ok_or_else(|| Malformed::value(field, "a string", raw.0))?;
    match (encoding, text) {
        (Encoding::Utf8, text) => Ok(text.into_owned().into_bytes()),
        (Encoding::Base64, Cow::Borrowed(text)) => decode_base64(field, raw, text),
        (Encoding::Base64, Cow::Owned(text)) => decode_base64(field, raw, &text),
    }
}

fn decode_base64(field: &str, raw: Raw<'_>, text: &str) -> Result<Vec<u8>, Malformed> {
    base64_simd::STANDARD
        .decode_to_vec(text)
        .map_err(|_| Malformed::value(field, "base64 (standard alphabet, padded, no white space)", raw.0))
}

fn kill(fields: &MessageFields<'_>) -> Result<Kill, Malformed> {
    Ok(Kill {
        pid: fields.pid()?,
        signal: fields.optional("signal", signal)?.unwrap_or(Signal::TERM),
        scope: fields
            .optional("scope", |field, raw| {
                one_of(field, raw, &[("tree", Scope::Tree), ("leader", Scope::Leader)])
            })?
            .unwrap_or_default(),
    })
}

/// `""` and 0 mean SIGTERM, as in 1.0.
fn signal(_field: &str, raw: Raw<'_>) -> Result<Signal, Malformed> {
    let signal = match raw.as_string() {
        Some(name) if name.is_empty() => Some(Signal::TERM),
        Some(name) => Signal::from_name(&name),
        None => match raw.as_whole() {
            Some(0) => Some(Signal::TERM),
            Some(number) => i64::try_from(number).ok().and_then(Signal::from_number),
            None => None,
        },
    };
    signal.ok_or_else(|| {
        let given = raw.as_string().unwrap_or(Cow::Borrowed(raw.0));
        let text = format!(
            "Unknown signal: {} (a name such as \"SIGTERM\" or \"TERM\", or a number from 1 to 31)",
            shorten(&given)
        );
        Malformed::new(ErrorCode::UnknownSignal, text)
    })
}

fn fsync(
    fields: &MessageFields<'_>,
    files: Option<Result<Entries, Malformed>>,
) -> Result<Request, Malformed> {
    let raw = fields.raw("operation");
    let operation = raw.and_then(Raw::as_string);
    match operation.as_deref() {
        Some("push") => match files {
            Some(files) => Ok(Request::Push { files: files? }),
            None => Err(Malformed::missing("files", "an array of {path, kind, content, mtime}")),
        },
        Some("pull") => Ok(Request::Pull),
        _ => {
            let given = operation.unwrap_or(Cow::Borrowed(raw.map_or("undefined", |raw| raw.0)));
            let text = format!("Unknown operation: {} (\"push\" or \"pull\")", shorten(&given));
            Err(Malformed::new(ErrorCode::UnknownOperation, text))
        }
    }
}
