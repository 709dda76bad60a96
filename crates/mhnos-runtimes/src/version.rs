//! Versions as programs print them.

use std::fmt;

/// Up to three numbers, compared from the left. workerd's is a date: year, month, day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// The first version in a text such as `v24.21.0`, `Python 3.11.2` or `workerd 2026-11-17`: two or three
    /// numbers joined by dots or dashes.
    pub fn find(text: &str) -> Option<Self> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.' && c != '-').find_map(|word| {
            let mut numbers = word.trim_matches(['.', '-']).split(['.', '-']).map(str::parse);
            let first = numbers.next()?.ok()?;
            let second = numbers.next()?.ok()?;
            let third = numbers.next().and_then(Result::ok).unwrap_or(0);
            Some(Self(first, second, third))
        })
    }

    /// As a requirement is spoken of: without zeros at its end ("22", "24.16").
    pub(crate) fn short(self) -> String {
        match self {
            Self(major, 0, 0) => major.to_string(),
            Self(major, minor, 0) => format!("{major}.{minor}"),
            full => full.to_string(),
        }
    }

    /// As a date, for workerd: "2026-11-17".
    pub(crate) fn date(self) -> String {
        format!("{:04}-{:02}-{:02}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        let check =
            |text: &str, expected: Option<Version>| assert_eq!(Version::find(text), expected, "{text:?}");
        check("v24.21.0\n", Some(Version(24, 21, 0)));
        check("v25.0.0-nightly2026", Some(Version(25, 0, 0)));
        check("Python 3.11.2", Some(Version(3, 11, 2)));
        check("Python 3.14.0rc1", Some(Version(3, 14, 0)));
        check("Python 3.9", Some(Version(3, 9, 0)));
        check("GNU bash, version 5.2.15(1)-release (x86_64-pc-linux-gnu)", Some(Version(5, 2, 15)));
        check("workerd 2026-11-17", Some(Version(2026, 11, 17)));
        check("OpenClaw 2026.9.6 (eb377ac)", Some(Version(2026, 9, 6)));
        check("command not found", None);
        check("error 7 ... - 9.", None);
        check("99999999999.1", None);
    }

    #[test]
    fn requirements_are_said_shortly() {
        let check = |version: Version, expected: &str| assert_eq!(version.short(), expected);
        check(Version(22, 0, 0), "22");
        check(Version(24, 16, 0), "24.16");
        check(Version(3, 9, 1), "3.9.1");
    }
}
