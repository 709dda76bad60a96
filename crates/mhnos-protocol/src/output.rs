//! Output as JSON frames: the hot path, and the reason why characters never break.
//!
//! `{"type":"stdout","data":"…","pid":1000,"seq":4711}`: `seq` is the position in the process's output log
//! just after the bytes of this frame, bytes of both streams counted. Text is decoded as
//! `String::from_utf8_lossy` would decode the whole stream at once: an incomplete character at the end of
//! a piece is kept back ([`crate::incomplete_suffix`]) and given again as the `carry` of the next one.

use json_escape_simd::escape_into;

use crate::{Pid, Stream, incomplete_suffix};

/// Escaping reserves six bytes for each byte of input before it writes, so long text is escaped in pieces
/// of this size: the frame's buffer grows to what the text needs, not to six times as much.
const ESCAPE_PIECE: usize = 4 * 1024;

/// What a frame adds to its data, at most: the keys, a pid and a seq of full length.
const FRAME_OVERHEAD: usize = 96;

/// What stands for bytes that are not UTF-8.
const REPLACEMENT: &str = "\u{fffd}";

/// Appends one text frame holding `carry` and `bytes`.
///
/// `carry` is what was kept back of the same stream before (at most 3 bytes). An incomplete character at
/// the end is left out, unless `flush_incomplete` says that nothing follows: then it becomes U+FFFD.
/// Returns whether a frame was appended; without a whole character there is none, and all bytes are to be
/// carried.
pub fn encode_text(
    out: &mut Vec<u8>,
    stream: Stream,
    pid: Pid,
    seq: u64,
    carry: &[u8],
    bytes: &[u8],
    flush_incomplete: bool,
) -> bool {
    let start = out.len();
    // An eighth more than the bytes is enough for ordinary text; colour-coded output grows beyond.
    out.reserve(
        carry.len() + bytes.len() + bytes.len() / 8 + 6 * ESCAPE_PIECE.min(bytes.len()) + FRAME_OVERHEAD,
    );
    begin(out, stream);
    let data = out.len();
    let rest = append_joint(out, carry, bytes, flush_incomplete);
    append_lossy(out, rest, flush_incomplete);
    if out.len() == data {
        out.truncate(start);
        return false;
    }
    end(out, pid, seq, "");
    true
}

/// Appends one frame with the bytes in base64 (standard alphabet, padded), marked `"encoding":"base64"`.
pub fn encode_base64(out: &mut Vec<u8>, stream: Stream, pid: Pid, seq: u64, bytes: &[u8]) {
    out.reserve(base64_simd::STANDARD.encoded_length(bytes.len()) + FRAME_OVERHEAD);
    begin(out, stream);
    base64_simd::STANDARD.encode_append(bytes, out);
    end(out, pid, seq, ",\"encoding\":\"base64\"");
}

fn begin(out: &mut Vec<u8>, stream: Stream) {
    out.extend_from_slice(match stream {
        Stream::Stdout => b"{\"type\":\"stdout\",\"data\":\"",
        Stream::Stderr => b"{\"type\":\"stderr\",\"data\":\"",
    });
}

fn end(out: &mut Vec<u8>, pid: Pid, seq: u64, more: &str) {
    out.extend_from_slice(b"\",\"pid\":");
    append_number(out, u64::from(pid));
    out.extend_from_slice(b",\"seq\":");
    append_number(out, seq);
    out.extend_from_slice(more.as_bytes());
    out.push(b'}');
}

/// Writes the character that begins in `carry`; returns what of `bytes` comes after it.
fn append_joint<'a>(out: &mut Vec<u8>, carry: &[u8], bytes: &'a [u8], flush: bool) -> &'a [u8] {
    if carry.is_empty() {
        return bytes;
    }
    debug_assert!(carry.len() <= 3, "a carry is an incomplete character");
    // Three more bytes complete any character, and a fourth is never looked at.
    let mut joint = Vec::with_capacity(6);
    joint.extend_from_slice(carry);
    joint.extend_from_slice(&bytes[..bytes.len().min(3)]);
    let mut at = 0;
    while at < carry.len() {
        at += match first_character(&joint[at..]) {
            First::Valid(character) => {
                append_escaped(out, character);
                character.len()
            }
            First::Invalid(length) => {
                append_escaped(out, REPLACEMENT);
                length
            }
            First::Incomplete => {
                append_escaped(out, if flush { REPLACEMENT } else { "" });
                return &[];
            }
        };
    }
    &bytes[at - carry.len()..]
}

/// What stands at the beginning of some bytes.
enum First<'a> {
    /// One whole character.
    Valid(&'a str),
    /// So many bytes that become one U+FFFD.
    Invalid(usize),
    /// The bytes end before the character does.
    Incomplete,
}

fn first_character(bytes: &[u8]) -> First<'_> {
    let (valid, rest) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, None),
        // Short input: what is valid before the error is found again by the chunk iterator.
        Err(error) => (bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid()), Some(error.error_len())),
    };
    match (valid.chars().next(), rest) {
        (Some(character), _) => First::Valid(&valid[..character.len_utf8()]),
        (None, Some(Some(length))) => First::Invalid(length),
        (None, _) => First::Incomplete,
    }
}

/// Writes text, with U+FFFD for what is invalid and without what is incomplete, unless `flush`.
fn append_lossy(out: &mut Vec<u8>, bytes: &[u8], flush: bool) {
    let kept_back = incomplete_suffix(bytes);
    // A read that ends within a character is ordinary, so the fast way looks at what is before it.
    let (whole, suffix) = bytes.split_at(bytes.len() - kept_back);
    if let Ok(text) = simdutf8::basic::from_utf8(whole) {
        append_escaped(out, text);
    } else {
        for chunk in whole.utf8_chunks() {
            append_escaped(out, chunk.valid());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice(REPLACEMENT.as_bytes());
            }
        }
    }
    if flush && !suffix.is_empty() {
        out.extend_from_slice(REPLACEMENT.as_bytes());
    }
}

/// Continues the JSON string that `out` ends in.
pub(crate) fn append_escaped(out: &mut Vec<u8>, mut text: &str) {
    while !text.is_empty() {
        let (piece, rest) = text.split_at(text.floor_char_boundary(ESCAPE_PIECE));
        // `escape_into` puts quotes around what it writes. The opening one goes over the last byte
        // written, which is put back afterwards; the closing one is taken off.
        let last = out.len() - 1;
        let kept = out[last];
        out.truncate(last);
        escape_into(piece, out);
        out[last] = kept;
        out.pop();
        text = rest;
    }
}

/// Writes a number in decimal.
pub(crate) fn append_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
