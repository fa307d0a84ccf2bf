//! The service that the layer makes: the first step of a request.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{
    HeaderMap, Request, Response, Uri,
    header::{AUTHORIZATION, HOST},
};
use http_body::Body;
use tower_service::Service;

use crate::{
    attach::{Attachment, attach},
    error::BoxError,
    future::{ResponseFuture, RetryParts, Shared},
    host_header::host_header_agrees,
    origins::{OriginId, Origins},
    replay::{CloneBody, Replay, SavedRequest},
    telemetry::{Event, SkipReason},
};

/// The service that an [`OAuthLayer`](crate::OAuthLayer) makes of an inner service `S`.
///
/// Its error is a [`BoxError`]: one of `S`, or a [`TokenError`](crate::TokenError) if a request
/// could not be sent for lack of a token. Its readiness is that of `S`. Clones share the token.
///
/// # If a refresh fails
///
/// The error of a failed refresh has two shapes, depending on the request that waited for it:
///
/// - `Ok` with the rejection, such as a 401: the request was sent, and its token was rejected. The
///   error is in the extensions of that response.
/// - `Err` with the [`TokenError`](crate::TokenError): the request was not sent, because the cache
///   had no token. The same error is returned if a retry loses its new token while it waits for the
///   inner service, and the next refresh fails: the rejection has been dropped by then.
///
/// Requests of one moment may therefore get both shapes. A rejection without an error in its
/// extensions was not followed by a failed refresh: the refresh was suppressed, the request could
/// not be retried, or the retry was rejected too.
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
    shared: Arc<Shared<S>>,
    /// True if `get_mut` was called: the inner service may differ from the one in `shared`.
    inner_changed: bool,
    replay: R,
}

impl<S: Clone, R> OAuth<S, R> {
    pub(crate) fn from_parts(inner: S, shared: Shared<S>, replay: R) -> Self {
        Self { inner, shared: Arc::new(shared), inner_changed: false, replay }
    }

    /// Returns the shared data, with a service for retries that equals the inner one.
    fn up_to_date_shared(&self) -> Arc<Shared<S>> {
        if self.inner_changed {
            Arc::new(self.shared.with_service(self.inner.clone()))
        } else {
            Arc::clone(&self.shared)
        }
    }
}

impl<S, R> OAuth<S, R> {
    /// Returns the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service, to change it.
    pub fn get_mut(&mut self) -> &mut S {
        self.inner_changed = true;
        &mut self.inner
    }

    /// Returns the inner service, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Returns the service over another inner service. Both share the token.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn over<S2: Clone>(&self, inner: S2) -> OAuth<S2, R>
    where
        R: Clone,
    {
        let shared = self.shared.with_service(inner.clone());
        OAuth::from_parts(inner, shared, self.replay.clone())
    }

    /// Sends a request without a token.
    fn send_without_token<B>(
        &mut self,
        request: Request<B>,
        reason: SkipReason,
    ) -> ResponseFuture<S, R, B>
    where
        S: Service<Request<R::Body>>,
        R: Replay<B>,
    {
        let event = Event::SentWithoutToken { reason, uri: request.uri() };
        self.shared.tokens.telemetry().emit(event);
        let request = request.map(|body| self.replay.pass(body));
        ResponseFuture::without_token(self.inner.call(request))
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
        if self.inner_changed {
            self.shared = self.up_to_date_shared();
            self.inner_changed = false;
        }
        let origin = match check(&self.shared.origins, request.uri(), request.headers()) {
            Ok(origin) => origin,
            Err(reason) => return self.send_without_token(request, reason),
        };
        let mut saved_body = None;
        let mut request = request.map(|body| {
            let (body, saved) = self.replay.keep(body);
            saved_body = saved;
            body
        });
        // Saved before the token is attached: the copy must not hold a token that may be rejected.
        let saved = saved_body.map(|body| SavedRequest::new(&request, body));
        match attach(&self.shared.tokens, origin, request.headers_mut()) {
            Attachment::Attached(token) => {
                let retry =
                    saved.map(|saved| Box::new(RetryParts { saved, replay: self.replay.clone() }));
                let shared = Arc::clone(&self.shared);
                ResponseFuture::with_token(self.inner.call(request), shared, token, retry)
            }
            Attachment::NoToken => {
                // The instance that was polled ready must be the one that is called, so the clone
                // stays here.
                let clone = self.inner.clone();
                let service = mem::replace(&mut self.inner, clone);
                let (shared, replay) = (Arc::clone(&self.shared), self.replay.clone());
                ResponseFuture::awaiting_token(service, shared, replay, origin, request, saved)
            }
            Attachment::Skipped(reason) => {
                let event = Event::SentWithoutToken { reason, uri: request.uri() };
                self.shared.tokens.telemetry().emit(event);
                ResponseFuture::without_token(self.inner.call(request))
            }
        }
    }
}

/// Returns the origin of a request that may carry the token, or the reason why it may not.
#[inline]
fn check(origins: &Origins, uri: &Uri, headers: &HeaderMap) -> Result<OriginId, SkipReason> {
    let origin = origins.find(uri).ok_or(SkipReason::Origin)?;
    let mut has_host = false;
    // A scan of the few names that a request has is faster than a lookup.
    for name in headers.keys() {
        if *name == AUTHORIZATION {
            return Err(SkipReason::AuthorizationHeader);
        }
        has_host |= *name == HOST;
    }
    if has_host && !host_header_agrees(uri, headers) {
        return Err(SkipReason::HostHeader);
    }
    Ok(origin)
}

impl<S: Clone, R: Clone> Clone for OAuth<S, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: self.up_to_date_shared(),
            inner_changed: false,
            replay: self.replay.clone(),
        }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for OAuth<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth")
            .field("inner", &self.inner)
            .field("token_cache", &self.shared.tokens)
            .field("origins", &self.shared.origins)
            .finish_non_exhaustive()
    }
}
