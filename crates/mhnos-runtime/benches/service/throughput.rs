//! How fast output gets through, and what that costs, against reading the same program's pipe or terminal directly, and
//! against relays, without a log and with one.
//!
//! Every byte is checked as it arrives, in the service's runs and in the direct ones. Time runs from the first of them: how
//! long an interpreter takes to start is measured elsewhere.

use std::{fmt::Write, time::Instant};

use mhnos_testing::Server;

use crate::{
    cost,
    direct::Direct,
    median,
    pattern::{Pattern, data},
    peers,
    relay::relayed,
    report,
    socket::{Kind, Socket},
    start,
};

const ROUNDS: usize = 5;
/// A terminal changes hands at every 4 KiB, and differs more from run to run.
const TERMINAL_ROUNDS: usize = 15;
const PLAIN: &str = "The quick brown fox jumps over the lazy dog, and so on and on.\n";
const COLOURED: &str =
    "\x1b[32m✓\x1b[0m \x1b[1mtests/it.rs\x1b[0m \x1b[2m(12 tests)\x1b[22m \x1b[33m5ms\x1b[39m\n";
const CHARACTERS: &str = "Привет, мир — 你好,世界 🙂 żółć\n";

/// What is written, and how it is taken.
struct Load {
    what: &'static str,
    line: &'static str,
    /// Bytes of one run.
    bytes: usize,
    /// Bytes of one write.
    write: usize,
    binary: bool,
    pty: bool,
}

const PIPE: Load = Load {
    what: "64 KiB writes, JSON",
    line: PLAIN,
    bytes: 512 << 20,
    write: 64 << 10,
    binary: false,
    pty: false,
};

const LOADS: &[Load] = &[
    PIPE,
    Load { what: "64 KiB writes, binary", binary: true, ..PIPE },
    Load { what: "8 KiB writes, JSON", write: 8 << 10, bytes: 256 << 20, ..PIPE },
    Load { what: "ANSI-coloured, JSON", line: COLOURED, bytes: 256 << 20, ..PIPE },
    Load { what: "multi-byte UTF-8, JSON", line: CHARACTERS, bytes: 256 << 20, ..PIPE },
    Load { what: "terminal, 64 KiB writes, JSON", pty: true, bytes: 64 << 20, ..PIPE },
    Load { what: "terminal, 64 KiB writes, binary", pty: true, bytes: 64 << 20, binary: true, ..PIPE },
];

impl Load {
    /// Written by an interpreter from a buffer that it has: whoever makes the bytes takes no time from those who move them.
    /// A raw terminal passes them on as they are.
    fn script(&self) -> String {
        let raw = if self.pty { "stty raw -echo; " } else { "" };
        let (write, bytes, line) = (self.write, self.whole_lines(), self.line.trim_end());
        format!(
            "{raw}exec python3 -c 'import os, sys\nline = (sys.argv[1] + chr(10)).encode()\n\
             lines = memoryview(line * ({write} // len(line) + 2))\nat = 0\nwhile at < {bytes}:\n  \
             begin = at % len(line)\n  at += os.write(1, lines[begin:begin + min({write}, {bytes} - at)])' '{line}'"
        )
    }

    fn whole_lines(&self) -> usize {
        self.bytes - self.bytes % self.line.len()
    }
}

/// The rates and costs of one load.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    floor: Vec<f64>,
    /// Of relays: a bare one, and one with a log.
    relays: [(Vec<f64>, f64); 2],
    cpu: f64,
    bytes: usize,
    peak_kib: u64,
}

pub(crate) fn pipes() {
    let server = start();
    measure(&server, false);
    lines(&server);
    peers::throughput(&PIPE.script(), PLAIN, PIPE.whole_lines());
}

pub(crate) fn terminals() {
    measure(&start(), true);
}

fn measure(server: &Server, terminals: bool) {
    let rounds = if terminals { TERMINAL_ROUNDS } else { ROUNDS };
    for load in LOADS.iter().filter(|load| load.pty == terminals) {
        let mut figures = Figures::default();
        for round in 0..rounds {
            if round % 2 == 0 {
                through(server, load, &mut figures);
                figures.floor.push(directly(load));
            } else {
                figures.floor.push(directly(load));
                through(server, load, &mut figures);
            }
            for (logged, (rates, cpu)) in [false, true].into_iter().zip(&mut figures.relays) {
                let relay = relayed(&load.script(), load.pty, load.line, load.whole_lines(), logged);
                rates.push(relay.rate);
                *cpu += relay.cpu;
            }
        }
        figures.tell(load.what, "MB/s", 1e6);
    }
}

fn through(server: &Server, load: &Load, figures: &mut Figures) {
    let subprotocol = if load.binary { "mhnos.v1.binary" } else { "mhnos.v1" };
    let mut socket = Socket::connect(server.address(), subprotocol);
    let mut pattern = if load.binary { Pattern::raw(load.line) } else { Pattern::json(load.line) };
    cost::forget_peak(server);
    let (resident, cpu) = (cost::resident_kib(server), cost::cpu_seconds(server));
    socket.spawn(&load.script(), load.pty);
    let mut begin = None;
    let exit = loop {
        match socket.next() {
            (Kind::Binary, frame) => pattern.check(&frame[16..]),
            (_, frame) => match data(frame) {
                Some(data) => pattern.check(data),
                None => break String::from_utf8_lossy(frame).into_owned(),
            },
        }
        begin.get_or_insert_with(Instant::now);
    };
    let seconds = begin.expect("some output").elapsed().as_secs_f64();
    assert!(exit.starts_with("{\"type\":\"exit\",\"code\":0"), "{exit}");
    let bytes = load.whole_lines();
    assert_eq!(pattern.lines(), Some(bytes / load.line.len()), "all of it");
    figures.rates.push(bytes as f64 / seconds);
    figures.cpu += cost::cpu_seconds(server) - cpu;
    figures.bytes += bytes;
    figures.peak_kib = figures.peak_kib.max(cost::peak_kib(server).saturating_sub(resident));
}

fn directly(load: &Load) -> f64 {
    let mut program = Direct::start(&load.script(), load.pty);
    let mut begin = None;
    let (mut buffer, mut received) = (vec![0; 256 << 10], 0);
    let mut pattern = Pattern::raw(load.line);
    while received < load.whole_lines() {
        let read = program.read(&mut buffer);
        assert!(read > 0, "ended after {received} bytes");
        pattern.check(&buffer[..read]);
        received += read;
        begin.get_or_insert_with(Instant::now);
    }
    let seconds = begin.expect("some output").elapsed().as_secs_f64();
    program.finish();
    received as f64 / seconds
}

/// Single lines, a write each.
fn lines(server: &Server) {
    const LINES: usize = 300_000;
    const LINE: &str = "a line of output, as programs write them\n";
    let script = format!(
        "exec python3 -c \"import os\nline = b'{}\\n'\nfor i in range({LINES}): os.write(1, line)\"",
        LINE.trim_end()
    );
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        let mut program = Direct::start(&script, false);
        let (mut buffer, mut received) = (vec![0; 256 << 10], 0);
        let mut begin = None;
        while received < LINES * LINE.len() {
            received += program.read(&mut buffer);
            begin.get_or_insert_with(Instant::now);
        }
        figures.floor.push(LINES as f64 / begin.expect("some output").elapsed().as_secs_f64());
        program.finish();

        let mut socket = Socket::connect(server.address(), "mhnos.v1");
        let mut pattern = Pattern::json(LINE);
        let cpu = cost::cpu_seconds(server);
        socket.spawn(&script, false);
        let mut begin = None;
        while let Some(data) = data(socket.next().1) {
            pattern.check(data);
            begin.get_or_insert_with(Instant::now);
        }
        let seconds = begin.expect("some output").elapsed().as_secs_f64();
        assert_eq!(pattern.lines(), Some(LINES), "all of them");
        figures.rates.push(LINES as f64 / seconds);
        figures.cpu += cost::cpu_seconds(server) - cpu;
        figures.bytes += LINES * LINE.len();
    }
    figures.tell("300,000 single-line writes", "thousand lines/s", 1e3);
}

impl Figures {
    fn tell(mut self, what: &str, unit: &str, scale: f64) {
        let (rate, floor) = (median(&mut self.rates), median(&mut self.floor));
        let mut relay = String::new();
        for (name, (rates, cpu)) in ["bare relay", "with a log"].into_iter().zip(&mut self.relays) {
            if !rates.is_empty() {
                let (rate, cost) = (median(rates) / scale, *cpu / (self.bytes as f64 / 1e9));
                write!(relay, "; {name} {rate:.0}, {cost:.2} CPU-s/GB").expect("a String takes all");
            }
        }
        let peak = match self.peak_kib {
            0 => String::new(),
            peak => format!(", memory at most +{:.1} MiB", peak as f64 / 1024.0),
        };
        report(
            &format!("stdout, {what}"),
            &format!(
                "{:.0} {unit} ({:.0} to {:.0}), {:.2} of direct ({:.0}); {:.2} CPU-s/GB{peak}{relay}",
                rate / scale,
                self.rates[0] / scale,
                self.rates[self.rates.len() - 1] / scale,
                rate / floor,
                floor / scale,
                self.cpu / (self.bytes as f64 / 1e9),
            ),
        );
    }
}
