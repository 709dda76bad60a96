//! What must hold for any bytes from a program that wants out. The targets of `fuzz/` call these, and so does a test
//! with the corpora and simple changes of them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    dns::{self, Answer},
    socks,
    target::Target,
};

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
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    }
    let (near, mut far) = tokio::io::duplex(1024);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut answers, mut stream) = (Vec::new(), near);
            let send = async {
                // What is not read any more is not missed.
                let _ = far.write_all(bytes).await;
                let _ = far.shutdown().await;
                let _ = far.read_to_end(&mut answers).await;
            };
            let ask = async {
                let asked = socks::ask(&mut stream).await;
                drop(stream);
                asked
            };
            let (asked, ()) = tokio::join!(ask, send);
            if let Ok(Ok(target)) = asked {
                let again = Target::parse(&target.host.to_string(), target.port);
                assert_eq!(again, Some(target), "read again it is another place");
                assert_eq!(answers, [5, 0]);
            }
        });
    });
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some((host, port)) = text.rsplit_once(':')
        && let Some(target) = Target::parse(host, port.parse().unwrap_or(0))
    {
        assert_eq!(Target::parse(&target.host.to_string(), target.port), Some(target));
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
    fn no_wish_for_a_connection_surprises() {
        replay("socks", super::socks);
    }
}
