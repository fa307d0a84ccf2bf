use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, Service};

use crate::{
    future::{Again, Common, ResponseFuture},
    presentation::{Policy, Presented, SharedAnswers},
    replay::{CloneBody, KeptRequest, Replay},
    telemetry::Without,
};

/// The service that an [`OAuthLayer`](crate::OAuthLayer) makes of `S`.
///
/// Its error is a [`BoxError`]: one of `S`, or a [`TokenError`](crate::TokenError) where a request could not be sent for
/// want of a token. Readiness is that of `S`. Clones share the token.
///
/// A refused request whose token could not be replaced is answered with the refusal itself. Where the refresh failed, why
/// is in its extensions:
///
/// ```
/// # fn example(response: http::Response<()>) {
/// if let Some(error) = response.extensions().get::<tower_oauth::TokenError>() {
///     eprintln!("{}, and no new token: {error}", response.status());
/// }
/// # }
/// ```
pub struct OAuth<S, R = CloneBody> {
    inner: S,
    common: Arc<Common<S>>,
    /// Somebody had the inner service to change, so that it may differ from what is common.
    is_changed: bool,
    replay: R,
}

impl<S: Clone, R> OAuth<S, R> {
    pub(crate) fn new(inner: S, policy: Policy, replay: R) -> Self {
        let common = Arc::new(Common::new(policy, inner.clone()));
        Self { inner, common, is_changed: false, replay }
    }

    /// The policy, with a service for further attempts that is like the inner one.
    fn renewed(&self) -> Arc<Common<S>> {
        Arc::new(Common::new(self.common.policy.clone(), self.inner.clone()))
    }
}

impl<S, R> OAuth<S, R> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change.
    pub fn get_mut(&mut self) -> &mut S {
        self.is_changed = true;
        &mut self.inner
    }

    /// The inner service, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Sends a request that gets no token.
    fn pass<B>(&mut self, request: Request<B>, reason: Without) -> ResponseFuture<S, R, B>
    where
        S: Service<Request<R::Body>>,
        R: Replay<B>,
    {
        self.common.policy.tell_without(reason);
        let request = request.map(|body| self.replay.pass(body));
        ResponseFuture::passing_through(self.inner.call(request))
    }
}

impl<S, R, B, ResBody> Service<Request<B>> for OAuth<S, R>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<B> + Clone,
    ResBody: Body + 'static,
{
    type Response = Response<ResBody>;
    type Error = BoxError;
    type Future = ResponseFuture<S, R, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.is_changed {
            self.common = self.renewed();
            self.is_changed = false;
        }
        let Some(origin) = self.common.policy.origins.find(request.uri()) else {
            return self.pass(request, Without::Origin);
        };
        let mut kept = None;
        let mut request = request.map(|body| {
            let (body, copy) = self.replay.keep(body);
            kept = copy;
            body
        });
        // Kept before the token goes on: the copy must not hold a token that may be refused.
        let kept = kept.map(|body| KeptRequest::of(&request, body));
        match self.common.policy.present(request.headers_mut()) {
            Presented::Token(shown) => {
                let again = kept.map(|kept| Again::new(kept, Arc::clone(&self.common), self.replay.clone()));
                let answers = SharedAnswers::of(&self.common.policy.answers);
                ResponseFuture::calling(self.inner.call(request), answers, origin, shown, again)
            }
            Presented::NoToken => {
                // The instance that was polled ready is the one to call, so that the clone stays here.
                let clone = self.inner.clone();
                let service = mem::replace(&mut self.inner, clone);
                let (common, replay) = (Arc::clone(&self.common), self.replay.clone());
                ResponseFuture::obtaining(service, common, replay, origin, request, kept)
            }
            Presented::Declined => {
                self.common.policy.tell_without(Without::Header);
                ResponseFuture::passing_through(self.inner.call(request))
            }
        }
    }
}

impl<S: Clone, R: Clone> Clone for OAuth<S, R> {
    fn clone(&self) -> Self {
        let common = if self.is_changed { self.renewed() } else { Arc::clone(&self.common) };
        Self { inner: self.inner.clone(), common, is_changed: false, replay: self.replay.clone() }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for OAuth<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth")
            .field("inner", &self.inner)
            .field("tokens", &self.common.policy.tokens)
            .field("origins", &self.common.policy.origins)
            .finish_non_exhaustive()
    }
}
