//! Is this response a refusal of the token?

use http::{HeaderMap, StatusCode};

/// `UNAUTHENTICATED` of the gRPC status codes.
const UNAUTHENTICATED: &[u8] = b"16";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Http,
    /// Also the head of a gRPC response that has no message: "trailers-only".
    Grpc,
}

impl Verdict {
    pub(crate) fn is_refusal(self, status: StatusCode, headers: &HeaderMap) -> bool {
        status == StatusCode::UNAUTHORIZED
            || (self == Self::Grpc
                && headers.get("grpc-status").is_some_and(|code| code.as_bytes() == UNAUTHENTICATED))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_grpc_status_counts_for_grpc_only() {
        let mut headers = HeaderMap::new();
        let refused = |verdict: Verdict, headers: &HeaderMap| verdict.is_refusal(StatusCode::OK, headers);
        assert!(!refused(Verdict::Grpc, &headers));
        headers.insert("grpc-status", HeaderValue::from_static("16"));
        assert!(refused(Verdict::Grpc, &headers));
        assert!(!refused(Verdict::Http, &headers));
        headers.insert("grpc-status", HeaderValue::from_static("7"));
        assert!(!refused(Verdict::Grpc, &headers));
    }

    #[test]
    fn a_401_counts_for_both_and_a_403_for_none() {
        for verdict in [Verdict::Http, Verdict::Grpc] {
            assert!(verdict.is_refusal(StatusCode::UNAUTHORIZED, &HeaderMap::new()));
            assert!(!verdict.is_refusal(StatusCode::FORBIDDEN, &HeaderMap::new()));
        }
    }
}
