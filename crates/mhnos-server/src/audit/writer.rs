//! The audit log's thread: takes lines out of the queue and writes them, one at a time.

use std::{sync::mpsc::Receiver, time::Duration};

use tracing::{info, warn};

use super::{Event, Lost, event, file::Sink, time::rfc3339};
use crate::{limits, service::now_ms};

/// Runs until the queue is closed and empty.
pub(super) fn run(queue: &Receiver<String>, sink: Sink, lost: &Lost) {
    let mut writer = Writer { sink, lost, told: 0, failing: false };
    while let Ok(line) = queue.recv() {
        writer.sink.follow();
        writer.write(&line);
    }
    writer.tell_lost();
}

struct Writer<'l> {
    sink: Sink,
    lost: &'l Lost,
    /// Lost lines that the audit log itself tells of.
    told: u64,
    /// The last attempt has failed.
    failing: bool,
}

impl Writer<'_> {
    fn write(&mut self, line: &str) {
        if !self.tell_lost() || !self.attempt(line) {
            self.lost.add(1);
        }
    }

    /// Marks the place where lines are missing. `false` if even that cannot be written.
    fn tell_lost(&mut self) -> bool {
        let missing = self.lost.get() - self.told;
        if missing == 0 {
            return true;
        }
        if !self.failing {
            warn!(lines = missing, "the audit log takes lines too slowly; some are lost");
        }
        let marker = event::line(&rfc3339(now_ms()), None, &Event::Lost { lines: missing });
        let written = self.attempt(&marker);
        self.told += if written { missing } else { 0 };
        written
    }

    fn attempt(&mut self, line: &str) -> bool {
        // What has failed once is tried again, but not waited for.
        let patience = if self.failing { Duration::ZERO } else { limits::AUDIT_PATIENCE };
        match self.sink.write(line, patience) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    info!("the audit log can be written again");
                }
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(%error, "the audit log cannot be written; lines are lost until it can");
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::OwnedFd, path::Path, sync::mpsc};

    use mhnos_testing::Scratch;
    use serde_json::Value;

    use super::*;
    use crate::audit::{AuditFile, Destination};

    fn sink(path: &Path) -> Sink {
        let (file, _) = AuditFile::open(path).expect("opens");
        Sink::of(Destination::File(file)).expect("a sink")
    }

    fn events(path: &Path) -> Vec<(String, u64)> {
        let text = fs::read_to_string(path).expect("read");
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            Some((line["event"].as_str()?.to_owned(), line["lines"].as_u64().unwrap_or(0)))
        };
        text.lines().map(|text| line(text).unwrap_or_else(|| ("torn".to_owned(), 0))).collect()
    }

    const PULL: &str = "{\"event\":\"pull\"}\n";

    /// A device that is full, and then the file that replaces it.
    #[test]
    fn what_a_full_disk_has_cost_is_told_when_there_is_room_again() {
        let scratch = Scratch::new();
        let path = scratch.path().join("audit");
        std::os::unix::fs::symlink("/dev/full", &path).expect("link");
        let (lines, queue) = mpsc::sync_channel(10);
        let lost = Lost::default();
        let mut writer = Writer { sink: sink(&path), lost: &lost, told: 0, failing: false };
        writer.write(PULL);
        writer.write(PULL);
        assert_eq!(lost.get(), 2);
        let Writer { sink, .. } = writer;
        fs::remove_file(&path).expect("remove");
        lines.send(PULL.to_owned()).expect("room");
        drop(lines);
        run(&queue, sink, &lost);
        assert_eq!(events(&path), [("lost".to_owned(), 2), ("pull".to_owned(), 0)]);
    }

    #[test]
    fn a_line_that_was_torn_spoils_no_other() {
        let scratch = Scratch::new();
        let path = scratch.path().join("audit");
        fs::write(&path, "{\"event\":\"pu").expect("write");
        let mut sink = sink(&path);
        sink.write(PULL, Duration::ZERO).expect("written");
        sink.write(PULL, Duration::ZERO).expect("written");
        assert_eq!(
            events(&path).iter().map(|(event, _)| event.as_str()).collect::<Vec<_>>(),
            ["torn", "pull", "pull"]
        );
    }

    #[test]
    fn a_renamed_file_is_followed_by_a_new_one_and_a_truncated_one_goes_on() {
        let scratch = Scratch::new();
        let (path, old) = (scratch.path().join("audit"), scratch.path().join("audit.1"));
        let mut sink = sink(&path);
        sink.write(PULL, Duration::ZERO).expect("written");
        fs::rename(&path, &old).expect("rename");
        sink.follow();
        for _ in 0..2 {
            sink.write(PULL, Duration::ZERO).expect("written");
        }
        assert_eq!((events(&old).len(), events(&path).len()), (1, 2));
        fs::File::options().write(true).open(&path).expect("open").set_len(0).expect("truncate");
        sink.follow();
        sink.write(PULL, Duration::ZERO).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), PULL);
    }

    #[test]
    fn a_fifo_that_nobody_reads_stops_nothing() {
        let scratch = Scratch::new();
        let path = scratch.path().join("audit");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
        let lost = Lost::default();
        let mut writer = Writer { sink: sink(&path), lost: &lost, told: 0, failing: true };
        let long = format!("{}\n", "x".repeat(1000));
        // A pipe takes 64 KiB unless told otherwise.
        (0..200).for_each(|_| writer.write(&long));
        assert!((100..200).contains(&lost.get()), "{}", lost.get());
        assert!(writer.failing);
        // Somebody reads all of it.
        let read = OwnedFd::from(fs::File::open(&path).expect("open"));
        let mut taken = vec![0; 1 << 20];
        let taken = rustix::io::read(&read, &mut taken).expect("read");
        assert!(taken > 50_000);
        writer.write(PULL);
        let mut rest = vec![0; 1 << 16];
        let rest_len = rustix::io::read(&read, &mut rest).expect("read");
        let text = String::from_utf8_lossy(&rest[..rest_len]).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("event")).collect();
        assert!(lines.len() == 2 && lines[0].contains("\"lost\"") && lines[1] == PULL.trim(), "{text}");
        assert!(!writer.failing);
    }
}
