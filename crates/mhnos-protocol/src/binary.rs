//! Binary frames, for clients that ask for the subprotocol `mhnos.v1.binary`: a fixed header, then the raw
//! bytes. Output comes this way; `write` may go this way; everything else stays JSON.
//!
//! ```text
//! offset  size  field    (numbers are little-endian)
//!      0     1  version  1
//!      1     1  stream   0 stdin (to the service), 1 stdout, 2 stderr (from it)
//!      2     2  flags    0; reserved
//!      4     4  pid
//!      8     8  seq      from the service: the position in the output log just after these bytes
//!                        to the service: an id of the client's choice, 0 for none, at most 2^53-1;
//!                        the answer is the JSON `written` or `error` with that number as its `id`
//!     16     …  the bytes
//! ```

use serde_json::value::RawValue;

use crate::error::shorten;
use crate::limits::MAX_SAFE_INTEGER;
use crate::{ErrorCode, Malformed, Parsed, Pid, Request, Stream, Write};

/// Bytes before the data.
pub const HEADER_BYTES: usize = 16;

/// The only version there is.
const VERSION: u8 = 1;

/// The stream number of a write.
const STDIN: u8 = 0;

/// A decoded output frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputFrame<'a> {
    /// Which stream.
    pub stream: Stream,
    /// Whose.
    pub pid: Pid,
    /// The position just after `data`.
    pub seq: u64,
    /// The bytes.
    pub data: &'a [u8],
}

/// Appends one output frame.
pub fn encode_output(out: &mut Vec<u8>, stream: Stream, pid: Pid, seq: u64, bytes: &[u8]) {
    let number = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    encode(out, number, pid, seq, bytes);
}

/// Appends one write. An `id` of 0 asks for no answer; it must not be above 2^53-1.
pub fn encode_write(out: &mut Vec<u8>, pid: Pid, id: u64, bytes: &[u8]) {
    encode(out, STDIN, pid, id, bytes);
}

/// Reads an output frame (the client's side).
pub fn decode_output(frame: &[u8]) -> Result<OutputFrame<'_>, Malformed> {
    let (number, pid, seq, data) = decode(frame)?;
    let stream = match number {
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        other => return Err(Malformed::value("stream", "1 or 2 in an output frame", &other.to_string())),
    };
    Ok(OutputFrame { stream, pid, seq, data })
}

/// Reads a write (the server's side).
pub fn parse_write(frame: &[u8]) -> Parsed {
    let (number, pid, id, data) = match decode(frame) {
        Ok(parts) => parts,
        Err(malformed) => return Parsed { id: None, request: Err(malformed) },
    };
    if id > MAX_SAFE_INTEGER {
        let malformed = Malformed::value("seq", "an id of at most 9007199254740991", &id.to_string());
        return Parsed { id: None, request: Err(malformed) };
    }
    let raw_id = (id != 0).then(|| RawValue::from_string(id.to_string()).expect("a number is JSON"));
    let request = if number == STDIN {
        Ok(Request::Write(Write { pid, data: data.to_vec() }))
    } else {
        Err(Malformed::value("stream", "0 in a frame to the service", &number.to_string()))
    };
    Parsed { id: raw_id, request }
}

fn encode(out: &mut Vec<u8>, stream: u8, pid: Pid, seq: u64, bytes: &[u8]) {
    out.reserve(HEADER_BYTES + bytes.len());
    out.extend_from_slice(&[VERSION, stream, 0, 0]);
    out.extend_from_slice(&pid.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn decode(frame: &[u8]) -> Result<(u8, Pid, u64, &[u8]), Malformed> {
    let Some((header, data)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        let text =
            format!("Invalid binary frame: {} bytes, the header alone has {HEADER_BYTES}", frame.len());
        return Err(Malformed::new(ErrorCode::InvalidMessage, text));
    };
    let [version, stream, flags_low, flags_high, p0, p1, p2, p3, seq @ ..] = *header;
    if version != VERSION {
        let excerpt = shorten(&String::from_utf8_lossy(&frame[..frame.len().min(HEADER_BYTES)]));
        let text = format!("Invalid binary frame: version must be {VERSION}, got {version} ({excerpt})");
        return Err(Malformed::new(ErrorCode::InvalidMessage, text));
    }
    let flags = u16::from_le_bytes([flags_low, flags_high]);
    if flags != 0 {
        return Err(Malformed::value("flags", "0", &flags.to_string()));
    }
    Ok((stream, u32::from_le_bytes([p0, p1, p2, p3]), u64::from_le_bytes(seq), data))
}
