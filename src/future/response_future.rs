//! The public future: polls what a state waits for.

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
use tower_service::Service;

use super::{
    state::{
        Attempt, AttemptKind, Pending, RetryParts, Shared, State, StateProj, UnsentRequest, Waiting,
    },
    steps::{Step, after_response, after_token, send},
};
use crate::{
    attach::AttachedToken,
    error::BoxError,
    origins::OriginId,
    replay::{Replay, SavedRequest},
};

pin_project! {
    /// The response future of [`OAuth`](crate::OAuth).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the attempt under way. A running refresh goes on for other requests.
    pub struct ResponseFuture<S, R, B>
    where
        S: Service<Request<R::Body>>,
        R: Replay<B>,
    {
        #[pin]
        state: State<S, R, B>,
    }
}

impl<S, R, B> ResponseFuture<S, R, B>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
{
    /// Awaits the response to a request without a token.
    pub(crate) fn without_token(future: S::Future) -> Self {
        Self { state: State::AwaitingResponse { future, attempt: None } }
    }

    /// Awaits the response to a request with a token. It can be retried if there are `retry` parts.
    pub(crate) fn with_token(
        future: S::Future,
        shared: Arc<Shared<S>>,
        token: AttachedToken,
        retry: Option<Box<RetryParts<R, R::Kept>>>,
    ) -> Self {
        let attempt = Some(Attempt { shared, token, kind: AttemptKind::First(retry) });
        Self { state: State::AwaitingResponse { future, attempt } }
    }

    /// Awaits a token, then sends the request through `service`.
    pub(crate) fn awaiting_token(
        service: S,
        shared: Arc<Shared<S>>,
        replay: R,
        origin: OriginId,
        request: Request<R::Body>,
        saved: Option<SavedRequest<R::Kept>>,
    ) -> Self {
        let pending = Pending::Unsent(UnsentRequest { request, saved, cause: None });
        let waiting = Waiting { service, shared, replay, origin, pending };
        Self { state: State::await_token(waiting) }
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
        // The path of nearly all requests: a token was there, and the server accepted it.
        let StateProj::AwaitingResponse { future, attempt } = state.as_mut().project() else {
            return state.poll_states(None, cx);
        };
        let response = ready!(future.poll(cx)).map_err(Into::into);
        let needs_inspection = match (&*attempt, &response) {
            (Some(Attempt { kind: AttemptKind::First(_), shared, .. }), Ok(response)) => {
                response.status().as_u16() >= 400 || shared.rejections.inspects_success()
            }
            (attempt, response) => attempt.is_some() && response.is_ok(),
        };
        let attempt = attempt.take();
        if needs_inspection {
            return state.poll_states(Some(after_response(response, attempt)), cx);
        }
        Poll::Ready(response)
    }
}

impl<S, R, B, ResBody> State<S, R, B>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<B>,
    ResBody: Body + 'static,
{
    /// Passes through the states, beginning with `step`, until one has to wait.
    #[cold]
    #[inline(never)]
    fn poll_states(
        mut self: Pin<&mut Self>,
        mut step: Option<Step<S, R, B>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<ResBody>, BoxError>> {
        loop {
            match step {
                // Setting the state drops the previous call, and with it what the call held of the
                // inner service, such as a permit.
                Some(ControlFlow::Continue(next)) => self.set(next),
                Some(ControlFlow::Break(result)) => return Poll::Ready(result),
                None => {}
            }
            step = Some(match self.as_mut().project() {
                StateProj::AwaitingResponse { future, attempt } => {
                    let response = ready!(future.poll(cx)).map_err(Into::into);
                    after_response(response, attempt.take())
                }
                StateProj::AwaitingToken { token, waiting } => {
                    let token = ready!(token.as_mut().poll(cx));
                    let Some(waiting) = waiting.take() else { polled_after_completion() };
                    after_token(token, *waiting)
                }
                StateProj::Draining { response, waiting } => {
                    ready!(response.poll(cx));
                    ControlFlow::Continue(State::AwaitingReady { waiting: waiting.take() })
                }
                StateProj::AwaitingReady { waiting } => {
                    let Some(request) = waiting else { polled_after_completion() };
                    ready!(request.service.poll_ready(cx)).map_err(Into::into)?;
                    let Some(request) = waiting.take() else { polled_after_completion() };
                    send(*request)
                }
            });
        }
    }
}

fn polled_after_completion() -> ! {
    unreachable!("`ResponseFuture` polled after completion")
}

impl<S, R, B> fmt::Debug for ResponseFuture<S, R, B>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::AwaitingResponse { .. } => "AwaitingResponse",
            State::AwaitingToken { .. } => "AwaitingToken",
            State::Draining { .. } => "Draining",
            State::AwaitingReady { .. } => "AwaitingReady",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
