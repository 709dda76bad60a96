//! A Rust file with its comments and literals blanked out, line for line, so that words in them are not taken for code.
//!
//! Not a parser: it knows comments (nested), strings (escaped, raw, byte, C) and character literals, which is all it takes.

/// The same number of lines; the inside of comments and literals is blanks.
pub(super) fn code_only(text: &str) -> String {
    let mut rest = text;
    let mut code = String::with_capacity(text.len());
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let length = literal(rest, previous).unwrap_or(0);
        if length == 0 {
            code.push(first);
            previous = first;
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|inside| if inside == '\n' { '\n' } else { ' ' }));
            previous = ' ';
            rest = &rest[length..];
        }
    }
    code
}

/// The length in bytes of a comment or literal at the start of `rest`, if one starts there.
fn literal(rest: &str, previous: char) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    if let Some(inside) = rest.strip_prefix('"') {
        return Some(1 + string_end(inside));
    }
    let starts_word = !(previous.is_alphanumeric() || previous == '_');
    if starts_word && let Some(length) = raw_string(rest) {
        return Some(length);
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        return character(inside).map(|length| 1 + length);
    }
    None
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length up to and including the closing quote.
fn string_end(inside: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    inside.len()
}

/// `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`.
fn raw_string(rest: &str) -> Option<usize> {
    let after_r =
        rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'))?;
    let hashes = after_r.len() - after_r.trim_start_matches('#').len();
    let inside = after_r[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let opening = rest.len() - inside.len();
    Some(inside.find(&end).map_or(rest.len(), |at| opening + at + end.len()))
}

/// The length up to and including the closing quote; none for a lifetime.
fn character(inside: &str) -> Option<usize> {
    let mut characters = inside.char_indices();
    let (_, first) = characters.next()?;
    if first == '\\' {
        let (at, escaped) = characters.next()?;
        let from = at + escaped.len_utf8();
        return inside[from..].find('\'').map(|close| from + close + 1);
    }
    let (at, second) = characters.next()?;
    (second == '\'').then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::code_only;

    #[test]
    fn comments_and_literals_are_blanked_and_code_stays() {
        for (text, kept) in [
            ("a(); // b", "a();"),
            ("a(/* b /* c */ d */);", "a(                 );"),
            ("a(\"b \\\" c\", d);", "a(        , d);"),
            ("a(r#\"b \" c\"#, d);", "a(          , d);"),
            ("for<'a> b('\\'', 'c', '\"');", "for<'a> b(    ,    ,    );"),
            ("letter\"x\"", "letter"),
        ] {
            assert_eq!(code_only(text).trim_end(), kept, "{text}");
        }
    }

    #[test]
    fn lines_keep_their_numbers() {
        assert_eq!(code_only("\"a\nb\"\n/*\n*/\nc").lines().count(), 5);
    }
}
