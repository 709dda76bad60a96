//! What workerd says on its `--control-fd`.

/// A socket that workerd listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The socket's name in the configuration; `http` in a generated one.
    pub socket: String,
    /// TCP port; 0 for a unix socket.
    pub port: u16,
}

/// Reads one line (`{"event":"listen","socket":"http","port":39201}`); `None` for anything else. The shape is
/// fixed: workerd prints it from a format string.
pub fn parse_report(line: &str) -> Option<Listening> {
    let rest = line.trim_end().strip_prefix(r#"{"event":"listen","socket":""#)?.strip_suffix('}')?;
    let (socket, port) = rest.rsplit_once(r#"","port":"#)?;
    Some(Listening { socket: socket.to_owned(), port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listen_events_are_reports() {
        let check = |line: &str, expected: Option<(&str, u16)>| {
            let found = parse_report(line);
            assert_eq!(found.as_ref().map(|one| (one.socket.as_str(), one.port)), expected, "{line:?}");
        };
        check("{\"event\":\"listen\",\"socket\":\"http\",\"port\":39201}\n", Some(("http", 39201)));
        check(r#"{"event":"listen","socket":"admin api","port":0}"#, Some(("admin api", 0)));
        check(r#"{"event":"listen","socket":"http","port":70000}"#, None);
        check(r#"{"event":"listen","socket":"http"}"#, None);
        check(r#"{"event":"closed","socket":"http","port":1}"#, None);
        check("", None);
    }
}
