//! What the keeper holds for the next bridge: one opaque note a process, and one for the service.
//!
//! A note is written when the process is ordered and again whenever what it says changes, which is seldom:
//! a stop, a new terminal size, a report. Everything else a new bridge finds in the log, in the descriptors
//! or in the keeper's own words.

use std::io;

use mhnos_keeper::channel::{Isolation, MAX_NOTE, Pid, Usage};
use mhnos_sandbox::{Limits, Stdio};
use serde::{Deserialize, Serialize};

use crate::{
    exit::Reason,
    limits::{KEY_LETTERS, REPORT_BYTES, TOLD_BYTES},
    registry::Tally,
    request::{Encoding, Info},
    state::Memory,
};

/// What postcard writes for an option that is `None`.
const NONE: u8 = 0;

/// The note of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) process_type: String,
    command: Option<String>,
    args: Vec<String>,
    name: Option<String>,
    base64: bool,
    extra: Vec<u8>,
    pub(crate) isolation: Isolation,
    pub(crate) limits: Limits,
    /// As started. The terminal itself knows its latest size.
    pub(crate) stdio: Stdio,
    pub(crate) started_ms: u64,
    pub(crate) memory: Memory,
    pub(crate) report: Vec<u8>,
    /// See [`crate::Process::key`].
    pub(crate) key: String,
    /// The exit record's end position, if it was made while output was still held open, or somebody of the tree lived.
    pub(crate) recorded_at: Option<u64>,
    /// What that record said besides: a kill of what lived on afterwards, and what that used, are no part of it. Last, and left
    /// out if there is none: notes of version 0.1.0 end before it, and it passes over what it does not know.
    pub(crate) recorded: Option<(Reason, Usage)>,
}

/// The note of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceNote {
    /// Every lower number from `FIRST_PID` may have been used.
    pub(crate) next_pid: Pid,
    /// Every lower number may have been used by a probe.
    pub(crate) next_probe: Pid,
    /// Processes started, of those the keeper has been told to forget.
    pub(crate) forgotten: u64,
    /// Of those, killed.
    pub(crate) forgotten_killed: u64,
    /// Counted above, but the keeper may not have been told yet.
    pub(crate) forgetting: Vec<Pid>,
    /// The server's own.
    pub(crate) extra: Vec<u8>,
    /// Totals of the forgotten, by type. Last: notes of version 0.1.0 end before it.
    pub(crate) tallies: Vec<(String, Tally)>,
}

impl Note {
    pub(crate) fn new(
        info: &Info,
        isolation: Isolation,
        limits: Limits,
        stdio: Stdio,
        started_ms: u64,
        memory: Memory,
    ) -> Self {
        Self {
            process_type: info.process_type.clone(),
            command: info.command.clone(),
            args: info.args.clone(),
            name: info.name.clone(),
            base64: info.encoding == Encoding::Base64,
            extra: info.extra.clone(),
            isolation,
            limits,
            stdio,
            started_ms,
            memory,
            report: Vec::new(),
            key: new_key(),
            recorded_at: None,
            recorded: None,
        }
    }

    pub(crate) fn info(&self) -> Info {
        Info {
            process_type: self.process_type.clone(),
            command: self.command.clone(),
            args: self.args.clone(),
            name: self.name.clone(),
            encoding: if self.base64 { Encoding::Base64 } else { Encoding::Utf8 },
            extra: self.extra.clone(),
        }
    }

    /// Drops what clients are told of the arguments, from the end, until it has no more than [`TOLD_BYTES`] and the
    /// note fits with any report. `None` if it never does.
    pub(crate) fn fitted(mut self) -> Option<Self> {
        // Numbers that grow later are a few bytes each.
        const ROOM: usize = MAX_NOTE - REPORT_BYTES - 256;
        // What stands between them takes room too.
        let room = |text: &String| text.len() + 1;
        let mut told = self.command.iter().chain(&self.args).map(room).sum::<usize>();
        while told > TOLD_BYTES {
            told -= self.args.pop().or_else(|| self.command.take()).as_ref().map_or(told, room);
        }
        let mut size = self.encode().len();
        while size > ROOM {
            let dropped = self.args.pop().or_else(|| self.command.take())?;
            size -= room(&dropped).min(size);
        }
        Some(self)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = encode(self);
        if self.recorded.is_none() {
            bytes.pop();
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(&[bytes, &[NONE]].concat()).ok()
    }
}

impl ServiceNote {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// An empty note is the first bridge's.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        // What an older program wrote lacks the last list: a zero is an empty one. An older program that reads
        // ours passes over what it does not know.
        postcard::from_bytes(bytes).or_else(|_| postcard::from_bytes(&[bytes, &[0]].concat())).ok()
    }

    /// The totals of a type.
    pub(crate) fn tally(&mut self, process_type: &str) -> &mut Tally {
        let known = self.tallies.iter().position(|(name, _)| name == process_type);
        let index = known.unwrap_or_else(|| {
            self.tallies.push((process_type.to_owned(), Tally::default()));
            self.tallies.len() - 1
        });
        &mut self.tallies[index].1
    }
}

/// Letters and digits that nobody can guess.
pub(crate) fn new_key() -> String {
    let mut bytes = [0; KEY_LETTERS];
    fill_with_randomness(&mut bytes).expect("the kernel always has randomness for 256 bytes and fewer");
    bytes.iter().map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte % 32)])).collect()
}

fn fill_with_randomness(bytes: &mut [u8]) -> io::Result<()> {
    let got = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())?;
    if got == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Only a type that cannot tell its length or a writer that fails could refuse: there are neither.
    postcard::to_stdvec(value).expect("notes are plain data in memory")
}

#[cfg(test)]
mod tests {
    use mhnos_keeper::channel::{CHANNEL_VERSION, Scope};
    use mhnos_sandbox::WindowSize;

    use super::*;
    use crate::{
        signal::Signal,
        state::{Cause, Stop},
    };

    fn note(info: &Info) -> Note {
        let limits = Limits { memory: 1, pids: 2, cpu_millis: 3 };
        Note::new(
            info,
            Isolation::Shared,
            limits,
            Stdio::Pty(WindowSize::DEFAULT),
            9,
            Memory::new(5000, None),
        )
    }

    #[test]
    fn a_note_comes_back_as_it_was() {
        let info = Info { args: vec!["a".into(), "é".into()], name: Some("n".into()), ..Info::default() };
        let there = note(&info);
        let back = Note::decode(&there.encode()).expect("decodes");
        assert_eq!((&back, back.info()), (&there, info));
        assert_eq!(Note::decode(b"\xff\xff"), None);
        assert_eq!(ServiceNote::decode(b""), Some(ServiceNote::default()));
    }

    /// Notes in which every field and every kind of thing occurs.
    fn all_kinds() -> Vec<Vec<u8>> {
        let info = Info {
            process_type: "node".into(),
            command: Some("x.js".into()),
            args: vec!["a".into(), "é".into()],
            name: Some("n".into()),
            encoding: Encoding::Base64,
            extra: vec![7, 8],
        };
        let (signal, kill_at) = (Signal::TERM, 300);
        let stops = [
            (Stop::None, None, Isolation::Shared, Stdio::Pipes { stdin: true }),
            (
                Stop::Asked { signal, scope: Scope::Tree, kill_at },
                Some(Cause::Client),
                Isolation::Private,
                Stdio::Pty(WindowSize { cols: 300, rows: 24 }),
            ),
            (
                Stop::Killing { scope: Scope::Leader, repeat_at: 5 },
                Some(Cause::Timeout),
                Isolation::Shared,
                Stdio::Pipes { stdin: false },
            ),
            (Stop::None, Some(Cause::Drain), Isolation::Shared, Stdio::Pipes { stdin: true }),
            (Stop::None, Some(Cause::Quota), Isolation::Shared, Stdio::Pipes { stdin: true }),
        ];
        let notes = stops.map(|(stop, cause, isolation, stdio)| {
            let timeout_at = cause.map(|_| 70_000);
            let memory = Memory { grace: 5000, timeout_at, stop, cause, sent: 1 << 14 };
            let limits = Limits { memory: 1 << 30, pids: 512, cpu_millis: 2000 };
            let note = Note::new(&info, isolation, limits, stdio, 1_700_000_000_000, memory);
            let recorded_at = cause.map(|_| 4096);
            let note = Note { key: "k".into(), report: vec![9], recorded_at, ..note };
            assert_eq!(Note::decode(&note.encode()), Some(note.clone()));
            note.encode()
        });
        let mut service = ServiceNote {
            next_pid: 1007,
            next_probe: 3,
            forgotten: 4,
            forgotten_killed: 2,
            forgetting: vec![1001, 1003],
            extra: vec![7],
            tallies: Vec::new(),
        };
        *service.tally("node") =
            Tally { started: 5, ended: std::array::from_fn(|at| at as u64), output_bytes: 300 };
        notes.into_iter().chain([service.encode()]).collect()
    }

    /// The bytes of [`all_kinds`] in each version of the channel.
    const GOLDEN: [(u32, [&str; 6]); 1] = [(
        5,
        [
            "046e6f64650104782e6a7302016102c3a901016e010207080080808080048004d00f000180d095ffbc3188270000008080010109016b00",
            "046e6f64650104782e6a7302016102c3a901016e010207080180808080048004d00f01ac021880d095ffbc31882701f0a204010f01ac0201008080010109016b018020",
            "046e6f64650104782e6a7302016102c3a901016e010207080080808080048004d00f000080d095ffbc31882701f0a20402000501018080010109016b018020",
            "046e6f64650104782e6a7302016102c3a901016e010207080080808080048004d00f000180d095ffbc31882701f0a2040001028080010109016b018020",
            "046e6f64650104782e6a7302016102c3a901016e010207080080808080048004d00f000180d095ffbc31882701f0a2040001038080010109016b018020",
            "ef0703040202e907eb07010701046e6f646505000102030405060708ac02",
        ],
    )];

    /// A keeper that goes on while the bridge is upgraded holds notes of the old one. A process whose note cannot be
    /// read is ended, and one that is read as something else is worse.
    #[test]
    fn notes_have_the_bytes_that_belong_to_the_version_of_the_channel() {
        let now: Vec<String> = all_kinds()
            .iter()
            .map(|note| note.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
            .collect();
        let golden = GOLDEN.iter().find(|(version, _)| *version == CHANNEL_VERSION).map(|(_, notes)| notes);
        let same = golden.is_some_and(|golden| now == golden);
        assert!(
            same,
            "notes have changed: raise CHANNEL_VERSION if it has not been, so that upgrades over this change are \
             refused, and let GOLDEN have ({CHANNEL_VERSION}, {now:#?})"
        );
    }

    #[test]
    fn a_note_of_a_record_comes_back() {
        let recorded = Some((Reason::Lost, Usage { cpu_us: u64::MAX, max_rss: 0 }));
        let with = Note { recorded_at: Some(7), recorded, ..note(&Info::default()) };
        assert_eq!(Note::decode(&with.encode()), Some(with));
    }

    #[test]
    fn a_service_note_without_tallies_is_read_and_one_with_them_comes_back() {
        let plain = ServiceNote { next_pid: 1007, extra: vec![7], ..ServiceNote::default() };
        let mut older = plain.encode();
        assert_eq!(older.pop(), Some(0), "the empty list stands last");
        assert_eq!(ServiceNote::decode(&older), Some(plain.clone()));
        let mut now = plain;
        now.tally("node").started += 2;
        now.tally("shell").output_bytes += 300;
        now.tally("node").ended[1] += 1;
        assert_eq!(ServiceNote::decode(&now.encode()), Some(now));
    }

    #[test]
    fn arguments_that_do_not_fit_are_dropped_from_the_end() {
        let args = (0..100).map(|n| format!("{n:0100}")).collect::<Vec<_>>();
        let info = Info { args: args.clone(), extra: vec![1; 1000], ..Info::default() };
        let fitted = note(&info).fitted().expect("fits");
        assert!(fitted.encode().len() <= MAX_NOTE - REPORT_BYTES);
        let kept = fitted.info().args;
        assert_eq!(kept, args[..TOLD_BYTES / 101]);
        assert_eq!(fitted.info().extra, info.extra);
        assert_eq!(note(&Info { extra: vec![1; MAX_NOTE], ..Info::default() }).fitted(), None);
        // Empty ones count too.
        let info = Info { args: vec![String::new(); 100_000], ..Info::default() };
        assert!(note(&info).fitted().expect("fits").encode().len() <= MAX_NOTE - REPORT_BYTES);
        let info = Info { command: Some("c".repeat(TOLD_BYTES + 1)), ..Info::default() };
        assert_eq!(note(&info).fitted().expect("fits").info().command, None);
    }
}
