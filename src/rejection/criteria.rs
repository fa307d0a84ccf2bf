//! The criteria by which a response rejects its token.

use http::{HeaderMap, StatusCode};

use super::challenge::reason_against_refresh;
use crate::{telemetry::SuppressReason, token::Scheme};

/// The gRPC status code `UNAUTHENTICATED`.
const UNAUTHENTICATED: &[u8] = b"16";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RejectionCriteria {
    /// The statuses that the user configured. They are rejections whatever the challenges say.
    pub(crate) statuses: Vec<StatusCode>,
    /// If true, the status of a gRPC call counts as well: in the head of a response without a
    /// message ("trailers-only"), and in its trailers.
    pub(crate) grpc: bool,
}

/// The meaning of a response for its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Assessment {
    Accepted,
    Rejected,
    /// A 401 that the token did not cause, according to its challenge.
    NotCausedByToken(SuppressReason),
}

impl RejectionCriteria {
    /// Assesses a response to a request with a token of the scheme `scheme`.
    pub(crate) fn assess(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        scheme: Scheme,
    ) -> Assessment {
        if self.statuses.contains(&status) || (self.grpc && is_unauthenticated(headers)) {
            return Assessment::Rejected;
        }
        if status != StatusCode::UNAUTHORIZED {
            return Assessment::Accepted;
        }
        reason_against_refresh(headers, scheme)
            .map_or(Assessment::Rejected, Assessment::NotCausedByToken)
    }

    /// Returns true if a response with a status below 400 may be a rejection.
    pub(crate) fn includes_success(&self) -> bool {
        self.grpc || self.statuses.iter().any(|status| status.as_u16() < 400)
    }
}

/// Returns true if headers or trailers contain the gRPC status `UNAUTHENTICATED`.
pub(super) fn is_unauthenticated(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|code| code.as_bytes() == UNAUTHENTICATED)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::WWW_AUTHENTICATE};

    use super::*;

    fn grpc() -> RejectionCriteria {
        RejectionCriteria { grpc: true, ..RejectionCriteria::default() }
    }

    fn with_status(status: StatusCode) -> RejectionCriteria {
        RejectionCriteria { statuses: vec![status], ..RejectionCriteria::default() }
    }

    #[test]
    fn grpc_status_counts_only_for_grpc() {
        let mut headers = HeaderMap::new();
        let is_rejection = |criteria: &RejectionCriteria, headers: &HeaderMap| {
            criteria.assess(StatusCode::OK, headers, Scheme::Bearer) == Assessment::Rejected
        };
        assert!(!is_rejection(&grpc(), &headers));
        headers.insert("grpc-status", HeaderValue::from_static("16"));
        assert!(is_rejection(&grpc(), &headers));
        assert!(!is_rejection(&RejectionCriteria::default(), &headers));
        headers.insert("grpc-status", HeaderValue::from_static("7"));
        assert!(!is_rejection(&grpc(), &headers));
    }

    #[test]
    fn status_401_counts_and_others_count_when_configured() {
        let is_rejection = |criteria: &RejectionCriteria, status| {
            criteria.assess(status, &HeaderMap::new(), Scheme::Bearer) == Assessment::Rejected
        };
        let forbidden = with_status(StatusCode::FORBIDDEN);
        assert!(is_rejection(&forbidden, StatusCode::UNAUTHORIZED));
        assert!(is_rejection(&forbidden, StatusCode::FORBIDDEN));
        assert!(!is_rejection(&RejectionCriteria::default(), StatusCode::FORBIDDEN));
        assert!(is_rejection(&grpc(), StatusCode::UNAUTHORIZED));
    }

    #[test]
    fn success_is_included_for_grpc_or_a_configured_success_status() {
        assert!(!RejectionCriteria::default().includes_success());
        assert!(!with_status(StatusCode::BAD_REQUEST).includes_success());
        assert!(with_status(StatusCode::FOUND).includes_success());
        assert!(grpc().includes_success());
    }

    #[test]
    fn challenge_vetoes_only_a_401_that_is_not_configured() {
        let challenge = HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
        let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, challenge)]);
        let assess = |criteria: &RejectionCriteria, status| {
            criteria.assess(status, &headers, Scheme::Bearer)
        };
        assert_eq!(
            assess(&RejectionCriteria::default(), StatusCode::UNAUTHORIZED),
            Assessment::NotCausedByToken(SuppressReason::InsufficientScope)
        );
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            assert_eq!(assess(&with_status(status), status), Assessment::Rejected);
        }
    }
}
