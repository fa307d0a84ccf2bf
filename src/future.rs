//! The future that [`OAuth`](crate::OAuth) returns.

// A first attempt and a retry pass through the same three states; only what they wait with differs (`Draft`):
//
//  no token ─► Obtaining ─► Readying ─► Calling ─► response
//     token ────────────────────────────┘ │
//                  ▲                      │ refused, and kept
//                  └──────────────────────┘

use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{BoxError, Service};

use crate::{
    cache::{CachedToken, Generation, PendingToken},
    error::{TokenError, TokenErrorKind},
    presentation::{OriginId, Presented, SharedPolicy, Trial},
    replay::Replay,
};

pin_project! {
    /// The response future of [`OAuth`](crate::OAuth).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the attempt under way. A token that is being fetched is fetched all the same, for the others.
    pub struct ResponseFuture<S, R, B>
    where
        S: Service<Request<R::Body>>,
        R: Replay<B>,
    {
        #[pin]
        state: State<S, R, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, R, B>
    where
        S: Service<Request<R::Body>>,
        R: Replay<B>,
    {
        // Awaiting the response of the inner service.
        Calling {
            #[pin]
            future: S::Future,
            attempt: Option<Attempt<S, R, R::Kept>>,
        },
        // Awaiting a token. Boxed, as is the next: the way without waiting stays small.
        Obtaining {
            token: PendingToken,
            waiting: Option<Box<WaitingDraft<S, R, B>>>,
        },
        // Awaiting the readiness of the inner service.
        Readying {
            waiting: Option<Box<Waiting<S, R, Unsent<R::Body, R::Kept>>>>,
        },
    }
}

/// What has to be known of a request that is under way with a token. One without it passes through.
struct Attempt<S, R, K> {
    policy: SharedPolicy<R>,
    origin: OriginId,
    generation: Generation,
    /// Where this is a retry.
    trial: Option<Trial>,
    /// Boxed: the way that cannot retry carries a pointer and not an empty request.
    again: Option<Box<Again<S, K>>>,
}

/// What one more attempt needs.
pub(crate) struct Again<S, K> {
    pub(crate) kept: Request<K>,
    pub(crate) service: S,
}

struct Waiting<S, R, D> {
    service: S,
    policy: SharedPolicy<R>,
    origin: OriginId,
    draft: D,
}

type WaitingDraft<S, R, B> = Waiting<
    S,
    R,
    Draft<
        <R as Replay<B>>::Body,
        <R as Replay<B>>::Kept,
        <S as Service<Request<<R as Replay<B>>::Body>>>::Response,
    >,
>;

/// A request that waits for a token.
#[allow(clippy::large_enum_variant)] // it is boxed together with what else waits
enum Draft<B, K, Res> {
    First(Unsent<B, K>),
    Retry { trial: Trial, response: Res, kept: Request<K> },
}

/// A request that lacks nothing but its token.
struct Unsent<B, K> {
    request: Request<B>,
    kept: Option<Request<K>>,
    /// Where this is a retry.
    trial: Option<Trial>,
}

impl<S, R, B> ResponseFuture<S, R, B>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
{
    pub(crate) fn passing_through(future: S::Future) -> Self {
        Self { state: State::Calling { future, attempt: None } }
    }

    pub(crate) fn calling(
        future: S::Future,
        policy: SharedPolicy<R>,
        origin: OriginId,
        generation: Generation,
        again: Option<Box<Again<S, R::Kept>>>,
    ) -> Self {
        let attempt = Attempt { policy, origin, generation, trial: None, again };
        Self { state: State::Calling { future, attempt: Some(attempt) } }
    }

    pub(crate) fn obtaining(
        service: S,
        policy: SharedPolicy<R>,
        origin: OriginId,
        request: Request<R::Body>,
        kept: Option<Request<R::Kept>>,
    ) -> Self {
        Self {
            state: State::obtaining(
                service,
                policy,
                origin,
                Draft::First(Unsent { request, kept, trial: None }),
            ),
        }
    }
}

impl<S, R, B> State<S, R, B>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
{
    fn obtaining(
        service: S,
        policy: SharedPolicy<R>,
        origin: OriginId,
        draft: Draft<R::Body, R::Kept, S::Response>,
    ) -> Self {
        let token = policy.tokens.pending_token();
        Self::Obtaining { token, waiting: Some(Box::new(Waiting { service, policy, origin, draft })) }
    }
}

impl<S, R, B, ResBody> Future for ResponseFuture<S, R, B>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    R: Replay<B>,
{
    type Output = Result<Response<ResBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Calling { future, attempt } => {
                    let response = ready!(future.poll(cx)).map_err(Into::into)?;
                    let refused = attempt.take_if(|attempt| attempt.policy.is_refusal(&response));
                    let Some(refused) = refused else {
                        if let Some(trial) = attempt.as_mut().and_then(|attempt| attempt.trial.take()) {
                            trial.helped();
                        }
                        return Poll::Ready(Ok(response));
                    };
                    after_refusal(response, refused)
                }
                StateProj::Obtaining { token, waiting } => {
                    let token = ready!(token.as_mut().poll(cx));
                    let Some(waiting) = waiting.take() else { unreachable!("{}", POLLED_AGAIN) };
                    after_token(token, *waiting)
                }
                StateProj::Readying { waiting } => {
                    let Some(ready) = waiting else { unreachable!("{}", POLLED_AGAIN) };
                    ready!(ready.service.poll_ready(cx)).map_err(Into::into)?;
                    let Some(waiting) = waiting.take() else { unreachable!("{}", POLLED_AGAIN) };
                    send(*waiting)
                }
            };
            match next {
                // This drops the previous call, and with it what it held of the inner service, such as a permit.
                ControlFlow::Continue(next) => state.set(next),
                ControlFlow::Break(result) => return Poll::Ready(result),
            }
        }
    }
}

const POLLED_AGAIN: &str = "`ResponseFuture` polled after completion";

/// Where a request goes from here, or what its caller gets.
type Step<S, R, B> =
    ControlFlow<Result<<S as Service<Request<<R as Replay<B>>::Body>>>::Response, BoxError>, State<S, R, B>>;

fn after_refusal<S, R, B, ResBody>(
    response: Response<ResBody>,
    attempt: Attempt<S, R, R::Kept>,
) -> Step<S, R, B>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>>,
    R: Replay<B>,
{
    let Attempt { policy, origin, generation: refused, trial, again } = attempt;
    if let Some(trial) = trial {
        trial.was_futile(refused);
        return ControlFlow::Break(Ok(response));
    }
    let is_late = policy.tokens.has_newer_than(refused);
    if !policy.breaker.permits(origin, refused, is_late) {
        return ControlFlow::Break(Ok(response));
    }
    policy.tokens.invalidate(refused);
    match again {
        Some(again) if policy.replay.can_replay(again.kept.body()) => {
            let Again { kept, service } = *again;
            let draft = Draft::Retry { trial: policy.breaker.begin(origin, refused), response, kept };
            ControlFlow::Continue(State::obtaining(service, policy, origin, draft))
        }
        _ => {
            if !is_late {
                policy.breaker.is_unproven(origin);
            }
            ControlFlow::Break(Ok(response))
        }
    }
}

fn after_token<S, R, B, ResBody>(
    token: Result<CachedToken, TokenError>,
    waiting: WaitingDraft<S, R, B>,
) -> Step<S, R, B>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>>,
    R: Replay<B>,
{
    let Waiting { service, policy, origin, draft } = waiting;
    let unsent = match (draft, token) {
        (Draft::First(unsent), Ok(_)) => unsent,
        (Draft::First(_), Err(error)) => return ControlFlow::Break(Err(error.into())),
        (Draft::Retry { trial, response, kept }, Ok(token))
            if !policy.tokens.are_same(trial.refused(), token.generation()) =>
        {
            let (head, kept) = kept.into_parts();
            match policy.replay.replay(kept) {
                // The response goes first: an unread body may hold the connection that the retry waits for.
                Some(body) => {
                    drop(response);
                    Unsent { request: Request::from_parts(head, body), kept: None, trial: Some(trial) }
                }
                None => return ControlFlow::Break(Ok(response)),
            }
        }
        (Draft::Retry { trial, response, .. }, Ok(token)) => {
            trial.was_futile(token.generation());
            return ControlFlow::Break(Ok(response));
        }
        (Draft::Retry { mut response, .. }, Err(error)) => {
            response.extensions_mut().insert(error);
            return ControlFlow::Break(Ok(response));
        }
    };
    let waiting = Some(Box::new(Waiting { service, policy, origin, draft: unsent }));
    ControlFlow::Continue(State::Readying { waiting })
}

/// Takes the token that is current *now*: the one that was waited for may be refused or expired by the time that the inner
/// service is ready.
fn send<S, R, B>(waiting: Waiting<S, R, Unsent<R::Body, R::Kept>>) -> Step<S, R, B>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
{
    let Waiting { mut service, policy, origin, draft: mut unsent } = waiting;
    ControlFlow::Continue(match policy.present(unsent.request.headers_mut()) {
        Presented::Token(generation) => {
            let Unsent { request, kept, trial } = unsent;
            let trial = match trial {
                Some(trial) if policy.tokens.are_same(trial.refused(), generation) => {
                    trial.was_futile(generation);
                    return ControlFlow::Break(Err(refused_again().into()));
                }
                trial => trial,
            };
            let future = service.call(request);
            let again = kept.map(|kept| Box::new(Again { kept, service }));
            State::Calling { future, attempt: Some(Attempt { policy, origin, generation, trial, again }) }
        }
        Presented::NoToken => State::obtaining(service, policy, origin, Draft::First(unsent)),
        Presented::Declined => State::Calling { future: service.call(unsent.request), attempt: None },
    })
}

fn refused_again() -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, "the token source gave a refused token again")
}

impl<S, R, B> fmt::Debug for ResponseFuture<S, R, B>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Calling { .. } => "Calling",
            State::Obtaining { .. } => "Obtaining",
            State::Readying { .. } => "Readying",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
