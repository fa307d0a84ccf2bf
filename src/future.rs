//! The future that [`OAuth`](crate::OAuth) returns.

// A first attempt and a retry pass through the same three states; only what they wait with differs (`Draft`):
//
//  no token ─► Obtaining ─► (Draining) ─► Readying ─► Calling ─► response
//     token ──────────────────────────────────────────┘ │
//                  ▲                                    │ refused, and kept
//                  └────────────────────────────────────┘

mod drain;

use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{BoxError, Service};

use crate::{
    cache::{CachedToken, Generation, PendingToken},
    error::{TokenError, TokenErrorKind},
    presentation::{Consequence, OriginId, Policy, Presented, Refusal, SharedAnswers, Shown},
    replay::{KeptRequest, Replay},
    sync::{Mutex, lock},
    telemetry::Without,
};

use drain::Drain;

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
        // Reading the rest of the refusal, now that it is nobody's answer.
        Draining {
            refusal: Drain<S::Response>,
            waiting: Option<Box<Waiting<S, R, Unsent<R::Body, R::Kept>>>>,
        },
        // Awaiting the readiness of the inner service.
        Readying {
            waiting: Option<Box<Waiting<S, R, Unsent<R::Body, R::Kept>>>>,
        },
    }
}

/// What has to be known of a request that is under way with a token. One without it passes through.
struct Attempt<S, R, K> {
    answers: SharedAnswers,
    origin: OriginId,
    shown: Shown,
    turn: Turn<S, R, K>,
}

enum Turn<S, R, K> {
    /// With what one more attempt needs, unless there is none. Boxed: the way that cannot retry carries no empty request.
    First(Option<Box<Again<S, R, K>>>),
    Retry(Retry),
}

/// What is known of an attempt that is a retry.
#[derive(Clone, Copy)]
struct Retry {
    /// The token whose refusal led to it.
    refused: Generation,
    /// Whether that refusal is what took the token out of use.
    is_cause: bool,
}

/// What one more attempt needs.
pub(crate) struct Again<S, R, K> {
    kept: KeptRequest<K>,
    common: Arc<Common<S>>,
    replay: R,
}

impl<S, R, K> Again<S, R, K> {
    pub(crate) fn new(kept: KeptRequest<K>, common: Arc<Common<S>>, replay: R) -> Box<Self> {
        Box::new(Self { kept, common, replay })
    }
}

/// What a service and its clones have in common.
pub(crate) struct Common<S> {
    pub(crate) policy: Policy,
    /// Cloned for the attempts that are made once more, which are few: with each request it would cost all of them.
    service: Mutex<S>,
}

impl<S: Clone> Common<S> {
    pub(crate) fn new(policy: Policy, service: S) -> Self {
        Self { policy, service: Mutex::new(service) }
    }

    fn service(&self) -> S {
        lock(&self.service).clone()
    }
}

struct Waiting<S, R, D> {
    service: S,
    common: Arc<Common<S>>,
    replay: R,
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
    Again { retry: Retry, response: Res, kept: KeptRequest<K> },
}

/// A request that lacks nothing but its token.
struct Unsent<B, K> {
    request: Request<B>,
    kept: Option<KeptRequest<K>>,
    retry: Option<Retry>,
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
        answers: SharedAnswers,
        origin: OriginId,
        shown: Shown,
        again: Option<Box<Again<S, R, R::Kept>>>,
    ) -> Self {
        let attempt = Attempt { answers, origin, shown, turn: Turn::First(again) };
        Self { state: State::Calling { future, attempt: Some(attempt) } }
    }

    pub(crate) fn obtaining(
        service: S,
        common: Arc<Common<S>>,
        replay: R,
        origin: OriginId,
        request: Request<R::Body>,
        kept: Option<KeptRequest<R::Kept>>,
    ) -> Self {
        let draft = Draft::First(Unsent { request, kept, retry: None });
        Self { state: State::obtaining(Waiting { service, common, replay, origin, draft }) }
    }
}

impl<S, R, B> State<S, R, B>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
{
    fn obtaining(waiting: WaitingDraft<S, R, B>) -> Self {
        let token = waiting.common.policy.tokens.pending_token();
        Self::Obtaining { token, waiting: Some(Box::new(waiting)) }
    }
}

impl<S, R, B, ResBody> Future for ResponseFuture<S, R, B>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<B>,
    ResBody: Body + 'static,
{
    type Output = Result<Response<ResBody>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        // The way of most requests: a token was there, and the server took it.
        if let StateProj::Calling { future, attempt } = state.as_mut().project() {
            let answer = ready!(future.poll(cx)).map_err(Into::into);
            if is_news(attempt.as_ref(), &answer) {
                let attempt = attempt.take();
                return state.learn(answer, attempt, cx);
            }
            // What was kept goes at once, also where this future is kept for longer than its answer.
            *attempt = None;
            Poll::Ready(answer)
        } else {
            state.poll_on(cx)
        }
    }
}

impl<S, R, B, ResBody> State<S, R, B>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<B>,
    ResBody: Body + 'static,
{
    #[cold]
    #[inline(never)]
    fn learn(
        mut self: Pin<&mut Self>,
        answer: Result<Response<ResBody>, BoxError>,
        attempt: Option<Attempt<S, R, R::Kept>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<ResBody>, BoxError>> {
        match after_answer(answer, attempt) {
            ControlFlow::Continue(next) => {
                self.set(next);
                self.poll_on(cx)
            }
            ControlFlow::Break(result) => Poll::Ready(result),
        }
    }

    #[cold]
    #[inline(never)]
    fn poll_on(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response<ResBody>, BoxError>> {
        let mut state = self;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Calling { future, attempt } => {
                    let answer = ready!(future.poll(cx)).map_err(Into::into);
                    after_answer(answer, attempt.take())
                }
                StateProj::Obtaining { token, waiting } => {
                    let token = ready!(token.as_mut().poll(cx));
                    let Some(waiting) = waiting.take() else { unreachable!("{}", POLLED_AGAIN) };
                    after_token(token, *waiting)
                }
                StateProj::Draining { refusal, waiting } => {
                    ready!(refusal.poll(cx));
                    ControlFlow::Continue(State::Readying { waiting: waiting.take() })
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

/// Whether there is anything to learn or to do: from the plain answer to a first attempt there is not.
#[inline]
fn is_news<S, R, K, B>(attempt: Option<&Attempt<S, R, K>>, answer: &Result<Response<B>, BoxError>) -> bool {
    let (Some(attempt), Ok(response)) = (attempt, answer) else { return false };
    matches!(attempt.turn, Turn::Retry(_)) || attempt.answers.is_news(response)
}

fn after_answer<S, R, B, ResBody>(
    answer: Result<Response<ResBody>, BoxError>,
    attempt: Option<Attempt<S, R, R::Kept>>,
) -> Step<S, R, B>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>> + Clone,
    R: Replay<B>,
    ResBody: 'static,
{
    let (mut response, attempt) = match (answer, attempt) {
        (Ok(response), Some(attempt)) => (response, attempt),
        (answer, _) => return ControlFlow::Break(answer),
    };
    let Attempt { answers, origin, shown, turn } = attempt;
    let refusal = Refusal { generation: shown.generation, origin, status: response.status() };
    answers.doubt(&response);
    let is_refusal = answers.is_refusal(shown, &response);
    if !is_refusal {
        answers.watch_end(&mut response, refusal);
    }
    let again = match turn {
        Turn::Retry(retry) => {
            answers.learn_from_retry(refusal, is_refusal, retry.is_cause);
            return ControlFlow::Break(Ok(response));
        }
        Turn::First(_) if !is_refusal => return ControlFlow::Break(Ok(response)),
        Turn::First(again) => again,
    };
    let is_cause = match answers.heed(refusal) {
        Consequence::OutOfUse => true,
        Consequence::Late => false,
        Consequence::NoHelp => return ControlFlow::Break(Ok(response)),
    };
    match again {
        Some(again) if again.replay.can_replay(again.kept.body()) => {
            let Again { kept, common, replay } = *again;
            let service = common.service();
            let retry = Retry { refused: refusal.generation, is_cause };
            let draft = Draft::Again { retry, response, kept };
            ControlFlow::Continue(State::obtaining(Waiting { service, common, replay, origin, draft }))
        }
        _ => ControlFlow::Break(Ok(response)),
    }
}

fn after_token<S, R, B, ResBody>(
    token: Result<CachedToken, TokenError>,
    waiting: WaitingDraft<S, R, B>,
) -> Step<S, R, B>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>>,
    R: Replay<B>,
    ResBody: Body,
{
    let Waiting { service, common, replay, origin, draft } = waiting;
    let mut refusal = None;
    let unsent = match (draft, token) {
        (Draft::First(unsent), Ok(_)) => unsent,
        (Draft::First(_), Err(error)) => return ControlFlow::Break(Err(error.into())),
        (Draft::Again { retry, response, kept }, Ok(token))
            if !common.policy.tokens.are_same(retry.refused, token.generation()) =>
        {
            match kept.restore(|kept| replay.replay(kept)) {
                // The response goes first: an unread body may hold the connection that the retry waits for.
                Some(request) => {
                    refusal = Drain::new(response);
                    Unsent { request, kept: None, retry: Some(retry) }
                }
                None => return ControlFlow::Break(Ok(response)),
            }
        }
        (Draft::Again { response, .. }, Ok(_)) => return ControlFlow::Break(Ok(response)),
        (Draft::Again { mut response, .. }, Err(error)) => {
            response.extensions_mut().insert(error);
            return ControlFlow::Break(Ok(response));
        }
    };
    let waiting = Some(Box::new(Waiting { service, common, replay, origin, draft: unsent }));
    ControlFlow::Continue(match refusal {
        Some(refusal) => State::Draining { refusal, waiting },
        None => State::Readying { waiting },
    })
}

/// Takes the token that is current *now*: the one that was waited for may be refused or expired by the time that the inner
/// service is ready.
fn send<S, R, B>(waiting: Waiting<S, R, Unsent<R::Body, R::Kept>>) -> Step<S, R, B>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
{
    let Waiting { mut service, common, replay, origin, draft: mut unsent } = waiting;
    let policy = &common.policy;
    ControlFlow::Continue(match policy.present(unsent.request.headers_mut()) {
        Presented::Token(shown) => {
            let Unsent { request, kept, retry } = unsent;
            if retry.is_some_and(|retry| policy.tokens.are_same(retry.refused, shown.generation)) {
                return ControlFlow::Break(Err(refused_again().into()));
            }
            let future = service.call(request);
            let answers = SharedAnswers::of(&policy.answers);
            let turn = match retry {
                Some(retry) => Turn::Retry(retry),
                None => Turn::First(kept.map(|kept| Again::new(kept, common, replay))),
            };
            State::Calling { future, attempt: Some(Attempt { answers, origin, shown, turn }) }
        }
        Presented::NoToken => {
            let draft = Draft::First(unsent);
            State::obtaining(Waiting { service, common, replay, origin, draft })
        }
        Presented::Declined => {
            policy.tell_without(Without::Header);
            State::Calling { future: service.call(unsent.request), attempt: None }
        }
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
            State::Draining { .. } => "Draining",
            State::Readying { .. } => "Readying",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
