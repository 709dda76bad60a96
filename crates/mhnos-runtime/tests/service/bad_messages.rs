//! Messages that are wrong in themselves, many in a row: whoever sends them is told, and others do not notice. Part of
//! `make bad-clients`, as `bad_clients.rs` is.

use std::{io::Read, io::Write, net::TcpStream};

use mhnos_testing::{Wire, WireOptions};

use crate::{
    bad_clients::{as_if_from_elsewhere, close_code, head, sized, web_socket},
    bystander::Bystander,
    requests::{assert_serves, resident_kib},
    start,
};

/// What a wrong message is answered with.
#[derive(Clone, Copy)]
enum Told {
    /// A close frame of this code.
    Close(u16),
    /// A message that has this in it.
    Says(&'static str),
}

/// Whole frames, or the head of one.
fn messages() -> Vec<(&'static str, Vec<u8>, Told)> {
    let text = |text: String| [head(0x81, text.len() as u64), text.into_bytes()].concat();
    let nested = format!("{{\"type\":\"ping\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let doubled =
        format!("{{{}\"type\":\"ping\",\"id\":\"the last\"}}", "\"type\":\"spawn\",\"id\":7,".repeat(20_000));
    vec![
        ("frames of more than 100 MiB", head(0x82, (100 << 20) + 1), Told::Close(1009)),
        ("text that is no UTF-8", [head(0x81, 2), vec![0xff, 0xfe]].concat(), Told::Close(1007)),
        ("JSON nested 100,000 deep", text(nested), Told::Says("INVALID_MESSAGE")),
        ("objects of 40,000 duplicate keys", text(doubled), Told::Says("the last")),
    ]
}

fn read_until(stream: &mut TcpStream, expected: &str) {
    let (mut seen, mut part) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&seen).contains(expected) {
        let count = stream.read(&mut part).expect("an answer");
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend(&part[..count]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_messages_of_bad_clients_are_told_and_in_nobodys_way() {
    let server = start();
    for (what, message, told) in messages() {
        let memory = resident_kib(&server);
        let bystander = Bystander::of(&server).await;
        let (address, times) = (server.address(), sized(20, 500));
        let (tell, all_told) = tokio::sync::oneshot::channel();
        let attack = std::thread::spawn(move || {
            as_if_from_elsewhere();
            for _ in 0..times {
                let mut stream = web_socket(address);
                stream.write_all(&message).expect("sent");
                match told {
                    Told::Close(code) => assert_eq!(close_code(stream), Some(code), "{what}"),
                    Told::Says(text) => read_until(&mut stream, text),
                }
            }
            let _ = tell.send(());
        });
        let _ = all_told.await;
        attack.join().unwrap_or_else(|_| panic!("{what}"));
        let grown = resident_kib(&server).saturating_sub(memory);
        assert!(grown < 32 * 1024, "{what}: grew by {grown} KiB");
        bystander.report(&format!("{times} {what}"), &server, grown);
    }
    assert_serves(&mut Wire::connect_as(server.address(), WireOptions::modern()).await).await;
}
