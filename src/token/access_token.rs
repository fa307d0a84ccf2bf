use std::{fmt, time::Duration};

use http::HeaderValue;
use tokio::time::Instant;

use crate::error::{TokenError, TokenErrorKind};

const PREFIX: &str = "Bearer ";

/// An access token (RFC 6749 §1.4) of type `Bearer` (RFC 6750), ready to be put on a request.
///
/// The value of the `Authorization` header is built once, here, and marked sensitive. `Debug` shows type, scope and
/// remaining lifetime, never the token.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::AccessToken;
///
/// let token = AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA")?.expires_in(Duration::from_secs(3600));
/// assert!(token.header_value().is_sensitive());
/// assert!(!format!("{token:?}").contains("2YotnFZFEjr1zCsicMWpAA"));
/// # Ok::<_, tower_oauth::TokenError>(())
/// ```
#[derive(Clone)]
pub struct AccessToken {
    header: HeaderValue,
    expiry: Option<Expiry>,
    scope: Option<String>,
}

#[derive(Clone, Copy)]
struct Expiry {
    lifetime: Duration,
    at: Instant,
}

impl AccessToken {
    /// The most time before its expiry at which a token already counts as expired; of a short-lived token it is 10 %.
    pub const MAX_EXPIRY_MARGIN: Duration = Duration::from_secs(30);

    /// A bearer token without a known expiry and scope.
    ///
    /// # Errors
    ///
    /// [`TokenErrorKind::InvalidResponse`] when `token` is empty, begins or ends with a space, or has a character that
    /// no access token may have (RFC 6749 §A.12: printable ASCII).
    pub fn bearer(token: impl AsRef<str>) -> Result<Self, TokenError> {
        let token = token.as_ref();
        let problem = match token.as_bytes() {
            [] => Some("the access token is empty"),
            [b' ', ..] | [.., b' '] => Some("the access token begins or ends with a space"),
            bytes if bytes.iter().any(|byte| !matches!(byte, b' '..=b'~')) => {
                Some("the access token has a character that is not printable ASCII")
            }
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(TokenError::new(TokenErrorKind::InvalidResponse, problem));
        }
        let mut header = HeaderValue::try_from(format!("{PREFIX}{token}")).map_err(|_| {
            TokenError::new(TokenErrorKind::InvalidResponse, "the access token is not a header value")
        })?;
        header.set_sensitive(true);
        Ok(Self { header, expiry: None, scope: None })
    }

    /// Sets the lifetime, counted from now. A lifetime beyond what the clock can count is no expiry.
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        self.expires_in_from(Instant::now(), lifetime)
    }

    /// Counted from when the token was asked for, it can be off to the safe side only.
    #[must_use]
    pub(crate) fn expires_in_from(mut self, start: Instant, lifetime: Duration) -> Self {
        self.expiry = start.checked_add(lifetime).map(|at| Expiry { lifetime, at });
        self
    }

    /// Sets the scope that was granted (RFC 6749 §3.3).
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// The token itself. A secret: keep it out of logs.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.header.to_str().ok().and_then(|value| value.strip_prefix(PREFIX)).unwrap_or_default()
    }

    /// The value for the `Authorization` header (RFC 6750 §2.1), marked sensitive.
    #[must_use]
    pub fn header_value(&self) -> &HeaderValue {
        &self.header
    }

    /// The `token_type` (RFC 6749 §7.1): always `Bearer` so far.
    #[must_use]
    pub fn token_type(&self) -> &'static str {
        PREFIX.trim_end()
    }

    /// The scope that was granted, where the answer named one (RFC 6749 §3.3).
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The whole lifetime, from the request for the token on. `None`: no expiry is known.
    #[must_use]
    pub fn lifetime(&self) -> Option<Duration> {
        self.expiry.map(|expiry| expiry.lifetime)
    }

    /// What is left of the lifetime, zero after it. `None`: no expiry is known.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.expiry.map(|expiry| expiry.at.saturating_duration_since(Instant::now()))
    }

    /// From when on the token is not to be sent any more: its expiry less the margin.
    pub(crate) fn usable_until(&self) -> Option<Instant> {
        self.expiry.map(|Expiry { lifetime, at }| at - margin(lifetime))
    }
}

fn margin(lifetime: Duration) -> Duration {
    (lifetime / 10).min(AccessToken::MAX_EXPIRY_MARGIN)
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("token_type", &self.token_type())
            .field("remaining", &self.remaining())
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_is_ten_percent_of_a_short_lifetime_and_thirty_seconds_of_a_long_one() {
        for (lifetime, expected) in [(0, 0), (10, 1), (300, 30), (3600, 30), (u64::MAX, 30)] {
            assert_eq!(margin(Duration::from_secs(lifetime)), Duration::from_secs(expected));
        }
    }

    #[test]
    fn what_is_not_a_token_is_named_and_not_shown() {
        for bad in ["", " T0KEN", "T0KEN ", "T0KEN\n", "T0KEN\0", "T0KENü", "T0KEN\x7f"] {
            let error = AccessToken::bearer(bad).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
            assert!(!format!("{error} {error:?}").contains("T0KEN"), "{error}");
        }
    }

    #[test]
    fn a_lifetime_beyond_the_clock_is_no_expiry() {
        let token = AccessToken::bearer("t").unwrap().expires_in(Duration::MAX);
        assert_eq!((token.lifetime(), token.usable_until()), (None, None));
    }

    #[test]
    fn the_value_comes_back_as_it_was_given() {
        assert_eq!(AccessToken::bearer("a b~!").unwrap().expose_secret(), "a b~!");
    }
}
