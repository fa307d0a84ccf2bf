//! Other ways to attach a token, as users write them by hand. Each is written with care.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    mem,
    pin::Pin,
    sync::{Arc, RwLock},
    task::{Context, Poll, Waker},
};

use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use pin_project_lite::pin_project;
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tower::{
    Layer, Service,
    retry::{Policy, Retry},
};
use tower_http::auth::AddAuthorization;

use super::{Body, Inner, LIFETIME, bearer, static_header, token};

/// A service that attaches the header of `T`.
#[derive(Clone)]
pub(crate) struct WithHeader<T> {
    pub(crate) token: T,
    pub(crate) inner: Inner,
}

/// A shared token that a background task replaces.
pub(crate) trait SharedToken: Clone {
    fn header(&self) -> HeaderValue;
}

impl<T: SharedToken> Service<Request<Body>> for WithHeader<T> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Inner as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(AUTHORIZATION, self.token.header());
        self.inner.call(request)
    }
}

impl SharedToken for Arc<RwLock<HeaderValue>> {
    fn header(&self) -> HeaderValue {
        self.read().unwrap().clone()
    }
}

impl SharedToken for watch::Receiver<HeaderValue> {
    fn header(&self) -> HeaderValue {
        self.borrow().clone()
    }
}

/// The token as text: each request formats and checks its own header value.
impl SharedToken for Arc<str> {
    fn header(&self) -> HeaderValue {
        let mut header = HeaderValue::from_str(&format!("Bearer {self}")).unwrap();
        header.set_sensitive(true);
        header
    }
}

pub(crate) fn rw_lock() -> WithHeader<Arc<RwLock<HeaderValue>>> {
    WithHeader { token: Arc::new(RwLock::new(bearer())), inner: Inner }
}

/// Returns the service and the sender that replaces its token.
pub(crate) fn watch() -> (watch::Sender<HeaderValue>, WithHeader<watch::Receiver<HeaderValue>>) {
    let (sender, token) = watch::channel(bearer());
    (sender, WithHeader { token, inner: Inner })
}

pub(crate) fn format() -> WithHeader<Arc<str>> {
    WithHeader { token: token().into(), inner: Inner }
}

/// A service that holds an async mutex while it compares the clock, and while it fetches a token.
#[derive(Clone, Default)]
pub(crate) struct MutexOverRefresh {
    pub(crate) token: Arc<Mutex<Option<(HeaderValue, Instant)>>>,
    inner: Inner,
}

impl Service<Request<Body>> for MutexOverRefresh {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let token = Arc::clone(&self.token);
        Box::pin(async move {
            let header = current_or_fetched(&token).await;
            request.headers_mut().insert(AUTHORIZATION, header);
            inner.call(request).await
        })
    }
}

async fn current_or_fetched(token: &Mutex<Option<(HeaderValue, Instant)>>) -> HeaderValue {
    let mut token = token.lock().await;
    match &*token {
        Some((header, expires_at)) if Instant::now() < *expires_at => header.clone(),
        _ => token.insert((fetch().await, Instant::now() + LIFETIME)).0.clone(),
    }
}

/// Is ready at once, as the source of the layer's token is.
fn fetch() -> Ready<HeaderValue> {
    ready(bearer())
}

/// A service that clones the inner service for each request, as `oneshot` on a clone does.
#[derive(Clone)]
pub(crate) struct ClonePerRequest<S>(pub(crate) S);

impl<S: Service<Request<Body>> + Clone> Service<Request<Body>> for ClonePerRequest<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    /// Is always ready: `call` checks the readiness of the clone.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let mut clone = self.0.clone();
        let readiness = clone.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(readiness.is_ready(), "the inner service of a bench is always ready");
        clone.call(request)
    }
}

/// A service that attaches a fixed token and keeps a clone of the request until the response.
pub(crate) struct StaticHeaderAndClone {
    value: HeaderValue,
    inner: Inner,
}

pub(crate) fn static_header_and_clone() -> StaticHeaderAndClone {
    StaticHeaderAndClone { value: bearer(), inner: Inner }
}

impl Service<Request<Body>> for StaticHeaderAndClone {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = WithClone<<Inner as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let clone = request.clone();
        request.headers_mut().insert(AUTHORIZATION, self.value.clone());
        WithClone { future: self.inner.call(request), _clone: clone }
    }
}

pin_project! {
    /// The future of [`StaticHeaderAndClone`].
    pub(crate) struct WithClone<F> {
        #[pin]
        future: F,
        _clone: Request<Body>,
    }
}

impl<F: Future> Future for WithClone<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(cx)
    }
}

/// Returns `inner` with a fixed token under `tower::retry`.
pub(crate) fn tower_retry<S>(inner: S) -> Retry<RetryOnUnauthorized, AddAuthorization<S>> {
    Retry::new(RetryOnUnauthorized, static_header().layer(inner))
}

/// A `tower::retry` policy that clones each request and retries after a 401.
#[derive(Clone)]
pub(crate) struct RetryOnUnauthorized;

impl<ResBody, E> Policy<Request<Body>, Response<ResBody>, E> for RetryOnUnauthorized {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<ResBody>, E>,
    ) -> Option<Ready<()>> {
        let is_rejection = |response: &Response<_>| response.status() == StatusCode::UNAUTHORIZED;
        result.as_ref().is_ok_and(is_rejection).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}
