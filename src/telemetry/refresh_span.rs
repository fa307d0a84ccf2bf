use std::future::Future;

#[cfg(feature = "tracing")]
use tracing::{Instrument, Span, debug_span};

#[cfg(feature = "tracing")]
use super::tracing_events::TARGET;

/// The span of one refresh. The default is a disabled span, and so is every span without the
/// feature `tracing`.
#[derive(Clone, Default)]
pub(crate) struct RefreshSpan {
    #[cfg(feature = "tracing")]
    span: Option<Span>,
}

impl RefreshSpan {
    /// Creates a root span: a refresh serves all callers that wait for it, so it is not a child of
    /// the span of one caller. It follows from the span of the caller that started the refresh.
    #[cfg(feature = "tracing")]
    pub(super) fn new(cache: &str, reason: &'static str, replaces: Option<u64>) -> Self {
        let span =
            debug_span!(target: TARGET, parent: None, "token_refresh", cache, reason, replaces);
        span.follows_from(Span::current());
        Self { span: Some(span) }
    }

    #[cfg(not(feature = "tracing"))]
    pub(super) fn new(_: &str, _: &'static str, _: Option<u64>) -> Self {
        Self {}
    }

    /// Returns a future that polls `refresh` within the span.
    pub(crate) fn instrument<F: Future>(self, refresh: F) -> impl Future<Output = F::Output> {
        #[cfg(feature = "tracing")]
        let refresh = refresh.instrument(self.span.unwrap_or_else(Span::none));
        refresh
    }

    /// Runs `f` within the span.
    pub(crate) fn in_scope<T>(&self, f: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self.span.as_ref().map(Span::enter);
        f()
    }
}
