//! What people write by hand in the place of the layer, each with the care of somebody who knows tower.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    mem,
    pin::Pin,
    sync::{Arc, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tower::Service;

use super::{Body, Inner, bearer, token};

/// Puts on what `T` gives, which never waits.
#[derive(Clone)]
pub(crate) struct WithHeader<T> {
    pub(crate) token: T,
    pub(crate) inner: Inner,
}

/// A token that is there, and is replaced by somebody else.
pub(crate) trait Token: Clone {
    fn header(&self) -> HeaderValue;
}

impl<T: Token> Service<Request<Body>> for WithHeader<T> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Inner as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(AUTHORIZATION, self.token.header());
        self.inner.call(request)
    }
}

/// A lock around the header.
impl Token for Arc<RwLock<HeaderValue>> {
    fn header(&self) -> HeaderValue {
        self.read().unwrap().clone()
    }
}

/// The newest header of a task that renews it.
impl Token for watch::Receiver<HeaderValue> {
    fn header(&self) -> HeaderValue {
        self.borrow().clone()
    }
}

/// The token as text, of which each request makes its header.
impl Token for Arc<str> {
    fn header(&self) -> HeaderValue {
        let mut header = HeaderValue::from_str(&format!("Bearer {self}")).unwrap();
        header.set_sensitive(true);
        header
    }
}

pub(crate) fn rw_lock() -> WithHeader<Arc<RwLock<HeaderValue>>> {
    WithHeader { token: Arc::new(RwLock::new(bearer())), inner: Inner }
}

/// With what replaces its token.
pub(crate) fn watch() -> (watch::Sender<HeaderValue>, WithHeader<watch::Receiver<HeaderValue>>) {
    let (sender, token) = watch::channel(bearer());
    (sender, WithHeader { token, inner: Inner })
}

pub(crate) fn format() -> WithHeader<Arc<str>> {
    WithHeader { token: token().into(), inner: Inner }
}

/// Locks, looks at the clock, and fetches under the lock where the token has expired.
#[derive(Clone, Default)]
pub(crate) struct MutexOverRefresh {
    pub(crate) token: Arc<Mutex<Option<(HeaderValue, Instant)>>>,
    inner: Inner,
}

impl Service<Request<Body>> for MutexOverRefresh {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
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
        _ => token.insert((fetch().await, Instant::now() + Duration::from_secs(86_400))).0.clone(),
    }
}

/// As long as it takes the source of the layer's token.
fn fetch() -> Ready<HeaderValue> {
    ready(bearer())
}

/// One more clone for each request, as `oneshot` takes it.
#[derive(Clone)]
pub(crate) struct ClonePerRequest<S>(pub(crate) S);

impl<S: Service<Request<Body>> + Clone> Service<Request<Body>> for ClonePerRequest<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    /// That of the clone is asked for when it is there.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let mut clone = self.0.clone();
        let ready = clone.poll_ready(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(ready.is_ready(), "the inner service always is");
        clone.call(request)
    }
}
