//! What large messages hold of the budget of all, however they come.

use std::{
    io::{Read, Write},
    time::Duration,
};

use crate::{
    bad_clients::{close_code, head, senders, web_socket},
    requests::resident_kib,
    start,
};

#[tokio::test(flavor = "multi_thread")]
async fn fragments_with_pings_between_are_bounded_all_together() {
    const FRAGMENT: usize = 60 << 10;
    const EACH: usize = 48 << 20;
    let server = start();
    let memory = resident_kib(&server);
    let address = server.address();
    let part = [head(0x00, FRAGMENT as u64), vec![b' '; FRAGMENT], b"\x89\x80\0\0\0\0".to_vec()].concat();
    let senders = senders(address, 16, move |stream| {
        let mut sent = stream.write_all(b"\x01\x80\0\0\0\0");
        for _ in 0..EACH / FRAGMENT {
            sent = sent.and_then(|()| stream.write_all(&part));
        }
    });
    let grown = resident_kib(&server).saturating_sub(memory);
    assert!(grown < 512 * 1024, "grew by {grown} KiB");
    let told = senders.into_iter().filter(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        close_code(stream.try_clone().expect("a second handle")) == Some(1013)
    });
    assert!(told.count() > 0, "nobody was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_given_up_for_what_is_only_thrown_away() {
    const PUSH: usize = 50 << 20;
    const COME: usize = 44 << 20;
    let server = start();
    let address = server.address();
    // Nearly all that there is room for: little more makes some of them go.
    let slow: Vec<_> = (0..5)
        .map(|_| {
            let mut slow = web_socket(address);
            slow.write_all(&[head(0x81, PUSH as u64), vec![b' '; COME]].concat()).expect("it reads");
            slow
        })
        .collect();
    let mistaken = std::thread::spawn(move || {
        let mut stream = web_socket(address);
        stream.write_all(&head(0x81, 1 << 30)).expect("it reads");
        let part = vec![b' '; 1 << 20];
        let sent = (0..1 << 10).take_while(|_| stream.write_all(&part).is_ok()).count();
        (sent, close_code(stream))
    });
    let (sent, code) = mistaken.join().expect("no panic");
    println!("{sent} MiB were thrown away, and the client was told {code:?}");
    let request = br#"{"type":"ping","id":1}"#;
    let rest = vec![b' '; PUSH - COME - request.len()];
    for mut slow in slow {
        slow.write_all(&[&rest[..], request].concat()).expect("it reads");
        let mut answers = Vec::new();
        while !answers.windows(6).any(|part| part == b"\"pong\"") {
            let mut piece = [0; 1024];
            let read = slow.read(&mut piece).expect("an answer");
            assert!(read > 0, "given up: {}", String::from_utf8_lossy(&answers));
            answers.extend_from_slice(&piece[..read]);
        }
    }
}
