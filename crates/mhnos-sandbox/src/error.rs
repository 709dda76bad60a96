//! Why a wall could not be put up. Every step that fails is fatal to the process it was meant for.

use std::io;

/// A confinement step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}{}{detail}", if detail.is_empty() { "" } else { " " })]
pub struct SetupError {
    /// The step, as a short phrase: "mount /proc".
    pub step: &'static str,
    /// What it was about, where the step alone does not say. May be empty.
    pub detail: String,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

impl SetupError {
    /// The kernel's error number, 0 where there was none.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

/// Names the step of a fallible call.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, SetupError>;
    fn step_on(self, step: &'static str, detail: impl std::fmt::Display) -> Result<T, SetupError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, SetupError> {
        self.map_err(|error| SetupError { step, detail: String::new(), source: error.into() })
    }

    fn step_on(self, step: &'static str, detail: impl std::fmt::Display) -> Result<T, SetupError> {
        self.map_err(|error| SetupError { step, detail: detail.to_string(), source: error.into() })
    }
}
