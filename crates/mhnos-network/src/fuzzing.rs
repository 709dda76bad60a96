//! What must hold for any bytes from a program that wants out. The targets of `fuzz/` call these, and so does a test
//! with the corpora and simple changes of them.

use std::sync::Arc;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};

use self::reference::{Message, answer_one, both_sides};
use crate::{
    dial::{DialError, Purpose, Reached},
    dns::{self, Answer},
    limits::Bounds,
    policy::RuleName,
    proxy::{self, Outside},
    socks,
    target::Target,
};

/// A reader of HTTP that is not the proxy's.
#[path = "../../../fuzz/reference/http.rs"]
mod reference;

fn run<T>(what: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(what))
}

/// A question for a name: what is answered belongs to it, and is an answer.
pub fn dns(bytes: &[u8]) {
    let answers = match dns::parse(bytes) {
        Ok(question) => {
            if let Some(name) = &question.name {
                assert!(Target::parse(name, 53).is_some(), "{name:?} is no destination");
                assert_eq!(*name, name.to_ascii_lowercase());
            }
            let all = [Answer::Number(7), Answer::Localhost, Answer::NoSuchName, Answer::Refused];
            all.map(|answer| question.answer(answer)).to_vec()
        }
        Err(Some(answer)) => vec![answer],
        Err(None) => return,
    };
    for answer in answers {
        assert_eq!(answer[..2], bytes[..2], "the answer to another question");
        assert!(answer[2] & 0x80 != 0 && answer.len() >= 12 && answer.len() <= bytes.len() + 64);
    }
}

/// A SOCKS conversation up to the destination, and what a proxy may be asked for as text.
pub fn socks(bytes: &[u8]) {
    let (mut near, far) = tokio::io::duplex(1024);
    let ask = async {
        let asked = socks::ask(&mut near).await;
        drop(near);
        asked
    };
    let (asked, answers) = run(async { tokio::join!(ask, talk(far, bytes)) });
    if let Ok(Ok(target)) = asked {
        let again = Target::parse(&target.host.to_string(), target.port);
        assert_eq!(again, Some(target), "read again it is another place");
        assert_eq!(answers, [5, 0]);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some((host, port)) = text.rsplit_once(':')
        && let Some(target) = Target::parse(host, port.parse().unwrap_or(0))
    {
        assert_eq!(Target::parse(&target.host.to_string(), target.port), Some(target));
    }
}

/// Sends everything and gives what came back.
async fn talk(mut stream: DuplexStream, bytes: &[u8]) -> Vec<u8> {
    // What is not read any more is not missed.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers).await;
    answers
}

/// A program's connection to the proxy, and what every server behind it answers.
pub fn proxy(bytes: &[u8]) {
    let (sent, answer) = both_sides(bytes);
    run(async {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (dialled, mut servers) = mpsc::channel(SERVERS);
        let world = Arc::new(World { bounds: Bounds::default(), dialled });
        let passing = async move {
            // Whatever is wrong is answered, or the connection ends.
            let _ = proxy::http(near, &world).await;
        };
        let serving = async {
            let mut busy = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some((target, stream)) = servers.recv() => busy.push(serve(target, stream, answer, sent)),
                    Some(()) = busy.next() => {}
                    else => break,
                }
            }
        };
        tokio::join!(talk(far, sent), passing, serving)
    });
}

/// Servers a program may reach at once.
const SERVERS: usize = 4;

/// An outside of memory.
struct World {
    bounds: Bounds,
    dialled: mpsc::Sender<(Target, DuplexStream)>,
}

impl Outside for World {
    type Stream = DuplexStream;

    async fn dial(&self, target: &Target, _: Purpose) -> Result<Reached<DuplexStream>, DialError> {
        assert_eq!(Target::parse(&target.host.to_string(), target.port).as_ref(), Some(target));
        if target.port.is_multiple_of(7) {
            return Err(DialError::Refused(RuleName("off")));
        }
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.dialled.try_send((target.clone(), far)).map_err(|_| DialError::NoSuchName)?;
        Ok(Reached { stream: near, whole_url: false })
    }

    fn bounds(&self) -> &Bounds {
        &self.bounds
    }
}

/// A server that answers a head, or whatever comes instead, and reads on.
async fn serve(target: Target, stream: DuplexStream, answer: &[u8], sent: &[u8]) {
    let all = answer_one(stream, answer).await;
    // A tunnel: byte for byte. What is passed on never looks like it, as it has lost its host.
    if sent.ends_with(&all) {
        return;
    }
    let Some(request) = Message::read(&all) else { return };
    let hosts = request.all("host");
    let host = str::from_utf8(hosts.first().expect("a Host")).expect("text").rsplit_once('@');
    assert!(hosts.len() == 1 && host.is_none(), "{hosts:?}");
    let (name, port) = split(hosts[0]);
    assert_eq!(Target::parse(name, port), Some(target), "one host is connected to, another is asked for");
    for gone in ["keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade", "connection"] {
        assert!(request.all(gone).is_empty(), "{gone}");
    }
    if let Some(rest) = request.after_body(false) {
        assert_eq!(rest, b"", "bytes behind the end of a request");
    }
}

fn split(host: &[u8]) -> (&str, u16) {
    let text = str::from_utf8(host).expect("text");
    match text.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && !port.ends_with(']') => {
            (name, port.parse().expect("a port"))
        }
        _ => (text, 80),
    }
}

#[cfg(test)]
mod tests {
    use mhnos_testing::replay;

    #[test]
    fn no_question_surprises() {
        replay("dns", super::dns);
    }

    #[test]
    fn no_request_to_the_proxy_surprises() {
        replay("proxy", super::proxy);
    }

    #[test]
    fn no_wish_for_a_connection_surprises() {
        replay("socks", super::socks);
    }
}
