//! The state that the lock of the core protects: recent tokens, the running refresh, and what
//! decides whether another refresh may start.

use std::{collections::VecDeque, mem, time::Duration};

use tokio::time::Instant;

use super::{backoff::Backoff, cached_token::CachedToken, request_limit::RequestLimit};
use crate::{
    error::{TokenError, TokenErrorKind},
    pace::Pace,
    sync::watch,
    telemetry::SuppressReason,
    token::Generation,
};

pub(super) type Outcome = Result<CachedToken, TokenError>;

/// Sends the outcome of a refresh to the waiting callers.
pub(super) type OutcomeSender = watch::Sender<Option<Outcome>>;

/// Receives the outcome of a refresh once it has ended.
pub(super) type OutcomeReceiver = watch::Receiver<Option<Outcome>>;

/// Both ends of the channel of a running refresh.
pub(super) struct RunningRefresh {
    pub(super) sender: OutcomeSender,
    pub(super) receiver: OutcomeReceiver,
}

/// The work that is under way or possible to obtain the next token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Idle,
    Refreshing,
    BackingOff(Instant),
    /// A refresh caused by expiry waits for the minimal interval after the last refresh.
    Pausing(Instant),
    LimitReached(Instant),
    Closed,
}

pub(super) struct State {
    /// The last few tokens, including rejected and expired ones: a source may return one of them
    /// again.
    recent: VecDeque<CachedToken>,
    refresh: Option<RunningRefresh>,
    backoff: Backoff,
    limit: Option<RequestLimit>,
    last_request: Option<Instant>,
    last_error: Option<TokenError>,
    finished_refreshes: u64,
    is_closed: bool,
    /// The pace of the refreshes that rejections cause, whatever their origin.
    rejection_pace: Pace,
    removed: Removed,
}

/// Values that were removed from the state. They are dropped after the lock is released, as their
/// drop may run code of the user (the source of an error).
#[derive(Default)]
pub(super) struct Removed {
    tokens: Vec<CachedToken>,
    errors: Vec<TokenError>,
    refresh: Option<OutcomeReceiver>,
}

impl State {
    const MAX_RECENT: usize = 8;

    /// The minimal interval between the start of a refresh and the next one that expiry causes.
    /// Tokens of a very short lifetime do not cause more refreshes.
    const MIN_EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

    /// The pace of the refreshes that rejections cause and that do not help: at most 50 in ten
    /// minutes, for all origins together.
    const REJECTION_PACE: Pace = Pace::new(Duration::from_secs(20), 20);

    pub(super) fn new(limit: Option<RequestLimit>) -> Self {
        Self {
            recent: VecDeque::new(),
            refresh: None,
            backoff: Backoff::default(),
            limit,
            last_request: None,
            last_error: None,
            finished_refreshes: 0,
            is_closed: false,
            rejection_pace: Self::REJECTION_PACE,
            removed: Removed::default(),
        }
    }

    /// Takes the removed values, to drop them after the lock is released.
    pub(super) fn take_removed(&mut self) -> Removed {
        mem::take(&mut self.removed)
    }

    pub(super) fn activity(&mut self, now: Instant) -> Activity {
        if self.is_closed {
            return Activity::Closed;
        }
        if self.refresh.is_some() {
            return Activity::Refreshing;
        }
        if let Some((until, _)) = self.backoff.blocked(now) {
            return Activity::BackingOff(*until);
        }
        let blocked_until = self.limit.as_mut().and_then(|limit| limit.blocked_until(now));
        blocked_until.map_or(Activity::Idle, Activity::LimitReached)
    }

    /// Returns the activity of a cache with a token that is stale or expired.
    pub(super) fn activity_after_expiry(&mut self, now: Instant) -> Activity {
        match self.activity(now) {
            Activity::Idle => {
                let until = self.last_request.map(|begin| begin + Self::MIN_EXPIRY_INTERVAL);
                until.filter(|until| now < *until).map_or(Activity::Idle, Activity::Pausing)
            }
            activity => activity,
        }
    }

    /// Returns the reason why a rejected token stays in use: no new one may be requested for a long
    /// time, and other servers may still accept it.
    pub(super) fn suppress_reason(&mut self, now: Instant) -> Option<SuppressReason> {
        match self.activity(now) {
            Activity::LimitReached(_) => Some(SuppressReason::LimitReached),
            Activity::BackingOff(_) if self.backoff.is_final(now) => {
                Some(SuppressReason::BackingOff)
            }
            _ => (!self.rejection_pace.allows(now)).then_some(SuppressReason::BreakerOpen),
        }
    }

    /// Counts a rejection that takes the token out of use.
    pub(super) fn count_rejection(&mut self, now: Instant) {
        self.rejection_pace.count_use(now);
    }

    /// Takes back a counted rejection, because the refresh has helped.
    pub(super) fn refresh_helped(&mut self) {
        self.rejection_pace.give_back();
    }

    pub(super) fn refresh(&self) -> Option<&OutcomeReceiver> {
        self.refresh.as_ref().map(|refresh| &refresh.receiver)
    }

    pub(super) fn set_refresh(&mut self, refresh: RunningRefresh) {
        self.refresh = Some(refresh);
    }

    /// Counts a token request. Returns the end of the period if the limit allows no other one.
    pub(super) fn count_request(&mut self, now: Instant) -> Option<Instant> {
        self.last_request = Some(now);
        let limit = self.limit.as_mut()?;
        limit.count_request(now);
        limit.blocked_until(now)
    }

    /// Ends the running refresh. Returns its outcome with the instant of the next attempt, and the
    /// sender of the outcome, to be used after the lock is released. Returns `None` if no refresh
    /// is running: the cache was closed.
    pub(super) fn end_refresh(
        &mut self,
        outcome: Outcome,
        now: Instant,
        jitter: f64,
    ) -> Option<(OutcomeSender, Outcome)> {
        let RunningRefresh { sender, receiver } = self.refresh.take()?;
        self.removed.refresh = Some(receiver);
        self.removed.errors.extend(self.last_error.take());
        self.removed.errors.extend(self.backoff.error().cloned());
        self.finished_refreshes += 1;
        let outcome = match outcome {
            Ok(token) => {
                self.backoff.reset();
                Ok(token)
            }
            Err(error) if self.is_closed => Err(error),
            Err(error) => Err(self.backoff.count_failure(error, now, jitter)),
        };
        self.last_error = outcome.as_ref().err().cloned();
        Some((sender, outcome))
    }

    pub(super) fn finished_refreshes(&self) -> u64 {
        self.finished_refreshes
    }

    pub(super) fn last_error(&self) -> Option<&TokenError> {
        self.last_error.as_ref()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Closes the state. Returns true if it was open.
    pub(super) fn close(&mut self) -> bool {
        self.removed.tokens.extend(self.recent.drain(..));
        !mem::replace(&mut self.is_closed, true)
    }

    pub(super) fn last_token(&self) -> Option<&CachedToken> {
        self.recent.back()
    }

    pub(super) fn next_generation(&self) -> Generation {
        self.last_token().map_or(Generation::FIRST, |token| token.generation().next())
    }

    /// Returns the token of a generation if it is one of the last few.
    pub(super) fn token(&self, generation: Generation) -> Option<&CachedToken> {
        self.recent.iter().find(|token| token.generation() == generation)
    }

    /// Adds a token. It replaces the last one if that is of the same generation.
    pub(super) fn add_token(&mut self, token: CachedToken) {
        if self.last_token().map(CachedToken::generation) == Some(token.generation()) {
            self.removed.tokens.extend(self.recent.pop_back());
        }
        self.recent.push_back(token);
        if self.recent.len() > Self::MAX_RECENT {
            self.removed.tokens.extend(self.recent.pop_front());
        }
    }

    /// Keeps a removed token, to drop it after the lock is released.
    pub(super) fn drop_later(&mut self, token: Option<CachedToken>) {
        self.removed.tokens.extend(token);
    }
}

pub(super) fn limit_reached(until: Instant) -> TokenError {
    TokenError::new(
        TokenErrorKind::LimitReached,
        "a token is needed, but the token request limit of this cache is reached",
    )
    .with_next_attempt(until)
}

pub(super) fn closed() -> TokenError {
    TokenError::new(
        TokenErrorKind::Closed,
        "the token cache was closed, or its last clone was dropped",
    )
}
