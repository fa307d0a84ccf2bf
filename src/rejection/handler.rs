//! The handling of responses to requests that carry a token.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::{
    breaker::{Breaker, Permission},
    criteria::{Assessment, RejectionCriteria},
};
use crate::{
    attach::AttachedToken,
    cache::{TokenCache, TokenInvalidator},
    telemetry::{Event, SuppressReason},
};

/// Judges the responses of one service and takes rejected tokens out of use. It does not keep the
/// cache open, as a response body may outlive the service.
pub(crate) struct RejectionHandler {
    tokens: TokenInvalidator,
    criteria: RejectionCriteria,
    breaker: Arc<Breaker>,
    /// True if a response with a status below 400 may be a rejection.
    includes_success: bool,
}

/// The consequence of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RejectionOutcome {
    /// It took the token out of use.
    Invalidated,
    /// The token is out of use already, or another rejection is about to invalidate it.
    Late,
    /// The token stays in use: a new one would not help, or may not be requested now.
    Suppressed,
}

impl RejectionHandler {
    pub(crate) fn new(
        tokens: &TokenCache,
        criteria: RejectionCriteria,
        breaker: Arc<Breaker>,
    ) -> Self {
        let includes_success = criteria.includes_success();
        Self { tokens: tokens.invalidator(), criteria, breaker, includes_success }
    }

    /// Returns true if responses with a status below 400 need an inspection now.
    #[inline]
    pub(crate) fn inspects_success(&self) -> bool {
        self.includes_success || self.breaker.watches_acceptances()
    }

    /// Returns the meaning of a response for its token.
    pub(crate) fn assess<B>(&self, token: AttachedToken, response: &Response<B>) -> Assessment {
        self.criteria.assess(response.status(), response.headers(), token.scheme)
    }

    /// Takes the rejected token out of use, unless the breaker is open or no new token may be
    /// requested. `can_retry` is true if the request will be sent again with a new token.
    pub(crate) fn on_rejection(
        &self,
        token: AttachedToken,
        status: StatusCode,
        can_retry: bool,
    ) -> RejectionOutcome {
        let AttachedToken { generation, origin, .. } = token;
        self.emit_rejected(token, status);
        let permission = self.tokens.replaceable(generation).map(|rejected| {
            // The lock of the cache is not held here.
            self.breaker.request_refresh(origin, rejected, can_retry)
        });
        // Also for the second rejection of a token: the first one may not have invalidated it yet.
        if matches!(permission, Ok(Permission::Given | Permission::GivenBefore)) {
            self.tokens.invalidate(generation);
        }
        let reason = match permission {
            Ok(Permission::Given) => return RejectionOutcome::Invalidated,
            Ok(Permission::GivenBefore) => SuppressReason::Late,
            Ok(Permission::Denied) => SuppressReason::BreakerOpen,
            Err(reason) => reason,
        };
        self.emit(Event::RefreshSuppressed { generation: generation.get(), reason });
        match reason {
            SuppressReason::Late => RejectionOutcome::Late,
            _ => RejectionOutcome::Suppressed,
        }
    }

    /// Handles the rejection of a retry that is not repeated.
    pub(crate) fn on_retry_rejected(&self, token: AttachedToken, status: StatusCode) {
        let AttachedToken { generation, origin, .. } = token;
        self.emit_rejected(token, status);
        self.emit(Event::RetryRejected { generation: generation.get() });
        self.breaker.retry_rejected(origin, generation);
    }

    /// Handles a response that does not reject its token, according to its assessment. Reports a 401
    /// that a new token would not change. `caused_refresh` is `None` for a first attempt. For a
    /// retry it is true if the rejection of the first attempt caused the refresh, which has helped
    /// then. A gRPC call is accepted or rejected when its trailers arrive.
    pub(crate) fn on_not_rejected<B: 'static>(
        self: &Arc<Self>,
        token: AttachedToken,
        response: &mut Response<B>,
        assessment: Assessment,
        caused_refresh: Option<bool>,
    ) {
        if let Assessment::NotCausedByToken(reason) = assessment {
            self.emit(Event::RefreshSuppressed { generation: token.generation.get(), reason });
        }
        let status = response.status();
        #[cfg(feature = "tonic")]
        if self.criteria.grpc {
            let handler = Arc::clone(self);
            let on_trailers = move |is_rejection| match (is_rejection, caused_refresh) {
                (false, _) => handler.on_success(token, caused_refresh),
                (true, None) => drop(handler.on_rejection(token, status, false)),
                (true, Some(_)) => handler.on_retry_rejected(token, status),
            };
            if super::grpc_trailers::watch(response, on_trailers) {
                return;
            }
        }
        // A server in trouble has not checked the token.
        if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
            self.on_success(token, caused_refresh);
        }
    }

    fn on_success(&self, token: AttachedToken, caused_refresh: Option<bool>) {
        let AttachedToken { generation, origin, .. } = token;
        if caused_refresh.is_some() {
            self.emit(Event::RetryAccepted { generation: generation.get() });
        }
        let has_helped = if caused_refresh == Some(true) {
            self.breaker.refresh_helped(origin);
            true
        } else {
            self.breaker.accepted(origin, generation)
        };
        if has_helped {
            self.tokens.refresh_helped();
        }
    }

    fn emit_rejected(&self, token: AttachedToken, status: StatusCode) {
        let generation = token.generation.get();
        self.emit(Event::Rejected { generation, status: status.as_u16() });
    }

    fn emit(&self, event: Event<'_>) {
        self.tokens.telemetry().emit(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        origins::Origins,
        source::source_fn,
        token::{AccessToken, Scheme},
    };

    #[tokio::test]
    async fn two_rejections_at_once_both_lead_to_a_new_token() {
        let origins = Origins::without_authority();
        let breaker = Arc::new(Breaker::new(origins.count()));
        let tokens = TokenCache::new(source_fn(|_| async { AccessToken::bearer("T0KEN") }));
        let generation = tokens.token().await.unwrap().generation();
        let origin = origins.find(&"/".parse().unwrap()).unwrap();
        let token = AttachedToken { generation, scheme: Scheme::Bearer, origin };
        let criteria = RejectionCriteria::default();
        let handler = RejectionHandler::new(&tokens, criteria, Arc::clone(&breaker));

        // The first rejection has its permission, but has not invalidated the token yet.
        let rejected = handler.tokens.replaceable(generation).unwrap();
        assert_eq!(breaker.request_refresh(origin, rejected, true), Permission::Given);
        assert_eq!(
            handler.on_rejection(token, StatusCode::UNAUTHORIZED, true),
            RejectionOutcome::Late
        );
        assert!(tokens.current().is_none());
    }
}
