//! The reason for a fetch, and the token that was rejected.

use crate::token::{AccessToken, Generation};

/// The reason why a cache wants a new token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchReason {
    /// The cache has had no token so far.
    #[default]
    First,
    /// The token is still valid and is refreshed in the background.
    Stale,
    /// The token has expired.
    Expired,
    /// The token was rejected by a resource server, or invalidated by the program.
    Rejected,
}

impl FetchReason {
    /// Returns the name of the reason in logs: `first`, `stale`, `expired` or `rejected`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        }
    }
}

/// The circumstances of one call of [`TokenSource::fetch`](crate::TokenSource::fetch).
///
/// Most sources ignore it. A source that reads from a store which several processes share needs it:
/// the rejected token must not be returned again, so the store has to be bypassed or updated.
///
/// ```
/// use tower_oauth::{AccessToken, FetchContext, TokenError, TokenSource};
///
/// # struct Store;
/// # impl Store {
/// #     async fn current(&self) -> Result<AccessToken, TokenError> { AccessToken::bearer("t") }
/// #     async fn replace(&self) -> Result<AccessToken, TokenError> { AccessToken::bearer("u") }
/// # }
/// struct SharedStore(Store);
///
/// impl TokenSource for SharedStore {
///     async fn fetch(&self, context: FetchContext) -> Result<AccessToken, TokenError> {
///         let token = self.0.current().await?;
///         match context.rejected_token() {
///             Some(rejected) if rejected.expose_secret() == token.expose_secret() => {
///                 self.0.replace().await
///             }
///             _ => Ok(token),
///         }
///     }
/// }
/// ```
///
/// `Debug` shows no token. The [`Default`] is a first fetch.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FetchContext {
    reason: FetchReason,
    rejected_token: Option<AccessToken>,
    rejected_generation: Option<Generation>,
}

impl FetchContext {
    /// Creates a context with a reason and without a rejected token, to test a source.
    #[must_use]
    pub fn new(reason: FetchReason) -> Self {
        Self { reason, ..Self::default() }
    }

    /// Sets the rejected token, to test a source. The reason becomes [`FetchReason::Rejected`].
    #[must_use]
    pub fn with_rejected_token(self, token: AccessToken) -> Self {
        Self { reason: FetchReason::Rejected, rejected_token: Some(token), ..self }
    }

    pub(crate) fn rejected(token: AccessToken, generation: Generation) -> Self {
        Self {
            reason: FetchReason::Rejected,
            rejected_token: Some(token),
            rejected_generation: Some(generation),
        }
    }

    /// Returns the reason why a token is wanted.
    #[must_use]
    pub fn reason(&self) -> FetchReason {
        self.reason
    }

    /// Returns the token that was rejected, if the reason is [`FetchReason::Rejected`].
    ///
    /// It may be `None` with that reason as well: in a context that a test made with
    /// [`new`](Self::new).
    #[must_use]
    pub fn rejected_token(&self) -> Option<&AccessToken> {
        self.rejected_token.as_ref()
    }

    /// Returns the generation of the rejected token in its cache, if the reason is
    /// [`FetchReason::Rejected`]. It is safe to log.
    ///
    /// It may be `None` with that reason as well: in a context that a test made, with
    /// [`new`](Self::new) or [`with_rejected_token`](Self::with_rejected_token).
    #[must_use]
    pub fn rejected_generation(&self) -> Option<Generation> {
        self.rejected_generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_without_settings_is_a_first_fetch() {
        let context = FetchContext::default();
        assert_eq!(context.reason(), FetchReason::First);
        assert!(context.rejected_token().is_none() && context.rejected_generation().is_none());
    }

    #[test]
    fn rejected_token_sets_the_reason_and_is_not_shown() {
        let token = AccessToken::bearer("T0KEN").unwrap();
        let context = FetchContext::new(FetchReason::First).with_rejected_token(token);
        assert_eq!(context.reason(), FetchReason::Rejected);
        assert_eq!(context.rejected_token().unwrap().expose_secret(), "T0KEN");
        assert!(!format!("{context:?}").contains("T0KEN"), "{context:?}");
    }
}
