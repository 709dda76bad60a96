//! What a fuzzer has found worth keeping, run as an ordinary test: the corpus of a target, everything that ever made
//! it fail, and ten thousand simple changes of them, the same ones each time.

use std::fs;
use std::path::Path;

/// Changes tried for a target.
const CHANGES: usize = 10_000;
/// Longest input that is changed.
const LONGEST: usize = 4096;

/// Runs `target` with all inputs of `fuzz/corpus/NAME` and `fuzz/regressions/NAME`, and with changes of them. Panics
/// where there is no corpus.
#[track_caller]
pub fn replay(name: &str, target: impl Fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut inputs = read(&fuzz.join("corpus").join(name));
    assert!(!inputs.is_empty(), "fuzz/corpus/{name} is empty");
    inputs.extend(read(&fuzz.join("regressions").join(name)));
    for (file, input) in &inputs {
        eprintln!("input {file}");
        target(input);
    }
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..CHANGES {
        let (file, input) = &inputs[random.below(inputs.len())];
        let (_, other) = &inputs[random.below(inputs.len())];
        let mut changed = input[..input.len().min(LONGEST)].to_vec();
        for _ in 0..=random.below(4) {
            change(&mut changed, other, &mut random);
        }
        eprintln!("changed {file}: {}", String::from_utf8_lossy(&changed).escape_debug());
        target(&changed);
    }
}

fn read(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(files) = fs::read_dir(dir) else { return Vec::new() };
    let paths = files.map(|file| file.expect("a directory can be read").path());
    let mut paths: Vec<_> = paths.filter(|path| path.is_file()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        (path.display().to_string(), fs::read(path).expect("a file of the repository can be read"))
    };
    paths.iter().map(read).collect()
}

/// Values at the edges of what numbers and syntax mean.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f",
    b"\x80",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e3",
    b"9007199254740993",
    b"1e400",
    b"\n",
    b"\r\n",
    b"/",
    b"..",
    b"%00",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
];

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let until = at + random.below((bytes.len() - at).min(16) + 1);
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..until)),
        2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        3 if at < bytes.len() => bytes[at] = random.below(256) as u8,
        4 if !other.is_empty() => {
            let from = random.below(other.len());
            let to = from + random.below((other.len() - from).min(64) + 1);
            drop(bytes.splice(at..until, other[from..to].iter().copied()));
        }
        _ => drop(bytes.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
    }
}

/// Xorshift (Marsaglia, 2003): the same numbers each time, so that a failure comes again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}
