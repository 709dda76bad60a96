//! Calls that fail at one moment only, where a filter by itself makes them fail for ever.

use std::{collections::HashMap, io, path::Path};

use super::{Refusal, asked, filter};

/// The word for this among what [`asked`] answers.
pub(super) const KIND: &str = "fault";

/// When a call fails.
#[derive(Clone, Copy, Debug)]
pub enum When<'a> {
    /// Each time.
    Always,
    /// This one of those that a process makes, counted from 1.
    Nth(u32),
    /// As long as this file is there.
    While(&'a Path),
}

impl Refusal {
    /// Puts it around this process and all it starts. The `main` of this program must know [`asked::ANSWER`].
    pub fn install_when(&self, when: When<'_>) {
        let (when, which) = match when {
            When::Always => return self.install(),
            When::Nth(nth) => ("nth", nth.to_string()),
            When::While(path) => ("while", path.to_string_lossy().into_owned()),
        };
        let program = filter(self.number, self.only, asked::ASK);
        asked::start(&program, &[KIND, &self.errno.to_string(), when, &which]);
    }
}

/// Answers what is asked until nobody is left to ask.
pub(super) fn answer(errno: &str, when: &str, which: &str) {
    let error = || io::Error::from_raw_os_error(errno.parse().expect("an error number"));
    let mut made: HashMap<i32, u32> = HashMap::new();
    let nth: Option<u32> = (when == "nth").then(|| which.parse().expect("a number"));
    asked::serve(|notice| {
        let fails = match nth {
            Some(nth) => {
                let count = made.entry(notice.thread).or_default();
                *count += 1;
                *count == nth
            }
            None => Path::new(which).exists(),
        };
        if fails { Err(error()) } else { Ok(None) }
    });
}
