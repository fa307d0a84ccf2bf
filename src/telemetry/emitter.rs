use std::sync::Arc;

#[cfg(feature = "metrics")]
use arc_swap::ArcSwap;

#[cfg(feature = "metrics")]
use super::metrics_counters::{self, SkipCounters};
use super::{event::Event, refresh_span::RefreshSpan, request_counter::RequestCounter};
#[cfg(feature = "tracing")]
use super::{event::SkipReason, origin_warnings::OriginWarnings, tracing_events};

/// The emitter of the events of one cache.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    cache: Arc<str>,
    #[cfg(feature = "tracing")]
    origin_warnings: Arc<OriginWarnings>,
    /// Replaced with each new token, as a recorder may be installed late.
    #[cfg(feature = "metrics")]
    skip_counters: Arc<ArcSwap<SkipCounters>>,
}

impl Telemetry {
    pub(crate) fn new(cache: Arc<str>) -> Self {
        #[cfg(feature = "metrics")]
        let skip_counters = Arc::new(ArcSwap::from_pointee(metrics_counters::register(&cache)));
        Self {
            cache,
            #[cfg(feature = "tracing")]
            origin_warnings: Arc::default(),
            #[cfg(feature = "metrics")]
            skip_counters,
        }
    }

    /// Returns the name of the cache.
    pub(crate) fn cache_name(&self) -> &str {
        &self.cache
    }

    /// Returns the name of the cache, shared.
    #[cfg(feature = "tracing")]
    pub(super) fn shared_cache_name(&self) -> Arc<str> {
        Arc::clone(&self.cache)
    }

    /// Emits an event, and counts it.
    pub(crate) fn emit(&self, event: Event<'_>) {
        #[cfg(feature = "tracing")]
        match event {
            Event::SentWithoutToken {
                reason: reason @ (SkipReason::Origin | SkipReason::HostHeader),
                uri,
            } if self.origin_warnings.is_first(uri) => {
                tracing_events::warn_of_origin(&self.cache, reason, uri);
            }
            _ => tracing_events::emit(&self.cache, event),
        }
        #[cfg(feature = "metrics")]
        {
            if let Event::SentWithoutToken { reason, .. } = event {
                self.skip_counters.load()[reason as usize].increment(1);
            }
            metrics_counters::count(&self.cache, event);
        }
        let _ = event;
    }

    /// Returns the counter of requests with a token attached.
    ///
    /// Call it for each new token: a recorder that is installed late is used from the next token
    /// on.
    pub(crate) fn request_counter(&self) -> RequestCounter {
        #[cfg(feature = "metrics")]
        {
            self.skip_counters.store(Arc::new(metrics_counters::register(&self.cache)));
            metrics_counters::request_counter(&self.cache)
        }
        #[cfg(not(feature = "metrics"))]
        RequestCounter
    }

    /// Creates the span of one refresh. It begins now and follows from the current span.
    pub(crate) fn refresh_span(&self, reason: &'static str, replaces: Option<u64>) -> RefreshSpan {
        RefreshSpan::new(&self.cache, reason, replaces)
    }
}
