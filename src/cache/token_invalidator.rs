//! Access to a cache for responses that may arrive after the cache was dropped.

use std::sync::Arc;

use super::{
    cached_token::RejectedToken,
    core::{Core, InvalidationCause},
};
use crate::{
    telemetry::{SuppressReason, Telemetry},
    token::Generation,
};

/// Takes tokens of a cache out of use. It does not keep the cache open.
pub(crate) struct TokenInvalidator(Arc<Core>);

impl TokenInvalidator {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// Returns the rejected token if it is still in use and may be replaced now. Otherwise returns
    /// the reason why its rejection starts no refresh.
    pub(crate) fn replaceable(
        &self,
        rejected: Generation,
    ) -> Result<RejectedToken, SuppressReason> {
        self.0.replaceable(rejected)
    }

    /// Takes a rejected token out of use, unless no new one may be requested now. Returns true if
    /// the token was still in use and was taken out of use.
    pub(crate) fn invalidate(&self, rejected: Generation) -> bool {
        self.0.invalidate(rejected, InvalidationCause::Rejection)
    }

    /// Records that a refresh which a rejection caused has helped.
    pub(crate) fn refresh_helped(&self) {
        self.0.lock().refresh_helped();
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.0.telemetry
    }
}
