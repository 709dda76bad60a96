//! How fast output gets through, against reading the same program's pipe directly.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use mhnos_testing::{Wire, WireOptions};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{report, start};

const BYTES: usize = 512 << 20;
const ROUNDS: usize = 5;

/// Text of ordinary lines, written 64 KiB at a time.
fn script() -> String {
    format!(
        "yes 'The quick brown fox jumps over the lazy dog, and so on and on.' | dd bs=64k iflag=fullblock count={} 2>/dev/null",
        BYTES >> 16
    )
}

pub(crate) async fn stdout() {
    let server = start();
    let mut json = Vec::new();
    let mut binary = Vec::new();
    let mut direct = Vec::new();
    for _ in 0..ROUNDS {
        direct.push(directly());
        json.push(through(&server, WireOptions::modern()).await);
        binary.push(through(&server, WireOptions::binary()).await);
    }
    let floor = median(&mut direct);
    report("stdout, direct", &format!("{floor:.0} MB/s"));
    for (what, mut rates) in [("stdout, JSON text", json), ("stdout, binary frames", binary)] {
        let rate = median(&mut rates);
        report(what, &format!("{rate:.0} MB/s, {:.2} of direct", rate / floor));
    }
}

/// MB/s of output, by frame lengths: taking JSON apart would measure the client. The first run is checked by what it adds up to.
async fn through(server: &mhnos_testing::Server, options: WireOptions) -> f64 {
    let mut wire = Wire::connect_as(server.address(), options).await;
    let begin = Instant::now();
    let pid = wire
        .spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", script()], "options": {"pty": false}}))
        .await;
    let mut received = 0;
    loop {
        match wire.next_frame().await.expect("the connection stays") {
            Message::Binary(frame) => received += frame.len(),
            Message::Text(text) if text.contains("\"type\":\"exit\"") => break,
            Message::Text(text) => received += text.len(),
            _ => {}
        }
    }
    let rate = BYTES as f64 / begin.elapsed().as_secs_f64() / 1e6;
    assert!(received >= BYTES * 99 / 100, "pid {pid}: only {received} bytes of frames for {BYTES} of output");
    rate
}

fn directly() -> f64 {
    let begin = Instant::now();
    let mut child = Command::new("bash")
        .args(["-c", &script()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash is there");
    let mut stdout = child.stdout.take().expect("piped above");
    let mut buffer = vec![0; 256 << 10];
    let mut received = 0;
    loop {
        match stdout.read(&mut buffer).expect("a pipe of ours") {
            0 => break,
            read => received += read,
        }
    }
    assert!(received == BYTES && child.wait().expect("our own child").success());
    BYTES as f64 / begin.elapsed().as_secs_f64() / 1e6
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}
