//! The API, which accepts or rejects tokens.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, header::WWW_AUTHENTICATE};
use tokio::time::{Sleep, sleep};
use tower::{BoxError, Service};

use super::{
    BoxFuture, HOUR, MINUTE, SECOND,
    authorization_server::ServerBehavior,
    breaker::BreakerModel,
    current_token::number,
    model::{Model, SharedModel},
};
use crate::support::{Body, bearer, lock};

/// The resource server as one client sees it.
pub(super) struct ResourceServer {
    model: SharedModel,
    client: u64,
    ready_at: Option<Pin<Box<Sleep>>>,
}

impl ResourceServer {
    pub(super) fn new(model: &SharedModel, client: u64) -> Self {
        Self { model: Arc::clone(model), client, ready_at: None }
    }
}

impl Clone for ResourceServer {
    fn clone(&self) -> Self {
        Self::new(&self.model, self.client)
    }
}

impl Service<Request<Body>> for ResourceServer {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<Result<Response<Body>, BoxError>>;

    /// Returns ready at once in six of eight cases.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        const LONGEST_DELAYS: [Duration; 8] = {
            let mut delays = [Duration::ZERO; 8];
            (delays[0], delays[1]) = (SECOND, HOUR);
            delays
        };
        let delay = || Box::pin(sleep(lock(&self.model).delay(LONGEST_DELAYS)));
        let ready = self.ready_at.get_or_insert_with(delay).as_mut().poll(context);
        lock(&self.model).client(self.client).is_with_server = ready.is_pending();
        ready.map(Ok)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.ready_at = None;
        let (model, client) = (Arc::clone(&self.model), self.client);
        let token = number(&bearer(&request).unwrap());
        let (latency, checks_at_arrival) = lock(&model).on_arrival(client, token);
        let early_answer = checks_at_arrival.then(|| lock(&model).choose_answer(client, token));
        Box::pin(async move {
            if !latency.is_zero() {
                sleep(latency).await;
            }
            let answer = early_answer.unwrap_or_else(|| lock(&model).choose_answer(client, token));
            lock(&model).on_answer(client, answer);
            answer.response()
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerAnswer {
    Ok,
    /// 401 with `error="invalid_token"`.
    Rejected,
    RejectedWithoutChallenge,
    InsufficientScope,
    RejectedWithOtherScheme,
    Forbidden,
    TooManyRequests,
    Unavailable,
    /// The connection breaks before a response arrives.
    ConnectionBroken,
}

impl ServerAnswer {
    fn response(self) -> Result<Response<Body>, BoxError> {
        let (status, challenge) = match self {
            Self::Ok => (200, None),
            Self::Rejected => (401, Some(r#"Bearer error="invalid_token""#)),
            Self::RejectedWithoutChallenge => (401, None),
            Self::InsufficientScope => {
                (401, Some(r#"Bearer error="insufficient_scope", scope="more""#))
            }
            Self::RejectedWithOtherScheme => (401, Some(r#"Basic realm="api""#)),
            Self::Forbidden => (403, None),
            Self::TooManyRequests => (429, None),
            Self::Unavailable => (503, None),
            Self::ConnectionBroken => return Err("the connection broke".into()),
        };
        let response = Response::builder().status(status).extension(self);
        let response = challenge
            .into_iter()
            .fold(response, |response, challenge| response.header(WWW_AUTHENTICATE, challenge));
        Ok(response.body(Body::default())?)
    }

    pub(super) fn is_rejection(self) -> bool {
        matches!(
            self,
            Self::Rejected | Self::RejectedWithoutChallenge | Self::RejectedWithOtherScheme
        )
    }

    /// Returns true if the server checked the token and accepted it.
    pub(super) fn is_success(self) -> bool {
        matches!(self, Self::Ok | Self::InsufficientScope | Self::Forbidden)
    }
}

#[derive(Default)]
pub(super) struct OriginState {
    pub(super) rejects_all: bool,
    pub(super) breaker: BreakerModel,
}

impl Model {
    /// Returns the latency of the answer, and true if the token is checked at arrival instead of
    /// after the latency.
    fn on_arrival(&mut self, id: u64, number: u64) -> (Duration, bool) {
        self.log(format_args!("{id} sent with token {number}"));
        match self.usable_token() {
            Some(current) if current.token.number == number => self.on_sent(id, current),
            _ => self.fail(format_args!("sent with token {number}, which is not current")),
        }
        let latency = self.delay([Duration::ZERO, Duration::ZERO, 5 * SECOND, 3 * MINUTE]);
        (latency, self.rng.bool())
    }

    fn choose_answer(&mut self, id: u64, number: u64) -> ServerAnswer {
        let accepts = self.valid.contains(&number) && !self.origin_of(id).rejects_all;
        let failure = match self.behavior {
            ServerBehavior::Perfect => 0,
            _ => self.rng.u8(..16),
        };
        match (accepts, failure) {
            (_, 1) => ServerAnswer::TooManyRequests,
            (_, 2) => ServerAnswer::Unavailable,
            (_, 3) => ServerAnswer::ConnectionBroken,
            (true, 4) => ServerAnswer::Forbidden,
            (true, 5) => ServerAnswer::InsufficientScope,
            // A valid token is rejected by a replica that has not learned of it yet.
            (true, 7..9) | (false, 8..) => ServerAnswer::Rejected,
            (true, _) => ServerAnswer::Ok,
            (false, 6) => ServerAnswer::RejectedWithOtherScheme,
            (false, _) => ServerAnswer::RejectedWithoutChallenge,
        }
    }
}
