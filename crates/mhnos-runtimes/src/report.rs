//! What workerd says on its `--control-fd`.

/// A socket that workerd listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The socket's name in the configuration; `http` in a generated one.
    pub socket: String,
    /// TCP port; 0 for a unix socket.
    pub port: u16,
}

/// Reads one line (`{"event":"listen","socket":"http","port":39201}`); `None` for anything else.
pub fn parse_report(line: &str) -> Option<Listening> {
    let _ = line;
    todo!()
}
