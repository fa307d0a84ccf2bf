//! A fake API that accepts the tokens of the fake authorization server.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::{
    issued_tokens::{IssuedTokens, Rejection},
    messages::{ResponseBody, body, body_with_trailers, credentials, is_of_type, json},
    server::Respond,
};

/// The gRPC method that the API has.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// A gRPC frame with a `HealthCheckResponse`, which has the status `SERVING`.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";

/// The responder of the API. Clones share its state.
#[derive(Clone)]
pub(super) struct ApiResponder {
    pub(super) tokens: IssuedTokens,
    /// The paths of the requests that were rejected because of their token.
    pub(super) rejected_paths: watch::Sender<Vec<String>>,
}

impl Respond for ApiResponder {
    /// Checks the token (RFC 6750 §2.1), and returns the body of the request as that of the
    /// response.
    async fn respond(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let check = self.tokens.check(credentials(&request, "Bearer"));
        let is_grpc = is_of_type(&request, "application/grpc");
        let path = request.uri().path().to_owned();
        if let Err(rejection) = check {
            self.rejected_paths.send_modify(|paths| paths.push(path));
            return if is_grpc { grpc_status("16", "invalid token") } else { reject(rejection) };
        }
        if is_grpc {
            return if path == HEALTH_CHECK {
                grpc_serving()
            } else {
                grpc_status("12", "the fake API has only grpc.health.v1.Health/Check")
            };
        }
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let content = request.into_body().collect().await;
        let content = content.map(Collected::to_bytes).unwrap_or_default();
        let mut response = Response::new(body(content));
        response.headers_mut().extend(content_type.map(|value| (header::CONTENT_TYPE, value)));
        response
    }
}

/// Returns a 401 with a challenge. It has no error code if the request had no token (RFC 6750
/// §3.1).
fn reject(rejection: Rejection) -> Response<ResponseBody> {
    let challenge = match rejection {
        Rejection::NoToken => "Bearer",
        Rejection::Unknown => {
            r#"Bearer error="invalid_token", error_description="The access token was revoked""#
        }
        Rejection::Expired => {
            r#"Bearer error="invalid_token", error_description="The access token expired""#
        }
    };
    let mut response = json(StatusCode::UNAUTHORIZED, r#"{"error":"invalid_token"}"#.to_owned());
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

/// Returns a gRPC response with a status and its description, without a response message.
fn grpc_status(status: &'static str, message: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(body(""));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(GRPC_STATUS, HeaderValue::from_static(status));
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    response
}

fn grpc_serving() -> Response<ResponseBody> {
    let ok = (header::HeaderName::from_static(GRPC_STATUS), HeaderValue::from_static("0"));
    let mut response = Response::new(body_with_trailers(SERVING, HeaderMap::from_iter([ok])));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}
