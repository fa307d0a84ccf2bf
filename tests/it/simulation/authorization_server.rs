//! The source of tokens, and the times at which a fetch is allowed.

use std::{future::pending, mem, panic::resume_unwind, time::Duration};

use tokio::time::{Instant, sleep};
use tower_oauth::{
    AccessToken, FetchContext, RefreshState, TokenError, TokenErrorKind, TokenSource,
};

use super::{
    HOUR, MINUTE, SECOND,
    current_token::IssuedToken,
    model::{Model, SharedModel},
};
use crate::support::lock;

pub(super) struct AuthorizationServer(pub(super) SharedModel);

impl TokenSource for AuthorizationServer {
    async fn fetch(&self, _context: FetchContext) -> Result<AccessToken, TokenError> {
        lock(&self.0).on_fetch_start();
        let mut fetch = FetchGuard { model: &self.0, outcome: Outcome::Cancelled };
        let (latency, reply) = lock(&self.0).choose_reply();
        if !latency.is_zero() {
            sleep(latency).await;
        }
        fetch.outcome = match reply {
            Reply::Issue => Outcome::Issued(lock(&self.0).issue_new_token()),
            Reply::RepeatLast => Outcome::Issued(lock(&self.0).repeat_newest_token()),
            Reply::Fail(TokenErrorKind::Rejected) | Reply::Panic => Outcome::Final,
            Reply::Fail(_) | Reply::Hang => Outcome::Transient,
        };
        match (reply, fetch.outcome) {
            (_, Outcome::Issued(token)) => token.access_token(),
            (Reply::Fail(kind), _) => Err(TokenError::new(kind, "the authorization server failed")),
            (Reply::Panic, _) => resume_unwind(Box::new("the token source has a bug")),
            _ => pending().await,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum ServerBehavior {
    /// No server fails or takes time, and the API accepts every valid token.
    Perfect,
    /// Every token request gets a new token.
    #[default]
    Healthy,
    /// Some token requests fail, hang, or get the last token again.
    Unreliable,
    /// All token requests fail or hang.
    Down,
}

enum Reply {
    Issue,
    RepeatLast,
    Fail(TokenErrorKind),
    Hang,
    Panic,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Cancelled,
    Issued(IssuedToken),
    Transient,
    Final,
}

/// Reports the end of a fetch to the model, including after a cancellation or a panic.
struct FetchGuard<'a> {
    model: &'a SharedModel,
    outcome: Outcome,
}

impl Drop for FetchGuard<'_> {
    fn drop(&mut self) {
        lock(self.model).on_fetch_end(self.outcome);
    }
}

/// The fetches so far, and the time from which the next one is allowed.
#[derive(Default)]
pub(super) struct FetchHistory {
    in_progress: usize,
    /// The number of consecutive failures of one kind.
    failures: u32,
    failures_are_final: bool,
    /// The earliest and the latest moment at which the back-off may end.
    backoff_end: Option<(Instant, Instant)>,
    limit: Option<(usize, Duration)>,
    started_at: Vec<Instant>,
    /// The moment at which 20 rejections at once may take a token out of use again.
    full_at: Option<Instant>,
    /// True if a rejected token stays in use, because no new one may be requested.
    pub(super) keeps_rejected_token: bool,
}

impl FetchHistory {
    /// Returns true if a fetch is allowed now, however long the back-off is. A call that needs a
    /// token must then start one.
    pub(super) fn is_surely_allowed(&self) -> bool {
        let has_passed = |at: Instant| at <= Instant::now();
        !self.is_in_progress()
            && !self.is_pausing()
            && self.backoff_end.is_none_or(|(_, latest)| has_passed(latest))
            && self.limit_reached_until().is_none_or(has_passed)
    }

    /// Allows at most `requests` fetches in any interval of length `period`.
    pub(super) fn set_limit(&mut self, requests: u32, period: Duration) {
        self.limit = Some((usize::try_from(requests).unwrap(), period));
    }

    /// Returns true if expiry may not cause a fetch yet: the last one began less than a second ago.
    pub(super) fn is_pausing(&self) -> bool {
        self.pause_end().is_some_and(|end| Instant::now() < end)
    }

    fn pause_end(&self) -> Option<Instant> {
        self.started_at.last().map(|at| *at + SECOND)
    }

    /// Records what the cache reports before a client is polled. The end of a back-off is random.
    pub(super) fn observe(&mut self, refresh: RefreshState) {
        self.keeps_rejected_token = match refresh {
            RefreshState::LimitReached { .. } => true,
            RefreshState::BackingOff { .. } => self.failures_are_final,
            _ => false,
        };
    }

    /// Returns true if rejections have taken too many tokens out of use, whatever their origin.
    pub(super) fn are_rejections_too_frequent(&self) -> bool {
        let paced_until = self.full_at.map(|at| at - 20 * SECOND * 19);
        paced_until.is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn count_rejection(&mut self) {
        let now = Instant::now();
        self.full_at = Some(self.full_at.map_or(now, |at| at.max(now)) + 20 * SECOND);
    }

    pub(super) fn on_help(&mut self) {
        self.full_at = self.full_at.map(|at| at - 20 * SECOND);
    }

    fn limit_reached_until(&self) -> Option<Instant> {
        let (requests, period) = self.limit?;
        let oldest_counted = self.started_at.len().checked_sub(requests)?;
        Some(self.started_at[oldest_counted] + period)
    }

    pub(super) fn is_in_progress(&self) -> bool {
        self.in_progress > 0
    }

    /// Returns true if no fetch is allowed now, however short the back-off is.
    fn is_surely_forbidden(&self) -> bool {
        let is_ahead = |at: Instant| Instant::now() < at;
        self.backoff_end.is_some_and(|(earliest, _)| is_ahead(earliest))
            || self.limit_reached_until().is_some_and(is_ahead)
    }

    fn on_failure(&mut self, is_final: bool) {
        self.failures = if is_final == self.failures_are_final { self.failures + 1 } else { 1 };
        self.failures_are_final = is_final;
        let (first, longest) = if is_final { (MINUTE, HOUR) } else { (SECOND, 2 * MINUTE) };
        let delay = (1..self.failures).fold(first, |delay, _| (2 * delay).min(longest));
        let now = Instant::now();
        self.backoff_end = Some((now + delay.mul_f64(0.8), now + delay.mul_f64(1.2)));
    }

    fn on_success(&mut self) {
        (self.failures, self.backoff_end) = (0, None);
    }

    /// Returns true if an error may name this moment as that of the next attempt.
    pub(super) fn allows_next_attempt_at(&self, next_attempt: Instant) -> bool {
        let backoff_end = self.backoff_end.map(|(_, latest)| latest);
        backoff_end.max(self.limit_reached_until()).is_some_and(|latest| next_attempt <= latest)
    }

    pub(super) fn change_times(&self) -> impl Iterator<Item = Instant> {
        let backoff =
            self.backoff_end.into_iter().flat_map(|(earliest, latest)| [earliest, latest]);
        backoff.chain(self.limit_reached_until()).chain(self.pause_end())
    }
}

impl Model {
    fn on_fetch_start(&mut self) {
        self.log(format_args!("fetch started"));
        if self.fetches.is_in_progress() {
            self.fail("two fetches at the same time");
        }
        if self.fetches.is_surely_forbidden() {
            self.fail("a fetch during the back-off, or above the limit");
        }
        if self.is_idle {
            self.fail("a fetch without a call that needs a token");
        }
        if self.usable_token().is_some_and(|current| !current.was_stale) {
            self.fail("a fetch while the current token is fresh");
        }
        self.fetches.in_progress += 1;
        self.fetches.started_at.push(Instant::now());
        self.refresh_is_due = false;
    }

    fn on_fetch_end(&mut self, outcome: Outcome) {
        self.log(format_args!("fetch ended: {outcome:?}"));
        self.fetches.in_progress -= 1;
        match outcome {
            Outcome::Cancelled => self.fail("a fetch was cancelled"),
            Outcome::Transient => self.fetches.on_failure(false),
            Outcome::Final => self.fetches.on_failure(true),
            Outcome::Issued(token) => {
                self.fetches.on_success();
                self.publish(token);
            }
        }
    }

    /// Checks that the use of a stale token has started a refresh.
    pub(super) fn check_refresh_started(&mut self) {
        if mem::take(&mut self.refresh_is_due) {
            self.fail("a stale token was used, and no refresh started");
        }
    }

    fn choose_reply(&mut self) -> (Duration, Reply) {
        let latency = self.delay([Duration::ZERO, 20 * SECOND]);
        let reply = match (self.behavior, self.rng.u8(..10)) {
            (ServerBehavior::Perfect | ServerBehavior::Healthy, _)
            | (ServerBehavior::Unreliable, 0..3) => Reply::Issue,
            (ServerBehavior::Unreliable, 3..5) => Reply::RepeatLast,
            (_, 5) => Reply::Hang,
            (_, 6) => Reply::Panic,
            (_, 7) => Reply::Fail(TokenErrorKind::Rejected),
            (_, 8) => Reply::Fail(TokenErrorKind::Server),
            _ => Reply::Fail(TokenErrorKind::Transport),
        };
        (latency, reply)
    }

    fn issue_new_token(&mut self) -> IssuedToken {
        self.newest += 1;
        self.valid.insert(self.newest);
        self.repeat_newest_token()
    }

    /// Returns the newest token with a new lifetime, even if the token has been revoked.
    fn repeat_newest_token(&mut self) -> IssuedToken {
        if self.newest == 0 {
            return self.issue_new_token();
        }
        let lifetime = match self.rng.u8(..10) {
            _ if matches!(self.behavior, ServerBehavior::Perfect) => Some(12 * HOUR),
            0 => None,
            1..5 => Some(SECOND.mul_f64(1.0 + 200.0 * self.rng.f64())),
            _ => Some(10 * MINUTE + (24 * HOUR).mul_f64(self.rng.f64().powi(3))),
        };
        let requested_at = *self.fetches.started_at.last().unwrap();
        IssuedToken { number: self.newest, requested_at, issued_at: Instant::now(), lifetime }
    }
}
