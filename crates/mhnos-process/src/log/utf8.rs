//! Where text may be cut: characters are never split over frames, so an incomplete one at the end of what
//! is there is kept back until its rest arrives.
//!
//! What is kept back depends on nothing but the bytes before the cut. That is why a client can resume at any
//! position, and a new bridge can go on for it: the carry is looked up in the log again.

/// The most bytes of an incomplete UTF-8 character.
pub(crate) const MAX_CARRY: usize = 3;

/// How many bytes at the end of `head` followed by `tail` begin a UTF-8 character that is not complete.
/// Bytes that no continuation could make valid count as 0: they are invalid now.
pub(crate) fn incomplete_suffix(head: &[u8], tail: &[u8]) -> usize {
    let carry = Carry::after(head, tail);
    carry.as_bytes().len()
}

/// The incomplete character a stream's bytes end with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carry {
    bytes: [u8; MAX_CARRY],
    len: u8,
}

impl Carry {
    /// What is incomplete at the end of `head` followed by `tail`.
    pub(crate) fn after(head: &[u8], tail: &[u8]) -> Self {
        let from_head = MAX_CARRY.saturating_sub(tail.len()).min(head.len());
        let mut last = Self::default();
        last.append(&head[head.len() - from_head..]);
        last.append(&tail[tail.len() - tail.len().min(MAX_CARRY)..]);
        let last = last.as_bytes();
        for len in 1..=last.len() {
            let suffix = &last[last.len() - len..];
            if suffix[0] & 0xC0 == 0x80 {
                continue;
            }
            let incomplete = std::str::from_utf8(suffix).is_err_and(|error| error.error_len().is_none());
            let mut carry = Self::default();
            carry.append(if incomplete { suffix } else { &[] });
            return carry;
        }
        Self::default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn append(&mut self, more: &[u8]) {
        let start = usize::from(self.len);
        self.bytes[start..start + more.len()].copy_from_slice(more);
        self.len += more.len() as u8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_can_still_become_a_character_is_kept_back() {
        let cases: [(&[u8], usize); 12] = [
            (b"", 0),
            (b"abc", 0),
            ("é".as_bytes(), 0),
            (&[0xC3], 1),
            (&[b'a', 0xE2, 0x82], 2),
            (&[0xF0, 0x9F, 0x98], 3),
            (&[0xF0, 0x9F, 0x98, 0x80], 0),
            (&[0xE0, 0x80], 0),       // no continuation makes it valid
            (&[0xED, 0xA0], 0),       // a surrogate
            (&[0xF5], 0),             // beyond Unicode
            (&[0x80, 0x80, 0x80], 0), // continuations of nothing
            (&[0xC3, 0xC3], 1),
        ];
        for (bytes, expected) in cases {
            for cut in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(incomplete_suffix(head, tail), expected, "{bytes:?} cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn text_cut_anywhere_and_joined_by_carries_is_the_text(
            text in any::<String>(), noise in any::<Vec<u8>>(), cuts in prop::collection::vec(1usize..9, 0..40),
        ) {
            let mut bytes = text.into_bytes();
            bytes.extend_from_slice(&noise);
            let mut out = String::new();
            let mut carry = Carry::default();
            let mut rest = &bytes[..];
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                let mut joined = carry.as_bytes().to_vec();
                joined.extend_from_slice(piece);
                carry = Carry::after(carry.as_bytes(), piece);
                out.push_str(&String::from_utf8_lossy(&joined[..joined.len() - carry.as_bytes().len()]));
            }
            out.push_str(&String::from_utf8_lossy(carry.as_bytes()));
            prop_assert_eq!(out, String::from_utf8_lossy(&bytes));
        }
    }
}
