use std::{error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::Instant;

use super::{
    advice::{Advice, SettingNames},
    box_error::BoxError,
};

/// A failure to obtain a token.
///
/// Clones share one allocation: all callers that wait for the same refresh receive the same error.
/// `Display` says what happened, at which endpoint (without its query) and what to do next. The
/// messages of this crate contain no token and no secret.
///
/// The layer returns this error inside a [`BoxError`]:
///
/// ```
/// # use tower_oauth::{BoxError, TokenError, TokenErrorKind};
/// # let error: BoxError = TokenError::new(TokenErrorKind::Transport, "connection refused").into();
/// if let Some(error) = error.downcast_ref::<TokenError>() {
///     eprintln!("no token ({:?}): {error}", error.kind());
/// }
/// ```
///
/// A [`TokenSource`](crate::TokenSource) of your own creates it with [`new`](Self::new) and adds
/// what it knows:
///
/// ```
/// use std::time::Duration;
/// use http::StatusCode;
/// use tower_oauth::{TokenError, TokenErrorKind};
///
/// let error = TokenError::new(TokenErrorKind::Server, "the token store answered 503")
///     .with_status(StatusCode::SERVICE_UNAVAILABLE)
///     .with_error_code("temporarily_unavailable")
///     .with_error_description("a new leader is being elected")
///     .with_retry_after(Duration::from_secs(30));
///
/// assert_eq!(error.error_code(), Some("temporarily_unavailable"));
/// assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
/// ```
#[derive(Clone)]
pub struct TokenError(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: TokenErrorKind,
    message: String,
    place: Option<Place>,
    advice: Option<Advice>,
    setting_names: SettingNames,
    status: Option<StatusCode>,
    error_code: Option<String>,
    error_description: Option<String>,
    error_uri: Option<String>,
    retry_after: Option<Duration>,
    next_attempt: Option<Instant>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The server that the error is about.
#[derive(Clone)]
struct Place {
    /// The role of the server, such as `token endpoint`.
    role: &'static str,
    url: String,
}

/// The members of an error response of the token endpoint (RFC 6749 §5.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorResponse {
    pub(crate) error: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) uri: Option<String>,
}

/// The kind of a [`TokenError`], which says which party can correct it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// The client is configured in a way that cannot work, or its proxy refuses the connection.
    /// Correct the configuration.
    Configuration,
    /// The token endpoint could not be reached, or the connection broke: DNS, connect, TLS, reset.
    Transport,
    /// The token endpoint, or the [`TokenSource`](crate::TokenSource) as a whole, took longer than
    /// its time limit.
    Timeout,
    /// The token endpoint answered with an error status and without an OAuth error. With a status
    /// such as 503, the server is in trouble. With a status such as 404 or 301, the URL is not that
    /// of a token endpoint, or the server rejects the client in a form of its own.
    /// [`TokenError::is_final`] tells them apart.
    ///
    /// A response with the error code `server_error` or `temporarily_unavailable` (RFC 6749
    /// §4.1.2.1) always has this kind, whatever its status.
    Server,
    /// The authorization server rejected the token request.
    ///
    /// Its response has an `error` (RFC 6749 §5.2, see [`TokenError::error_code`]), or a success
    /// flag that is not set. With a status that says that the server is in trouble (408, 421, 425,
    /// 429 or 5xx), only the error codes that RFC 6749 §5.2 and RFC 8707 §2 define have this kind;
    /// other responses are [`Server`](Self::Server) errors.
    Rejected,
    /// The response contains no usable token: it is not JSON, too large, or has no `access_token` or
    /// no success flag where one is configured; or the token cannot be a header value, is longer
    /// than [`max_token_bytes`](crate::TokenEndpoint::max_token_bytes), or has expired already.
    InvalidResponse,
    /// The [`TokenSource`](crate::TokenSource) panicked.
    Panicked,
    /// There is no tokio runtime on which a token could be obtained, or it was shut down meanwhile.
    Runtime,
    /// The cache has used up its
    /// [limit on token requests](crate::TokenCacheBuilder::token_request_limit).
    LimitReached,
    /// The [`TokenCache`](crate::TokenCache) was closed.
    Closed,
}

impl TokenErrorKind {
    #[cfg_attr(not(feature = "metrics"), allow(dead_code))]
    pub(crate) const ALL: [Self; 10] = [
        Self::Configuration,
        Self::Transport,
        Self::Timeout,
        Self::Server,
        Self::Rejected,
        Self::InvalidResponse,
        Self::Panicked,
        Self::Runtime,
        Self::LimitReached,
        Self::Closed,
    ];

    /// Returns the name of the kind for logs and metrics, such as `invalid_response`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Transport => "transport",
            Self::Timeout => "timeout",
            Self::Server => "server",
            Self::Rejected => "rejected",
            Self::InvalidResponse => "invalid_response",
            Self::Panicked => "panicked",
            Self::Runtime => "runtime",
            Self::LimitReached => "limit_reached",
            Self::Closed => "closed",
        }
    }
}

/// The error codes with which a server rejects a client or its request: those of RFC 6749 §5.2, and
/// `invalid_target` of RFC 8707 §2.
const REJECTION_CODES: [&str; 7] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
];

impl TokenErrorKind {
    /// Returns the kind of an error response of a token endpoint (RFC 6749 §5.2).
    pub(crate) fn of_response(code: Option<&str>, status: StatusCode) -> Self {
        match code {
            Some(code) if REJECTION_CODES.contains(&code) => Self::Rejected,
            Some("temporarily_unavailable" | "server_error") => Self::Server,
            // A server in trouble, or a gateway in front of it, sends an `error` of its own.
            _ if is_transient_status(status) => Self::Server,
            _ => Self::Rejected,
        }
    }
}

/// Returns true for a status after which the same request may succeed later.
pub(crate) fn is_transient_status(status: StatusCode) -> bool {
    const TRANSIENT: [StatusCode; 4] = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::MISDIRECTED_REQUEST,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_server_error() || TRANSIENT.contains(&status)
}

impl TokenError {
    /// Creates an error, for a [`TokenSource`](crate::TokenSource) of your own.
    ///
    /// `message` says what happened. It is shown unchanged, so it must not contain secrets.
    pub fn new(kind: TokenErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            place: None,
            advice: None,
            setting_names: SettingNames::default(),
            status: None,
            error_code: None,
            error_description: None,
            error_uri: None,
            retry_after: None,
            next_attempt: None,
            source: None,
        }))
    }

    /// Sets the cause, which [`Error::source`] returns. The message of this error does not show it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner().source = Some(source.into().into());
        self
    }

    /// Sets the HTTP status of the server's response. The message does not show it.
    ///
    /// [`is_final`](Self::is_final) depends on it.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.inner().status = Some(status);
        self
    }

    /// Sets the `error` code of the server's response (RFC 6749 §5.2). The message does not show
    /// it.
    ///
    /// [`is_final`](Self::is_final) depends on it.
    #[must_use]
    pub fn with_error_code(mut self, code: impl Into<String>) -> Self {
        self.inner().error_code = Some(code.into());
        self
    }

    /// Sets the `error_description` of the server's response (RFC 6749 §5.2). The message does not
    /// show it.
    #[must_use]
    pub fn with_error_description(mut self, description: impl Into<String>) -> Self {
        self.inner().error_description = Some(description.into());
        self
    }

    /// Sets how long the server asks clients to wait before the next token request (`Retry-After`,
    /// RFC 9110 §10.2.3). `Display` shows it.
    ///
    /// The cache waits for at least this long, up to one hour, before its next attempt.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: impl Into<Option<Duration>>) -> Self {
        self.inner().retry_after = retry_after.into();
        self
    }

    /// Sets the server that the error is about: its role, such as `token endpoint`, and its URL.
    pub(crate) fn at(mut self, role: &'static str, url: &str) -> Self {
        self.inner().place = Some(Place { role, url: url.to_owned() });
        self
    }

    /// Sets what to do about the error, unless that is set already.
    pub(crate) fn with_advice(mut self, advice: impl Into<Advice>) -> Self {
        if self.0.advice.is_none() {
            self.inner().advice = Some(advice.into());
        }
        self
    }

    /// Sets the form in which the advice names settings.
    pub(crate) fn with_setting_names(mut self, names: SettingNames) -> Self {
        if self.0.setting_names != names {
            self.inner().setting_names = names;
        }
        self
    }

    pub(crate) fn with_next_attempt(mut self, at: Instant) -> Self {
        self.inner().next_attempt = Some(at);
        self
    }

    pub(crate) fn with_error_response(mut self, response: ErrorResponse) -> Self {
        let inner = self.inner();
        inner.error_code = response.error;
        inner.error_description = response.description;
        inner.error_uri = response.uri;
        self
    }

    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// Returns the kind of the error, which says which party can correct it.
    #[must_use]
    pub fn kind(&self) -> TokenErrorKind {
        self.0.kind
    }

    /// Returns true if the error is final: the same attempt fails again until the client, its
    /// configuration or its registration is changed.
    ///
    /// After a final error, [`TokenCache::warm_up`](crate::TokenCache::warm_up) ends, the back-off
    /// of the cache is 1 minute, doubling up to 1 hour, and a rejected token stays in use during
    /// that back-off. Other errors are transient: `warm_up` tries again, and the back-off is 1
    /// second, doubling up to 2 minutes.
    ///
    /// | error | final |
    /// | --- | --- |
    /// | kind `Transport`, `Timeout` or `LimitReached` | no |
    /// | [error code](Self::error_code) of RFC 6749 §5.2 or RFC 8707 §2, whatever the status | yes |
    /// | [status](Self::status) 408, 421, 425, 429 or 5xx | no |
    /// | any other status 3xx or 4xx, whatever the body | yes |
    /// | kind `Server` with another status or without one | no |
    /// | any other error | yes |
    ///
    /// The first row that fits applies. Errors of your own [`TokenSource`](crate::TokenSource) are
    /// classified in the same way, by their kind and by what [`with_status`](Self::with_status) and
    /// [`with_error_code`](Self::with_error_code) set.
    #[must_use]
    pub fn is_final(&self) -> bool {
        use TokenErrorKind::{LimitReached, Server, Timeout, Transport};
        let Inner { kind, status, error_code, .. } = &*self.0;
        let is_rejection = |code: &String| REJECTION_CODES.contains(&code.as_str());
        match status {
            _ if matches!(kind, Transport | Timeout | LimitReached) => false,
            _ if error_code.as_ref().is_some_and(is_rejection) => true,
            Some(status) if is_transient_status(*status) => false,
            Some(status) if status.is_redirection() || status.is_client_error() => true,
            _ => *kind != Server,
        }
    }

    /// Returns the message alone, without place and advice.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the URL of the token endpoint without its query, or the issuer if discovery failed.
    ///
    /// `None` if the error is not about a server.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.0.place.as_ref().map(|place| place.url.as_str())
    }

    /// Returns the HTTP status of the token endpoint's response, if there was a response.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// Returns how long the server asks clients to wait before the next token request
    /// (`Retry-After`, RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns the time until the cache makes its next attempt: the rest of the back-off after a
    /// failure, or of the period of the limit on token requests.
    ///
    /// Until then, every call that needs a token fails with this error at once. `None` means that
    /// the next call makes an attempt, unless the cache is [closed](TokenErrorKind::Closed).
    #[must_use]
    pub fn next_attempt_in(&self) -> Option<Duration> {
        let at = self.0.next_attempt?;
        Some(at.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// Returns the `error` code of the authorization server, such as `invalid_client`
    /// (RFC 6749 §5.2).
    #[must_use]
    pub fn error_code(&self) -> Option<&str> {
        self.0.error_code.as_deref()
    }

    /// Returns the `error_description` of the authorization server (RFC 6749 §5.2).
    #[must_use]
    pub fn error_description(&self) -> Option<&str> {
        self.0.error_description.as_deref()
    }

    /// Returns the `error_uri` of the authorization server (RFC 6749 §5.2).
    #[must_use]
    pub fn error_uri(&self) -> Option<&str> {
        self.0.error_uri.as_deref()
    }

    /// Returns what to do about the error.
    fn advice(&self) -> String {
        let advice = self.0.advice.clone().unwrap_or_else(|| self.general_advice());
        advice.show(self.0.setting_names).to_string()
    }

    /// Returns the advice for an error of this kind that comes from a source of the user.
    fn general_advice(&self) -> Advice {
        let advice = match self.0.kind {
            TokenErrorKind::Configuration => "correct the configuration of the token source",
            TokenErrorKind::Transport => {
                "check the server that the token source uses, and the connection to it"
            }
            TokenErrorKind::Timeout => {
                "check the server that the token source uses, or allow it more time"
            }
            TokenErrorKind::Server => "check the server that the token source uses",
            TokenErrorKind::Rejected => "check the credentials that the token source uses",
            TokenErrorKind::InvalidResponse => "check the token that the token source returns",
            TokenErrorKind::Panicked => {
                "fix the token source, or enable the time and I/O drivers of the tokio runtime \
                 (enable_all); the panic message is on stderr"
            }
            TokenErrorKind::Runtime => "call from within a running tokio runtime",
            TokenErrorKind::LimitReached => {
                "wait, or raise {TokenCacheBuilder::token_request_limit|token_request_limit} if the \
                 provider allows it"
            }
            TokenErrorKind::Closed => "build a new TokenCache to continue",
        };
        advice.into()
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { role, url }) = &self.0.place {
            write!(f, "{role} {url}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(asked) = self.0.retry_after.filter(|asked| !asked.is_zero()) {
            write!(f, "; the server asked to wait {} s", asked.as_secs_f64().ceil())?;
        }
        write!(f, "; {}", self.advice())?;
        match self.next_attempt_in() {
            Some(left) => {
                write!(f, "; no further attempt for {} s", left.as_secs().saturating_add(1))
            }
            None => Ok(()),
        }
    }
}

/// Leaves out the cause: the error type of a transport may print secrets.
impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenError")
            .field("kind", &self.0.kind)
            .field("endpoint", &self.endpoint())
            .field("status", &self.0.status)
            .field("message", &self.0.message)
            .field("advice", &self.advice())
            .finish_non_exhaustive()
    }
}

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setters_of_own_sources_set_what_is_returned() {
        let error = TokenError::new(TokenErrorKind::Server, "the store answered 503")
            .with_status(StatusCode::SERVICE_UNAVAILABLE)
            .with_error_code("temporarily_unavailable")
            .with_error_description("electing a leader")
            .with_retry_after(Duration::from_secs(30))
            .with_source("connection 7");
        assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(error.error_code(), Some("temporarily_unavailable"));
        assert_eq!(error.error_description(), Some("electing a leader"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
        assert_eq!(error.source().unwrap().to_string(), "connection 7");
        assert_eq!(error.error_uri(), None);
    }

    #[test]
    fn error_description_needs_no_error_code() {
        let error =
            TokenError::new(TokenErrorKind::Rejected, "rejected").with_error_description("no");
        assert_eq!((error.error_code(), error.error_description()), (None, Some("no")));
    }

    #[test]
    fn setters_leave_message_unchanged() {
        let error = || TokenError::new(TokenErrorKind::Rejected, "this happened");
        let full = error()
            .with_status(StatusCode::BAD_REQUEST)
            .with_error_code("invalid_scope")
            .with_error_description("no such scope")
            .with_retry_after(None);
        assert_eq!(full.to_string(), error().to_string());
    }

    #[test]
    fn setter_on_a_clone_leaves_the_original_unchanged() {
        let error = TokenError::new(TokenErrorKind::Server, "this happened");
        let changed = error.clone().with_status(StatusCode::BAD_GATEWAY);
        assert_eq!((error.status(), changed.status()), (None, Some(StatusCode::BAD_GATEWAY)));
    }

    #[test]
    fn error_response_sets_code_description_and_uri() {
        let error = TokenError::new(TokenErrorKind::Rejected, "rejected").with_error_response(
            ErrorResponse {
                error: Some("invalid_scope".into()),
                description: Some("no such scope".into()),
                uri: Some("https://as.test/errors".into()),
            },
        );
        assert_eq!(error.error_code(), Some("invalid_scope"));
        assert_eq!(error.error_description(), Some("no such scope"));
        assert_eq!(error.error_uri(), Some("https://as.test/errors"));
    }

    #[test]
    fn message_says_where_what_and_what_to_do() {
        let error = TokenError::new(TokenErrorKind::Transport, "connection refused")
            .at("token endpoint", "https://as.test/token")
            .with_advice("check the token URL")
            .with_advice("this one comes too late");
        assert_eq!(
            error.to_string(),
            "token endpoint https://as.test/token: connection refused; check the token URL"
        );
        assert_eq!(error.endpoint(), Some("https://as.test/token"));
    }

    #[test]
    fn delay_that_the_server_asked_for_is_shown() {
        let error = TokenError::new(TokenErrorKind::Server, "busy");
        let error = error.with_retry_after(Duration::from_millis(1500));
        assert!(error.to_string().starts_with("busy; the server asked to wait 2 s; "), "{error}");
    }

    #[test]
    fn advice_for_own_sources_names_neither_url_nor_endpoint() {
        use TokenErrorKind::*;
        for kind in [Configuration, Transport, Timeout, Server, Rejected, InvalidResponse] {
            let error = TokenError::new(kind, "this happened").to_string();
            assert!(error.contains("the token source"), "{error}");
            assert!(!error.contains("URL") && !error.contains("endpoint"), "{error}");
        }
    }

    #[test]
    fn error_is_final_by_kind_code_and_status() {
        use TokenErrorKind::*;
        let status = |status| {
            move |error: TokenError| error.with_status(StatusCode::from_u16(status).unwrap())
        };
        let is_final = |kind, change: &dyn Fn(TokenError) -> TokenError| {
            change(TokenError::new(kind, "this happened")).is_final()
        };
        for kind in [Server, Rejected, InvalidResponse] {
            for code in [300, 301, 308, 400, 401, 403, 404, 405, 407, 409, 415, 422, 451, 499] {
                assert!(is_final(kind, &status(code)), "{kind:?} {code}");
            }
            for code in [408, 421, 425, 429, 500, 502, 503, 504, 599] {
                assert!(!is_final(kind, &status(code)), "{kind:?} {code}");
            }
        }
        for kind in [Transport, Timeout, LimitReached] {
            assert!(!is_final(kind, &|error| error), "{kind:?}");
            assert!(!is_final(kind, &status(403)), "{kind:?}: the response is not complete");
        }
        for kind in [Configuration, Rejected, InvalidResponse, Panicked, Runtime, Closed] {
            assert!(is_final(kind, &|error| error), "{kind:?}");
            assert!(is_final(kind, &status(200)) || kind == Server, "{kind:?}");
        }
        assert!(!is_final(Server, &|error| error) && !is_final(Server, &status(200)));
        for code in REJECTION_CODES {
            for kind in [Server, Rejected] {
                assert!(
                    is_final(kind, &|error| status(503)(error).with_error_code(code)),
                    "{code}"
                );
            }
        }
        let busy = |error: TokenError| error.with_error_code("temporarily_unavailable");
        assert!(!is_final(Server, &|error| busy(status(200)(error))));
        assert!(!is_final(Server, &|error| busy(status(503)(error))));
        assert!(is_final(Server, &|error| busy(status(400)(error))), "a 400, whatever its body");
    }

    #[test]
    fn closed_cache_error_advises_a_new_cache() {
        let error = TokenError::new(TokenErrorKind::Closed, "the token cache is closed");
        assert_eq!(
            error.to_string(),
            "the token cache is closed; build a new TokenCache to continue"
        );
    }
}
