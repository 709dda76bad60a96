//! What must hold for any bytes from a client. The targets of `fuzz/` call these, and so does a test with the
//! corpora and simple changes of them.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    ErrorCode, Request, Stream, binary, incomplete_suffix, limits::MAX_DEPTH, output, parse_request_bytes,
    parse_server_message,
};

/// A text frame: what JSON is and what not is decided as `serde_json` does, and a request that was understood is
/// understood again when it is written down.
pub fn request(bytes: &[u8]) {
    let parsed = parse_request_bytes(bytes);
    let is_object = std::str::from_utf8(bytes).is_ok_and(is_json_object);
    match &parsed.request {
        Err(malformed) if malformed.code == ErrorCode::InvalidMessage => {
            assert!(!is_object || depth(bytes) > MAX_DEPTH, "refused, and is an object: {}", malformed.text);
            return;
        }
        _ => assert!(is_object, "taken for an object, and is none: {:?}", parsed.request),
    }
    if let Err(malformed) = &parsed.request {
        assert!(!malformed.text.is_empty() && malformed.text.len() < 1024, "{}", malformed.text);
    }
    if let Ok(request) = &parsed.request {
        let request = without_bad_entries(request.clone());
        let again = parse_request_bytes(request.to_json(parsed.id.as_deref()).as_bytes());
        assert_eq!(again.id.map(|id| id.get().to_owned()), parsed.id.map(|id| id.get().to_owned()));
        assert_eq!(again.request.expect("it was understood before"), request);
    }
}

fn without_bad_entries(request: Request) -> Request {
    match request {
        Request::Push { files } => Request::Push { files: files.into_iter().flatten().map(Ok).collect() },
        other => other,
    }
}

fn is_json_object(text: &str) -> bool {
    // The raw value is checked whole, without being built.
    text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{')
        && <&RawValue>::deserialize(&mut serde_json::Deserializer::from_str(text)).is_ok()
        && serde_json::from_str::<&RawValue>(text).is_ok()
}

/// How deep brackets nest, strings aside.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        escaped = quoted && !escaped && *byte == b'\\';
        deepest = deepest.max(depth);
    }
    deepest
}

/// A binary frame, in both directions.
pub fn binary_frame(bytes: &[u8]) {
    let parsed = binary::parse_write(bytes);
    if let Ok(Request::Write(write)) = parsed.request {
        let id = parsed.id.map_or(0, |id| id.get().parse().expect("a number"));
        let mut again = Vec::new();
        binary::encode_write(&mut again, write.pid, id, &write.data);
        assert_eq!(again, bytes);
    }
    if let Ok(frame) = binary::decode_output(bytes) {
        let mut again = Vec::new();
        binary::encode_output(&mut again, frame.stream, frame.pid, frame.seq, frame.data);
        assert_eq!(again, bytes);
    }
}

/// What a server might send to our client.
pub fn server_message(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = parse_server_message(text);
    }
}

/// Output cut into pieces at any places: the frames are JSON, and joined they are what one decoding gives. The first
/// bytes say where to cut.
pub fn text_output(bytes: &[u8]) {
    let Some((&cuts, rest)) = bytes.split_first() else { return };
    let (cuts, output) = rest.split_at(usize::from(cuts).min(rest.len()) / 2);
    let (mut text, mut carry, mut at) = (String::new(), Vec::new(), 0);
    let ends = cuts.iter().scan(0, |end, step| {
        *end = (*end + usize::from(*step)).min(output.len());
        Some(*end)
    });
    for (end, last) in ends.map(|end| (end, false)).chain([(output.len(), true)]) {
        let piece = &output[at..end];
        at = end;
        let mut frame = Vec::new();
        if output::encode_text(&mut frame, Stream::Stdout, 1000, end as u64, &carry, piece, last) {
            #[derive(Deserialize)]
            struct Frame {
                data: String,
            }
            let frame: Frame = serde_json::from_slice(&frame).expect("a frame is JSON");
            assert!(!frame.data.is_empty());
            text += &frame.data;
        }
        let joined = [carry.as_slice(), piece].concat();
        carry = joined[joined.len() - incomplete_suffix(&joined)..].to_vec();
    }
    assert_eq!(text, String::from_utf8_lossy(output));
}

#[cfg(test)]
mod tests {
    use mhnos_testing::replay;

    #[test]
    fn no_request_surprises() {
        replay("request", super::request);
    }

    #[test]
    fn no_binary_frame_surprises() {
        replay("binary_frame", super::binary_frame);
    }

    #[test]
    fn no_message_surprises_the_client() {
        replay("server_message", super::server_message);
    }

    #[test]
    fn no_cut_of_output_surprises() {
        replay("text_output", super::text_output);
    }
}
