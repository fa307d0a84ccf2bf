//! What there is to see of tokens at work: one list of happenings, told to `tracing` and counted with `metrics` where those
//! features are on. The chapter `docs/telemetry.md` has the names.
//!
//! No happening has room for a token or a secret.

#![cfg_attr(not(all(feature = "tracing", feature = "metrics")), allow(dead_code, clippy::unused_self))] // who listens decides

#[cfg(feature = "tracing")]
mod events;
#[cfg(feature = "metrics")]
mod meters;

use std::{fmt::Display, future::Future, sync::Arc, time::Duration};

/// Something that happened to the token of a cache.
#[derive(Clone, Copy)]
pub(crate) enum Happening<'a> {
    /// Somebody has to wait for a token.
    Waited,
    /// A new token is there.
    Fetched { generation: u64, reason: &'static str, lifetime: Option<Duration>, took: Duration },
    /// There is none; `next_attempt` tells when there may be.
    FetchFailed { kind: &'static str, reason: &'static str, error: &'a dyn Display, took: Duration },
    /// The last token request that the limit allows has begun.
    LimitReached { next_request: Duration },
    /// A request goes out without one.
    Without { reason: Without },
    /// A response refused the token.
    Refused { generation: u64, status: u16 },
    /// The refusal costs no refresh.
    Suppressed { generation: u64, reason: Suppressed },
    /// The request was repeated with another token, and that was taken.
    Recovered { generation: u64 },
    /// The request was repeated with another token, and that was refused, too.
    Futile { generation: u64 },
    /// What is left of the token, where somebody has looked.
    Remaining(Duration),
    /// The wall clock went on while the monotonic clock stood still.
    Slept(Duration),
    /// The cache is closed.
    Closed,
}

/// Why a refusal costs no refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suppressed {
    /// The token was out of use already.
    Late,
    /// New tokens have not helped of late.
    NoHelp,
}

impl Suppressed {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::NoHelp => "no_help",
        }
    }
}

/// Why a request has no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    /// Its server is none that may see it.
    Origin,
    /// It has an `Authorization` header of its own, or no room for one.
    Header,
}

impl Without {
    #[cfg(feature = "tracing")]
    fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Header => "header",
        }
    }
}

/// Tells what happens to the token of one cache.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    cache: Arc<str>,
}

impl Telemetry {
    pub(crate) fn of(cache: Arc<str>) -> Self {
        Self { cache }
    }

    /// The name of the cache.
    pub(crate) fn name(&self) -> &str {
        &self.cache
    }

    pub(crate) fn tell(&self, happening: Happening<'_>) {
        #[cfg(feature = "tracing")]
        events::tell(&self.cache, happening);
        #[cfg(feature = "metrics")]
        meters::count(&self.cache, happening);
        let _ = happening;
    }

    /// What counts the requests that a token is attached to.
    pub(crate) fn attached(&self) -> Attached {
        Attached {
            #[cfg(feature = "metrics")]
            counter: meters::attached(&self.cache),
        }
    }

    /// A span for one refresh, which begins where this is called.
    pub(crate) fn refresh_span(&self, reason: &'static str, replaces: Option<u64>) -> RefreshSpan {
        let _ = (reason, replaces);
        RefreshSpan {
            #[cfg(feature = "tracing")]
            span: events::span(&self.cache, reason, replaces),
        }
    }
}

/// What a refresh does is told within its span. Without the feature it is nothing.
#[derive(Clone)]
pub(crate) struct RefreshSpan {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

#[allow(clippy::derivable_impls)] // it is not where there is a span
impl Default for RefreshSpan {
    fn default() -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: tracing::Span::none(),
        }
    }
}

impl RefreshSpan {
    pub(crate) fn around<F: Future>(self, refresh: F) -> impl Future<Output = F::Output> {
        #[cfg(feature = "tracing")]
        let refresh = tracing::Instrument::instrument(refresh, self.span);
        refresh
    }

    pub(crate) fn within<T>(&self, tell: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self.span.enter();
        tell()
    }
}

/// The one meter on the way of every request, looked up beforehand. Without the feature it is nothing.
#[derive(Clone)]
pub(crate) struct Attached {
    #[cfg(feature = "metrics")]
    counter: metrics::Counter,
}

impl Attached {
    pub(crate) fn count(&self) {
        #[cfg(feature = "metrics")]
        self.counter.increment(1);
    }
}
