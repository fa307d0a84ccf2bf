//! The states of a request, and what each one carries.

use std::{future::Future, pin::Pin, sync::Arc};

use http::Request;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::drain::Drain;
use crate::{
    attach::AttachedToken,
    cache::{CachedToken, TokenCache},
    error::TokenError,
    origins::{OriginId, Origins},
    rejection::RejectionHandler,
    replay::{Replay, SavedRequest},
    sync::{Mutex, lock},
    token::Generation,
};

/// A future of [`TokenCache::token`]. Boxed, because its own type has no name.
type PendingToken = Pin<Box<dyn Future<Output = Result<CachedToken, TokenError>> + Send>>;

pin_project! {
    #[project = StateProj]
    pub(super) enum State<S, R, B>
    where
        S: Service<Request<R::Body>>,
        R: Replay<B>,
    {
        // `attempt` is `None` for a request without a token.
        AwaitingResponse {
            #[pin]
            future: S::Future,
            attempt: Option<Attempt<S, R, R::Kept>>,
        },
        // Boxed, like the following ones, so that the future of a request that never waits is
        // small.
        AwaitingToken {
            token: PendingToken,
            waiting: Option<Box<WaitingForToken<S, R, B>>>,
        },
        // Reading the rest of the rejected response, which is no longer needed.
        Draining {
            response: Drain<S::Response>,
            waiting: Option<Box<WaitingForReady<S, R, B>>>,
        },
        AwaitingReady {
            waiting: Option<Box<WaitingForReady<S, R, B>>>,
        },
    }
}

/// The data that a service shares with its clones and its requests.
///
/// Aligned to a cache line, so that the reference count, which each request writes, shares its
/// cache line with nothing else.
#[repr(align(64))]
pub(crate) struct Shared<S> {
    pub(crate) tokens: TokenCache,
    pub(crate) origins: Origins,
    pub(crate) rejections: Arc<RejectionHandler>,
    /// Cloned for each retry. A clone for each request would slow all requests down.
    service: Mutex<S>,
}

impl<S> Shared<S> {
    pub(crate) fn new(
        tokens: TokenCache,
        origins: Origins,
        rejections: Arc<RejectionHandler>,
        service: S,
    ) -> Self {
        Self { tokens, origins, rejections, service: Mutex::new(service) }
    }

    /// Returns the same data with another service for retries.
    pub(crate) fn with_service<S2>(&self, service: S2) -> Shared<S2> {
        let rejections = Arc::clone(&self.rejections);
        Shared::new(self.tokens.clone(), self.origins.clone(), rejections, service)
    }

    pub(super) fn service(&self) -> S
    where
        S: Clone,
    {
        lock(&self.service).clone()
    }
}

/// A request that was sent with a token.
pub(super) struct Attempt<S, R, K> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) token: AttachedToken,
    pub(super) kind: AttemptKind<R, K>,
}

pub(super) enum AttemptKind<R, K> {
    /// With the parts of the retry, unless the request cannot be repeated. Boxed, so that the
    /// future of such a request is small.
    First(Option<Box<RetryParts<R, K>>>),
    Retry(Box<Retry<R, K>>),
}

/// A retry that was sent.
pub(super) struct Retry<R, K> {
    pub(super) cause: RetryCause,
    /// The parts of another retry, which follows if this one does not count.
    pub(super) another: Option<RetryParts<R, K>>,
}

/// Everything that a retry needs besides the shared data.
pub(crate) struct RetryParts<R, K> {
    pub(crate) saved: SavedRequest<K>,
    pub(crate) replay: R,
}

/// The reason for a retry.
#[derive(Clone, Copy)]
pub(super) struct RetryCause {
    /// The token that was rejected.
    pub(super) rejected: Generation,
    /// True if this rejection took the token out of use.
    pub(super) caused_refresh: bool,
    pub(super) rejected_at: Instant,
    /// True if the retry is the last one, even if its token is rejected as well.
    pub(super) is_last: bool,
}

/// A request that waits, together with the service that will send it.
pub(super) struct Waiting<S, R, P> {
    pub(super) service: S,
    pub(super) shared: Arc<Shared<S>>,
    pub(super) replay: R,
    pub(super) origin: OriginId,
    pub(super) pending: P,
}

pub(super) type WaitingForToken<S, R, B> = Waiting<
    S,
    R,
    Pending<
        <R as Replay<B>>::Body,
        <R as Replay<B>>::Kept,
        <S as Service<Request<<R as Replay<B>>::Body>>>::Response,
    >,
>;

pub(super) type WaitingForReady<S, R, B> =
    Waiting<S, R, UnsentRequest<<R as Replay<B>>::Body, <R as Replay<B>>::Kept>>;

/// A request that waits for a token.
#[allow(clippy::large_enum_variant)] // boxed as part of `Waiting`
pub(super) enum Pending<B, K, Res> {
    Unsent(UnsentRequest<B, K>),
    /// The first attempt was rejected. Its response is the caller's if no new token can be fetched.
    Rejected {
        cause: RetryCause,
        response: Res,
        saved: SavedRequest<K>,
    },
}

/// A request that lacks only its token.
pub(super) struct UnsentRequest<B, K> {
    pub(super) request: Request<B>,
    /// The copy for a (further) retry.
    pub(super) saved: Option<SavedRequest<K>>,
    /// The reason for the retry, or `None` for a first attempt.
    pub(super) cause: Option<RetryCause>,
}

impl<S, R, B> State<S, R, B>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
{
    pub(super) fn await_token(waiting: WaitingForToken<S, R, B>) -> Self {
        let tokens = waiting.shared.tokens.clone();
        let token = Box::pin(async move { tokens.token().await });
        Self::AwaitingToken { token, waiting: Some(Box::new(waiting)) }
    }
}
