//! Who issues tokens, or does not, and when it may be asked.

use std::{future::pending, mem, panic::resume_unwind, time::Duration};

use tokio::time::{Instant, sleep};
use tower_oauth::{AccessToken, TokenError, TokenErrorKind, TokenSource};

use super::{
    HOUR, MINUTE, SECOND,
    token::Token,
    world::{Shared, World},
};
use crate::support::lock;

pub(super) struct Issuer(pub(super) Shared);

impl TokenSource for Issuer {
    async fn fetch(&self) -> Result<AccessToken, TokenError> {
        lock(&self.0).fetch_begins();
        let mut fetch = Fetch { world: &self.0, outcome: Outcome::Cancelled };
        let (takes, plan) = lock(&self.0).plan();
        if !takes.is_zero() {
            sleep(takes).await;
        }
        fetch.outcome = match plan {
            Plan::Issue => Outcome::Issued(lock(&self.0).new_token()),
            Plan::SameAgain => Outcome::Issued(lock(&self.0).same_token()),
            Plan::Fail(TokenErrorKind::Refused) => Outcome::Final,
            Plan::Fail(_) | Plan::Hang | Plan::Panic => Outcome::Passing,
        };
        match (plan, fetch.outcome) {
            (_, Outcome::Issued(token)) => token.issued(),
            (Plan::Fail(kind), _) => Err(TokenError::new(kind, "the issuer fails")),
            (Plan::Panic, _) => resume_unwind(Box::new("the issuer has a bug")),
            _ => pending().await,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Mood {
    /// And so is the API.
    Perfect,
    #[default]
    Well,
    Whimsical,
    Down,
}

enum Plan {
    Issue,
    SameAgain,
    Fail(TokenErrorKind),
    Hang,
    Panic,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Cancelled,
    Issued(Token),
    Passing,
    Final,
}

/// Tells the world when a fetch ends, however it does.
struct Fetch<'a> {
    world: &'a Shared,
    outcome: Outcome,
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        lock(self.world).fetch_ended(self.outcome);
    }
}

/// The fetches so far, and when the next may begin.
#[derive(Default)]
pub(super) struct Fetches {
    under_way: usize,
    /// Failures of one kind in a row.
    failures: u32,
    are_final: bool,
    /// The end of the back-off is drawn from between these.
    backoff: Option<(Instant, Instant)>,
    limit: Option<(usize, Duration)>,
    begun: Vec<Instant>,
}

impl Fetches {
    /// Whether somebody who needs a token has one fetched now.
    pub(super) fn may_begin(&self) -> bool {
        let is_over = |at: Instant| at <= Instant::now();
        !self.are_under_way()
            && self.backoff.is_none_or(|(_, latest)| is_over(latest))
            && self.limit_reached_until().is_none_or(is_over)
    }

    /// At most so many in any stretch of time as long as this.
    pub(super) fn limit(&mut self, most: u32, period: Duration) {
        self.limit = Some((usize::try_from(most).unwrap(), period));
    }

    fn limit_reached_until(&self) -> Option<Instant> {
        let (most, period) = self.limit?;
        let first_that_counts = self.begun.len().checked_sub(most)?;
        Some(self.begun[first_that_counts] + period)
    }

    pub(super) fn are_under_way(&self) -> bool {
        self.under_way > 0
    }

    fn must_not_begin(&self) -> bool {
        let is_ahead = |at: Instant| Instant::now() < at;
        self.backoff.is_some_and(|(earliest, _)| is_ahead(earliest))
            || self.limit_reached_until().is_some_and(is_ahead)
    }

    fn failed(&mut self, is_final: bool) {
        self.failures = if is_final == self.are_final { self.failures + 1 } else { 1 };
        self.are_final = is_final;
        let (first, longest) = if is_final { (MINUTE, HOUR) } else { (SECOND, 2 * MINUTE) };
        let delay = (1..self.failures).fold(first, |delay, _| (2 * delay).min(longest));
        let now = Instant::now();
        self.backoff = Some((now + delay.mul_f64(0.8), now + delay.mul_f64(1.2)));
    }

    fn succeeded(&mut self) {
        (self.failures, self.backoff) = (0, None);
    }

    /// Whether an error may say this of the next attempt.
    pub(super) fn may_wait_until(&self, next_attempt: Instant) -> bool {
        let backoff = self.backoff.map(|(_, latest)| latest);
        backoff.max(self.limit_reached_until()).is_some_and(|latest| next_attempt <= latest)
    }

    pub(super) fn turning_points(&self) -> impl Iterator<Item = Instant> {
        let backoff = self.backoff.into_iter().flat_map(|(earliest, latest)| [earliest, latest]);
        backoff.chain(self.limit_reached_until())
    }
}

impl World {
    fn fetch_begins(&mut self) {
        self.note(format_args!("fetch"));
        if self.fetches.are_under_way() {
            self.wrong("two fetches at once");
        }
        if self.fetches.must_not_begin() {
            self.wrong("a fetch during the back-off, or beyond the limit");
        }
        if self.nobody_asks {
            self.wrong("a fetch that nobody asked for");
        }
        if self.in_use().is_some_and(|in_use| !in_use.was_stale) {
            self.wrong("a fetch with a fresh token in use");
        }
        self.fetches.under_way += 1;
        self.fetches.begun.push(Instant::now());
        self.renewal_is_due = false;
    }

    fn fetch_ended(&mut self, outcome: Outcome) {
        self.note(format_args!("fetched: {outcome:?}"));
        self.fetches.under_way -= 1;
        match outcome {
            Outcome::Cancelled => self.wrong("a fetch was cancelled"),
            Outcome::Passing => self.fetches.failed(false),
            Outcome::Final => self.fetches.failed(true),
            Outcome::Issued(token) => {
                self.fetches.succeeded();
                self.comes_into_use(token);
            }
        }
    }

    pub(super) fn expect_renewal(&mut self) {
        if mem::take(&mut self.renewal_is_due) {
            self.wrong("a stale token was used and is not being renewed");
        }
    }

    fn plan(&mut self) -> (Duration, Plan) {
        let takes = self.delay([Duration::ZERO, 20 * SECOND]);
        let plan = match (self.mood, self.rng.u8(..10)) {
            (Mood::Perfect | Mood::Well, _) | (Mood::Whimsical, 0..3) => Plan::Issue,
            (Mood::Whimsical, 3..5) => Plan::SameAgain,
            (_, 5) => Plan::Hang,
            (_, 6) => Plan::Panic,
            (_, 7) => Plan::Fail(TokenErrorKind::Refused),
            (_, 8) => Plan::Fail(TokenErrorKind::Server),
            _ => Plan::Fail(TokenErrorKind::Transport),
        };
        (takes, plan)
    }

    fn new_token(&mut self) -> Token {
        self.newest += 1;
        self.valid.insert(self.newest);
        self.same_token()
    }

    /// The newest, whatever became of it.
    fn same_token(&mut self) -> Token {
        if self.newest == 0 {
            return self.new_token();
        }
        let lifetime = match self.rng.u8(..10) {
            _ if matches!(self.mood, Mood::Perfect) => Some(12 * HOUR),
            0 => None,
            1..5 => Some(SECOND.mul_f64(1.0 + 200.0 * self.rng.f64())),
            _ => Some(10 * MINUTE + (24 * HOUR).mul_f64(self.rng.f64().powi(3))),
        };
        Token { number: self.newest, at: Instant::now(), lifetime }
    }
}
