//! The transitions between the states of a request.

use std::ops::ControlFlow;

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    drain::Drain,
    state::{
        Attempt, AttemptKind, Pending, RetryCause, RetryParts, State, UnsentRequest, Waiting,
        WaitingForReady, WaitingForToken,
    },
};
use crate::{
    attach::{Attachment, attach},
    cache::CachedToken,
    error::{BoxError, TokenError, TokenErrorKind},
    rejection::RejectionOutcome,
    replay::Replay,
    telemetry::Event,
};

/// The next state of a request, or the result for its caller.
pub(super) type Step<S, R, B> = ControlFlow<
    Result<<S as Service<Request<<R as Replay<B>>::Body>>>::Response, BoxError>,
    State<S, R, B>,
>;

/// Decides what follows a response: it is the caller's, or the request waits for a new token.
pub(super) fn after_response<S, R, B, ResBody>(
    response: Result<Response<ResBody>, BoxError>,
    attempt: Option<Attempt<S, R, R::Kept>>,
) -> Step<S, R, B>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>> + Clone,
    R: Replay<B>,
    ResBody: 'static,
{
    let (mut response, attempt) = match (response, attempt) {
        (Ok(response), Some(attempt)) => (response, attempt),
        (result, _) => return ControlFlow::Break(result),
    };
    let Attempt { shared, token, kind } = attempt;
    let Some(rejection) = shared.rejections.rejection(token, &response) else {
        shared.rejections.watch_trailers(token, &mut response);
        if let AttemptKind::Retry(reason) = kind {
            shared.rejections.on_retry_accepted(token, &response, reason.caused_refresh);
        }
        return ControlFlow::Break(Ok(response));
    };
    let retry = match kind {
        AttemptKind::First(retry) => retry,
        AttemptKind::Retry(_) => {
            shared.rejections.on_retry_rejected(rejection);
            return ControlFlow::Break(Ok(response));
        }
    };
    let caused_refresh = match shared.rejections.on_rejection(rejection) {
        RejectionOutcome::Invalidated => true,
        RejectionOutcome::Late => false,
        RejectionOutcome::Suppressed => return ControlFlow::Break(Ok(response)),
    };
    match retry {
        Some(retry) if retry.replay.can_replay(retry.saved.body()) => {
            let RetryParts { saved, replay } = *retry;
            let reason = RetryCause { rejected: token.generation, caused_refresh };
            let pending = Pending::Rejected { reason, response, saved };
            let (service, origin) = (shared.service(), token.origin);
            let waiting = Waiting { service, shared, replay, origin, pending };
            ControlFlow::Continue(State::await_token(waiting))
        }
        _ => ControlFlow::Break(Ok(response)),
    }
}

/// Decides what follows the wait for a token: the request waits for the service, or the caller gets
/// the rejected response or the error.
pub(super) fn after_token<S, R, B, ResBody>(
    token: Result<CachedToken, TokenError>,
    waiting: WaitingForToken<S, R, B>,
) -> Step<S, R, B>
where
    S: Service<Request<R::Body>, Response = Response<ResBody>>,
    R: Replay<B>,
    ResBody: Body,
{
    let Waiting { service, shared, replay, origin, pending } = waiting;
    let mut drain = None;
    let unsent = match (pending, token) {
        (Pending::Unsent(unsent), Ok(_)) => unsent,
        (Pending::Unsent(_), Err(error)) => return ControlFlow::Break(Err(error.into())),
        (Pending::Rejected { reason, response, saved }, Ok(token))
            if !shared.tokens.is_same_token(reason.rejected, token.generation()) =>
        {
            match saved.restore(|body| replay.replay(body)) {
                Some(request) => {
                    // The response goes first: an unread body may hold the connection or the permit
                    // that the retry waits for.
                    drain = Drain::new(response);
                    UnsentRequest { request, saved: None, retry: Some(reason) }
                }
                None => return ControlFlow::Break(Ok(response)),
            }
        }
        (Pending::Rejected { response, .. }, Ok(_)) => return ControlFlow::Break(Ok(response)),
        (Pending::Rejected { mut response, .. }, Err(error)) => {
            response.extensions_mut().insert(error);
            return ControlFlow::Break(Ok(response));
        }
    };
    let waiting = Some(Box::new(Waiting { service, shared, replay, origin, pending: unsent }));
    ControlFlow::Continue(match drain {
        Some(response) => State::Draining { response, waiting },
        None => State::AwaitingReady { waiting },
    })
}

/// Sends a request through the ready service, with the token that is current *now*: the one that
/// the request waited for may have been rejected or expired meanwhile.
pub(super) fn send<S, R, B>(waiting: WaitingForReady<S, R, B>) -> Step<S, R, B>
where
    S: Service<Request<R::Body>>,
    R: Replay<B>,
{
    let Waiting { mut service, shared, replay, origin, pending: mut unsent } = waiting;
    ControlFlow::Continue(match attach(&shared.tokens, origin, unsent.request.headers_mut()) {
        Attachment::Attached(token) => {
            let UnsentRequest { request, saved, retry } = unsent;
            let kind = match retry {
                Some(reason) if shared.tokens.is_same_token(reason.rejected, token.generation) => {
                    return ControlFlow::Break(Err(rejected_token_again().into()));
                }
                Some(reason) => AttemptKind::Retry(reason),
                None => {
                    AttemptKind::First(saved.map(|saved| Box::new(RetryParts { saved, replay })))
                }
            };
            let future = service.call(request);
            State::AwaitingResponse { future, attempt: Some(Attempt { shared, token, kind }) }
        }
        Attachment::NoToken => {
            let pending = Pending::Unsent(unsent);
            State::await_token(Waiting { service, shared, replay, origin, pending })
        }
        Attachment::Skipped(reason) => {
            let event = Event::SentWithoutToken { reason, uri: unsent.request.uri() };
            shared.tokens.telemetry().emit(event);
            State::AwaitingResponse { future: service.call(unsent.request), attempt: None }
        }
    })
}

fn rejected_token_again() -> TokenError {
    TokenError::new(
        TokenErrorKind::InvalidResponse,
        "the token source returned a rejected token again",
    )
}
