//! RFC 6455, case by case, after the families 1 to 7 and 10 of the Autobahn test suite.
//!
//! That suite wants a server that echoes. This one answers a `ping` request with the `id` it came with, which is as
//! good: what was put together from frames and fragments comes back in the `pong`. A case is frames as bytes and what
//! must come back; each has a connection of its own. Extensions are not negotiated, so that families 12 and 13
//! (compression) do not apply; family 9 (large messages) is in `bad_input`.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::start;

/// Longest wait for what takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(30);

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What must come back, in this order.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    /// The answer to the `ping` request of that number.
    Echo(String),
    /// An `error` message.
    Error,
    Pong(Vec<u8>),
    /// A close frame with this code (none: without), and then the end.
    Close(Option<u16>),
}

/// A frame as a client sends it: masked.
fn frame(fin_and_reserved: u8, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(fin_and_reserved, opcode, payload.len(), true);
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn head(fin_and_reserved: u8, opcode: u8, length: usize, masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![fin_and_reserved | opcode];
    match length {
        0..126 => bytes.push(mask + length as u8),
        126..65_536 => {
            bytes.push(mask + 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask + 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes
}

fn whole(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(0x80, opcode, payload.as_ref())
}

fn part(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(0, opcode, payload.as_ref())
}

/// A `ping` request of exactly this many bytes.
fn request(id: &str, length: usize) -> String {
    let bare = format!(r#"{{"type":"ping","id":"{id}","pad":""}}"#);
    let pad = "*".repeat(length.saturating_sub(bare.len()));
    format!(r#"{{"type":"ping","id":"{id}","pad":"{pad}"}}"#)
}

fn small(id: &str) -> String {
    format!(r#"{{"type":"ping","id":"{id}"}}"#)
}

fn echo(id: &str) -> Answer {
    Answer::Echo(id.to_owned())
}

/// Sent as pieces of this size, each in a packet of its own.
struct Case {
    name: String,
    bytes: Vec<u8>,
    chop: usize,
    answers: Vec<Answer>,
}

fn case(name: impl Into<String>, frames: &[Vec<u8>], answers: &[Answer]) -> Case {
    Case { name: name.into(), bytes: frames.concat(), chop: usize::MAX, answers: answers.to_vec() }
}

const BROKEN: Answer = Answer::Close(Some(1002));
const NO_UTF8: Answer = Answer::Close(Some(1007));

fn framing() -> Vec<Case> {
    let mut cases = vec![
        case("1.1.1 empty text", &[whole(TEXT, ""), whole(TEXT, small("a"))], &[Answer::Error, echo("a")]),
        case(
            "1.2.1 empty binary",
            &[whole(BINARY, ""), whole(TEXT, small("a"))],
            &[Answer::Error, echo("a")],
        ),
    ];
    for (family, opcode) in [("1.1", TEXT), ("1.2", BINARY)] {
        for length in [60, 125, 126, 127, 128, 65_535, 65_536, 65_537] {
            let frames = [whole(opcode, request("a", length))];
            cases.push(case(format!("{family} {length} bytes"), &frames, &[echo("a")]));
        }
        for chop in [997, 1] {
            let length = if chop == 1 { 130 } else { 65_536 };
            let whole = case(
                format!("{family}.8 chopped {chop}"),
                &[whole(opcode, request("a", length))],
                &[echo("a")],
            );
            cases.push(Case { chop, ..whole });
        }
    }
    cases
}

fn control() -> Vec<Case> {
    let longest = vec![0xfe; 125];
    let ten: Vec<Vec<u8>> = (0..10_u8).map(|n| whole(PING, [n])).collect();
    let pongs: Vec<Answer> = (0..10_u8).map(|n| Answer::Pong(vec![n])).collect();
    vec![
        case("2.1 ping without payload", &[whole(PING, "")], &[Answer::Pong(vec![])]),
        case("2.2 ping with text", &[whole(PING, "Hello")], &[Answer::Pong(b"Hello".to_vec())]),
        case("2.3 ping with bytes", &[whole(PING, [0, 255, 254])], &[Answer::Pong(vec![0, 255, 254])]),
        case("2.4 ping of 125 bytes", &[whole(PING, &longest)], &[Answer::Pong(longest.clone())]),
        case("2.5 ping of 126 bytes", &[whole(PING, [0xfe; 126])], &[BROKEN]),
        Case {
            chop: 1,
            ..case("2.6 ping, byte by byte", &[whole(PING, &longest)], &[Answer::Pong(longest)])
        },
        case("2.7 pong nobody asked for", &[whole(PONG, ""), whole(TEXT, small("a"))], &[echo("a")]),
        case("2.8 the same with payload", &[whole(PONG, "x"), whole(TEXT, small("a"))], &[echo("a")]),
        case("2.9 pong, then ping", &[whole(PONG, "x"), whole(PING, "y")], &[Answer::Pong(b"y".to_vec())]),
        case("2.10 ten pings", &ten, &pongs),
        Case { chop: 1, ..case("2.11 ten pings, byte by byte", &ten, &pongs) },
    ]
}

fn reserved() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 1..8_u8 {
        let frames = [frame(0x80 | bits << 4, TEXT, small("a").as_bytes())];
        cases.push(case(format!("3.{bits} reserved bits"), &frames, &[BROKEN]));
        let control = [frame(0x80 | bits << 4, PING, b"")];
        cases.push(case(format!("3.{bits} reserved bits of a ping"), &control, &[BROKEN]));
    }
    for opcode in (3..8).chain(11..16) {
        let after = [whole(TEXT, small("a")), whole(opcode, ""), whole(PING, "")];
        cases.push(case(format!("4 opcode {opcode}"), &after, &[echo("a"), BROKEN]));
        cases.push(case(format!("4 opcode {opcode} with payload"), &[whole(opcode, "x")], &[BROKEN]));
    }
    let unmasked = [head(0x80, TEXT, 0, false)];
    cases.push(case("5.1 of the RFC: a frame that is not masked", &unmasked, &[BROKEN]));
    let much = [head(0x80, BINARY, 101 << 20, true), vec![0; 4]];
    cases.push(case("a frame that says it is larger than any may be", &much, &[Answer::Close(Some(1009))]));
    let negative = [vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]];
    cases.push(case("a length with its highest bit set", &negative, &[Answer::Close(Some(1009))]));
    cases
}

fn fragments() -> Vec<Case> {
    let text = small("fragments");
    let (one, two) = text.split_at(9);
    let bytes: Vec<Vec<u8>> = std::iter::once(part(TEXT, &text[..1]))
        .chain(text[1..].bytes().map(|byte| part(0, [byte])))
        .chain([whole(0, "")])
        .collect();
    let pong = || Answer::Pong(b"p".to_vec());
    vec![
        case("5.1 ping in fragments", &[part(PING, "a"), whole(0, "b")], &[BROKEN]),
        case("5.2 pong in fragments", &[part(PONG, "a"), whole(0, "b")], &[BROKEN]),
        case("5.3 text in two fragments", &[part(TEXT, one), whole(0, two)], &[echo("fragments")]),
        Case { chop: 1, ..case("5.5 byte by byte", &[part(TEXT, one), whole(0, two)], &[echo("fragments")]) },
        case(
            "5.6 a ping between",
            &[part(TEXT, one), whole(PING, "p"), whole(0, two)],
            &[pong(), echo("fragments")],
        ),
        case("5.9 continuation of nothing", &[whole(0, "x"), whole(TEXT, small("a"))], &[BROKEN]),
        case("5.12 continuation of nothing, not the last", &[part(0, "x")], &[BROKEN]),
        case(
            "5.15 continuation of what has ended",
            &[part(TEXT, one), whole(0, two), whole(0, "x")],
            &[echo("fragments"), BROKEN],
        ),
        case("5.18 a new message inside of one", &[part(TEXT, one), whole(TEXT, two)], &[BROKEN]),
        case(
            "5.19 pings among five fragments",
            &[
                part(TEXT, &text[..4]),
                part(0, &text[4..8]),
                whole(PING, "p"),
                part(0, &text[8..12]),
                part(0, &text[12..14]),
                whole(PING, "p"),
                whole(0, &text[14..]),
            ],
            &[pong(), pong(), echo("fragments")],
        ),
        case("fragments of one byte, and an empty last one", &bytes, &[echo("fragments")]),
        case("10.1 64 KiB in fragments of 1300", &long_fragments(), &[echo("long")]),
    ]
}

fn long_fragments() -> Vec<Vec<u8>> {
    let text = request("long", 65_536);
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(1300).collect();
    let last = pieces.len() - 1;
    let opcode = |index| if index == 0 { TEXT } else { 0 };
    let make = |(index, piece): (usize, &&[u8])| {
        if index == last { whole(0, piece) } else { part(opcode(index), piece) }
    };
    pieces.iter().enumerate().map(make).collect()
}

fn utf8() -> Vec<Case> {
    let mut cases = Vec::new();
    let valid = [
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\u{0}a".trim_start_matches('\0'),
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{ffff}",
        "\u{10000}",
        "\u{10ffff}",
        "\u{d7ff}\u{e000}\u{fffd}",
    ];
    for (number, text) in valid.iter().enumerate() {
        cases.push(case(format!("6.2/6.5.{number} {text:?}"), &[whole(TEXT, small(text))], &[echo(text)]));
        let bytes = small(text).into_bytes();
        let each: Vec<Vec<u8>> = std::iter::once(part(TEXT, &bytes[..1]))
            .chain(bytes[1..].iter().map(|byte| part(0, [*byte])))
            .chain([whole(0, "")])
            .collect();
        cases.push(case(format!("6.2.{number} in fragments of a byte"), &each, &[echo(text)]));
    }
    let invalid: [&[u8]; 16] = [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xbf",
        b"\x80\xbf\x80",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xfe",
        b"\xff",
        b"\xed\xbf\xbf",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
    ];
    for (number, bytes) in invalid.iter().enumerate() {
        cases.push(case(format!("6.3/6.6.{number} {bytes:x?}"), &[whole(TEXT, bytes)], &[NO_UTF8]));
        let late = [part(TEXT, "\"x"), part(0, bytes), whole(0, "y\"")];
        cases.push(case(format!("6.4.{number} in the middle of three fragments"), &late, &[NO_UTF8]));
    }
    let binary = [whole(BINARY, b"\xff\xfe"), whole(TEXT, small("a"))];
    cases.push(case(
        "binary need not be UTF-8, and then is no request",
        &binary,
        &[Answer::Error, echo("a")],
    ));
    cases
}

fn closing() -> Vec<Case> {
    let with = |code: u16, reason: &[u8]| [code.to_be_bytes().as_slice(), reason].concat();
    let mut cases = vec![
        case("7.1.1 close", &[whole(CLOSE, with(1000, b""))], &[Answer::Close(Some(1000))]),
        case(
            "7.1.2 two closes",
            &[whole(CLOSE, with(1000, b"")), whole(CLOSE, with(1000, b""))],
            &[Answer::Close(Some(1000))],
        ),
        case(
            "7.1.3 ping after close",
            &[whole(CLOSE, with(1000, b"")), whole(PING, "")],
            &[Answer::Close(Some(1000))],
        ),
        case(
            "7.1.4 text after close",
            &[whole(CLOSE, with(1000, b"")), whole(TEXT, small("a"))],
            &[Answer::Close(Some(1000))],
        ),
        case(
            "7.1.5 close inside of a message",
            &[part(TEXT, "x"), whole(CLOSE, with(1000, b"")), whole(0, "y")],
            &[Answer::Close(Some(1000))],
        ),
        case("7.3.1 close without payload", &[whole(CLOSE, "")], &[Answer::Close(None)]),
        case("7.3.2 close with one byte", &[whole(CLOSE, "x")], &[BROKEN]),
        case(
            "7.3.4 close with a reason",
            &[whole(CLOSE, with(1000, b"Hello"))],
            &[Answer::Close(Some(1000))],
        ),
        case(
            "7.3.5 the longest reason",
            &[whole(CLOSE, with(1000, &[b'*'; 123]))],
            &[Answer::Close(Some(1000))],
        ),
        case("7.3.6 a longer one", &[whole(CLOSE, with(1000, &[b'*'; 124]))], &[BROKEN]),
        case(
            "7.5.1 a reason that is not UTF-8",
            &[whole(CLOSE, with(1000, b"\xce\xba\xed\xa0\x80"))],
            &[NO_UTF8],
        ),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let frames = [whole(CLOSE, with(code, b""))];
        cases.push(case(format!("7.7 code {code}"), &frames, &[Answer::Close(Some(code))]));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let frames = [whole(CLOSE, with(code, b""))];
        cases.push(case(format!("7.9 code {code}"), &frames, &[BROKEN]));
    }
    cases
}

/// Opens a WebSocket and takes off the `connected` message.
fn open(address: SocketAddr) -> Peer {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut peer = Peer { stream, taken: Vec::new() };
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    peer.stream.write_all(request.as_bytes()).expect("written");
    let end = loop {
        if let Some(end) = peer.taken.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        assert!(peer.more(), "no answer to the handshake");
    };
    assert!(peer.taken.starts_with(b"HTTP/1.1 101 "));
    let head = String::from_utf8_lossy(&peer.taken[..end]).to_ascii_lowercase();
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert!(!head.contains("extensions"), "{head}");
    peer.taken.drain(..end);
    let (opcode, hello) = peer.frame().expect("a first message");
    assert!(opcode == TEXT && hello.windows(9).any(|bytes| bytes == b"connected"));
    peer
}

struct Peer {
    stream: TcpStream,
    taken: Vec<u8>,
}

impl Peer {
    /// Reads what there is; false at the end.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.taken.extend_from_slice(&buffer[..read]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                panic!("reset: {:x?}", self.taken)
            }
            Err(error) => panic!("{error}; {:x?}", self.taken),
        }
    }

    /// The next frame, which must be whole and not masked; none at the end.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((opcode, payload, used)) = parse(&self.taken) {
                self.taken.drain(..used);
                return Some((opcode, payload));
            }
            if !self.more() {
                assert!(self.taken.is_empty(), "half a frame: {:x?}", self.taken);
                return None;
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let [first, second, rest @ ..] = bytes else { return None };
    assert!(first & 0xf0 == 0x80 && second & 0x80 == 0, "what a server sends is whole, plain and not masked");
    let (length, at) = match second {
        126 => (usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(rest.get(..8)?.try_into().ok()?) as usize, 10),
        length => (usize::from(*length), 2),
    };
    Some((first & 0x0f, bytes.get(at..at + length)?.to_vec(), at + length))
}

fn answer(opcode: u8, payload: &[u8]) -> Answer {
    match opcode {
        PONG => Answer::Pong(payload.to_vec()),
        CLOSE => Answer::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
        TEXT => {
            let message: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
            if message["type"] == "pong" {
                Answer::Echo(message["id"].as_str().expect("as sent").to_owned())
            } else {
                assert_eq!(message["type"], "error");
                Answer::Error
            }
        }
        other => panic!("a frame of type {other}"),
    }
}

fn run(address: SocketAddr, case: &Case) -> Result<(), String> {
    let mut peer = open(address);
    for piece in case.bytes.chunks(case.chop.min(case.bytes.len()).max(1)) {
        // What is closed early is read no further.
        if peer.stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut got = Vec::new();
    while got.len() < case.answers.len() {
        let Some((opcode, payload)) = peer.frame() else { break };
        got.push(answer(opcode, &payload));
    }
    if got != case.answers {
        return Err(format!("{}: expected {:?}, got {got:?}", case.name, case.answers));
    }
    if matches!(got.last(), Some(Answer::Close(_))) {
        // The client that has been told off, or answered, closes too: then the connection ends, without a reset.
        peer.stream.shutdown(std::net::Shutdown::Write).map_err(|error| format!("{}: {error}", case.name))?;
        if let Some(frame) = peer.frame() {
            return Err(format!("{}: after the close came {frame:x?}", case.name));
        }
    }
    Ok(())
}

/// Where this service differs from what the suite hopes for, and the RFC (5.5.1) allows it: what is asked and not yet
/// answered when the close arrives takes effect, and the answer may be left out.
#[test]
fn a_request_just_before_a_close_takes_effect() {
    let server = start();
    let push =
        r#"{"type":"fsync","operation":"push","files":[{"path":"last","kind":"file","content":"words"}]}"#;
    let mut peer = open(server.address());
    let close = whole(CLOSE, 1000_u16.to_be_bytes());
    peer.stream.write_all(&[whole(TEXT, push), close].concat()).expect("written");
    let mut last = None;
    while let Some((opcode, payload)) = peer.frame() {
        last = Some((opcode, payload));
    }
    assert_eq!(last, Some((CLOSE, 1000_u16.to_be_bytes().to_vec())));
    assert_eq!(std::fs::read_to_string(server.workspace().join("last")).expect("written"), "words");
}

#[test]
fn frames_are_answered_as_the_rfc_says() {
    let server = start();
    let cases: Vec<Case> =
        [framing(), control(), reserved(), fragments(), utf8(), closing()].into_iter().flatten().collect();
    let failures: Vec<String> = cases.iter().filter_map(|case| run(server.address(), case).err()).collect();
    println!("WebSocket conformance: {} cases, {} failed", cases.len(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
