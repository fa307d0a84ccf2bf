//! The transitions between the states of a request.

use std::ops::ControlFlow;

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    drain::Drain,
    state::{
        Attempt, AttemptKind, Pending, Retry, RetryCause, RetryParts, State, UnsentRequest,
        Waiting, WaitingForReady, WaitingForToken,
    },
};
use crate::{
    attach::{Attachment, attach},
    cache::CachedToken,
    error::{BoxError, TokenError, TokenErrorKind},
    rejection::{Assessment, RejectionOutcome},
    replay::{Replay, SavedRequest},
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
    let (cause, retry) = match kind {
        AttemptKind::First(retry) => (None, retry.map(|retry| *retry)),
        AttemptKind::Retry(retry) => (Some(retry.cause), retry.another),
    };
    let assessment = shared.rejections.assess(token, &response);
    if assessment != Assessment::Rejected {
        let caused_refresh = cause.map(|cause| cause.caused_refresh);
        shared.rejections.on_not_rejected(token, &mut response, assessment, caused_refresh);
        return ControlFlow::Break(Ok(response));
    }
    let status = response.status();
    // A token that was already being fetched when the first attempt was rejected may have been
    // revoked together with the rejected one. Its retry does not count.
    if cause.is_some_and(|cause| {
        !shared.tokens.was_requested_before(token.generation, cause.rejected_at)
    }) {
        shared.rejections.on_retry_rejected(token, status);
        return ControlFlow::Break(Ok(response));
    }
    let retry = retry.filter(|retry| retry.replay.can_replay(retry.saved.body()));
    let rejected_at = Instant::now();
    let caused_refresh = match shared.rejections.on_rejection(token, status, retry.is_some()) {
        RejectionOutcome::Invalidated => true,
        RejectionOutcome::Late => false,
        RejectionOutcome::Suppressed => return ControlFlow::Break(Ok(response)),
    };
    let Some(retry) = retry else { return ControlFlow::Break(Ok(response)) };
    let RetryParts { saved, replay } = retry;
    let is_last = cause.is_some();
    let cause = RetryCause { rejected: token.generation, caused_refresh, rejected_at, is_last };
    let pending = Pending::Rejected { cause, response, saved };
    let (service, origin) = (shared.service(), token.origin);
    ControlFlow::Continue(State::await_token(Waiting { service, shared, replay, origin, pending }))
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
        (Pending::Rejected { cause, response, saved }, Ok(token))
            if !shared.tokens.is_same_token(cause.rejected, token.generation()) =>
        {
            match saved.restore(|body| replay.replay(body)) {
                Some(request) => {
                    let may_be_revoked = !cause.is_last
                        && shared
                            .tokens
                            .was_requested_before(token.generation(), cause.rejected_at);
                    let (request, saved) =
                        if may_be_revoked { save_again(&replay, request) } else { (request, None) };
                    // The response is read and dropped before the retry: an unread body may hold
                    // the connection or the permit that the retry waits for.
                    drain = Drain::new(response);
                    UnsentRequest { request, saved, cause: Some(cause) }
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

/// Splits a retry into the request to send and the copy for another retry.
fn save_again<R, B>(
    replay: &R,
    request: Request<R::Body>,
) -> (Request<R::Body>, Option<SavedRequest<R::Kept>>)
where
    R: Replay<B>,
{
    let (head, body) = request.into_parts();
    let (body, kept) = replay.keep_again(body);
    let request = Request::from_parts(head, body);
    let saved = kept.map(|kept| SavedRequest::new(&request, kept));
    (request, saved)
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
            let UnsentRequest { request, saved, cause } = unsent;
            let parts = saved.map(|saved| RetryParts { saved, replay });
            let kind = match cause {
                Some(cause) if shared.tokens.is_same_token(cause.rejected, token.generation) => {
                    return ControlFlow::Break(Err(rejected_token_again().into()));
                }
                Some(cause) => AttemptKind::Retry(Box::new(Retry { cause, another: parts })),
                None => AttemptKind::First(parts.map(Box::new)),
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
    .with_advice(
        "check that the API accepts the tokens of this source, and that the source returns a new \
         token after a rejection",
    )
}
