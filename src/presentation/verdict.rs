//! Is this response a refusal of the token?

use http::{HeaderMap, StatusCode};

use super::challenge::new_token_may_help;
use crate::token::Scheme;

/// `UNAUTHENTICATED` of the gRPC status codes.
const UNAUTHENTICATED: &[u8] = b"16";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Besides 401.
    pub(crate) statuses: Vec<StatusCode>,
    /// Also the status of a gRPC call: in the head of a response that has no message ("trailers-only"), or at its end.
    pub(crate) grpc: bool,
}

impl Verdict {
    /// `scheme` is that of the token.
    pub(crate) fn is_refusal(&self, status: StatusCode, headers: &HeaderMap, scheme: Scheme) -> bool {
        if status == StatusCode::UNAUTHORIZED || self.statuses.contains(&status) {
            return new_token_may_help(headers, scheme);
        }
        self.grpc && is_unauthenticated(headers)
    }

    /// Whether a response may be a refusal though its status is none of those of errors.
    #[inline]
    pub(super) fn is_refusal_without_error(&self) -> bool {
        self.grpc || !self.statuses.is_empty()
    }
}

/// Whether headers or trailers have this for the status of a gRPC call.
pub(super) fn is_unauthenticated(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|code| code.as_bytes() == UNAUTHENTICATED)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::WWW_AUTHENTICATE};

    use super::*;

    fn grpc() -> Verdict {
        Verdict { grpc: true, ..Verdict::default() }
    }

    #[test]
    fn a_grpc_status_counts_for_grpc_only() {
        let mut headers = HeaderMap::new();
        let refused = |verdict: &Verdict, headers: &HeaderMap| {
            verdict.is_refusal(StatusCode::OK, headers, Scheme::Bearer)
        };
        assert!(!refused(&grpc(), &headers));
        headers.insert("grpc-status", HeaderValue::from_static("16"));
        assert!(refused(&grpc(), &headers));
        assert!(!refused(&Verdict::default(), &headers));
        headers.insert("grpc-status", HeaderValue::from_static("7"));
        assert!(!refused(&grpc(), &headers));
    }

    #[test]
    fn a_401_counts_and_other_statuses_where_they_are_named() {
        let headers = HeaderMap::new();
        let named = Verdict { statuses: vec![StatusCode::FORBIDDEN], ..Verdict::default() };
        assert!(named.is_refusal(StatusCode::UNAUTHORIZED, &headers, Scheme::Bearer));
        assert!(named.is_refusal(StatusCode::FORBIDDEN, &headers, Scheme::Bearer));
        assert!(!Verdict::default().is_refusal(StatusCode::FORBIDDEN, &headers, Scheme::Bearer));
        assert!(grpc().is_refusal(StatusCode::UNAUTHORIZED, &headers, Scheme::Bearer));
    }

    #[test]
    fn a_challenge_that_a_new_token_cannot_meet_is_no_refusal_of_the_token() {
        let challenge = HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
        let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, challenge)]);
        assert!(!Verdict::default().is_refusal(StatusCode::UNAUTHORIZED, &headers, Scheme::Bearer));
    }
}
