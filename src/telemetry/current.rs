//! The telemetry of the refresh that the current task works on, for code that does not know a cache.

#[cfg(feature = "tracing")]
use std::sync::Arc;

use super::{emitter::Telemetry, event::Event};

tokio::task_local! {
    static CURRENT: Telemetry;
}

impl Telemetry {
    /// Returns a future that polls `refresh`. Within it, [`emit_current`] emits events of this
    /// cache.
    pub(crate) fn scope<F: Future>(&self, refresh: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self.clone(), refresh)
    }
}

/// Emits an event of the cache that the current task refreshes. Does nothing outside of a refresh.
pub(crate) fn emit_current(event: Event<'_>) {
    // The subscriber may poll futures with a scope of their own, so none is borrowed here.
    if let Ok(telemetry) = CURRENT.try_with(Telemetry::clone) {
        telemetry.emit(event);
    }
}

/// Returns the name of the cache that the current task refreshes.
#[cfg(feature = "tracing")]
pub(super) fn current_cache() -> Option<Arc<str>> {
    CURRENT.try_with(Telemetry::shared_cache_name).ok()
}
