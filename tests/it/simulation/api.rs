//! Who takes tokens, or does not.

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
    breaker::Breaker,
    issuer::Mood,
    token::number,
    world::{Shared, World},
};
use crate::support::{Body, bearer, lock};

/// As one client sees it.
pub(super) struct Api {
    world: Shared,
    client: u64,
    door: Option<Pin<Box<Sleep>>>,
}

impl Api {
    pub(super) fn new(world: &Shared, client: u64) -> Self {
        Self { world: Arc::clone(world), client, door: None }
    }
}

impl Clone for Api {
    fn clone(&self) -> Self {
        Self::new(&self.world, self.client)
    }
}

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<Result<Response<Body>, BoxError>>;

    /// Ready at once, mostly.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        const BUSY_FOR: [Duration; 8] = {
            let mut most = [Duration::ZERO; 8];
            (most[0], most[1]) = (SECOND, HOUR);
            most
        };
        let busy_for = || Box::pin(sleep(lock(&self.world).delay(BUSY_FOR)));
        let ready = self.door.get_or_insert_with(busy_for).as_mut().poll(context);
        lock(&self.world).client(self.client).is_with_api = ready.is_pending();
        ready.map(Ok)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.door = None;
        let (world, client) = (Arc::clone(&self.world), self.client);
        let token = number(&bearer(&request).unwrap());
        let (takes, looks_at_once) = lock(&world).arrives(client, token);
        let early = looks_at_once.then(|| lock(&world).says(client, token));
        Box::pin(async move {
            if !takes.is_zero() {
                sleep(takes).await;
            }
            let said = early.unwrap_or_else(|| lock(&world).says(client, token));
            lock(&world).answers(client, said);
            said.response()
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Ok,
    /// 401, as to a token that is not valid.
    Refused,
    RefusedWithoutChallenge,
    LacksScope,
    OtherScheme,
    Forbidden,
    TooMany,
    Unavailable,
    /// No answer at all.
    Broken,
}

impl Said {
    fn response(self) -> Result<Response<Body>, BoxError> {
        let (status, challenge) = match self {
            Self::Ok => (200, None),
            Self::Refused => (401, Some(r#"Bearer error="invalid_token""#)),
            Self::RefusedWithoutChallenge => (401, None),
            Self::LacksScope => (401, Some(r#"Bearer error="insufficient_scope", scope="more""#)),
            Self::OtherScheme => (401, Some(r#"Basic realm="api""#)),
            Self::Forbidden => (403, None),
            Self::TooMany => (429, None),
            Self::Unavailable => (503, None),
            Self::Broken => return Err("the connection broke".into()),
        };
        let response = Response::builder().status(status).extension(self);
        let response = challenge
            .into_iter()
            .fold(response, |response, challenge| response.header(WWW_AUTHENTICATE, challenge));
        Ok(response.body(Body::default())?)
    }

    pub(super) fn is_refusal(self) -> bool {
        matches!(self, Self::Refused | Self::RefusedWithoutChallenge)
    }

    /// Whether the token was looked at and taken.
    pub(super) fn is_success(self) -> bool {
        matches!(self, Self::Ok | Self::LacksScope | Self::OtherScheme | Self::Forbidden)
    }
}

#[derive(Default)]
pub(super) struct Origin {
    pub(super) refuses_everything: bool,
    pub(super) breaker: Breaker,
}

impl World {
    /// How long the answer takes, and whether the token is looked at before or after.
    fn arrives(&mut self, id: u64, number: u64) -> (Duration, bool) {
        self.note(format_args!("{id} sent with token {number}"));
        match self.in_use() {
            Some(in_use) if in_use.token.number == number => self.is_sent(id, in_use),
            _ => self.wrong(format_args!("sent with token {number}, which is not in use")),
        }
        (self.delay([Duration::ZERO, Duration::ZERO, 5 * SECOND, 3 * MINUTE]), self.rng.bool())
    }

    fn says(&mut self, id: u64, number: u64) -> Said {
        let takes_it = self.valid.contains(&number) && !self.origin_of(id).refuses_everything;
        let whim = if matches!(self.mood, Mood::Perfect) { 0 } else { self.rng.u8(..16) };
        match (takes_it, whim) {
            (_, 1) => Said::TooMany,
            (_, 2) => Said::Unavailable,
            (_, 3) => Said::Broken,
            (true, 4) => Said::Forbidden,
            (true, 5) => Said::LacksScope,
            (true, 6) => Said::OtherScheme,
            // Also by a replica that does not know it yet.
            (true, 7..9) | (false, 8..) => Said::Refused,
            (true, _) => Said::Ok,
            (false, _) => Said::RefusedWithoutChallenge,
        }
    }
}
