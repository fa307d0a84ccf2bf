//! The parts of requests and responses that both fake servers use.

use std::{convert::Infallible, future};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

pub(super) type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

pub(super) fn body(content: impl Into<Bytes>) -> ResponseBody {
    Full::new(content.into()).boxed_unsync()
}

pub(super) fn body_with_trailers(content: impl Into<Bytes>, trailers: HeaderMap) -> ResponseBody {
    Full::new(content.into()).with_trailers(future::ready(Some(Ok(trailers)))).boxed_unsync()
}

/// Returns a JSON response that must not be stored (RFC 6749 §5.1).
pub(super) fn json(status: StatusCode, content: String) -> Response<ResponseBody> {
    let mut response = Response::new(body(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns the credentials of the `Authorization` header, if it has this scheme (RFC 9110 §11.4).
pub(super) fn credentials<'a, B>(request: &'a Request<B>, scheme: &str) -> Option<&'a str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (found, credentials) = value.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then_some(credentials)
}

/// Returns true if the media type of the request begins with `media_type`.
pub(super) fn is_of_type<B>(request: &Request<B>, media_type: &str) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE);
    value.is_some_and(|value| value.as_bytes().starts_with(media_type.as_bytes()))
}
