//! What the single flight writes down under its lock: tokens and flights so far, and whether another flight may begin.

use std::{collections::VecDeque, mem, time::Duration};

use tokio::time::Instant;

use super::{
    backoff::Backoff,
    limit::Limit,
    slot::{CachedToken, Generation},
    status::Activity,
};
use crate::{
    error::{TokenError, TokenErrorKind},
    sync::watch,
};

pub(super) type Outcome = Result<CachedToken, TokenError>;

#[derive(Default)]
pub(super) struct Ledger {
    /// The last few tokens, also when they were refused or have expired: a source may give one of them again.
    recent: VecDeque<CachedToken>,
    flight: Option<watch::Receiver<Option<Outcome>>>,
    backoff: Backoff,
    limit: Option<Limit>,
    last_error: Option<TokenError>,
    landed: u64,
    is_closed: bool,
}

impl Ledger {
    const REMEMBERED: usize = 8;

    pub(super) fn new(limit: Option<Limit>) -> Self {
        Self { limit, ..Self::default() }
    }

    // The flights.

    /// What is done for the next token, and the error of those who need one where none may be fetched now.
    pub(super) fn activity(&mut self, now: Instant) -> (Activity, Option<TokenError>) {
        if self.is_closed {
            return (Activity::Closed, Some(closed()));
        }
        if self.flight.is_some() {
            return (Activity::Refreshing, None);
        }
        if let Some((until, error)) = self.backoff.blocked(now) {
            return (Activity::BackingOff(until), Some(error));
        }
        match self.limit.as_mut().and_then(|limit| limit.reached(now)) {
            Some(left) => (Activity::LimitReached(now + left), Some(limit_reached(now + left))),
            None => (Activity::Idle, None),
        }
    }

    pub(super) fn flight(&self) -> Option<&watch::Receiver<Option<Outcome>>> {
        self.flight.as_ref()
    }

    pub(super) fn opened(&mut self, flight: watch::Receiver<Option<Outcome>>) {
        self.flight = Some(flight);
    }

    /// Where this flight is the last one that the limit allows, says how long there can be no other.
    pub(super) fn departed(&mut self, now: Instant) -> Option<Duration> {
        let limit = self.limit.as_mut()?;
        limit.count(now);
        limit.reached(now)
    }

    /// Gives the flight back, to be dropped outside of the lock.
    pub(super) fn landed(
        &mut self,
        outcome: Outcome,
        now: Instant,
        chance: f64,
    ) -> (Outcome, Option<watch::Receiver<Option<Outcome>>>) {
        let outcome = match outcome {
            Ok(token) => {
                self.backoff.succeeded();
                Ok(token)
            }
            Err(error) => Err(self.backoff.failed(error, now, chance)),
        };
        self.last_error = outcome.as_ref().err().cloned();
        self.landed += 1;
        (outcome, self.flight.take())
    }

    /// How many have landed so far, well or not.
    pub(super) fn flights(&self) -> u64 {
        self.landed
    }

    pub(super) fn last_error(&self) -> Option<TokenError> {
        self.last_error.clone()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether it was not closed before, and the tokens, to be dropped outside of the lock.
    pub(super) fn close(&mut self) -> (bool, VecDeque<CachedToken>) {
        let was_closed = mem::replace(&mut self.is_closed, true);
        (!was_closed, mem::take(&mut self.recent))
    }

    // The tokens.

    pub(super) fn last_generation(&self) -> Option<Generation> {
        self.recent.back().map(CachedToken::generation)
    }

    pub(super) fn next_generation(&self) -> Generation {
        self.last_generation().map_or(Generation::FIRST, Generation::next)
    }

    /// The token of a generation, unless it was too long ago.
    pub(super) fn token(&self, generation: Generation) -> Option<&CachedToken> {
        self.recent.iter().find(|token| token.generation() == generation)
    }

    /// In the place of the last one, where it is of the same generation.
    pub(super) fn remember(&mut self, token: CachedToken) {
        if self.last_generation() == Some(token.generation()) {
            self.recent.pop_back();
        }
        self.recent.push_back(token);
        if self.recent.len() > Self::REMEMBERED {
            self.recent.pop_front();
        }
    }
}

fn limit_reached(until: Instant) -> TokenError {
    TokenError::new(
        TokenErrorKind::LimitReached,
        "a token is needed, and the limit on token requests of this cache is used up",
    )
    .with_next_attempt(until)
}

pub(super) fn closed() -> TokenError {
    TokenError::new(TokenErrorKind::Closed, "the token cache is closed")
}
