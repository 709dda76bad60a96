//! What must hold for any bytes on the keeper's channel. The target of `fuzz/` calls this, and so does a test with
//! the corpus and simple changes of it.

use rustix::net::{SendFlags, send};

use crate::{
    channel::{FromKeeper, ToKeeper},
    held::check,
    socket::{Blocking, RecvError, Socket},
};

/// A datagram as a bridge that was taken over might send it: it is refused, or is a message that says the same when it
/// is sent again, and an order among them is judged.
pub fn channel(bytes: &[u8]) {
    let (ours, theirs) = Socket::pair(Blocking::No).expect("a pair");
    if send(&theirs, bytes, SendFlags::NOSIGNAL).is_err() {
        // More than a datagram holds.
        return;
    }
    match ours.recv::<ToKeeper>() {
        Ok(received) => {
            assert!(received.fds.is_empty());
            if let ToKeeper::Spawn(order) = &received.message {
                let verdict = check(order);
                let nul = order.launch.argv.iter().any(|text| text.contains('\0'));
                assert!(verdict.is_err() || !nul && order.launch.cwd.starts_with('/'));
            }
            theirs.send(&received.message, &[]).expect("it came in one datagram");
            assert_eq!(ours.recv::<ToKeeper>().expect("ours").message, received.message);
        }
        Err(RecvError::Malformed(_)) => {}
        // An empty datagram looks like the end.
        Err(RecvError::Closed) => assert!(bytes.is_empty()),
        Err(other) => panic!("{other}"),
    }
    if let Some((_, message)) = bytes.split_first() {
        let _ = postcard::from_bytes::<FromKeeper>(message);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_datagram_surprises() {
        mhnos_testing::replay("channel", super::channel);
    }
}
