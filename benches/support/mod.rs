//! The request, the inner service and the layers that all benches share.

#![allow(dead_code)] // each bench uses a part of this module
#![allow(clippy::cast_precision_loss)] // of nanoseconds

pub(crate) mod figures;
pub(crate) mod hand_written;
pub(crate) mod interleaved;
pub(crate) mod markdown;
pub(crate) mod peers;
pub(crate) mod requests;
pub(crate) mod targets;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use tokio::runtime::Runtime;
use tower::Service;
use tower_http::auth::AddAuthorizationLayer;
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, source_fn};

pub(crate) type Body = Full<Bytes>;

pub(crate) const ORIGIN: &str = "https://api.example.com";

pub(crate) const LIFETIME: Duration = Duration::from_secs(86_400);

/// The runtime that fetches tokens. It has one worker thread and lives until the bench ends.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
});

/// Returns a POST request with six headers and a small body.
pub(crate) fn request() -> Request<Body> {
    let request_id = HeaderValue::from_str("7b9f2f0e-54a5-4d68-9d3a-2f8f5f1c0a11").unwrap();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let idempotency_key = HeaderValue::from_str("0f8fad5b-d9cb-469f-a165-70867728950e").unwrap();
    Request::post("https://api.example.com/v1/orders?limit=10")
        .header("accept", "application/json")
        .header("content-type", "application/json")
        .header("user-agent", "bench/1.0")
        .header("x-request-id", request_id)
        .header("traceparent", HeaderValue::from_str(trace).unwrap())
        .header("idempotency-key", idempotency_key)
        .body(Full::from(Bytes::from_static(br#"{"article":"42","quantity":1}"#)))
        .unwrap()
}

/// Returns the text of a token of 900 bytes.
pub(crate) fn token() -> String {
    "t".repeat(900)
}

/// Returns the header value of the token.
pub(crate) fn bearer() -> HeaderValue {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token())).unwrap();
    value.set_sensitive(true);
    value
}

/// Returns a layer that attaches a fixed token.
pub(crate) fn static_header() -> AddAuthorizationLayer {
    AddAuthorizationLayer::bearer(&token()).as_sensitive(true)
}

/// Returns a cache over a source that issues tokens with the given lifetime.
pub(crate) fn token_cache(lifetime: Duration) -> TokenCache {
    TokenCache::new(source_fn(move |_| async move {
        Ok(AccessToken::bearer(token())?.expires_in(lifetime))
    }))
}

/// Returns a cache that holds a fresh token.
pub(crate) fn warm_token_cache() -> TokenCache {
    let cache = token_cache(LIFETIME);
    RUNTIME.block_on(cache.token()).unwrap();
    cache
}

/// Returns a layer over a cache that holds a fresh token.
pub(crate) fn oauth() -> OAuthLayer {
    oauth_for(ORIGIN)
}

pub(crate) fn oauth_for(origin: &str) -> OAuthLayer {
    OAuthLayer::new(warm_token_cache(), Origins::new([origin]).unwrap())
}

/// The inner service: drops the request and is ready with an empty response.
#[derive(Clone, Default)]
pub(crate) struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        drop(black_box(request));
        ready(Ok(Response::new(Body::default())))
    }
}
