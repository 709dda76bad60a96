//! A strict JSON scanner (RFC 8259) that finds values instead of building them.
//!
//! Why not serde_json alone: a pushed file is an array of millions of numbers, which must be read once, at
//! memory speed, into bytes; an error must name the field *and* show what stood there, while the `id` of
//! the same message stays readable; and a lone surrogate, which JavaScript happily sends, must not fail the
//! message. What this scanner accepts is what serde_json accepts (a property test holds the two together).

use std::borrow::Cow;

use crate::error::{ErrorCode, Malformed};
use crate::limits::MAX_DEPTH;
use crate::numbers;

/// A position in a JSON text.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// The text of one valid JSON value, without surrounding white space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a>(pub(crate) &'a str);

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// The next byte that is not white space, or 0 at the end (which is not valid JSON either).
    pub(crate) fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or(0)
    }

    /// What is left, from the position on.
    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// Reads as many numbers of an array as [`numbers::read_run`] takes, the commas behind them included.
    pub(crate) fn bytes(&mut self, bytes: &mut Vec<u8>) {
        self.at += numbers::read_run(self.text.as_bytes(), self.at, bytes);
    }

    /// Nothing but white space is left.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            0 if self.at == self.text.len() => Ok(()),
            _ => Err(self.fault("the end of the message")),
        }
    }

    /// Skips one value of any kind.
    pub(crate) fn value(&mut self) -> Result<Raw<'a>, Malformed> {
        let first = self.peek();
        let start = self.at;
        match first {
            b'"' => {
                self.string()?;
            }
            b'{' => self.object(|scanner, _| scanner.value().map(drop))?,
            b'[' => self.array(|scanner, _| scanner.value().map(drop))?,
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            b'-' | b'0'..=b'9' => self.number()?,
            _ => return Err(self.fault("a value")),
        }
        Ok(Raw(&self.text[start..self.at]))
    }

    /// Reads an object; `each` is called after each key and must read the value.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.open(b'{', "an object")?;
        if self.peek() == b'}' {
            return self.close();
        }
        loop {
            if self.peek() != b'"' {
                return Err(self.fault("a key"));
            }
            let key = self.string()?.unescaped();
            if self.peek() != b':' {
                return Err(self.fault("':'"));
            }
            self.at += 1;
            each(self, key)?;
            match self.peek() {
                b',' => self.at += 1,
                b'}' => return self.close(),
                _ => return Err(self.fault("',' or '}'")),
            }
        }
    }

    /// Reads an array; `each` is called with each index and must read the value.
    pub(crate) fn array(
        &mut self,
        mut each: impl FnMut(&mut Self, usize) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.open(b'[', "an array")?;
        if self.peek() == b']' {
            return self.close();
        }
        for index in 0.. {
            each(self, index)?;
            match self.peek() {
                b',' => self.at += 1,
                b']' => return self.close(),
                _ => return Err(self.fault("',' or ']'")),
            }
        }
        Ok(())
    }

    fn open(&mut self, bracket: u8, what: &str) -> Result<(), Malformed> {
        if self.peek() != bracket {
            return Err(self.fault(what));
        }
        if self.depth == MAX_DEPTH {
            return Err(Malformed::new(
                ErrorCode::InvalidMessage,
                format!("Invalid message format: nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "ends the loops that may fail elsewhere")]
    fn close(&mut self) -> Result<(), Malformed> {
        self.depth -= 1;
        self.at += 1;
        Ok(())
    }

    /// Reads a string whose opening quote is next.
    fn string(&mut self) -> Result<Raw<'a>, Malformed> {
        let start = self.at;
        self.at += 1;
        loop {
            self.at += plain_run(self.rest());
            match self.rest() {
                [b'"', ..] => {
                    self.at += 1;
                    return Ok(Raw(&self.text[start..self.at]));
                }
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => self.at += 2,
                [b'\\', b'u', hex @ ..] if hex.len() >= 4 && hex[..4].iter().all(u8::is_ascii_hexdigit) => {
                    self.at += 6;
                }
                [b'\\', ..] => return Err(self.fault("a valid escape")),
                [] => return Err(self.fault("the end of a string")),
                _ => return Err(self.fault("no control character in a string")),
            }
        }
    }

    fn number(&mut self) -> Result<(), Malformed> {
        let bytes = self.text.as_bytes();
        let digits = |at: usize| bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut at = self.at + usize::from(bytes[self.at] == b'-');
        let whole = digits(at);
        if whole == 0 || (whole > 1 && bytes[at] == b'0') {
            return Err(self.fault("a number"));
        }
        at += whole;
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            if fraction == 0 {
                return Err(self.fault("a number"));
            }
            at += 1 + fraction;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(at + 1 + sign);
            if exponent == 0 {
                return Err(self.fault("a number"));
            }
            at += 1 + sign + exponent;
        }
        self.at = at;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), Malformed> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.fault("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// The message is not JSON; `wanted` is what should stand here.
    fn fault(&self, wanted: &str) -> Malformed {
        let text = match self.text[self.at..].chars().next() {
            None => format!("Invalid message format: it ends at byte {} where {wanted} is expected", self.at),
            Some(found) => {
                let found = found.escape_debug();
                format!("Invalid message format: expected {wanted} at byte {}, found '{found}'", self.at)
            }
        };
        Malformed::new(ErrorCode::InvalidMessage, text)
    }
}

/// How many bytes come before the next quote, backslash or control character.
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // Eight bytes at a time: `(x - n) & !x & 0x80` marks the bytes of x below n; above the first mark the
    // borrow may mark wrongly, but only the first one counts. Equality is "below 1" after a xor.
    let below = |x: u64, n: u64| x.wrapping_sub(ONES * n) & !x & HIGHS;
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let x = u64::from_le_bytes(*word);
        let marks =
            below(x, 0x20) | below(x ^ (ONES * u64::from(b'"')), 1) | below(x ^ (ONES * u64::from(b'\\')), 1);
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let plain = tail.iter().take_while(|&&byte| byte >= 0x20 && byte != b'"' && byte != b'\\').count();
    bytes.len() - tail.len() + plain
}

impl<'a> Raw<'a> {
    /// The kind of value, by its first byte: one of `"`, `{`, `[`, `t`, `f`, `n`, or a number's.
    fn first(self) -> u8 {
        self.0.as_bytes()[0]
    }

    pub(crate) fn is_null(self) -> bool {
        self.first() == b'n'
    }

    pub(crate) fn as_bool(self) -> Option<bool> {
        match self.0 {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    pub(crate) fn as_string(self) -> Option<Cow<'a, str>> {
        (self.first() == b'"').then(|| self.unescaped())
    }

    pub(crate) fn is_object(self) -> bool {
        self.first() == b'{'
    }

    pub(crate) fn is_array(self) -> bool {
        self.first() == b'['
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(self.first(), b'-' | b'0'..=b'9')
    }

    /// The number, if this is one. Beyond the range of a double it is infinite.
    pub(crate) fn as_number(self) -> Option<f64> {
        self.is_number().then(|| self.0.parse().expect("JSON numbers are a subset of Rust's"))
    }

    /// The number, if it is whole, not negative and below 2^64; `1e3` and `1000.0` are whole.
    pub(crate) fn as_whole(self) -> Option<u64> {
        if let Ok(number) = self.0.parse() {
            return Some(number);
        }
        let number = self.as_number()?;
        (number >= 0.0 && number.fract() == 0.0 && number < u64::MAX as f64).then_some(number as u64)
    }

    /// The characters of a string value; lone surrogates become U+FFFD.
    fn unescaped(self) -> Cow<'a, str> {
        let mut rest = &self.0[1..self.0.len() - 1];
        let first = plain_run(rest.as_bytes());
        if first == rest.len() {
            return Cow::Borrowed(rest);
        }
        let mut text = String::with_capacity(rest.len());
        loop {
            let (plain, escape) = rest.split_at(plain_run(rest.as_bytes()));
            text.push_str(plain);
            let Some(escaped) = escape.strip_prefix('\\') else { return Cow::Owned(text) };
            rest = push_escape(&mut text, escaped);
        }
    }
}

/// Writes what the escape stands for; `escaped` begins after its backslash. Returns what follows it.
fn push_escape<'a>(text: &mut String, escaped: &'a str) -> &'a str {
    let (kind, rest) = escaped.split_at(1);
    match kind.as_bytes()[0] {
        b'b' => text.push('\u{8}'),
        b'f' => text.push('\u{c}'),
        b'n' => text.push('\n'),
        b'r' => text.push('\r'),
        b't' => text.push('\t'),
        b'u' => return push_unicode(text, rest),
        // The quote, the backslash and the slash stand for themselves.
        _ => text.push_str(kind),
    }
    rest
}

/// Writes the character of a `\u` escape, or of two that are a surrogate pair.
fn push_unicode<'a>(text: &mut String, hex: &'a str) -> &'a str {
    let (unit, rest) = (code_unit(hex), &hex[4..]);
    if let 0xD800..=0xDBFF = unit
        && let Some(second) = rest.strip_prefix("\\u")
        && let low @ 0xDC00..=0xDFFF = code_unit(second)
    {
        let pair = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        text.push(char::from_u32(pair).unwrap_or('\u{fffd}'));
        return &second[4..];
    }
    text.push(char::from_u32(unit).unwrap_or('\u{fffd}'));
    rest
}

/// The value of four hexadecimal digits, which the scanner has seen to be some.
fn code_unit(hex: &str) -> u32 {
    let digit =
        |byte: u8| u32::from(if byte.is_ascii_digit() { byte - b'0' } else { (byte | 0x20) - b'a' + 10 });
    hex.bytes().take(4).fold(0, |unit, byte| unit << 4 | digit(byte))
}

#[cfg(test)]
mod tests;
