//! A secret among the settings: it is never shown, and does not stay in the environment.

use std::fmt;

/// What stands in the place of a secret.
pub(super) const HIDDEN: &str = "(not shown)";

/// What `MHNOS_AUTH_TOKEN` says when the token itself has been sealed away; too short to be one.
pub(super) const SEALED: &str = "sealed";

/// Text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// The value of `MHNOS_AUTH_TOKEN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenToken {
    /// None was given.
    None,
    /// As the operator wrote it.
    Here(SecretText),
    /// One was given, and is now in a sealed descriptor.
    Sealed,
}

impl GivenToken {
    /// The value of the variable that says so.
    pub const SEALED: &'static str = SEALED;
}

/// As a value of the variable, for people.
impl fmt::Display for GivenToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Here(_) | Self::Sealed => f.write_str(HIDDEN),
        }
    }
}
