use std::sync::Arc;

#[cfg(feature = "metrics")]
use super::metrics_counters;
use super::{event::Event, refresh_span::RefreshSpan, request_counter::RequestCounter};
#[cfg(feature = "tracing")]
use super::{event::SkipReason, origin_warnings::OriginWarnings, tracing_events};

/// The emitter of the events of one cache.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    cache: Arc<str>,
    #[cfg(feature = "tracing")]
    origin_warnings: Arc<OriginWarnings>,
}

impl Telemetry {
    pub(crate) fn new(cache: Arc<str>) -> Self {
        #[cfg(feature = "metrics")]
        metrics_counters::register(&cache);
        Self {
            cache,
            #[cfg(feature = "tracing")]
            origin_warnings: Arc::default(),
        }
    }

    /// Returns the name of the cache.
    pub(crate) fn cache_name(&self) -> &str {
        &self.cache
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
        metrics_counters::count(&self.cache, event);
        let _ = event;
    }

    /// Returns the counter of requests with a token attached.
    ///
    /// Call it for each new token: a recorder that is installed late is used from the next token
    /// on.
    pub(crate) fn request_counter(&self) -> RequestCounter {
        #[cfg(feature = "metrics")]
        {
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
