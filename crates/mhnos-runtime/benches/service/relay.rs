//! What a relay with nothing to lose would need: it reads a program's pipe or terminal and writes what it read as
//! WebSocket frames. It keeps no log, has one viewer, and is not to be killed. A service can hardly take less.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::Instant,
};

use crate::{direct::Direct, pattern::Pattern, socket::Socket};

/// Of one read: the capacity of a pipe.
const READ: usize = 64 << 10;
/// Of a frame with an eight-byte length.
const HEAD: usize = 10;

/// How fast it was, in bytes a second, and what it cost, in seconds of CPU time.
pub(crate) struct Relayed {
    pub(crate) rate: f64,
    pub(crate) cpu: f64,
}

/// Takes the output of this program through a relay; every byte is checked.
pub(crate) fn relayed(script: &str, pty: bool, line: &str, bytes: usize) -> Relayed {
    let (address, relay) = start(script.to_owned(), pty, bytes);
    let mut socket = Socket::open(address, "").expect("a relay");
    let (mut pattern, mut received) = (Pattern::raw(line), 0);
    let mut begin = None;
    while received < bytes {
        let frame = socket.next().1;
        pattern.check(frame);
        received += frame.len();
        begin.get_or_insert_with(Instant::now);
    }
    let seconds = begin.expect("some output").elapsed().as_secs_f64();
    Relayed { rate: bytes as f64 / seconds, cpu: relay.join().expect("a relay that ends") }
}

fn start(script: String, pty: bool, bytes: usize) -> (SocketAddr, JoinHandle<f64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let relay = thread::spawn(move || {
        let mut client = accept(&listener);
        let mut program = Direct::start(&script, pty);
        let before = cpu_seconds();
        let (mut buffer, mut received) = (vec![0; HEAD + READ], 0);
        buffer[..2].copy_from_slice(&[0x82, 127]);
        while received < bytes {
            let read = program.read(&mut buffer[HEAD..]);
            assert!(read > 0, "it ended early");
            received += read;
            buffer[2..HEAD].copy_from_slice(&(read as u64).to_be_bytes());
            client.write_all(&buffer[..HEAD + read]).expect("a client that reads");
        }
        let used = cpu_seconds() - before;
        program.finish();
        used
    });
    (address, relay)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let mut client = listener.accept().expect("a client").0;
    client.set_nodelay(true).expect("TCP");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).expect("a request");
        head.push(byte[0]);
    }
    client.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").expect("a client that reads");
    client
}

/// Of this thread (proc_pid_schedstat(5)).
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel with schedstat");
    let nanos: u64 = text.split(' ').next().and_then(|field| field.parse().ok()).expect("a number");
    nanos as f64 / 1e9
}
