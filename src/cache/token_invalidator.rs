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

    /// Takes a rejected token out of use, unless no new one may be requested now. Returns true if
    /// the token was still in use and was taken out of use.
    pub(crate) fn invalidate(&self, rejected: Generation) -> bool {
        self.0.invalidate_rejected(rejected)
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.0.telemetry
    }
}
