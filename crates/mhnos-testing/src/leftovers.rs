//! What is still alive: the descendants of a process, and whatever belongs to a server that has gone.
//!
//! Parent links are lost when a parent dies, and a sandboxed process shares neither environment nor command line with
//! the service. What it cannot shed is its mount table, which names the workspace directory, or without one of its own the
//! directory that the service was started in; so that name is looked for in the environment, the command line, the working
//! directory and the mount table of every process. Where those may not be read, its number and its start tell it.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

/// A process that is alive, or a zombie that nobody has reaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// The kernel's number.
    pub os_pid: i32,
    /// The kernel's number of the parent.
    pub parent: i32,
    /// When it started, in ticks since boot: with the number, the same process and no other.
    pub started: u64,
    /// The state letter of proc(5): R, S, D, Z, T…
    pub state: char,
    /// The command line, or the name in brackets where there is none.
    pub command: String,
}

/// The living descendants of a process, itself not included, zombies included.
pub fn descendants(os_pid: i32) -> Vec<Survivor> {
    let all = processes();
    let mut family = HashSet::from([os_pid]);
    loop {
        let before = family.len();
        family.extend(
            all.iter()
                .filter(|process| family.contains(&process.parent))
                .map(|p| p.os_pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == before {
            break;
        }
    }
    all.into_iter().filter(|process| process.os_pid != os_pid && family.contains(&process.os_pid)).collect()
}

/// Those of these that have not ended; what is left of one whose parent has ended before it is the machine's to reap.
pub fn alive(family: &[Survivor]) -> Vec<Survivor> {
    let same =
        |known: &Survivor| read(known.os_pid).filter(|now| now.started == known.started && now.state != 'Z');
    family.iter().filter_map(same).collect()
}

/// Processes other than this one whose environment, command line, working directory or mount table contains `marker`.
pub fn survivors(marker: &str) -> Vec<Survivor> {
    let own = i32::try_from(std::process::id()).expect("a pid fits");
    processes()
        .into_iter()
        .filter(|process| process.os_pid != own && carries(process.os_pid, marker))
        .collect()
}

fn carries(os_pid: i32, marker: &str) -> bool {
    let directory = PathBuf::from(format!("/proc/{os_pid}"));
    let contains = |file: &str| {
        fs::read(directory.join(file))
            .is_ok_and(|bytes| bytes.windows(marker.len()).any(|window| window == marker.as_bytes()))
    };
    contains("cmdline")
        || contains("environ")
        || contains("mountinfo")
        || fs::read_link(directory.join("cwd")).is_ok_and(|cwd| cwd.to_string_lossy().contains(marker))
}

fn processes() -> Vec<Survivor> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(read).collect()
}

/// None for a process that ended while it was being read.
fn read(os_pid: i32) -> Option<Survivor> {
    let stat = fs::read_to_string(format!("/proc/{os_pid}/stat")).ok()?;
    // The name stands in brackets and may contain anything, brackets and blanks included.
    let (head, tail) = stat.rsplit_once(')')?;
    let mut fields = tail.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Field 22 of proc_pid_stat(5); the parent is field 4.
    let started = fields.nth(17)?.parse().ok()?;
    let arguments = fs::read(format!("/proc/{os_pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let command = words.join(" ").trim_end().to_owned();
    let name = head.split_once('(').map_or("?", |(_, name)| name);
    let command = if command.is_empty() { format!("[{name}]") } else { command };
    Some(Survivor { os_pid, parent, started, state, command })
}
