//! The request, the services and the layers that all benches share.

#![allow(dead_code)] // not every bench uses all of it

pub(crate) mod figures;
pub(crate) mod peers;
pub(crate) mod ratios;
pub(crate) mod requests;
pub(crate) mod turns;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::runtime::Runtime;
use tower::{Service, retry::Policy};
use tower_http::auth::AddAuthorizationLayer;
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache};

pub(crate) type Body = Full<Bytes>;

/// As in most programs: with threads of its own, and there for as long as requests are made.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
});

/// Polls once, as nothing here ever waits.
pub(crate) fn call<S: Service<Request<Body>>>(service: &mut S, request: Request<Body>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let future = pin!(service.call(request));
    match future.poll(&mut context) {
        Poll::Ready(Ok(response)) => drop(black_box(response)),
        Poll::Ready(Err(_)) | Poll::Pending => unreachable!("the inner service answers at once"),
    }
}

/// The runtime has ended what it was at.
pub(crate) fn settle() {
    RUNTIME.block_on(RUNTIME.spawn(async {})).unwrap();
}

pub(crate) fn request() -> Request<Body> {
    Request::post("https://api.example.com/v1/orders?limit=10")
        .header("accept", "application/json")
        .header("content-type", "application/json")
        .header("user-agent", "bench/1.0")
        .header("x-request-id", HeaderValue::from_str("7b9f2f0e-54a5-4d68-9d3a-2f8f5f1c0a11").unwrap())
        .header(
            "traceparent",
            HeaderValue::from_str("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap(),
        )
        .header("idempotency-key", HeaderValue::from_str("0f8fad5b-d9cb-469f-a165-70867728950e").unwrap())
        .body(Full::from(Bytes::from_static(br#"{"article":"42","quantity":1}"#)))
        .unwrap()
}

pub(crate) fn token() -> String {
    "t".repeat(900)
}

pub(crate) fn bearer() -> HeaderValue {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token())).unwrap();
    value.set_sensitive(true);
    value
}

pub(crate) fn static_header() -> AddAuthorizationLayer {
    AddAuthorizationLayer::bearer(&token()).as_sensitive(true)
}

/// A layer whose cache holds a token.
pub(crate) fn oauth() -> OAuthLayer {
    oauth_for("https://api.example.com")
}

pub(crate) fn oauth_for(origin: &str) -> OAuthLayer {
    let cache = TokenCache::new(|| async {
        Ok(AccessToken::bearer(token())?.expires_in(Duration::from_secs(86_400)))
    });
    RUNTIME.block_on(cache.token()).unwrap();
    OAuthLayer::new(cache, Origins::new([origin]).unwrap())
}

/// Takes the request and answers.
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

/// What is needed at the least to send a request once more: a copy from before the header went on.
pub(crate) struct StaticHeaderAndClone<S> {
    pub(crate) inner: S,
    pub(crate) value: HeaderValue,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for StaticHeaderAndClone<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = WithCopy<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let copy = request.clone();
        request.headers_mut().insert(AUTHORIZATION, self.value.clone());
        WithCopy { future: self.inner.call(request), _copy: copy }
    }
}

pin_project_lite::pin_project! {
    pub(crate) struct WithCopy<F> {
        #[pin]
        future: F,
        _copy: Request<Body>,
    }
}

impl<F: Future> Future for WithCopy<F> {
    type Output = F::Output;

    fn poll(self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(context)
    }
}

#[derive(Clone)]
pub(crate) struct RetryOnce;

impl<E> Policy<Request<Body>, Response<Body>, E> for RetryOnce {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request<Body>, result: &mut Result<Response<Body>, E>) -> Option<Ready<()>> {
        let refused = result.as_ref().is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED);
        refused.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}
