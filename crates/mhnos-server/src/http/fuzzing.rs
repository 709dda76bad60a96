//! What must hold for any bytes that a connection to the service begins with. The target of `fuzz/` calls this, and so
//! does a test with the corpus and simple changes of it.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

use super::{Arrival, Front, Guest, Health, HealthProcesses, HealthSandbox, receive};
use crate::{
    crowd::Crowd,
    door::{
        Access, Door, LogPace, Tokens,
        fuzzing::{is_loopback_page, is_own_host},
    },
    fuzzing::{reference::Message, run, status},
    limits,
    places::Places,
    stream::Stream,
};

const TOKEN: &str = "0123456789abcdef";

/// A connection; the first byte says whether a token is asked for.
pub fn front(bytes: &[u8]) {
    let Some((&first, sent)) = bytes.split_first() else { return };
    let asks = first % 2 == 1;
    let (answers, guest) = run(exchange(&Arc::new(a_front(asks)), sent));
    let Some(answer) = Message::read(&answers) else {
        assert!(answers.is_empty() && guest.is_none(), "half an answer: {answers:?}");
        return;
    };
    let status = status(&answers);
    let to_head = sent.trim_ascii_start().starts_with(b"HEAD ");
    let rest = answer.after_body(to_head || matches!(status, 101 | 204)).expect("a whole answer");
    assert_eq!(rest, b"", "one connection, one answer");
    assert_eq!(status == 101, guest.is_some());
    // By the HTTP library: no request was understood.
    let unread = matches!(status, 400 | 414 | 431) && answer.all("content-type").is_empty();
    if unread || status == 403 {
        return;
    }
    let request = Message::read(sent).expect("whole, since it was answered");
    let (hosts, origins) = (request.all("host"), request.all("origin"));
    assert!(hosts.len() == 1 && is_own_host(hosts[0]), "{hosts:?} was let in");
    assert!(origins.len() <= 1 && origins.iter().all(|origin| is_loopback_page(origin)), "{origins:?}");
    let shown = sent.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
    if asks && !shown {
        assert!(guest.is_none_or(|guest| guest.admission.is_none()), "let in without a token");
        assert!(!answers.windows(6).any(|part| part == b"uptime"), "told without a token");
    }
}

/// The door alone; tests put in what they look at.
pub(super) fn a_front(asks: bool) -> Front {
    let health = || Health {
        status: "ok",
        uptime: 0.0,
        processes: HealthProcesses { total_spawned: 0, total_killed: 0, active: 0 },
        version: "",
        sandbox: HealthSandbox { mode: "", tier: "" },
    };
    let mut tokens = Tokens::default();
    tokens.add_alone(TOKEN).expect("a token");
    Front {
        door: Door::new(vec![[127, 0, 0, 1].into(), [192, 0, 2, 7].into()], Vec::new()),
        previews: None,
        access: Access::new(watch::channel(Arc::new(tokens)).1, asks),
        strangers: None,
        pace: LogPace::default(),
        hall: Arc::default(),
        places: Places::new(10, 10),
        crowd: Crowd::new(limits::MESSAGE_BUDGET),
        tls: None,
        health: Box::new(health),
        scrape: Box::new(String::new),
        refused: Box::new(|_| {}),
    }
}

async fn exchange(front: &Arc<Front>, sent: &[u8]) -> (Vec<u8>, Option<Guest>) {
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let peer = SocketAddr::from(([192, 0, 2, 1], 1));
    let arrival = Arc::new(Arrival::new(front, peer));
    let talk = async {
        // What is not read any more is not missed.
        let _ = far.write_all(sent).await;
        let _ = far.shutdown().await;
        let mut answers = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match far.read(&mut piece).await {
                Ok(0) | Err(_) => break answers,
                Ok(read) => answers.extend_from_slice(&piece[..read]),
            }
            if answers.starts_with(b"HTTP/1.1 101") && answers.ends_with(b"\r\n\r\n") {
                break answers;
            }
        }
    };
    tokio::join!(talk, receive(Stream::memory(near), front, &arrival))
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_request_surprises() {
        mhnos_testing::replay("front", super::front);
    }
}
