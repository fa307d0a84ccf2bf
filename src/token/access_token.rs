use std::{fmt, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::error::{TokenError, TokenErrorKind};

/// An access token (RFC 6749 §1.4) of type `Bearer` (RFC 6750), ready to be put on a request. Or, for APIs that have no
/// better, a static HTTP Basic credential in its place.
///
/// The value of the `Authorization` header is built once, here, and marked sensitive. `Debug` shows type and remaining
/// lifetime, never the token.
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
    scheme: Scheme,
    header: HeaderValue,
    since: Instant,
    lifetime: Option<Duration>,
    renewal: Renewal,
    scope: Option<String>,
}

/// The authentication scheme under which a token is shown (RFC 9110 §11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Bearer,
    Basic,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Basic => "Basic",
        }
    }
}

/// When a token is to be renewed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// As the cache does by default.
    #[default]
    ByLifetime,
    /// So long before the expiry.
    BeforeExpiry(Duration),
    /// At this age, or as by default where that comes first.
    AtAge(Duration),
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
        Self::of(Scheme::Bearer, token)
    }

    /// A static HTTP Basic credential (RFC 7617), as some APIs take it in the place of a token. Its `token_type` is `Basic`.
    ///
    /// # Errors
    ///
    /// [`TokenErrorKind::Configuration`] for a user name with a colon, which could not be told from the password.
    pub fn basic(user: &str, password: &str) -> Result<Self, TokenError> {
        if user.contains(':') {
            let what = "a user name of HTTP Basic authentication cannot have a colon";
            return Err(TokenError::new(TokenErrorKind::Configuration, what));
        }
        let pair = Zeroizing::new(format!("{user}:{password}"));
        let credentials = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
        Self::of(Scheme::Basic, &credentials)
    }

    fn of(scheme: Scheme, credentials: &str) -> Result<Self, TokenError> {
        let header = Zeroizing::new(format!("{} {credentials}", scheme.name()));
        let mut header = HeaderValue::from_str(&header).map_err(|_| {
            TokenError::new(TokenErrorKind::InvalidResponse, "the access token is not a header value")
        })?;
        header.set_sensitive(true);
        Ok(Self {
            scheme,
            header,
            since: Instant::now(),
            lifetime: None,
            renewal: Renewal::default(),
            scope: None,
        })
    }

    /// Sets the lifetime, counted from now. A lifetime beyond what the clock can count is no expiry.
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        self.expires_in_from(Instant::now(), lifetime)
    }

    /// Counted from when the token was asked for, it can be off to the safe side only.
    #[must_use]
    pub(crate) fn expires_in_from(mut self, start: Instant, lifetime: Duration) -> Self {
        self.since = start;
        self.lifetime = start.checked_add(lifetime).map(|_| lifetime);
        self
    }

    /// So much older. Beyond what the clock can tell, it is out of life.
    #[must_use]
    pub(crate) fn older_by(mut self, age: Duration) -> Self {
        match self.since.checked_sub(age) {
            Some(since) => self.since = since,
            None => self.lifetime = self.lifetime.map(|_| Duration::ZERO),
        }
        self
    }

    #[must_use]
    pub(crate) fn renewed(mut self, renewal: Renewal) -> Self {
        self.renewal = renewal;
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
        self.header.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default().1
    }

    /// The value for the `Authorization` header (RFC 6750 §2.1), marked sensitive.
    #[must_use]
    pub fn header_value(&self) -> &HeaderValue {
        &self.header
    }

    /// The `token_type` (RFC 6749 §7.1): `Bearer`, or `Basic` for what [`basic`](Self::basic) made.
    #[must_use]
    pub fn token_type(&self) -> &'static str {
        self.scheme.name()
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The scope that was granted, where the answer named one (RFC 6749 §3.3).
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The whole lifetime, from the request for the token on. `None`: no expiry is known.
    #[must_use]
    pub fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// What is left of the lifetime, zero after it. `None`: no expiry is known.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.lifetime.map(|lifetime| lifetime.saturating_sub(self.since.elapsed()))
    }

    /// From when on its lifetime and its age count.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn renewal(&self) -> Renewal {
        self.renewal
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("token_type", &self.token_type())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basic_credential_is_that_of_rfc_7617() {
        let token = AccessToken::basic("Aladdin", "open sesame").unwrap();
        assert_eq!(token.header_value(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(token.header_value().is_sensitive());
        assert_eq!(token.token_type(), "Basic");
        assert!(AccessToken::basic("a:b", "c").is_err());
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
        assert_eq!((token.lifetime(), token.remaining()), (None, None));
    }

    #[test]
    fn the_value_comes_back_as_it_was_given() {
        assert_eq!(AccessToken::bearer("a b~!").unwrap().expose_secret(), "a b~!");
    }
}
