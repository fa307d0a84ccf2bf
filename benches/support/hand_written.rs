//! The yardstick: the least code that does the job of the layer without a retry.
//!
//! A static header does less. It cannot expire, and the server's rejection of it goes unnoticed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tower::Service;

use super::{Body, Inner, LIFETIME, bearer};

/// Wakes the task that obtains a new token. In a bench, no such task exists and no case gets here.
static REFRESH: Notify = Notify::const_new();

/// A service that attaches a shared token until it expires, and requests a refresh after a 401.
#[derive(Clone)]
pub(crate) struct HandWritten<S> {
    token: Arc<ArcSwap<(HeaderValue, Instant)>>,
    inner: S,
}

/// Returns the service over [`Inner`], with a fresh token.
pub(crate) fn hand_written() -> HandWritten<Inner> {
    let token = ArcSwap::from_pointee((bearer(), Instant::now() + LIFETIME));
    HandWritten { token: Arc::new(token), inner: Inner }
}

impl<S, ResBody> Service<Request<Body>> for HandWritten<S>
where
    S: Service<Request<Body>, Response = Response<ResBody>>,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = NoticeRejection<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let token = self.token.load();
        let (value, expires_at) = &**token;
        if Instant::now() < *expires_at {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        } else {
            REFRESH.notify_one();
        }
        drop(token);
        NoticeRejection { future: self.inner.call(request) }
    }
}

pin_project! {
    /// The future of [`HandWritten`].
    pub(crate) struct NoticeRejection<F> {
        #[pin]
        future: F,
    }
}

impl<F, ResBody, E> Future for NoticeRejection<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let result = ready!(self.project().future.poll(cx));
        if result.as_ref().is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED) {
            REFRESH.notify_one();
        }
        Poll::Ready(result)
    }
}
