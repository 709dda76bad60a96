//! What programs write here: one line again and again, so that every byte that arrives can be checked where it stands.

/// A line, repeated, as it is or as it stands in JSON.
#[derive(Clone)]
pub(crate) struct Pattern {
    /// So often that any piece is a slice of it.
    repeated: Vec<u8>,
    period: usize,
    at: usize,
}

/// Longest piece that is checked at once.
const LONGEST: usize = 1 << 20;

impl Pattern {
    /// The bytes themselves.
    pub(crate) fn raw(line: &str) -> Self {
        let line = line.as_bytes();
        let repeated = line.iter().copied().cycle().take(LONGEST + line.len()).collect();
        Self { repeated, period: line.len(), at: 0 }
    }

    /// The bytes between the quotes of a JSON string, as the service writes it.
    pub(crate) fn json(line: &str) -> Self {
        let quoted = serde_json::to_string(line).expect("a string");
        Self::raw(&quoted[1..quoted.len() - 1])
    }

    /// Checks the bytes that come next.
    pub(crate) fn check(&mut self, piece: &[u8]) {
        let begin = self.at % self.period;
        assert!(
            piece == &self.repeated[begin..begin + piece.len()],
            "other bytes than were written, after {}",
            self.at
        );
        self.at += piece.len();
    }

    /// Where it is: bytes since the start.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The bytes until there were announced as missing.
    pub(crate) fn skip_to(&mut self, position: usize) {
        self.at = position;
    }

    /// How many lines have come; `None` in the middle of one.
    pub(crate) fn lines(&self) -> Option<usize> {
        self.at.is_multiple_of(self.period).then_some(self.at / self.period)
    }
}

/// The data of a text frame of output as it stands in the JSON; `None` for another message.
pub(crate) fn data(frame: &[u8]) -> Option<&[u8]> {
    let rest = frame.strip_prefix(b"{\"type\":\"stdout\",\"data\":\"")?;
    let tail = rest.len().saturating_sub(64);
    let end = rest[tail..].windows(8).rposition(|part| part == b"\",\"pid\":")?;
    Some(&rest[..tail + end])
}
