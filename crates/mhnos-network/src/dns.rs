//! Questions and answers about names (RFC 1035), as far as a sandbox needs them: one question, answered from here.
//!
//! Nothing of a question is passed on, so this parses a fixed form and nothing else: no compression, no more than one
//! question; what may follow it (EDNS) is not looked at.

use crate::{limits::NAME_TTL, names, target};

/// What a question asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question<'m> {
    id: [u8; 2],
    flags: u8,
    /// The question as it was sent, for the answer to repeat.
    raw: &'m [u8],
    /// As it is compared; `None` if it is no host name.
    pub(crate) name: Option<String>,
    kind: u16,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The addresses of this number.
    Number(u32),
    /// The sandbox's own loopback (RFC 6761).
    Localhost,
    /// There is no such name.
    NoSuchName,
    /// A rule forbids it.
    Refused,
}

const A: u16 = 1;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;
const HEAD: usize = 12;

const RESPONSE: u8 = 0x80;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
const FORMAT_ERROR: u8 = 1;
const NAME_ERROR: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;

/// A question; or the answer to what is none; or nothing, for what deserves none.
pub(crate) fn parse(message: &[u8]) -> Result<Question<'_>, Option<Vec<u8>>> {
    let head: [u8; HEAD] = message.get(..HEAD).and_then(|head| head.try_into().ok()).ok_or(None)?;
    let (id, flags) = ([head[0], head[1]], head[2]);
    if flags & RESPONSE != 0 {
        return Err(None);
    }
    let error = |code| Err(Some(header(id, flags, code, 0, 0)));
    if flags & 0x78 != 0 {
        return error(NOT_IMPLEMENTED);
    }
    if head[4..6] != [0, 1] {
        return error(FORMAT_ERROR);
    }
    let Some((name, end)) = labels(message) else { return error(FORMAT_ERROR) };
    let Some(&[kind_high, kind_low, class_high, class_low]) = message.get(end..end + 4) else {
        return error(FORMAT_ERROR);
    };
    if u16::from_be_bytes([class_high, class_low]) != INTERNET {
        return error(NOT_IMPLEMENTED);
    }
    let kind = u16::from_be_bytes([kind_high, kind_low]);
    Ok(Question { id, flags, raw: &message[HEAD..end + 4], name: target::name(&name), kind })
}

/// The name after the head, dotted, and where it ends. What is not ASCII cannot be a host name and is marked so.
fn labels(message: &[u8]) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = HEAD;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        let label = message.get(at..at + length).filter(|_| length <= 63)?;
        if !name.is_empty() {
            name.push('.');
        }
        // A dot within a label would be read as two labels.
        name.extend(
            label.iter().map(|byte| if byte.is_ascii() && *byte != b'.' { char::from(*byte) } else { ' ' }),
        );
        at += length;
        if name.len() > 254 {
            return None;
        }
    }
}

impl Question<'_> {
    /// The whole message that answers. A type we know nothing of is answered with nothing, as for a name that has none.
    pub(crate) fn answer(&self, answer: Answer) -> Vec<u8> {
        let record: Option<Vec<u8>> = match (answer, self.kind) {
            (Answer::Number(number), A) => Some(names::v4(number).octets().into()),
            (Answer::Number(number), AAAA) => Some(names::v6(number).octets().into()),
            (Answer::Localhost, A) => Some(std::net::Ipv4Addr::LOCALHOST.octets().into()),
            (Answer::Localhost, AAAA) => Some(std::net::Ipv6Addr::LOCALHOST.octets().into()),
            _ => None,
        };
        let code = match answer {
            Answer::Number(_) | Answer::Localhost => 0,
            Answer::NoSuchName => NAME_ERROR,
            Answer::Refused => REFUSED,
        };
        let mut message = header(self.id, self.flags, code, 1, u8::from(record.is_some()));
        message.extend(self.raw);
        if let Some(record) = record {
            // The name is the question's.
            message.extend([0xc0, HEAD as u8]);
            message.extend(self.kind.to_be_bytes());
            message.extend(INTERNET.to_be_bytes());
            message.extend(NAME_TTL.to_be_bytes());
            message.extend((record.len() as u16).to_be_bytes());
            message.extend(record);
        }
        message
    }
}

fn header(id: [u8; 2], flags: u8, code: u8, questions: u8, answers: u8) -> Vec<u8> {
    let flags = RESPONSE | flags & RECURSION_DESIRED;
    vec![id[0], id[1], flags, RECURSION_AVAILABLE | code, 0, questions, 0, answers, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            message.push(label.len() as u8);
            message.extend(label.bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    #[test]
    fn a_question_is_answered_with_the_address_that_stands_for_the_name() {
        let message = question("Registry.Example.org", A);
        let asked = parse(&message).expect("a question");
        assert_eq!(asked.name.as_deref(), Some("registry.example.org"));
        let answer = asked.answer(Answer::Number(16));
        assert_eq!(answer[..4], [7, 8, 0x81, 0x80]);
        assert_eq!(answer[answer.len() - 4..], [198, 18, 0, 16]);
        let message = question("registry.example.org", AAAA);
        let answer = parse(&message).expect("a question").answer(Answer::Number(16));
        assert_eq!(answer[answer.len() - 16..][..4], [0x20, 1, 0, 2]);
    }

    #[test]
    fn other_types_have_no_answer_and_refusals_say_so() {
        let message = question("example.org", 16);
        let asked = parse(&message).expect("a question");
        assert_eq!(asked.answer(Answer::Number(16))[6..8], [0, 0]);
        assert_eq!(asked.answer(Answer::Refused)[3], 0x85);
        assert_eq!(asked.answer(Answer::NoSuchName)[3], 0x83);
    }

    #[test]
    fn what_is_no_question_is_told_so_or_not_answered() {
        assert_eq!(parse(&[1, 2, 3]), Err(None));
        let mut response = question("a", A);
        response[2] |= 0x80;
        assert_eq!(parse(&response), Err(None));
        let mut two = question("a", A);
        two[5] = 2;
        assert!(matches!(parse(&two), Err(Some(answer)) if answer[3] == 0x81));
        let mut update = question("a", A);
        update[2] = 0x28;
        assert!(matches!(parse(&update), Err(Some(answer)) if answer[3] == 0x84));
        let mut pointer = question("a", A);
        pointer[12] = 0xc0;
        assert!(matches!(parse(&pointer), Err(Some(_))));
    }

    #[test]
    fn a_dot_in_a_label_makes_no_other_name() {
        let mut message = question("a-b.org", A);
        message[14] = b'.';
        assert_eq!(parse(&message).expect("a question").name, None);
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(question) = parse(&message) {
                let answer = question.answer(Answer::Number(20));
                prop_assert_eq!(&answer[..2], &message[..2]);
                prop_assert!(answer.len() <= message.len() + 28);
            }
        }
    }
}
