//! The answer to a pull, written piece by piece: its files are too large to be held twice.

use serde_json::value::RawValue;

use crate::ErrorReply;
use crate::output::{append_escaped, append_number};

/// Writes `{"operation":"pull","files":[…],"status":"success","type":"fsyncResult","id":…}`, one file at a
/// time. Content goes out as an array of numbers: the only form that every client reads. `type` and `id`
/// stand at the end, because only there is it known how the pull went: one that fails half way ends as the
/// `error` it is.
#[derive(Debug)]
pub struct PullWriter {
    out: Vec<u8>,
    entries: usize,
    content: Option<ContentState>,
}

/// Within a file: whether a number was written yet, and the time that closes the entry.
#[derive(Debug)]
struct ContentState {
    empty: bool,
    mtime_ms: i64,
}

/// The longest way to write one byte: `255,`.
pub const PULL_BYTES_PER_BYTE: usize = 4;

impl PullWriter {
    /// Begins an answer.
    #[expect(clippy::new_without_default, reason = "it is never built as part of something else")]
    pub fn new() -> Self {
        Self { out: b"{\"operation\":\"pull\",\"files\":[".to_vec(), entries: 0, content: None }
    }

    /// A directory that holds nothing.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, "directory");
        self.out.push(b'}');
    }

    /// Begins a file; [`PullWriter::bytes`] gives its content.
    pub fn file(&mut self, path: &str, mtime_ms: i64) {
        self.entry(path, "file");
        self.out.extend_from_slice(b",\"content\":[");
        self.content = Some(ContentState { empty: true, mtime_ms });
    }

    /// Goes on with the file begun last. Without one, or after a directory, the bytes are dropped.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (Some(content), Some((first, rest))) = (&mut self.content, bytes.split_first()) else { return };
        if !content.empty {
            self.out.push(b',');
        }
        content.empty = false;
        append_number(&mut self.out, u64::from(*first));
        // Four bytes are written for each number, and overwritten from where it really ends: no branch on
        // its length.
        let mut at = self.out.len();
        self.out.resize(at + rest.len() * PULL_BYTES_PER_BYTE, 0);
        for byte in rest {
            let (text, length) = COMMA_NUMBERS[usize::from(*byte)];
            self.out[at..at + PULL_BYTES_PER_BYTE].copy_from_slice(&text);
            at += usize::from(length);
        }
        self.out.truncate(at);
    }

    /// Bytes written and not taken yet.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether everything written has been taken.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes what has been written so far; the rest of the answer follows it. It is UTF-8.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The end of the answer, as one of this `type`: `fsyncResult`, or another one for a client that only
    /// looks at some types.
    pub fn finish(mut self, kind: &str, id: Option<&RawValue>) -> Vec<u8> {
        self.end_file();
        self.out.extend_from_slice(b"],\"status\":\"success\"");
        self.end(kind, id)
    }

    /// The end of an answer that turns out to be an error. The files written so far are in it all the same.
    pub fn fail(mut self, id: Option<&RawValue>, error: &ErrorReply) -> Vec<u8> {
        self.end_file();
        self.out.extend_from_slice(b"],\"status\":\"error\",");
        let fields = serde_json::to_string(error).expect("wire types serialize");
        // Without its braces.
        self.out.extend_from_slice(&fields.as_bytes()[1..fields.len() - 1]);
        self.end("error", id)
    }

    fn end(mut self, kind: &str, id: Option<&RawValue>) -> Vec<u8> {
        self.out.extend_from_slice(b",\"type\":\"");
        append_escaped(&mut self.out, kind);
        self.out.push(b'"');
        if let Some(id) = id {
            self.out.extend_from_slice(b",\"id\":");
            self.out.extend_from_slice(id.get().as_bytes());
        }
        self.out.push(b'}');
        self.out
    }

    fn entry(&mut self, path: &str, kind: &str) {
        self.end_file();
        if self.entries > 0 {
            self.out.push(b',');
        }
        self.entries += 1;
        self.out.extend_from_slice(b"{\"path\":\"");
        append_escaped(&mut self.out, path);
        self.out.extend_from_slice(b"\",\"kind\":\"");
        self.out.extend_from_slice(kind.as_bytes());
        self.out.push(b'"');
    }

    fn end_file(&mut self) {
        if let Some(content) = self.content.take() {
            self.out.push(b']');
            self.mtime(content.mtime_ms);
        }
    }

    fn mtime(&mut self, mtime_ms: i64) {
        self.out.extend_from_slice(b",\"mtime\":");
        if mtime_ms < 0 {
            self.out.push(b'-');
        }
        append_number(&mut self.out, mtime_ms.unsigned_abs());
        self.out.push(b'}');
    }
}

/// `,0` to `,255`, each with its length.
static COMMA_NUMBERS: [([u8; 4], u8); 256] = {
    let mut table = [([0; 4], 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let units = b'0' + (byte % 10) as u8;
        let tens = b'0' + (byte / 10 % 10) as u8;
        let hundreds = b'0' + (byte / 100) as u8;
        table[byte] = match byte {
            0..10 => ([b',', units, 0, 0], 2),
            10..100 => ([b',', tens, units, 0], 3),
            _ => ([b',', hundreds, tens, units], 4),
        };
        byte += 1;
    }
    table
};
