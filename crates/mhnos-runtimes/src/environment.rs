//! The environment programs get: a small base, then `options.env` on top.

/// The variables of the service's own environment that programs get. Read once, at start; everything else
/// the service was started with stays with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEnvironment {
    /// `LANG`; without it programs get `C.UTF-8`.
    pub lang: Option<String>,
    /// `LC_ALL`.
    pub lc_all: Option<String>,
    /// `TZ`.
    pub tz: Option<String>,
    /// `DEBUG`.
    pub debug: Option<String>,
    /// `SHELL`: what a `shell` without a command starts. `None` if the file is not there: then bash.
    pub shell: Option<String>,
}
