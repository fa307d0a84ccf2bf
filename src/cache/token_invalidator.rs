//! Access to a cache for responses that may arrive after the cache was dropped.

use std::sync::Arc;

use super::core::Core;
use crate::{telemetry::Telemetry, token::Generation};

/// Takes tokens of a cache out of use. It does not keep the cache open.
pub(crate) struct TokenInvalidator(Arc<Core>);

impl TokenInvalidator {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// Returns true if `generation` is the token that may be sent now.
    pub(crate) fn is_current(&self, generation: Generation) -> bool {
        self.0.slot.load_valid().is_some_and(|token| token.generation() == generation)
    }

    /// Does the same as [`TokenCache::invalidate`](crate::TokenCache::invalidate).
    pub(crate) fn invalidate(&self, rejected: Generation) -> bool {
        self.0.invalidate(rejected)
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.0.telemetry
    }
}
