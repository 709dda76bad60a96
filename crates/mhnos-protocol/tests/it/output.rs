//! Output frames: any bytes, cut anywhere, read as the whole would read at once.

use mhnos_protocol::output::{encode_base64, encode_text};
use mhnos_protocol::{Output, ServerMessage, Stream, incomplete_suffix, parse_server_message};
use proptest::prelude::*;

fn decode(frame: &[u8]) -> Output {
    let text = std::str::from_utf8(frame).expect("a frame is UTF-8");
    serde_json::from_str::<serde_json::Value>(text).expect("a frame is JSON");
    let ServerMessage::Output(output) = parse_server_message(text).expect("a frame is a message") else {
        panic!("not output: {text}")
    };
    output
}

/// Delivers `pieces` as a viewer does and joins what arrives.
fn deliver(pieces: &[&[u8]]) -> String {
    let mut text = String::new();
    let (mut carry, mut seq) = (Vec::new(), 0);
    for (index, piece) in pieces.iter().enumerate() {
        let last = index + 1 == pieces.len();
        let mut frame = Vec::new();
        seq += piece.len() as u64;
        let written = encode_text(&mut frame, Stream::Stdout, 1000, seq, &carry, piece, last);
        assert_eq!(written, !frame.is_empty());
        if written {
            let output = decode(&frame);
            assert_eq!((output.pid, output.seq), (1000, Some(seq)));
            assert!(!output.data.is_empty(), "no frame is empty");
            text.push_str(std::str::from_utf8(&output.data).expect("text"));
        }
        carry.extend_from_slice(piece);
        carry.drain(..carry.len() - incomplete_suffix(&carry));
        assert!(carry.len() <= 3);
    }
    text
}

/// Bytes in which characters, their halves, and junk stand close together.
fn text_and_junk() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        any::<char>().prop_map(|c| c.to_string().into_bytes()),
        proptest::sample::select(vec!["é", "€", "😀", "\u{10ffff}", "a", "\"", "\\", "\n", "\u{1b}[0m"])
            .prop_map(|text| text.as_bytes().to_vec()),
        proptest::collection::vec(
            proptest::sample::select(vec![
                0x80_u8, 0xbf, 0xc0, 0xc2, 0xe0, 0xe2, 0xed, 0xa0, 0xf0, 0x9f, 0xf4, 0x90, 0xff
            ]),
            1..4
        ),
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn cutting_changes_no_character(bytes in text_and_junk(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(deliver(&pieces), String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn an_incomplete_suffix_is_what_more_bytes_could_complete(bytes in text_and_junk()) {
        let kept = incomplete_suffix(&bytes);
        let (whole, suffix) = bytes.split_at(bytes.len() - kept);
        let replaced = String::from_utf8_lossy(whole).into_owned() + if kept > 0 { "\u{fffd}" } else { "" };
        prop_assert_eq!(replaced, String::from_utf8_lossy(&bytes));
        if kept > 0 {
            let completes = |tail: [u8; 3]| (1..=3).any(|n| std::str::from_utf8(&[suffix, &tail[..n]].concat()).is_ok());
            prop_assert!((0x80..=0xbf).any(|byte| completes([byte, 0x80, 0x80])));
        }
    }

    #[test]
    fn long_pieces_are_escaped_as_serde_does(text in "(\\PC|[\\x00-\\x7f]){0,40}", times in 1..600_usize) {
        let text = text.repeat(times);
        let mut frame = Vec::new();
        if encode_text(&mut frame, Stream::Stderr, 7, 1, b"", text.as_bytes(), false) {
            prop_assert_eq!(decode(&frame).data, text.as_bytes());
        } else {
            prop_assert!(text.is_empty());
        }
    }
}

#[test]
fn a_frame_looks_as_it_always_did_with_seq_after() {
    let mut frame = b"kept".to_vec();
    assert!(encode_text(&mut frame, Stream::Stdout, 1000, 12, b"", b"Hello \"W\"\n\x1b\x00\x7f", false));
    let expected = r#"kept{"type":"stdout","data":"Hello \"W\"\n\u001b\u0000"#.to_owned()
        + "\x7f\",\"pid\":1000,\"seq\":12}";
    assert_eq!(String::from_utf8(frame).unwrap(), expected);
    let mut frame = Vec::new();
    encode_base64(&mut frame, Stream::Stderr, u32::MAX, u64::MAX, b"\xff\x00");
    let expected =
        r#"{"type":"stderr","data":"/wA=","pid":4294967295,"seq":18446744073709551615,"encoding":"base64"}"#;
    assert_eq!(String::from_utf8(frame).unwrap(), expected);
}

#[test]
fn every_control_character_survives() {
    let bytes: Vec<u8> = (0..=0x7f).collect();
    assert_eq!(deliver(&[&bytes]).as_bytes(), bytes);
}

#[test]
fn a_carry_that_nothing_completes_becomes_one_replacement_at_the_end() {
    assert_eq!(deliver(&[b"a\xf0\x9f", b"\x98", b""]), "a\u{fffd}");
    assert_eq!(deliver(&[b"a\xf0\x9f", b"\x98", b"\x80"]), "a😀");
    assert_eq!(deliver(&[b"\xe2\x82", b"x"]), "\u{fffd}x");
    let mut frame = Vec::new();
    assert!(
        !encode_text(&mut frame, Stream::Stdout, 1, 3, b"\xf0\x9f", b"\x98", false),
        "nothing to show yet"
    );
    assert!(frame.is_empty());
}

#[test]
fn a_frames_buffer_is_not_many_times_its_text() {
    let text = "plain text\n".repeat(6000);
    let mut frame = Vec::new();
    encode_text(&mut frame, Stream::Stdout, 1000, 1, b"", text.as_bytes(), false);
    assert!(frame.capacity() < text.len() * 2, "{} for {}", frame.capacity(), text.len());
}

#[test]
fn base64_is_byte_exact() {
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut frame = Vec::new();
    encode_base64(&mut frame, Stream::Stdout, 1000, 1, &bytes);
    assert_eq!(decode(&frame).data, bytes);
}
