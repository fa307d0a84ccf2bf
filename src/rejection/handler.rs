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
    /// If true, responses with a status below 400 need an inspection, too.
    pub(crate) inspects_success: bool,
}

/// A response has rejected a token.
#[derive(Clone, Copy)]
pub(crate) struct Rejection {
    pub(crate) token: AttachedToken,
    status: StatusCode,
}

/// The consequence of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RejectionOutcome {
    /// It took the token out of use.
    Invalidated,
    /// The token is out of use already, or another rejection is about to invalidate it.
    Late,
    /// The token stays in use, as new tokens have not helped recently.
    Suppressed,
}

impl RejectionHandler {
    pub(crate) fn new(
        tokens: &TokenCache,
        criteria: RejectionCriteria,
        breaker: Arc<Breaker>,
    ) -> Self {
        let inspects_success = criteria.includes_success();
        Self { tokens: tokens.invalidator(), criteria, breaker, inspects_success }
    }

    /// Returns the rejection if the response rejects the token. Reports a 401 that a new token
    /// would not change.
    pub(crate) fn rejection<B>(
        &self,
        token: AttachedToken,
        response: &Response<B>,
    ) -> Option<Rejection> {
        let (status, headers) = (response.status(), response.headers());
        match self.criteria.assess(status, headers, token.scheme) {
            Assessment::Accepted => None,
            Assessment::Rejected => Some(Rejection { token, status }),
            Assessment::NotCausedByToken(reason) => {
                self.emit(Event::RefreshSuppressed { generation: token.generation.get(), reason });
                None
            }
        }
    }

    /// Takes the rejected token out of use, unless the breaker is open.
    pub(crate) fn on_rejection(&self, rejection: Rejection) -> RejectionOutcome {
        self.emit_rejected(rejection);
        let AttachedToken { generation, origin, .. } = rejection.token;
        let outcome = if self.tokens.is_current(generation) {
            match self.breaker.permits(origin, generation) {
                Permission::Given => RejectionOutcome::Invalidated,
                Permission::GivenBefore => RejectionOutcome::Late,
                Permission::Denied => RejectionOutcome::Suppressed,
            }
        } else {
            RejectionOutcome::Late
        };
        let suppressed = match outcome {
            RejectionOutcome::Invalidated => None,
            RejectionOutcome::Late => Some(SuppressReason::Late),
            RejectionOutcome::Suppressed => Some(SuppressReason::BreakerOpen),
        };
        if let Some(reason) = suppressed {
            self.emit(Event::RefreshSuppressed { generation: generation.get(), reason });
        }
        // Also when late: the rejection that was permitted may not have invalidated the token yet.
        if outcome != RejectionOutcome::Suppressed {
            self.tokens.invalidate(generation);
        }
        outcome
    }

    /// Reports the rejection of a retry.
    pub(crate) fn on_retry_rejected(&self, rejection: Rejection) {
        self.emit_rejected(rejection);
        self.emit(Event::RetryRejected { generation: rejection.token.generation.get() });
    }

    /// Reports a retry that was not rejected. It shows that the refresh has helped if the first
    /// attempt `caused_refresh`.
    pub(crate) fn on_retry_accepted<B>(
        &self,
        token: AttachedToken,
        response: &Response<B>,
        caused_refresh: bool,
    ) {
        // A server in trouble has not checked the token.
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return;
        }
        self.emit(Event::RetryAccepted { generation: token.generation.get() });
        if caused_refresh {
            self.breaker.refresh_helped(token.origin);
        }
    }

    /// Handles a rejection in the trailers of a gRPC response when they arrive.
    pub(crate) fn watch_trailers<B: 'static>(
        self: &Arc<Self>,
        token: AttachedToken,
        response: &mut Response<B>,
    ) {
        #[cfg(feature = "tonic")]
        if self.criteria.grpc {
            let handler = Arc::clone(self);
            let rejection = Rejection { token, status: response.status() };
            super::grpc_trailers::watch(response, move || {
                handler.on_rejection(rejection);
            });
        }
        #[cfg(not(feature = "tonic"))]
        let _ = (self, token, response);
    }

    fn emit_rejected(&self, Rejection { token, status }: Rejection) {
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
        let rejection = Rejection { token, status: StatusCode::UNAUTHORIZED };
        let criteria = RejectionCriteria::default();
        let handler = RejectionHandler::new(&tokens, criteria, Arc::clone(&breaker));

        // The first rejection has its permission, but has not invalidated the token yet.
        assert_eq!(breaker.permits(origin, generation), Permission::Given);
        assert_eq!(handler.on_rejection(rejection), RejectionOutcome::Late);
        assert!(tokens.current().is_none());
    }
}
