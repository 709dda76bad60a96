//! The files of an `fsync`: reading a push's entries, writing a pull's answer.
//!
//! A file's content is an array of numbers (`[104,105]`), as the browser client sends it: four bytes of
//! message for one of content. It is read straight into bytes while the message is scanned, once; an entry
//! that is wrong is remembered as such and takes no other with it.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::Encoding;
use crate::error::Malformed;
use crate::fields::{Fields, one_of, text};
use crate::limits::{MAX_PATH_BYTES, MAX_PUSH_ENTRIES};
use crate::parse::{data_bytes, encoding};
use crate::scan::{Raw, Scanner};

/// A file or directory to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// As the client gave it; not empty, without NUL. Where it leads is for the workspace to find out.
    pub path: String,
    /// What it shall be.
    pub content: Content,
    /// Modification time, milliseconds since the Unix epoch (may be negative).
    pub mtime_ms: Option<i64>,
}

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A directory.
    Directory,
}

/// An entry of a push that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEntry {
    /// As the client gave it, or `files[3]` if it gave none that can be read.
    pub path: String,
    /// What is wrong.
    pub malformed: Malformed,
}

/// The largest time a JavaScript `Date` holds, in milliseconds either way of the epoch.
const MAX_TIME_MS: f64 = 8.64e15;

/// How large `files` and what stands in it may be.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    entries: usize,
    path_bytes: usize,
    time_ms: f64,
}

impl Bounds {
    /// Of what a client pushes.
    pub(crate) const PUSH: Self =
        Self { entries: MAX_PUSH_ENTRIES, path_bytes: MAX_PATH_BYTES, time_ms: MAX_TIME_MS };
    /// Of what the service found in the workspace: whatever is there.
    pub(crate) const PULL: Self =
        Self { entries: usize::MAX, path_bytes: usize::MAX, time_ms: f64::INFINITY };
}

/// Reads `files`. The outer error is for a message that is not JSON; the inner one for a `files` that is
/// no usable array, which only matters if the message turns out to be a push.
pub(crate) fn scan_entries(
    scanner: &mut Scanner<'_>,
    bounds: Bounds,
) -> Result<Result<Vec<Result<FileEntry, BadEntry>>, Malformed>, Malformed> {
    const ACCEPTED: &str = "an array of {path, kind, content, mtime}";
    if scanner.peek() != b'[' {
        let raw = scanner.value()?;
        return Ok(Err(Malformed::value("files", ACCEPTED, raw.0)));
    }
    let mut entries = Vec::new();
    let mut count = 0;
    scanner.array(|scanner, index| {
        count = index + 1;
        if count > bounds.entries {
            return scanner.value().map(drop);
        }
        entries.push(scan_entry(scanner, index, bounds)?);
        Ok(())
    })?;
    if count > bounds.entries {
        let accepted = format!("at most {} entries long", bounds.entries);
        return Ok(Err(Malformed::value("files", &accepted, &format!("{count} entries"))));
    }
    Ok(Ok(entries))
}

/// What stood as `content`.
enum Given<'a> {
    Bytes(Vec<u8>),
    BadItem(Malformed),
    Other(Raw<'a>),
}

fn scan_entry(
    scanner: &mut Scanner<'_>,
    index: usize,
    bounds: Bounds,
) -> Result<Result<FileEntry, BadEntry>, Malformed> {
    let place = format!("files[{index}]");
    if scanner.peek() != b'{' {
        let raw = scanner.value()?;
        let malformed = Malformed::value(&place, "an object {path, kind, content, mtime}", raw.0);
        return Ok(Err(BadEntry { path: place, malformed }));
    }
    let mut fields = Fields::new("", ["path", "kind", "mtime", "encoding"]);
    let mut content = None;
    scanner.object(|scanner, key| {
        if key != "content" {
            return fields.field(scanner, &key);
        }
        content = Some(match scanner.peek() {
            b'[' => scan_bytes(scanner)?,
            _ => Given::Other(scanner.value()?),
        });
        Ok(())
    })?;
    let path = fields.required("path", "where the file goes", |field, raw| path(field, raw, bounds));
    Ok(match path {
        Ok(path) => match typed_entry(&fields, content, bounds) {
            Ok((content, mtime_ms)) => Ok(FileEntry { path, content, mtime_ms }),
            Err(malformed) => Err(BadEntry { path, malformed }),
        },
        Err(malformed) => Err(BadEntry { path: place, malformed }),
    })
}

fn path(field: &str, raw: Raw<'_>, bounds: Bounds) -> Result<String, Malformed> {
    let path = text(field, raw, bounds.path_bytes)?;
    if path.is_empty() {
        return Err(Malformed::value(field, "a path that is not empty", raw.0));
    }
    Ok(path)
}

fn typed_entry(
    fields: &Fields<'_, 4>,
    content: Option<Given<'_>>,
    bounds: Bounds,
) -> Result<(Content, Option<i64>), Malformed> {
    let mtime = fields.optional("mtime", |field, raw| {
        let time =
            raw.as_number().filter(|time| time.abs() <= bounds.time_ms).map(|time| time.floor() as i64);
        time.ok_or_else(|| Malformed::value(field, "a time in milliseconds since 1970", raw.0))
    })?;
    let kind = fields.required("kind", "\"file\" or \"directory\"", |field, raw| {
        one_of(field, raw, &[("file", true), ("directory", false)])
    })?;
    if !kind {
        return Ok((Content::Directory, mtime));
    }
    let encoding = fields.optional("encoding", encoding)?.unwrap_or(Encoding::Utf8);
    let bytes = match content {
        None => return Err(Malformed::missing("content", CONTENT_ACCEPTED)),
        Some(Given::Bytes(bytes)) => bytes,
        Some(Given::BadItem(malformed)) => return Err(malformed),
        Some(Given::Other(raw)) if raw.as_string().is_none() => {
            return Err(Malformed::value("content", CONTENT_ACCEPTED, raw.0));
        }
        Some(Given::Other(raw)) => data_bytes("content", raw, encoding)?,
    };
    Ok((Content::File(bytes), mtime))
}

const CONTENT_ACCEPTED: &str =
    "an array of numbers from 0 to 255, a string, or base64 with \"encoding\":\"base64\"";

/// Reads an array of numbers 0..=255 whose bracket is next. After a wrong item the rest is only skipped.
fn scan_bytes<'a>(scanner: &mut Scanner<'a>) -> Result<Given<'a>, Malformed> {
    let mut bytes = Vec::new();
    let mut bad = None;
    scanner.array(|scanner, _| {
        scanner.bytes(&mut bytes);
        let raw = scanner.value()?;
        match raw.as_whole().and_then(|number| u8::try_from(number).ok()) {
            Some(byte) => bytes.push(byte),
            None if bad.is_none() => {
                let item = format!("content[{}]", bytes.len());
                bad = Some(Malformed::value(&item, "a whole number from 0 to 255", raw.0));
            }
            None => {}
        }
        Ok(())
    })?;
    Ok(bad.map_or(Given::Bytes(bytes), Given::BadItem))
}

impl Serialize for FileEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("FileEntry", 5)?;
        fields.serialize_field("path", &self.path)?;
        match &self.content {
            Content::Directory => fields.serialize_field("kind", "directory")?,
            Content::File(bytes) => {
                fields.serialize_field("kind", "file")?;
                if let Ok(text) = simdutf8::basic::from_utf8(bytes) {
                    fields.serialize_field("content", text)?;
                } else {
                    fields.serialize_field("content", &base64_simd::STANDARD.encode_to_string(bytes))?;
                    fields.serialize_field("encoding", &Encoding::Base64)?;
                }
            }
        }
        if let Some(time) = self.mtime_ms {
            fields.serialize_field("mtime", &time)?;
        }
        fields.end()
    }
}
