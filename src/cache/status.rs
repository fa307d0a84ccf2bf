//! The public view of a cache.

use std::{fmt, time::Duration};

use super::cached_token::CachedToken;
use crate::error::TokenError;

/// The state of a [`TokenCache`](crate::TokenCache) at one instant, from
/// [`status`](crate::TokenCache::status). For health checks and dashboards. `Debug` and `Display`
/// show no secret.
///
/// Requests fail for lack of a token as long as [`can_serve`](Self::can_serve) is false.
///
/// ```
/// use tower_oauth::{AccessToken, RefreshState, TokenCache, TokenState, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::TokenError> {
/// let cache = TokenCache::new(source_fn(|_| async { AccessToken::bearer("my-token") }));
/// assert!(matches!(cache.status().token, TokenState::Empty));
/// cache.warm_up().await?;
/// let status = cache.status();
/// assert!(matches!(status.token, TokenState::Fresh(_)));
/// assert!(matches!(status.refresh, RefreshState::Idle));
/// assert_eq!(status.to_string(), "token 1 is fresh; no refresh is running");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The token that requests get.
    pub token: TokenState,
    /// The work on the next token.
    pub refresh: RefreshState,
    /// The error of the last refresh. `None` if it succeeded, or if there was none.
    pub last_error: Option<TokenError>,
}

/// The token that requests get, a part of [`Status`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TokenState {
    /// No token: not fetched yet, invalidated, or expired. The next request fetches one if it may.
    Empty,
    /// A token that is usable.
    Fresh(CachedToken),
    /// A token that is usable and due for a refresh, which the next request starts in the
    /// background.
    Stale(CachedToken),
}

/// The work on the next token, a part of [`Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshState {
    /// No refresh is running. The next request may start one.
    Idle,
    /// A refresh is running.
    Refreshing,
    /// The last refresh failed. The next one waits for the end of the back-off.
    BackingOff {
        /// The remaining time, from the instant of the status.
        next_attempt_in: Duration,
    },
    /// The token has a very short lifetime. Expiry causes at most one refresh in a second. Requests
    /// that need a token wait for the next one.
    Pausing {
        /// The remaining time, from the instant of the status.
        next_attempt_in: Duration,
    },
    /// The [token request limit](crate::TokenCacheBuilder::token_request_limit) is reached.
    LimitReached {
        /// The time until the limit allows a request, from the instant of the status.
        next_attempt_in: Duration,
    },
    /// The cache was [closed](crate::TokenCache::close). It will never refresh again.
    Closed,
}

impl Status {
    /// Returns true if a request that comes now gets a token, or may at least fetch one. For a
    /// health check: an idle client with an expired token is healthy. A client without a token
    /// during a back-off, with its request limit reached, or closed, is not.
    #[must_use]
    pub fn can_serve(&self) -> bool {
        self.current().is_some()
            || matches!(
                self.refresh,
                RefreshState::Idle | RefreshState::Refreshing | RefreshState::Pausing { .. }
            )
    }

    /// Returns the token that requests get, fresh or stale.
    #[must_use]
    pub fn current(&self) -> Option<&CachedToken> {
        match &self.token {
            TokenState::Empty => None,
            TokenState::Fresh(token) | TokenState::Stale(token) => Some(token),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.token {
            TokenState::Empty => f.write_str("no token")?,
            TokenState::Fresh(token) => write!(f, "token {} is fresh", token.generation())?,
            TokenState::Stale(token) => write!(f, "token {} is stale", token.generation())?,
        }
        if let Some(left) = self.current().and_then(|token| token.remaining()) {
            write!(f, " and expires in {} s", left.as_secs())?;
        }
        match self.refresh {
            RefreshState::Idle => f.write_str("; no refresh is running"),
            RefreshState::Refreshing => f.write_str("; a refresh is running"),
            RefreshState::BackingOff { next_attempt_in } => {
                let left = next_attempt_in.as_secs().saturating_add(1);
                write!(f, "; no further attempt for {left} s")
            }
            RefreshState::Pausing { next_attempt_in } => {
                write!(f, "; no refresh for {} ms", next_attempt_in.as_millis().saturating_add(1))
            }
            RefreshState::LimitReached { next_attempt_in } => {
                let left = next_attempt_in.as_secs().saturating_add(1);
                write!(f, "; the token request limit is reached for {left} s")
            }
            RefreshState::Closed => f.write_str("; closed"),
        }
    }
}
