//! What can go wrong: [`ConfigError`] before anything is sent, [`TokenError`] while a token is obtained.

use std::{convert::Infallible, error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::Instant;
use tower::BoxError;

/// Why a token could not be obtained.
///
/// Cheap to clone: everybody who waited for the same refresh gets the same error. Its `Display` says what happened, at
/// which endpoint (without the query) and what to do next; no secret and no token is ever in it. The layer returns it
/// inside a [`BoxError`]:
///
/// ```
/// # use tower_oauth::{TokenError, TokenErrorKind};
/// # let error: tower::BoxError = TokenError::new(TokenErrorKind::Transport, "connection refused").into();
/// if let Some(error) = error.downcast_ref::<TokenError>() {
///     eprintln!("no token ({:?}): {error}", error.kind());
/// }
/// ```
#[derive(Clone)]
pub struct TokenError(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: TokenErrorKind,
    what: String,
    place: Option<(&'static str, String)>,
    status: Option<StatusCode>,
    refusal: Option<Refusal>,
    retry_after: Option<Duration>,
    next_attempt: Option<Instant>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The members of an error response of the token endpoint (RFC 6749 §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) error: String,
    pub(crate) description: Option<String>,
    pub(crate) uri: Option<String>,
}

/// What went wrong while a token was obtained, by who can put it right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// The client is set up in a way that cannot work: yours to change.
    Configuration,
    /// The token endpoint could not be reached or the connection broke: DNS, connect, TLS, reset.
    Transport,
    /// No answer in time: from the token endpoint, or from the [`TokenSource`](crate::TokenSource) as a whole.
    Timeout,
    /// The token endpoint answered with a status that is neither a token nor an OAuth error.
    Server,
    /// The authorization server said no: with an `error` (RFC 6749 §5.2), see [`TokenError::error_code`], or with a success flag
    /// that is not set. From a server in trouble (429, 5xx) only the codes of the RFC count.
    Refused,
    /// The answer is no usable token: not JSON, too large, no `access_token`, a token that is no header value, expired.
    InvalidResponse,
    /// The [`TokenSource`](crate::TokenSource) panicked.
    Panicked,
    /// There is no tokio runtime to fetch on, or it was shut down meanwhile.
    Runtime,
    /// The limit on token requests is used up, see
    /// [`TokenCacheBuilder::token_request_limit`](crate::TokenCacheBuilder::token_request_limit).
    LimitReached,
    /// The [`TokenCache`](crate::TokenCache) was closed.
    Closed,
}

impl TokenErrorKind {
    /// A name for logs and metrics, such as `invalid_response`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Transport => "transport",
            Self::Timeout => "timeout",
            Self::Server => "server",
            Self::Refused => "refused",
            Self::InvalidResponse => "invalid_response",
            Self::Panicked => "panicked",
            Self::Runtime => "runtime",
            Self::LimitReached => "limit_reached",
            Self::Closed => "closed",
        }
    }

    /// Whether the same attempt may well succeed some time later, without anybody's doing.
    pub(crate) fn may_pass(self) -> bool {
        matches!(self, Self::Transport | Self::Timeout | Self::Server | Self::LimitReached)
    }

    fn next_step(self) -> &'static str {
        match self {
            Self::Configuration => "correct the configuration of the client",
            Self::Transport => "check the URL, the network and the TLS trust",
            Self::Timeout => {
                "check the health of the authorization server and the network, or allow more time"
            }
            Self::Server => "check the token URL, then the authorization server",
            Self::Refused => {
                "check the client's registration: id, secret, authentication method, scope and audience"
            }
            Self::InvalidResponse => {
                "check that the URL is that of an OAuth 2.0 token endpoint and what stands in front of it"
            }
            Self::Panicked => {
                "this is a bug in the token source, or a tokio runtime without its time or I/O driver (enable_all); the panic message is on stderr"
            }
            Self::Runtime => "call from within a running tokio runtime",
            Self::LimitReached => {
                "wait, or allow more with TokenCacheBuilder::token_request_limit where the provider does"
            }
            Self::Closed => "this program did that; build a new one to go on",
        }
    }
}

impl TokenError {
    /// An error of a [`TokenSource`](crate::TokenSource) that you write yourself. `what` goes into the message as it is:
    /// keep secrets out of it.
    pub fn new(kind: TokenErrorKind, what: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            what: what.into(),
            place: None,
            status: None,
            refusal: None,
            retry_after: None,
            next_attempt: None,
            source: None,
        }))
    }

    /// Adds the cause, for [`Error::source`]. It is not part of this error's own message.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner().source = Some(source.into().into());
        self
    }

    pub(crate) fn what(&self) -> &str {
        &self.0.what
    }

    /// `what` is at the URL: a token endpoint, an issuer.
    pub(crate) fn at(mut self, what: &'static str, url: &str) -> Self {
        self.inner().place = Some((what, url.to_owned()));
        self
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.inner().status = Some(status);
        self
    }

    pub(crate) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.inner().retry_after = retry_after;
        self
    }

    pub(crate) fn with_next_attempt(mut self, at: Instant) -> Self {
        self.inner().next_attempt = Some(at);
        self
    }

    pub(crate) fn with_refusal(mut self, refusal: Refusal) -> Self {
        self.inner().refusal = Some(refusal);
        self
    }

    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// What went wrong, by who can put it right.
    #[must_use]
    pub fn kind(&self) -> TokenErrorKind {
        self.0.kind
    }

    /// The token endpoint, without query, where one was involved; the issuer, where its endpoint could not be found.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.0.place.as_ref().map(|(_, url)| url.as_str())
    }

    /// The HTTP status of the token endpoint's answer, where there was one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// How long the server asks to wait before the next token request (`Retry-After`, RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// How long the cache waits before it makes the next attempt, be it the back-off after a failure or the limit on token
    /// requests. Until then every call that needs a token gets this error at once. `None`: the next call tries, unless the cache
    /// is [closed](TokenErrorKind::Closed).
    #[must_use]
    pub fn next_attempt_in(&self) -> Option<Duration> {
        self.0
            .next_attempt
            .map(|at| at.saturating_duration_since(Instant::now()))
            .filter(|left| !left.is_zero())
    }

    /// The `error` code of the authorization server, such as `invalid_client` (RFC 6749 §5.2).
    #[must_use]
    pub fn error_code(&self) -> Option<&str> {
        self.0.refusal.as_ref().map(|refusal| refusal.error.as_str())
    }

    /// The `error_description` of the authorization server (RFC 6749 §5.2).
    #[must_use]
    pub fn error_description(&self) -> Option<&str> {
        self.0.refusal.as_ref()?.description.as_deref()
    }

    /// The `error_uri` of the authorization server (RFC 6749 §5.2).
    #[must_use]
    pub fn error_uri(&self) -> Option<&str> {
        self.0.refusal.as_ref()?.uri.as_deref()
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { what, kind, place, .. } = &*self.0;
        match place {
            Some((place, url)) => write!(f, "{place} {url}: {what}; {}", kind.next_step())?,
            None => write!(f, "{what}; {}", kind.next_step())?,
        }
        match self.next_attempt_in() {
            Some(left) => write!(f, "; no further attempt for {} s", left.as_secs().saturating_add(1)),
            None => Ok(()),
        }
    }
}

/// The message, without the cause: a cause may come from a transport that prints more than it should.
impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenError")
            .field("kind", &self.0.kind)
            .field("endpoint", &self.endpoint())
            .field("status", &self.0.status)
            .field("what", &self.0.what)
            .finish_non_exhaustive()
    }
}

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// A setting that cannot work, found before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The token URL is not usable (RFC 6749 §3.2).
    TokenUrl {
        /// The URL as given, without user information and query.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token URL would send the client secret over plain HTTP to another machine.
    InsecureTokenUrl {
        /// The URL without its query.
        url: String,
    },
    /// What was given is not an origin: scheme, host and port, nothing else (RFC 6454).
    Origin {
        /// The origin as given, without user information and query.
        origin: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No origin was given, so that no request could ever have a token.
    NoOrigin,
    /// A request parameter that is written by other means or is there already (RFC 6749 §3.2: at most once).
    Parameter {
        /// The parameter's name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A header that is written by other means, or that is none.
    Header {
        /// The header's name as given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What was given is not a JSON Pointer (RFC 6901).
    JsonPointer {
        /// The pointer as given.
        pointer: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The fixed token or credential cannot be used.
    StaticToken {
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration of a provider as a whole cannot be used.
    Provider {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The issuer cannot be used (RFC 8414 §2).
    Issuer {
        /// The issuer as given, without user information and query.
        issuer: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The certificates of the authorities to trust cannot be read.
    Certificates {
        /// What is wrong with them.
        reason: String,
    },
    /// TLS cannot be set up, such as on a machine without root certificates.
    Tls {
        /// What the TLS library said.
        reason: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenUrl { url, reason } => write!(f, "the token URL {url:?} {reason}"),
            Self::InsecureTokenUrl { url } => write!(
                f,
                "the token URL {url:?} would send the client secret unencrypted: use https, or allow it with \
                 TokenUrl::danger_plain_http where something else encrypts the connection"
            ),
            Self::Origin { origin, reason } => {
                write!(f, "{origin:?} is not an origin such as \"https://api.example.com\": it {reason}")
            }
            Self::NoOrigin => f.write_str(
                "no origin may see the token: name at least one, or use Origins::of_inner_service for requests without an \
                 authority",
            ),
            Self::Parameter { name, reason } => {
                write!(f, "the token request parameter {name:?} {reason}")
            }
            Self::Header { name, reason } => write!(f, "the token request header {name:?} {reason}"),
            Self::JsonPointer { pointer, reason } => {
                write!(f, "{pointer:?} is not a JSON Pointer such as \"/data/token\": it {reason}")
            }
            Self::StaticToken { reason } => write!(f, "the static token cannot be used: {reason}"),
            Self::Provider { reason } => write!(f, "the configuration of the provider {reason}"),
            Self::Issuer { issuer, reason } => write!(f, "the issuer {issuer:?} {reason}"),
            Self::Certificates { reason } => write!(
                f,
                "the certificates of the authorities to trust cannot be read: {reason}; give them as PEM, with \
                 BEGIN CERTIFICATE lines"
            ),
            Self::Tls { reason } => write!(
                f,
                "TLS cannot be set up: {reason}; install root certificates (such as the package ca-certificates) or \
                 bring a transport of your own"
            ),
        }
    }
}

impl Error for ConfigError {}

impl From<Infallible> for ConfigError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
