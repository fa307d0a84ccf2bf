use std::{
    fmt::{self, Display},
    time::Duration,
};

use http::Uri;

/// An event in the life of the tokens of one cache.
#[derive(Clone, Copy)]
pub(crate) enum Event<'a> {
    /// A caller has to wait for a token.
    Waiting,
    /// A refresh obtained a new token.
    Refreshed {
        generation: u64,
        /// The reason of the refresh: `first`, `stale`, `expired` or `rejected`.
        reason: &'static str,
        lifetime: Option<Duration>,
        /// The duration of the refresh.
        duration: Duration,
    },
    /// The lifetime of a new token could not be read.
    LifetimeUnreadable {
        /// The JSON Pointer of the member.
        member: &'a str,
        /// The member or the setting that is used instead.
        used: &'a str,
        /// The setting with the position of the member.
        setting: &'a str,
    },
    /// A refresh failed.
    RefreshFailed {
        /// The kind of the error, as `TokenErrorKind::as_str` returns it.
        kind: &'static str,
        /// The reason of the refresh: `first`, `stale`, `expired` or `rejected`.
        reason: &'static str,
        error: &'a dyn Display,
        /// The duration of the refresh.
        duration: Duration,
    },
    /// A token request or a metadata request could not connect and is tried again.
    ConnectFailed {
        /// The number of the attempt that failed, from 1.
        attempt: usize,
        error: &'a dyn Display,
        /// The time until the next attempt.
        retry_in: Duration,
    },
    /// The server granted less than the requested scope (RFC 6749 §3.3).
    ScopeNotGranted { missing: &'a str, granted: &'a str },
    /// The last token request that the limit permits in this period has begun.
    LimitReached {
        /// The time until the limit permits the next token request.
        next_request_in: Duration,
    },
    /// A request is sent without a token.
    SentWithoutToken { reason: SkipReason, uri: &'a Uri },
    /// A response rejected the token.
    Rejected { generation: u64, status: u16 },
    /// A rejection, or a 401 that is not caused by the token, does not cause a refresh.
    RefreshSuppressed { generation: u64, reason: SuppressReason },
    /// The retry of a request, with a new token, was accepted.
    RetryAccepted { generation: u64 },
    /// The retry of a request, with a new token, was rejected as well.
    RetryRejected { generation: u64 },
    /// The remaining lifetime of the token was measured.
    Remaining(Duration),
    /// The wall clock advanced by this much more than the monotonic clock: the machine slept, or
    /// its clock was set.
    ClockJumped(Duration),
    /// The cache was closed.
    Closed,
}

/// The reason why a rejection or a 401 does not cause a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SuppressReason {
    /// The rejected token was already out of use.
    Late,
    /// The circuit breaker is open: recent refreshes did not help.
    BreakerOpen,
    /// The token lacks a scope (RFC 6750 §3.1).
    InsufficientScope,
    /// The user must authenticate in a stronger way or again (RFC 9470 §3).
    InsufficientUserAuthentication,
    /// The limit on token requests is reached.
    LimitReached,
    /// The last refresh failed for a reason that needs a change, such as a wrong secret.
    BackingOff,
}

impl SuppressReason {
    pub(super) const ALL: [Self; 6] = [
        Self::Late,
        Self::BreakerOpen,
        Self::InsufficientScope,
        Self::InsufficientUserAuthentication,
        Self::LimitReached,
        Self::BackingOff,
    ];

    /// Returns the name for logs and metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::BreakerOpen => "breaker_open",
            Self::InsufficientScope => "insufficient_scope",
            Self::InsufficientUserAuthentication => "insufficient_user_authentication",
            Self::LimitReached => "limit_reached",
            Self::BackingOff => "backing_off",
        }
    }
}

/// The reason why a request is sent without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// The origin of the request is not allowed to receive the token.
    Origin,
    /// The `Host` header of the request names another server than its URI, or none.
    HostHeader,
    /// The request already has an `Authorization` header.
    AuthorizationHeader,
    /// The header map is full, so a token cannot be attached.
    HeaderMapFull,
}

impl SkipReason {
    pub(super) const ALL: [Self; 4] =
        [Self::Origin, Self::HostHeader, Self::AuthorizationHeader, Self::HeaderMapFull];

    /// Returns the name for logs and metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::HostHeader => "host_header",
            Self::AuthorizationHeader => "authorization_header",
            Self::HeaderMapFull => "header_map_full",
        }
    }
}

/// The origin of a URI, for logs: scheme, host and port, without user information and path.
pub(super) struct UriOrigin<'a>(&'a Uri);

impl<'a> UriOrigin<'a> {
    /// Returns `None` for a URI without a scheme or an authority.
    pub(super) fn new(uri: &'a Uri) -> Option<Self> {
        (uri.scheme().is_some() && uri.authority().is_some()).then_some(Self(uri))
    }
}

impl Display for UriOrigin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URI may come from a server, and a host has at most 253 characters (RFC 1035 §2.3.4).
        let (scheme, host) = (self.0.scheme_str(), self.0.host());
        write!(f, "{:.32}://{:.255}", scheme.unwrap_or_default(), host.unwrap_or_default())?;
        self.0.port_u16().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_of_a_uri_has_no_secrets_and_a_bounded_length() {
        let origin = |uri: &str| {
            let uri: Uri = uri.parse().unwrap();
            UriOrigin::new(&uri).map(|origin| origin.to_string())
        };
        let url = "https://me:s3cret@api.test:81/s3cret?s3cret";
        assert_eq!(origin(url).as_deref(), Some("https://api.test:81"));
        assert_eq!(origin("http://[::1]/").as_deref(), Some("http://[::1]"));
        assert_eq!(origin("/s3cret"), None);
        assert_eq!(origin("api.test:81"), None);
        let long = format!("https://{}.test/", "a".repeat(60_000));
        assert!(origin(&long).unwrap().len() < 300);
    }
}
