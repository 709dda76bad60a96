//! Binary frames: byte-exact both ways, and nothing that is not one is taken for one.

use mhnos_protocol::binary::{HEADER_BYTES, decode_output, encode_output, encode_write, parse_write};
use mhnos_protocol::{ErrorCode, Request, Stream, Write};
use proptest::prelude::*;

proptest! {
    #[test]
    fn output_survives(pid in any::<u32>(), seq in any::<u64>(), data in any::<Vec<u8>>(), err in any::<bool>()) {
        let stream = if err { Stream::Stderr } else { Stream::Stdout };
        let mut frame = Vec::new();
        encode_output(&mut frame, stream, pid, seq, &data);
        prop_assert_eq!(frame.len(), HEADER_BYTES + data.len());
        let output = decode_output(&frame).unwrap();
        prop_assert_eq!((output.stream, output.pid, output.seq, output.data), (stream, pid, seq, &data[..]));
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in any::<Vec<u8>>()) {
        let _ = decode_output(&bytes);
        let parsed = parse_write(&bytes);
        prop_assert!(bytes.len() >= HEADER_BYTES || parsed.request.is_err());
    }
}

#[test]
fn a_header_is_laid_out_as_documented() {
    let mut frame = Vec::new();
    encode_output(&mut frame, Stream::Stderr, 0x0102_0304, 0x1112_1314_1516_1718, b"xy");
    let expected = [1, 2, 0, 0, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, b'x', b'y'];
    assert_eq!(frame, expected);
}

#[test]
fn a_write_carries_its_id_and_asks_for_no_answer_without() {
    let mut frame = Vec::new();
    encode_write(&mut frame, 1000, 7, b"\xff\0");
    let parsed = parse_write(&frame);
    assert_eq!(parsed.id.unwrap().get(), "7");
    assert_eq!(parsed.request.unwrap(), Request::Write(Write { pid: 1000, data: vec![0xff, 0] }));
    let mut frame = Vec::new();
    encode_write(&mut frame, 1000, 0, b"");
    assert!(parse_write(&frame).id.is_none());
}

#[test]
fn every_wrong_header_is_refused() {
    let frame = |change: fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        encode_write(&mut frame, 1000, 7, b"data");
        change(&mut frame);
        parse_write(&frame)
    };
    let code = |parsed: mhnos_protocol::Parsed| parsed.request.unwrap_err().code;
    assert_eq!(code(frame(Vec::clear)), ErrorCode::InvalidMessage);
    assert_eq!(code(frame(|frame| frame.truncate(15))), ErrorCode::InvalidMessage);
    assert_eq!(code(frame(|frame| frame[0] = 2)), ErrorCode::InvalidMessage);
    assert_eq!(code(frame(|frame| frame[0] = b'{')), ErrorCode::InvalidMessage);
    assert_eq!(code(frame(|frame| frame[1] = 1)), ErrorCode::InvalidValue);
    assert_eq!(code(frame(|frame| frame[2] = 1)), ErrorCode::InvalidValue);
    assert_eq!(code(frame(|frame| frame[3] = 0x80)), ErrorCode::InvalidValue);
    assert_eq!(code(frame(|frame| frame[15] = 1)), ErrorCode::InvalidValue);
    assert_eq!(frame(|frame| frame[1] = 1).id.unwrap().get(), "7", "the answer finds its request");
}
