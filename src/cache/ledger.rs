//! What the single flight writes down under its lock: tokens and flights so far, and whether another flight may begin.

use std::{collections::VecDeque, mem};

use tokio::{runtime, time::Instant};

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
    flight: Option<Flight>,
    backoff: Backoff,
    limit: Option<Limit>,
    last_error: Option<TokenError>,
    landed: u64,
    has_keeper: bool,
    /// The runtime of the last fetch.
    timer: Option<runtime::Id>,
    is_closed: bool,
    discarded: Discarded,
}

pub(super) type Flight = watch::Receiver<Option<Outcome>>;

/// What is crossed out, to be dropped outside of the lock: it may have parts that others wrote.
#[derive(Default)]
pub(super) struct Discarded {
    tokens: Vec<CachedToken>,
    errors: Vec<TokenError>,
    flight: Option<Flight>,
}

impl Ledger {
    const REMEMBERED: usize = 8;

    pub(super) fn new(limit: Option<Limit>) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn discarded(&mut self) -> Discarded {
        mem::take(&mut self.discarded)
    }

    // The flights.

    /// What is done for the next token.
    pub(super) fn activity(&mut self, now: Instant) -> Activity {
        if self.is_closed {
            return Activity::Closed;
        }
        if self.flight.is_some() {
            return Activity::Refreshing;
        }
        if let Some((until, _)) = self.backoff.blocked(now) {
            return Activity::BackingOff(*until);
        }
        let limit_reached = self.limit.as_mut().and_then(|limit| limit.reached(now));
        limit_reached.map_or(Activity::Idle, Activity::LimitReached)
    }

    /// The error of those who need a token where none may be fetched now.
    pub(super) fn blocked(&mut self, now: Instant) -> Option<TokenError> {
        match self.activity(now) {
            Activity::Idle | Activity::Refreshing => None,
            Activity::BackingOff(_) => self.backoff.blocked(now).map(|(_, error)| error.clone()),
            Activity::LimitReached(until) => Some(limit_reached(until)),
            Activity::Closed => Some(closed()),
        }
    }

    pub(super) fn flight(&self) -> Option<&Flight> {
        self.flight.as_ref()
    }

    pub(super) fn opened(&mut self, flight: Flight) {
        self.flight = Some(flight);
    }

    /// Where this flight is the last one that the limit allows, says until when there can be no other.
    pub(super) fn departed(&mut self, now: Instant) -> Option<Instant> {
        let limit = self.limit.as_mut()?;
        limit.count(now);
        limit.reached(now)
    }

    pub(super) fn landed(&mut self, outcome: Outcome, now: Instant, chance: f64) -> Outcome {
        self.discarded.flight = self.flight.take();
        self.discarded.errors.extend(self.last_error.take());
        self.discarded.errors.extend(self.backoff.error().cloned());
        self.landed += 1;
        let outcome = match outcome {
            Ok(token) => {
                self.backoff.succeeded();
                Ok(token)
            }
            Err(error) if self.is_closed => Err(error),
            Err(error) => Err(self.backoff.failed(error, now, chance)),
        };
        self.last_error = outcome.as_ref().err().cloned();
        outcome
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

    /// Says whether it was not closed before.
    pub(super) fn close(&mut self) -> bool {
        self.discarded.tokens.extend(self.recent.drain(..));
        !mem::replace(&mut self.is_closed, true)
    }

    // The keeper.

    pub(super) fn found_timer(&mut self, runtime: runtime::Id) {
        self.timer = Some(runtime);
    }

    pub(super) fn has_timer(&self, runtime: runtime::Id) -> bool {
        self.timer == Some(runtime)
    }

    /// Says whether it was free.
    pub(super) fn take_post(&mut self) -> bool {
        !self.is_closed && !mem::replace(&mut self.has_keeper, true)
    }

    pub(super) fn leave_post(&mut self) {
        self.has_keeper = false;
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
            self.discarded.tokens.extend(self.recent.pop_back());
        }
        self.recent.push_back(token);
        if self.recent.len() > Self::REMEMBERED {
            self.discarded.tokens.extend(self.recent.pop_front());
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
    TokenError::new(TokenErrorKind::Closed, "the token cache is closed, or its last clone was dropped")
}
