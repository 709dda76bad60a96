//! HTTP/1 read in another way than the service does, to judge it by: whole texts in memory, nothing lenient but where
//! the service's own reader is.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What a client sends, and what a server answers to it: an input has both, parted by a line.
pub(crate) fn both_sides(bytes: &[u8]) -> (&[u8], &[u8]) {
    const AND: &[u8] = b"\n===\n";
    let cut = bytes.windows(AND.len()).position(|part| part == AND);
    cut.map_or((bytes, &b""[..]), |at| (&bytes[..at], &bytes[at + AND.len()..]))
}

/// A server of one answer, which comes after the first head, or whatever was sent instead; gives everything it has read.
pub(crate) async fn answer_one(mut stream: DuplexStream, answer: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    let mut answered = false;
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        all.extend_from_slice(&piece[..read]);
        if !answered && Message::read(&all).is_some() {
            answered = true;
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    }
    all
}

/// The lines between the first and the empty one, and what follows.
pub(crate) struct Message<'m> {
    lines: Vec<(String, &'m [u8])>,
    pub(crate) rest: &'m [u8],
}

impl<'m> Message<'m> {
    /// `None` if there is no empty line.
    pub(crate) fn read(mut bytes: &'m [u8]) -> Option<Self> {
        let mut lines = Vec::new();
        loop {
            let end = bytes.iter().position(|byte| *byte == b'\n')?;
            let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
            bytes = &bytes[end + 1..];
            match (line.is_empty(), lines.is_empty()) {
                // Before a request line they are passed over (RFC 9112, section 2.2).
                (true, true) => {}
                (true, false) => break,
                (false, _) => lines.push(line),
            }
        }
        let lines = lines.into_iter().skip(1).map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            (name, line[colon..].strip_prefix(b":").unwrap_or_default().trim_ascii())
        });
        Some(Self { lines: lines.collect(), rest: bytes })
    }

    /// All values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&'m [u8]> {
        self.lines.iter().filter(|(known, _)| known == name).map(|(_, value)| *value).collect()
    }

    /// What is left behind the body; `None` if it has not come whole. `bodiless`: whatever the fields say.
    pub(crate) fn after_body(&self, bodiless: bool) -> Option<&'m [u8]> {
        if bodiless {
            return Some(self.rest);
        }
        match (self.all("transfer-encoding").as_slice(), self.all("content-length").as_slice()) {
            ([], []) => Some(self.rest),
            ([coding], []) => {
                assert!(coding.to_ascii_lowercase().ends_with(b"chunked"), "another coding: {coding:?}");
                after_chunks(self.rest)
            }
            ([], [length]) => {
                let length = str::from_utf8(length).ok().and_then(|text| text.parse().ok());
                self.rest.get(length.expect("a length is a number")..)
            }
            both => panic!("its end is told twice: {both:?}"),
        }
    }
}

fn after_chunks(mut bytes: &[u8]) -> Option<&[u8]> {
    let line = |bytes: &mut &[u8]| {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
        *bytes = &bytes[end + 2..];
        Some(line)
    };
    loop {
        let size = usize::from_str_radix(&line(&mut bytes)?, 16).expect("the size of a chunk");
        if size == 0 {
            while !line(&mut bytes)?.is_empty() {}
            return Some(bytes);
        }
        assert_eq!(bytes.get(size..size + 2)?, b"\r\n");
        bytes = &bytes[size + 2..];
    }
}
