//! What a relay would need: it moves what a program's pipe or terminal brings to one viewer as WebSocket frames. With
//! nothing to lose it reads and writes. To be killed at any byte, and another to go on there, it needs a log that outlives
//! it: a memfd into which the kernel moves the bytes. A service that promises as much can hardly take less.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    thread::{self, JoinHandle},
    time::Instant,
};

use mhnos_keeper::log_file;
use mhnos_sandbox::sys::SharedMap;
use rustix::{
    fs::{SeekFrom, seek},
    pipe::{PipeFlags, SpliceFlags, pipe_with, splice},
};

use crate::{direct::Direct, pattern::Pattern, socket::Socket};

/// Of one read: the capacity of a pipe.
const READ: usize = 64 << 10;
/// Bytes of a log, as the service has by default.
const LOG: usize = 4 << 20;
/// Of a frame with an eight-byte length.
const HEAD: usize = 10;

/// How fast it was, in bytes a second, and what it cost, in seconds of CPU time.
pub(crate) struct Relayed {
    pub(crate) rate: f64,
    pub(crate) cpu: f64,
}

/// Takes the output of this program through a relay, which keeps a log or not; every byte is checked.
pub(crate) fn relayed(script: &str, pty: bool, line: &str, bytes: usize, logged: bool) -> Relayed {
    let (address, relay) = start(script.to_owned(), pty, bytes, logged);
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

fn start(script: String, pty: bool, bytes: usize, logged: bool) -> (SocketAddr, JoinHandle<f64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let relay = thread::spawn(move || {
        let mut client = accept(&listener);
        let mut program = Direct::start(&script, pty);
        let before = cpu_seconds();
        if logged {
            relay_with_log(&program, pty, bytes, &mut client);
        } else {
            relay(&mut program, bytes, &mut client);
        }
        let used = cpu_seconds() - before;
        program.finish();
        used
    });
    (address, relay)
}

fn relay(program: &mut Direct, bytes: usize, client: &mut TcpStream) {
    let (mut buffer, mut received) = (vec![0; HEAD + READ], 0);
    while received < bytes {
        let read = program.read(&mut buffer[HEAD..]);
        assert!(read > 0, "it ended early");
        received += read;
        buffer[..HEAD].copy_from_slice(&head(read));
        client.write_all(&buffer[..HEAD + read]).expect("a client that reads");
    }
}

fn relay_with_log(program: &Direct, pty: bool, bytes: usize, client: &mut TcpStream) {
    let log = log_file::create(LOG as u64).expect("a log");
    let map = SharedMap::new(log.as_fd(), LOG).expect("a log");
    // The kernel splices only from or into a pipe.
    let (from, into) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let (mut offset, mut received, mut piped) = (0, 0, 0);
    while received < bytes {
        if pty && piped == 0 {
            piped = moved(program.output(), &into, READ);
        }
        let (source, most) = if pty { (from.as_fd(), piped) } else { (program.output(), READ) };
        if offset == LOG {
            offset = seek(&log, SeekFrom::Start(0)).expect("a file") as usize;
        }
        let read = moved(source, &log, most.min(LOG - offset));
        client.write_all(&head(read)).expect("a client that reads");
        client.write_all(map.bytes(offset..offset + read)).expect("a client that reads");
        (offset, received, piped) = (offset + read, received + read, piped.saturating_sub(read));
    }
}

fn moved(from: impl AsFd, to: &OwnedFd, most: usize) -> usize {
    let moved = splice(from, None, to, None, most, SpliceFlags::MOVE).expect("an end of ours");
    assert!(moved > 0, "it ended early");
    moved
}

fn head(bytes: usize) -> [u8; HEAD] {
    let mut head = [0x82, 127, 0, 0, 0, 0, 0, 0, 0, 0];
    head[2..].copy_from_slice(&(bytes as u64).to_be_bytes());
    head
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
