//! The result of one fetch of a scripted source.

use std::time::Duration;

use crate::{
    error::{TokenError, TokenErrorKind},
    token::AccessToken,
};

/// The answer of a [`ScriptedSource`](super::ScriptedSource) to one fetch.
///
/// `Debug` shows no token.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) outcome: Outcome,
    pub(super) is_held: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    NewToken(Duration),
    Token(AccessToken),
    Error(TokenError),
    Panic,
}

impl Answer {
    /// Creates an answer with a new bearer token of this lifetime: `token-1`, `token-2` and so on.
    #[must_use]
    pub fn token(lifetime: Duration) -> Self {
        Outcome::NewToken(lifetime).into()
    }

    /// Creates an answer with an error of this kind. The kind decides how long the cache waits
    /// before the next fetch, see [`TokenErrorKind`]. For an error with a status or a
    /// `Retry-After`, see [`from_error`](Self::from_error).
    #[must_use]
    pub fn error(kind: TokenErrorKind) -> Self {
        Self::from_error(TokenError::new(kind, "an error of the scripted source"))
    }

    /// Creates an answer that is a panic in the source. The waiting callers get
    /// [`TokenErrorKind::Panicked`].
    #[must_use]
    pub fn panic() -> Self {
        Outcome::Panic.into()
    }

    /// Creates an answer with this token, such as the previous one again.
    #[must_use]
    pub fn from_token(token: AccessToken) -> Self {
        Outcome::Token(token).into()
    }

    /// Creates an answer with this error.
    #[must_use]
    pub fn from_error(error: TokenError) -> Self {
        Outcome::Error(error).into()
    }

    /// Holds the answer back until
    /// [`ScriptedSource::release`](super::ScriptedSource::release) lets it go.
    #[must_use]
    pub fn held(self) -> Self {
        Self { is_held: true, ..self }
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, is_held: false }
    }
}
