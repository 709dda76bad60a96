//! What each program must have written, byte by byte, and what viewers have been told of it.

use std::fmt::{self, Write};

use serde_json::{Value, json};

/// Bytes of output kept per process: so few that viewers who come late meet gaps.
pub(super) const LOG_BYTES: u64 = 256 * 1024;

/// What may be about to be overwritten when a viewer looks: what is read in one turn.
const WRITING: u64 = 64 * 1024;

/// Characters of two, three and four bytes, at the end of each line of [`Kind::Foreign`].
const FOREIGN: &str = " äß→字😀";

/// What a program does with what is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `n` on a line: the next `n` numbers, a line each. Ends with 7 at the end of its input.
    Count,
    /// The same, every number on stdout and on stderr.
    CountTwice,
    /// Gives back what it gets. Ends with 0 at the end of its input.
    Echo,
    /// The same with characters of several bytes, which reads and positions split.
    Foreign,
    /// The same as `Echo` on a terminal, after `ready`. Ends when it is killed.
    Terminal,
    /// Writes so many numbers and ends with 5.
    Flood(u64),
    /// Ends with 4. A descendant of it has stdout still, and writes so many numbers when it is let go; one that is to write
    /// none has let go of stdout from the start.
    Lingering(u64),
}

/// Counts with the shell's own words, so that a step costs no fork.
/// Without what a shell says that may not fork any more since it is being killed.
const SILENT: &str = "exec 2>/dev/null; ";

const COUNT: &str =
    "i=0; while read n; do e=$((i+n)); while [ $i -lt $e ]; do echo $i; i=$((i+1)); done; done; exit 7";
const COUNT_TWICE: &str = "i=0; while read n; do e=$((i+n)); while [ $i -lt $e ]; do echo $i; echo $i >&2; i=$((i+1)); done; done; \
                           exit 7";

impl Kind {
    /// `number` is one that no other program has.
    pub(super) fn spawn(self, number: u64) -> Value {
        let script = match self {
            Self::Count => COUNT.to_owned(),
            Self::CountTwice => COUNT_TWICE.to_owned(),
            Self::Echo | Self::Foreign => "exec cat".to_owned(),
            Self::Terminal => SILENT.to_owned() + "stty raw -echo; echo ready; exec cat",
            Self::Flood(count) => format!("{SILENT}seq 0 {}; exit 5", count - 1),
            Self::Lingering(count) => {
                let wait = format!("until [ -e {} ]; do sleep 0.02; done", released(number));
                match count.checked_sub(1) {
                    Some(last) => format!("{SILENT}({wait}; exec seq 0 {last}) & exit 4"),
                    None => format!("{SILENT}({wait}) >/dev/null & exit 4"),
                }
            }
        };
        let pty = self == Self::Terminal;
        json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": {"pty": pty}})
    }

    fn exit_code(self) -> Option<u8> {
        match self {
            Self::Count | Self::CountTwice => Some(7),
            Self::Echo | Self::Foreign => Some(0),
            Self::Terminal => None,
            Self::Flood(_) => Some(5),
            Self::Lingering(_) => Some(4),
        }
    }
}

/// The file in the workspace that lets go who lingers of the program of this number.
pub(super) fn released(number: u64) -> String {
    format!("released{number}")
}

/// Which stream a byte was seen on; nothing has been seen there yet otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Stdout(u8),
    Stderr(u8),
}

/// One process, as far as the model knows it.
#[derive(Debug)]
pub(super) struct Oracle {
    pub(super) pid: u64,
    pub(super) kind: Kind,
    /// As it was given to [`Kind::spawn`].
    pub(super) number: u64,
    /// What stdout must be once all that was certainly taken has been worked on.
    stdout: String,
    /// The next number to be counted, or to be sent to an echo.
    next: u64,
    /// Bytes of `stdout` that must come.
    certain: usize,
    /// It is unclear whether everything written has arrived: nothing more is written.
    pub(super) unclear: bool,
    /// Its input has been closed, or it never takes any.
    pub(super) closed: bool,
    /// Somebody has sent it a signal.
    pub(super) killed: bool,
    /// What viewers have seen, by position.
    seen: Vec<Seen>,
    /// Columns and rows of its terminal since somebody changed them.
    pub(super) size: Option<(u64, u64)>,
    pub(super) exit: Option<Value>,
}

impl Oracle {
    pub(super) fn new(pid: u64, kind: Kind, number: u64) -> Self {
        let mut stdout = String::new();
        match kind {
            Kind::Flood(count) => (0..count).for_each(|number| line(&mut stdout, number)),
            Kind::Terminal => stdout.push_str("ready\n"),
            Kind::Count | Kind::CountTwice | Kind::Echo | Kind::Foreign | Kind::Lingering(_) => {}
        }
        let certain = stdout.len();
        let closed = matches!(kind, Kind::Flood(_) | Kind::Lingering(_));
        Self {
            pid,
            kind,
            number,
            stdout,
            next: 0,
            certain,
            unclear: false,
            closed,
            killed: false,
            seen: Vec::new(),
            size: None,
            exit: None,
        }
    }

    /// Whether it takes input now.
    pub(super) fn takes_input(&self) -> bool {
        let ready = self.kind != Kind::Terminal || self.seen.len() >= "ready\n".len();
        // Of what is in several bytes nothing is to be lost, since a gap may begin within a character.
        let room = self.kind != Kind::Foreign || (self.stdout.len() as u64) < LOG_BYTES / 2;
        room && ready && !self.closed && !self.unclear && !self.killed
    }

    /// The next thing to write: `amount` numbers' worth. It may arrive from now on, and must once
    /// [`Oracle::must_come`] says so.
    pub(super) fn input(&mut self, amount: u64) -> String {
        let before = self.stdout.len();
        for number in self.next..self.next + amount {
            line(&mut self.stdout, number);
            if self.kind == Kind::Foreign {
                self.stdout.insert_str(self.stdout.len() - 1, FOREIGN);
            }
        }
        self.next += amount;
        match self.kind {
            Kind::Echo | Kind::Foreign | Kind::Terminal => self.stdout[before..].to_owned(),
            Kind::Count | Kind::CountTwice | Kind::Flood(_) | Kind::Lingering(_) => format!("{amount}\n"),
        }
    }

    /// How much may have come at most.
    pub(super) fn possible(&self) -> usize {
        self.stdout.len()
    }

    /// So many bytes of stdout follow from what has been acknowledged.
    pub(super) fn must_come(&mut self, bytes: usize) {
        self.certain = self.certain.max(bytes);
    }

    /// The bridge was killed. What it had acknowledged but not handed over yet has died with it: for programs
    /// that give back what they get, only what came back is certain. A counter's input is so short that it was in
    /// its pipe when it was acknowledged.
    pub(super) fn bridge_was_killed(&mut self) {
        let unacknowledged = self.certain < self.stdout.len();
        match self.kind {
            Kind::Echo | Kind::Foreign | Kind::Terminal => {
                self.unclear |= self.seen.len() < self.stdout.len();
                self.certain = self.certain.min(self.seen.len());
            }
            Kind::Count | Kind::CountTwice => self.unclear |= unacknowledged,
            Kind::Flood(_) | Kind::Lingering(_) => {}
        }
    }

    /// Output up to here has been seen by somebody.
    pub(super) fn known_to_be_there(&self) -> usize {
        self.seen.len()
    }

    /// A frame some viewer got.
    pub(super) fn saw(&mut self, stderr: bool, from: u64, data: &[u8]) -> Result<(), String> {
        let end = from as usize + data.len();
        if self.seen.len() < end {
            self.seen.resize(end, Seen::Nothing);
        }
        for (at, byte) in (from as usize..).zip(data) {
            let new = if stderr { Seen::Stderr(*byte) } else { Seen::Stdout(*byte) };
            let old = std::mem::replace(&mut self.seen[at], new);
            if old != Seen::Nothing && old != new {
                return Err(format!("at {at} a viewer saw {old:?}, another {new:?}"));
            }
            // With one stream a position is an index, so that what comes after a gap is checked too.
            if self.kind != Kind::CountTwice && (stderr || self.stdout.as_bytes().get(at) != Some(byte)) {
                return Err(format!("at {at} came {new:?}, expected {:?}", self.stdout.as_bytes().get(at)));
            }
        }
        Ok(())
    }

    /// A gap of which some viewer was told, before the log was seen to end at `end`: what is said to be missing had been, or was
    /// about to be, overwritten.
    pub(super) fn check_gap(&self, from: u64, to: u64, end: u64) -> Result<(), String> {
        if from < to && to + LOG_BYTES <= end + WRITING && end <= self.all() as u64 {
            return Ok(());
        }
        Err(format!(
            "a gap from {from} to {to}, with {end} of {} bytes written and {LOG_BYTES} kept",
            self.all()
        ))
    }

    /// Who lingers of it may write.
    pub(super) fn let_go(&mut self, count: u64) {
        (0..count).for_each(|number| line(&mut self.stdout, number));
        self.certain = self.stdout.len();
    }

    /// Somebody may linger of it who has not been let go.
    pub(super) fn lingers(&self) -> Option<u64> {
        match self.kind {
            Kind::Lingering(count) if self.stdout.is_empty() && !self.killed => Some(count),
            _ => None,
        }
    }

    /// Where the text begins, or ends, that a viewer of text is shown for this position: at a whole character.
    pub(super) fn shown(&self, position: u64) -> u64 {
        let at = position as usize;
        match self.kind {
            Kind::Foreign if at <= self.stdout.len() => self.stdout.floor_char_boundary(at) as u64,
            _ => position,
        }
    }

    /// Bytes of both streams when all that may come has come.
    fn all(&self) -> usize {
        if self.kind == Kind::CountTwice { self.stdout.len() * 2 } else { self.stdout.len() }
    }

    /// Whether everything that must come has been seen by a viewer who stands at the end.
    pub(super) fn is_settled(&self, position: u64, exited: bool) -> bool {
        if exited {
            // What comes late does come.
            let late = matches!(self.kind, Kind::Lingering(_)) && !self.killed;
            return !late || position >= self.certain as u64;
        }
        let must = if self.kind == Kind::CountTwice { self.certain * 2 } else { self.certain };
        // What a client closed or killed ends; of the killed not all output has to come.
        if self.closed || self.killed { self.exit.is_some() } else { position >= must as u64 }
    }

    /// The exit some viewer was told of.
    pub(super) fn exited(&mut self, exit: &Value) -> Result<(), String> {
        let fields = ["code", "signal", "reason", "seq", "runtime"];
        if let Some(known) = &self.exit {
            let same = fields.iter().all(|field| known[field] == exit[field]);
            return if same { Ok(()) } else { Err(format!("an exit was told as {known} and as {exit}")) };
        }
        self.exit = Some(exit.clone());
        let by_itself = exit["reason"] == "exited" && exit["code"] == json!(self.kind.exit_code());
        if !by_itself && !self.killed {
            return Err(format!("ended unasked: {exit}"));
        }
        let end = exit["seq"].as_u64().unwrap_or(u64::MAX) as usize;
        let must = if self.kind == Kind::CountTwice { self.certain * 2 } else { self.certain };
        let late = matches!(self.kind, Kind::Lingering(_));
        if end > self.all() || (by_itself && !self.killed && !late && end < must) {
            return Err(format!("ended at {end}, expected {must} to {}", self.all()));
        }
        Ok(())
    }

    /// Checks the streams of a program with two of them, if all of it has been seen.
    pub(super) fn check_streams(&self) -> Result<(), String> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for seen in &self.seen {
            match seen {
                Seen::Nothing => return Ok(()),
                Seen::Stdout(byte) => out.push(*byte),
                Seen::Stderr(byte) => err.push(*byte),
            }
        }
        let expected = self.stdout.as_bytes();
        let fits = |stream: &[u8]| expected.starts_with(stream);
        let fine = fits(&out) && (self.kind != Kind::CountTwice || fits(&err));
        if fine { Ok(()) } else { Err("a stream is not what the program wrote".to_owned()) }
    }
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, kind, certain, closed, killed, unclear, exit, .. } = self;
        let (seen, possible) = (self.seen.len(), self.stdout.len());
        write!(f, "process {pid} ({kind:?}): {certain} to {possible} bytes, {seen} seen")?;
        write!(f, ", closed {closed}, killed {killed}, unclear {unclear}, exit {exit:?}")
    }
}

fn line(text: &mut String, number: u64) {
    writeln!(text, "{number}").expect("a string takes everything");
}
