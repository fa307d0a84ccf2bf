use std::{fmt, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{secret::sensitive_header, unreadable_lifetime::UnreadableLifetime};
use crate::error::{TokenError, TokenErrorKind};

/// An access token (RFC 6749 §1.4) of type `Bearer` (RFC 6750), or a static HTTP Basic credential
/// for APIs that accept no token.
///
/// The value of the `Authorization` header is built once, when the token is created, and marked
/// sensitive. `Debug` shows the type and the remaining lifetime, never the token.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::AccessToken;
///
/// let token = AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA")?
///     .expires_in(Duration::from_secs(3600));
/// assert!(token.header_value().is_sensitive());
/// assert!(!format!("{token:?}").contains("2YotnFZFEjr1zCsicMWpAA"));
/// # Ok::<_, tower_oauth::TokenError>(())
/// ```
#[derive(Clone)]
pub struct AccessToken {
    scheme: Scheme,
    header: HeaderValue,
    /// The instant from which lifetime and age are measured.
    issued_at: Instant,
    lifetime: Option<Duration>,
    refresh_timing: RefreshTiming,
    scope: Option<String>,
    /// A problem that the cache reports when it takes the token into use.
    unreadable_lifetime: Option<Box<UnreadableLifetime>>,
}

/// The authentication scheme of a token in the `Authorization` header (RFC 9110 §11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Bearer,
    Basic,
}

impl Scheme {
    /// Returns the name of the scheme as the header has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Basic => "Basic",
        }
    }
}

/// The time at which a token becomes stale, that is, due for a background refresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RefreshTiming {
    /// The default of the cache, which depends on the lifetime of the token.
    #[default]
    ByLifetime,
    /// This long before the expiry.
    BeforeExpiry(Duration),
    /// At this age, or at the default time if that is earlier.
    AtAge(Duration),
}

impl AccessToken {
    /// The largest expiry margin. A token counts as expired 30 s before its expiry, or 10 % of its
    /// lifetime before it if that is less.
    pub const MAX_EXPIRY_MARGIN: Duration = Duration::from_secs(30);

    /// Creates a bearer token without a known expiry and scope.
    ///
    /// A `Bearer ` in front of it, as in the value of the header, is not part of the token. Some
    /// servers and files have it.
    ///
    /// # Errors
    ///
    /// [`TokenErrorKind::InvalidResponse`] if `token` is empty, begins or ends with white space, or
    /// has a character that is not printable ASCII (RFC 6749 §A.12).
    pub fn bearer(token: impl AsRef<str>) -> Result<Self, TokenError> {
        let token = without_scheme(token.as_ref());
        let invalid = |problem| TokenError::new(TokenErrorKind::InvalidResponse, problem);
        if token.is_empty() {
            return Err(invalid("the access token is empty"));
        }
        if token.trim() != token {
            return Err(invalid("the access token begins or ends with white space")
                .with_advice("remove the white space around the token"));
        }
        if token.bytes().any(|byte| !matches!(byte, b' '..=b'~')) {
            return Err(invalid("the access token has a character that is not printable ASCII"));
        }
        Self::from_credentials(Scheme::Bearer, token)
    }

    /// Creates a static HTTP Basic credential (RFC 7617), which some APIs use instead of a token.
    /// Its [`token_type`](Self::token_type) is `Basic`.
    ///
    /// # Errors
    ///
    /// [`TokenErrorKind::Configuration`] if `user` contains a colon: the server would take the rest
    /// of the user name for a part of the password. The same if one of both contains a control
    /// character (RFC 7617 §2).
    pub fn basic(user: &str, password: &str) -> Result<Self, TokenError> {
        let (problem, advice) = if user.contains(':') {
            (
                "the user name for HTTP Basic authentication contains a colon",
                "use one without a colon",
            )
        } else if user.contains(char::is_control) {
            (
                "the user name for HTTP Basic authentication contains a control character",
                "remove control characters, such as line breaks, from the user name",
            )
        } else if password.contains(char::is_control) {
            (
                "the password for HTTP Basic authentication contains a control character",
                "remove control characters, such as line breaks, from the password",
            )
        } else {
            return Self::from_credentials(Scheme::Basic, &basic_credentials(user, password));
        };
        Err(TokenError::new(TokenErrorKind::Configuration, problem).with_advice(advice))
    }

    fn from_credentials(scheme: Scheme, credentials: &str) -> Result<Self, TokenError> {
        let header = Zeroizing::new([scheme.name(), credentials].join(" "));
        let header = sensitive_header(header).map_err(|_| {
            TokenError::new(
                TokenErrorKind::InvalidResponse,
                "the access token is not a header value",
            )
        })?;
        Ok(Self {
            scheme,
            header,
            issued_at: Instant::now(),
            lifetime: None,
            refresh_timing: RefreshTiming::default(),
            scope: None,
            unreadable_lifetime: None,
        })
    }

    /// Sets the lifetime, measured from now. By default no expiry is known.
    ///
    /// A lifetime beyond the range of the clock means that no expiry is known.
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        self.expires_in_from(Instant::now(), lifetime)
    }

    /// Sets the lifetime, measured from `start`.
    ///
    /// `start` is the instant at which the token was requested, which is no later than the instant
    /// at which the server issued it. So the token expires here no later than on the server.
    #[must_use]
    pub(crate) fn expires_in_from(mut self, start: Instant, lifetime: Duration) -> Self {
        self.issued_at = start;
        self.lifetime = start.checked_add(lifetime).map(|_| lifetime);
        self
    }

    /// Extends the lifetime of a token that counts as expired now: it ends after this moment.
    #[must_use]
    pub(crate) fn usable_for_at_least(self, moment: Duration) -> Self {
        let is_usable = |lifetime| self.issued_at.elapsed() < usable_age(lifetime);
        match self.lifetime {
            Some(lifetime) if !is_usable(lifetime) => self.expires_in(moment),
            _ => self,
        }
    }

    pub(crate) fn with_unreadable_lifetime(mut self, member: Option<UnreadableLifetime>) -> Self {
        self.unreadable_lifetime = member.map(Box::new);
        self
    }

    pub(crate) fn take_unreadable_lifetime(&mut self) -> Option<Box<UnreadableLifetime>> {
        self.unreadable_lifetime.take()
    }

    /// Increases the age of the token. An age beyond the range of the clock makes it expired.
    #[must_use]
    pub(crate) fn aged_by(mut self, age: Duration) -> Self {
        match self.issued_at.checked_sub(age) {
            Some(issued_at) => self.issued_at = issued_at,
            None => self.lifetime = self.lifetime.map(|_| Duration::ZERO),
        }
        self
    }

    /// Sets when the token becomes stale. The default is [`RefreshTiming::ByLifetime`].
    #[must_use]
    pub(crate) fn with_refresh_timing(mut self, timing: RefreshTiming) -> Self {
        self.refresh_timing = timing;
        self
    }

    /// Sets the scope that the server granted (RFC 6749 §3.3).
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Returns the token itself, or the encoded credential of HTTP Basic. It is a secret: keep it
    /// out of logs.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.header.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default().1
    }

    /// Returns the value of the `Authorization` header (RFC 6750 §2.1), marked sensitive.
    #[must_use]
    pub fn header_value(&self) -> &HeaderValue {
        &self.header
    }

    /// Returns the `token_type` (RFC 6749 §7.1): `Bearer`, or `Basic` for a credential that
    /// [`basic`](Self::basic) created.
    #[must_use]
    pub fn token_type(&self) -> &'static str {
        self.scheme.name()
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the scope that the server granted (RFC 6749 §3.3). `None` if the response has none.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// Returns the whole lifetime, measured from the request for the token. `None` if no expiry is
    /// known.
    #[must_use]
    pub fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// Returns the rest of the lifetime, which is zero after the expiry. `None` if no expiry is
    /// known.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.lifetime.map(|lifetime| lifetime.saturating_sub(self.issued_at.elapsed()))
    }

    /// Returns the instant from which lifetime and age are measured.
    pub(crate) fn issued_at(&self) -> Instant {
        self.issued_at
    }

    pub(crate) fn refresh_timing(&self) -> RefreshTiming {
        self.refresh_timing
    }
}

/// Returns the age at which a token with this lifetime counts as expired.
pub(crate) fn usable_age(lifetime: Duration) -> Duration {
    lifetime.saturating_sub((lifetime / 10).min(AccessToken::MAX_EXPIRY_MARGIN))
}

/// Removes the name of the scheme, in any case, from the value of an `Authorization` header.
pub(crate) fn without_scheme(token: &str) -> &str {
    match token.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("Bearer") => rest.trim_start(),
        _ => token,
    }
}

/// Returns the credentials of HTTP Basic authentication (RFC 7617 §2), without the scheme.
pub(crate) fn basic_credentials(user: &str, password: &str) -> Zeroizing<String> {
    // Allocated once: a string that grows would leave a copy behind.
    let pair = Zeroizing::new([user, password].join(":"));
    Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()))
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
    fn basic_credential_matches_rfc_7617() {
        let token = AccessToken::basic("Aladdin", "open sesame").unwrap();
        assert_eq!(token.header_value(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(token.header_value().is_sensitive());
        assert_eq!(token.token_type(), "Basic");
        for (user, password) in [("a:b", "c"), ("a\n", "c"), ("a", "c\r"), ("a", "\u{85}")] {
            let error = AccessToken::basic(user, password).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Configuration, "{user:?} {password:?}");
        }
        assert!(AccessToken::basic("a ü", "c:\u{a0}").is_ok());
    }

    #[test]
    fn invalid_token_is_rejected_and_not_shown() {
        for bad in ["", " T0KEN", "T0KEN ", "T0KEN\n", "T0KEN\0", "T0KENü", "T0KEN\x7f"] {
            let error = AccessToken::bearer(bad).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
            assert!(!format!("{error} {error:?}").contains("T0KEN"), "{error}");
        }
    }

    #[test]
    fn name_of_the_scheme_is_not_part_of_the_token() {
        for text in ["T0KEN", "Bearer T0KEN", "bearer T0KEN", "BEARER  T0KEN"] {
            let token = AccessToken::bearer(text).unwrap();
            assert_eq!(
                (token.header_value().as_bytes(), token.expose_secret()),
                (&b"Bearer T0KEN"[..], "T0KEN")
            );
        }
        for text in ["BearerT0KEN", "Basic T0KEN", "T0KEN Bearer x", "Bearer"] {
            assert_eq!(AccessToken::bearer(text).unwrap().expose_secret(), text);
        }
        for text in ["Bearer ", "Bearer  "] {
            let error = AccessToken::bearer(text).unwrap_err();
            assert_eq!(error.message(), "the access token is empty");
        }
    }

    #[test]
    fn lifetime_beyond_the_clock_is_no_expiry() {
        let token = AccessToken::bearer("t").unwrap().expires_in(Duration::MAX);
        assert_eq!((token.lifetime(), token.remaining()), (None, None));
    }

    #[test]
    fn exposed_secret_equals_the_given_token() {
        assert_eq!(AccessToken::bearer("a b~!").unwrap().expose_secret(), "a b~!");
    }
}
