//! Who takes tokens, or does not.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::time::{Instant, Sleep, sleep};
use tower::Service;
use tower_oauth::{Generation, TokenCache};

use super::{
    BoxFuture, HOUR, MINUTE, SECOND,
    world::{Shared, World},
};
use crate::support::{Body, bearer, lock};

pub(super) struct Api {
    pub(super) world: Shared,
    pub(super) cache: TokenCache,
    pub(super) door: Option<Pin<Box<Sleep>>>,
}

impl Clone for Api {
    fn clone(&self) -> Self {
        Self { world: Arc::clone(&self.world), cache: self.cache.clone(), door: None }
    }
}

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response<Body>, Infallible>>;

    /// Ready at once, mostly.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        const BUSY_FOR: [Duration; 8] = {
            let mut most = [Duration::ZERO; 8];
            (most[0], most[1]) = (SECOND, HOUR);
            most
        };
        let busy_for = || Box::pin(sleep(lock(&self.world).delay(BUSY_FOR)));
        self.door.get_or_insert_with(busy_for).as_mut().poll(context).map(Ok)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.door = None;
        let id = request.uri().path()[1..].parse().unwrap();
        let number = bearer(&request).unwrap().parse().unwrap();
        let current = |cache: &TokenCache| cache.current().map(|token| token.generation());
        let shown = current(&self.cache);
        let (takes, at_once) = lock(&self.world).arrives(id, number, shown);
        let early = at_once.then(|| lock(&self.world).takes(id, number));
        let (world, cache) = (Arc::clone(&self.world), self.cache.clone());
        Box::pin(async move {
            if !takes.is_zero() {
                sleep(takes).await;
            }
            let newest = current(&cache);
            let mut world = lock(&world);
            let ok = early.unwrap_or_else(|| world.takes(id, number));
            if let Some(shown) = shown {
                world.answers(id, shown, newest, ok);
            }
            let mut response = Response::new(Body::default());
            *response.status_mut() = if ok { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            Ok(response)
        })
    }
}

/// The most that an origin may have closed the breaker, and what its refusals have cost since a new token last helped.
#[derive(Default)]
pub(super) struct Origin {
    pub(super) refuses_everything: bool,
    pub(super) strikes: u32,
    pub(super) closed_until: Option<Instant>,
    pub(super) since: Option<Instant>,
    pub(super) cost: u32,
    pub(super) forgiven: u32,
}

impl Origin {
    pub(super) fn strike(&mut self) {
        let delay = (SECOND * (1 << self.strikes.min(12))).min(5 * MINUTE);
        self.closed_until = self.closed_until.max(Some(Instant::now() + delay));
        self.strikes += 1;
    }
}

#[derive(Default)]
pub(super) struct Sent {
    pub(super) origin: usize,
    pub(super) replayable: bool,
    pub(super) tokens: Vec<usize>,
    /// The token of the first refusal, and whether the breaker may have been closed to it.
    pub(super) refused: Option<(Generation, bool)>,
    pub(super) refusals: usize,
    pub(super) over: bool,
    pub(super) status: Option<StatusCode>,
}

impl World {
    pub(super) fn starts(&mut self, id: u64, origin: usize, replayable: bool) {
        self.note(format_args!("{id} to origin {origin}, replayable: {replayable}"));
        self.requests.insert(id, Sent { origin, replayable, ..Sent::default() });
    }

    /// How long the answer takes, and whether the token is looked at before or after.
    pub(super) fn arrives(
        &mut self,
        id: u64,
        number: usize,
        current: Option<Generation>,
    ) -> (Duration, bool) {
        self.note(format_args!("{id} sent with token {number} of generation {current:?}"));
        match current {
            None => self.wrong("sent with a token that is not to be used"),
            Some(current) if Some(current) <= self.gone => {
                self.wrong("sent with a token that was out of use");
            }
            Some(_) => {}
        }
        if self.is_expired(number) {
            self.wrong("sent with an expired token");
        }
        let sent = self.requests.entry(id).or_default();
        let shown_before = sent.tokens.contains(&number);
        sent.tokens.push(number);
        if shown_before || sent.tokens.len() > 2 {
            self.wrong(format_args!("{id} was sent once too often"));
        }
        (self.delay([Duration::ZERO, Duration::ZERO, 5 * SECOND, 3 * MINUTE]), self.rng.bool())
    }

    pub(super) fn takes(&self, id: u64, number: usize) -> bool {
        !self.origins[self.requests[&id].origin].refuses_everything && self.valid.contains(&number)
    }

    pub(super) fn answers(&mut self, id: u64, shown: Generation, current: Option<Generation>, ok: bool) {
        self.note(format_args!("{id} answered to generation {shown}: {ok}"));
        let others_retry = self.requests.iter().any(|(other, sent)| {
            *other != id && sent.origin == self.requests[&id].origin && sent.refused.is_some() && !sent.over
        });
        let Some(sent) = self.requests.get_mut(&id) else { return };
        let (index, is_retry) = (sent.origin, sent.refusals > 0);
        let origin = &mut self.origins[index];
        if ok {
            if is_retry {
                *origin = Origin { refuses_everything: origin.refuses_everything, ..Origin::default() };
            }
            return;
        }
        let is_late = current > Some(shown);
        let is_closed = others_retry || origin.closed_until.is_some_and(|until| Instant::now() < until);
        sent.refused.get_or_insert((shown, is_closed && !is_late));
        sent.refusals += 1;
        self.refused_last = index;
        self.invalidated.insert(shown);
        if is_retry || !is_late {
            origin.strike();
        }
    }
}
