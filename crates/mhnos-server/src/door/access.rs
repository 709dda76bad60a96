//! Who is known by a token: the tokens in force, which may change while the service runs, and the judgement of what
//! a client shows.

use std::{net::IpAddr, sync::Arc};

use mhnos_protocol::{SUBPROTOCOL_TOKEN_PREFIX, TokenScope};
use tokio::sync::watch;

use super::{
    attempts::Attempts,
    token::{Principal, Tokens},
};

/// What came with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown<'r> {
    /// No token.
    Nothing,
    /// A token, or what claims to be one.
    Token(&'r str),
    /// An `Authorization` that is no bearer token, or several.
    Malformed,
}

impl<'r> Shown<'r> {
    /// From the values of all `Authorization` headers and the items of all `Sec-WebSocket-Protocol` headers. The
    /// header goes before the subprotocol.
    pub(crate) fn of(authorizations: &[&'r [u8]], subprotocols: impl Iterator<Item = &'r str>) -> Self {
        let mut offered = subprotocols.filter_map(|item| item.strip_prefix(SUBPROTOCOL_TOKEN_PREFIX));
        match authorizations {
            [] => match (offered.next(), offered.next()) {
                (None, _) => Self::Nothing,
                (Some(token), None) => Self::Token(token),
                (Some(_), Some(_)) => Self::Malformed,
            },
            [value] => {
                let text = str::from_utf8(value).unwrap_or_default();
                match text.split_once(' ') {
                    Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                        Self::Token(token.trim())
                    }
                    _ => Self::Malformed,
                }
            }
            _ => Self::Malformed,
        }
    }
}

/// What a client may do, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    /// `None` where the service asks for no token.
    principal: Option<Principal>,
    tokens: watch::Receiver<Arc<Tokens>>,
}

impl Admission {
    /// The token's name, for logs and audit.
    pub(crate) fn name(&self) -> Option<&str> {
        self.principal.as_ref().map(|principal| &*principal.name)
    }

    pub(crate) fn scope(&self) -> TokenScope {
        self.principal.as_ref().map_or(TokenScope::Control, |principal| principal.scope)
    }

    /// Returns when the token is no longer accepted.
    pub(crate) async fn revoked(&mut self) {
        let Some(principal) = &self.principal else { return std::future::pending().await };
        if self.tokens.wait_for(|tokens| !tokens.still_has(principal)).await.is_err() {
            // Nobody reads the file any more: the service is ending.
            std::future::pending::<()>().await;
        }
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unauthorized {
    /// There is none.
    #[error(
        "This service asks for a token: Authorization: Bearer TOKEN, or beside mhnos.v1 the subprotocol \
         mhnos.token.TOKEN, or as the first message {{\"type\":\"auth\",\"token\":\"TOKEN\"}}."
    )]
    Missing,
    /// It is not known.
    #[error("This token is not one of this service's (MHNOS_AUTH_TOKEN, MHNOS_AUTH_TOKEN_FILE).")]
    Unknown,
    /// There is something else in its place.
    #[error("Expected one token, as Authorization: Bearer TOKEN.")]
    Malformed,
    /// Too many before it were refused.
    #[error("Too many tokens from this address were refused. Try again in some seconds.")]
    TooMany,
}

/// The tokens in force.
#[derive(Debug)]
pub(crate) struct Access {
    tokens: watch::Receiver<Arc<Tokens>>,
    required: bool,
    attempts: Attempts,
}

impl Access {
    /// `required`: without a token nobody is let in, whatever the tokens are now.
    pub(crate) fn new(tokens: watch::Receiver<Arc<Tokens>>, required: bool) -> Self {
        Self { tokens, required, attempts: Attempts::default() }
    }

    /// Judges what a client at `address` shows.
    pub(crate) fn judge(&self, address: IpAddr, shown: Shown<'_>) -> Result<Admission, Unauthorized> {
        let admit = |principal| Admission { principal, tokens: self.tokens.clone() };
        if !self.required {
            return Ok(admit(None));
        }
        let used_up = self.attempts.are_used_up(address);
        if used_up && !address.to_canonical().is_loopback() {
            return Err(Unauthorized::TooMany);
        }
        let refused = match shown {
            Shown::Nothing => return Err(Unauthorized::Missing),
            Shown::Malformed => Unauthorized::Malformed,
            Shown::Token(token) => match self.tokens.borrow().find(token) {
                Some(principal) => return Ok(admit(Some(principal.clone()))),
                None => Unauthorized::Unknown,
            },
        };
        self.attempts.refused(address);
        Err(if used_up { Unauthorized::TooMany } else { refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn access() -> (watch::Sender<Arc<Tokens>>, Access) {
        let mut tokens = Tokens::default();
        tokens.add_alone(TOKEN).expect("accepted");
        let (sender, tokens) = watch::channel(Arc::new(tokens));
        (sender, Access::new(tokens, true))
    }

    fn shown<'r>(authorizations: &[&'r str], subprotocols: &[&'r str]) -> Shown<'r> {
        let values: Vec<&[u8]> = authorizations.iter().map(|value| value.as_bytes()).collect();
        Shown::of(&values, subprotocols.iter().copied())
    }

    #[test]
    fn a_token_is_found_in_the_header_or_among_the_subprotocols() {
        let is = |shown: Shown<'_>, expected: Shown<'_>| assert!(shown == expected);
        is(shown(&[], &[]), Shown::Nothing);
        is(shown(&[], &["mhnos.v1"]), Shown::Nothing);
        is(shown(&[], &["mhnos.v1", "mhnos.token.abc"]), Shown::Token("abc"));
        is(shown(&["Bearer abc"], &[]), Shown::Token("abc"));
        is(shown(&["bearer   abc"], &["mhnos.token.other"]), Shown::Token("abc"));
        is(shown(&["Basic abc"], &["mhnos.token.abc"]), Shown::Malformed);
        is(shown(&["abc"], &[]), Shown::Malformed);
        is(shown(&["Bearer a", "Bearer b"], &[]), Shown::Malformed);
        is(shown(&[], &["mhnos.token.a", "mhnos.token.b"]), Shown::Malformed);
    }

    #[test]
    fn nobody_is_let_in_without_a_token_that_is_known() {
        let (_sender, access) = access();
        let local = "127.0.0.1".parse().expect("address");
        let judge = |shown| access.judge(local, shown).map(|admission| admission.scope());
        assert_eq!(judge(Shown::Nothing), Err(Unauthorized::Missing));
        assert_eq!(judge(Shown::Malformed), Err(Unauthorized::Malformed));
        assert_eq!(judge(Shown::Token("")), Err(Unauthorized::Unknown));
        assert_eq!(judge(Shown::Token(TOKEN)), Ok(TokenScope::Control));
    }

    #[test]
    fn guessing_is_answered_unseen_but_locks_nobody_out_of_this_machine() {
        let (_sender, access) = access();
        for (address, right) in [("192.0.2.7", false), ("127.0.0.1", true), ("::1", true)] {
            let address = address.parse().expect("address");
            let mut refusals =
                (0..100).map(|_| access.judge(address, Shown::Token("wrong")).expect_err("refused"));
            assert_eq!(refusals.next(), Some(Unauthorized::Unknown));
            assert_eq!(refusals.last(), Some(Unauthorized::TooMany));
            assert_eq!(access.judge(address, Shown::Token(TOKEN)).is_ok(), right, "{address}");
        }
    }

    #[tokio::test]
    async fn a_connection_learns_that_its_token_is_gone() {
        let (sender, access) = access();
        let mut admission =
            access.judge("127.0.0.1".parse().expect("address"), Shown::Token(TOKEN)).expect("let in");
        let mut other = Tokens::default();
        other.add_alone("another-token-of-it").expect("accepted");
        sender.send_replace(Arc::new(other));
        admission.revoked().await;
    }
}
