//! Tokens: who is let in where the service asks for one, and what each may do.
//!
//! A token is kept as its SHA-256 digest only, and compared with every known one in constant time: neither the time
//! an answer takes nor the memory of a running service tells a token. The text of a token file is:
//!
//! ```text
//! # a comment
//! laptop  control  3f9c…
//! screen  view     91ab…
//! ```
//!
//! or, as secret stores leave it, the token alone.

use std::{fmt, sync::Arc};

use mhnos_protocol::{Request, TokenScope};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::limits;

/// Name of a token that was given alone: in `MHNOS_AUTH_TOKEN`, or as the only word of a file.
const ALONE: &str = "default";

/// A known token, as a connection that was let in by it remembers it.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    /// For logs; never the token itself.
    pub name: Arc<str>,
    /// What it may do.
    pub scope: TokenScope,
    digest: [u8; 32],
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.scope.as_str())
    }
}

/// Whether a scope covers a request. A view token looks on; a pull is not covered, since a workspace holds what was
/// never shown on a terminal.
pub(crate) fn covers(scope: TokenScope, request: &Request) -> bool {
    match request {
        Request::List { .. }
        | Request::Ports { .. }
        | Request::Status
        | Request::Ping
        | Request::Auth(_)
        | Request::Attach(_)
        | Request::Detach { .. } => true,
        Request::Spawn(_)
        | Request::Write(_)
        | Request::CloseStdin { .. }
        | Request::Resize(_)
        | Request::Kill(_)
        | Request::RevokePreview { .. }
        | Request::Push { .. }
        | Request::Pull => scope == TokenScope::Control,
    }
}

/// The known tokens. Empty: none is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Principal>);

/// What is wrong with a token or a file of them. Says where, never what stands there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenMistake {
    /// Too short, too long, or with characters that no header carries.
    #[error(
        "a token has {} to {} of the characters A-Z a-z 0-9 - . _ ~ + / =",
        limits::MIN_TOKEN,
        limits::MAX_TOKEN
    )]
    Token,
    /// A name that would not stand well in a log.
    #[error("a name has 1 to 64 of the characters A-Z a-z 0-9 - . _")]
    Name,
    /// No scope.
    #[error("a scope is control or view")]
    Scope,
    /// A line of another form.
    #[error("a line is NAME SCOPE TOKEN, or the token alone")]
    Form,
    /// A name, or a token, for the second time.
    #[error("this name, or this token, stands there already")]
    Twice,
    /// Nothing at all.
    #[error("there is no token in it")]
    None,
    /// More than can be meant.
    #[error("there are more than {} tokens in it", limits::MAX_TOKENS)]
    TooMany,
    /// The same, with the line, from 1.
    #[error("line {0}: {1}")]
    Line(usize, Box<Self>),
}

impl Tokens {
    /// Adds a token that was given alone.
    pub fn add_alone(&mut self, token: &str) -> Result<(), TokenMistake> {
        self.add(ALONE, TokenScope::Control, token)
    }

    /// Adds those of a file.
    pub fn add_file(&mut self, text: &str) -> Result<(), TokenMistake> {
        let before = self.0.len();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.add_line(line).map_err(|mistake| TokenMistake::Line(number, Box::new(mistake)))?;
            }
        }
        if self.0.len() == before { Err(TokenMistake::None) } else { Ok(()) }
    }

    fn add_line(&mut self, line: &str) -> Result<(), TokenMistake> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [token] => self.add_alone(token),
            [name, scope, token] => {
                let scope = match scope {
                    "control" => TokenScope::Control,
                    "view" => TokenScope::View,
                    _ => return Err(TokenMistake::Scope),
                };
                self.add(name, scope, token)
            }
            _ => Err(TokenMistake::Form),
        }
    }

    fn add(&mut self, name: &str, scope: TokenScope, token: &str) -> Result<(), TokenMistake> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(TokenMistake::Name);
        }
        if !is_token(token) {
            return Err(TokenMistake::Token);
        }
        let digest = digest(token);
        if self.0.iter().any(|known| *known.name == *name || known.digest == digest) {
            return Err(TokenMistake::Twice);
        }
        if self.0.len() == limits::MAX_TOKENS {
            return Err(TokenMistake::TooMany);
        }
        self.0.push(Principal { name: name.into(), scope, digest });
        Ok(())
    }

    /// Whose token this is. Takes as long for one that is known as for one that is not.
    pub fn find(&self, presented: &str) -> Option<&Principal> {
        let presented = digest(presented);
        let (mut found, mut at) = (Choice::from(0), 0_u64);
        for (index, known) in (0..).zip(&self.0) {
            let equal = known.digest.ct_eq(&presented);
            at.conditional_assign(&index, equal);
            found |= equal;
        }
        self.0.get(at as usize).filter(|_| bool::from(found))
    }

    /// Whether a connection that was let in may stay.
    pub fn still_has(&self, principal: &Principal) -> bool {
        self.0.contains(principal)
    }

    /// The names, for the log.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|principal| &*principal.name).collect()
    }
}

/// What headers carry (RFC 6750, section 2.1), long enough not to be guessed.
fn is_token(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
    (limits::MIN_TOKEN..=limits::MAX_TOKEN).contains(&text.len()) && text.bytes().all(plain)
}

fn digest(token: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef";
    const TWO: &str = "fedcba9876543210/+=";

    fn file(text: &str) -> Result<Tokens, TokenMistake> {
        let mut tokens = Tokens::default();
        tokens.add_file(text).map(|()| tokens)
    }

    #[test]
    fn a_file_has_names_scopes_and_tokens_or_one_token_alone() {
        let tokens =
            file(&format!("# who\n\n laptop control {ONE}\nscreen\tview {TWO}\r\n")).expect("accepted");
        let found = |token| tokens.find(token).map(|principal| (&*principal.name, principal.scope));
        assert_eq!(found(ONE), Some(("laptop", TokenScope::Control)));
        assert_eq!(found(TWO), Some(("screen", TokenScope::View)));
        for wrong in ["", "0123456789abcdeF", "0123456789abcde", "0123456789abcdef "] {
            assert_eq!(found(wrong), None, "{wrong:?}");
        }
        let alone = file(&format!("{ONE}\n")).expect("accepted");
        assert_eq!(alone.names(), ["default"]);
        assert_eq!(Tokens::default().find(""), None);
    }

    #[test]
    fn a_wrong_file_is_told_by_line_and_never_by_content() {
        let check = |text: &str, expected: &str| {
            let mistake = file(text).expect_err(text).to_string();
            assert!(mistake.starts_with(expected), "{text:?}: {mistake}");
            assert!(!mistake.contains("secret"), "{mistake}");
        };
        check("", "there is no token");
        check("# only talk\n", "there is no token");
        check("short-secret", "line 1: a token has 16 to 512");
        check("secret-secret-secret:", "line 1: a token has");
        check("a control secret-secret-secret\na view secret-secret-secre2\n", "line 2: this name");
        check(
            "a control secret-secret-secret\nb view secret-secret-secret\n",
            "line 2: this name, or this token",
        );
        check("secret-secret-secret view", "line 1: a line is");
        check("a all secret-secret-secret", "line 1: a scope is");
        check("ä view secret-secret-secret", "line 1: a name has");
    }

    #[test]
    fn a_principal_stays_as_long_as_it_is_the_same() {
        let before = file(&format!("a control {ONE}\nb view {TWO}\n")).expect("accepted");
        let (a, b) = (before.find(ONE).expect("a"), before.find(TWO).expect("b"));
        let after = file(&format!("b control {TWO}\n")).expect("accepted");
        assert!(before.still_has(a) && before.still_has(b));
        assert!(!after.still_has(a), "removed");
        assert!(!after.still_has(b), "another scope");
        assert!(!format!("{before:?}").contains(ONE));
    }
}
