//! Who issues tokens, or does not.

use std::{future::pending, panic::resume_unwind, time::Duration};

use tokio::time::{Instant, sleep};
use tower_oauth::{AccessToken, TokenError, TokenErrorKind, TokenSource};

use super::{
    HOUR, MINUTE, SECOND,
    world::{Mood, Shared, World},
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
            Plan::Issue | Plan::SameAgain => Outcome::Issued,
            Plan::Fail(TokenErrorKind::Refused) => Outcome::Final,
            Plan::Fail(_) | Plan::Hang | Plan::Panic => Outcome::Passing,
        };
        match plan {
            Plan::Issue => lock(&self.0).issue(false),
            Plan::SameAgain => lock(&self.0).issue(true),
            Plan::Fail(kind) => Err(TokenError::new(kind, "the issuer fails")),
            Plan::Hang => pending().await,
            Plan::Panic => resume_unwind(Box::new("the issuer has a bug")),
        }
    }
}

pub(super) enum Plan {
    Issue,
    SameAgain,
    Fail(TokenErrorKind),
    Hang,
    Panic,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Cancelled,
    Issued,
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

/// What is known of the next attempt: it comes after `earliest`, and from `latest` on.
#[derive(Default)]
pub(super) struct Expected {
    pub(super) failures: u32,
    pub(super) is_final: bool,
    pub(super) failed_at: Option<Instant>,
    pub(super) earliest: Option<Instant>,
    pub(super) latest: Option<Instant>,
}

pub(super) struct Issued {
    pub(super) at: Instant,
    pub(super) lifetime: Option<Duration>,
}

impl World {
    pub(super) fn may_try(&self) -> bool {
        self.fetching == 0 && self.backoff.latest.is_none_or(|latest| latest < Instant::now())
    }

    pub(super) fn fetch_begins(&mut self) {
        self.note(format_args!("fetch"));
        self.fetching += 1;
        self.renewal_is_due = false;
        if self.fetching > 1 {
            self.wrong("two fetches at once");
        }
        if self.nobody_asks {
            self.wrong("a fetch that nobody asked for");
        }
        if self.backoff.earliest.is_some_and(|earliest| Instant::now() < earliest) {
            self.wrong("a fetch during the back-off");
        }
    }

    pub(super) fn fetch_ended(&mut self, outcome: Outcome) {
        self.note(format_args!("fetched: {outcome:?}"));
        self.fetching -= 1;
        let is_final = match outcome {
            Outcome::Cancelled => return self.wrong("a fetch was cancelled"),
            Outcome::Issued => {
                self.replaced = true;
                return self.backoff = Expected::default();
            }
            Outcome::Passing => false,
            Outcome::Final => true,
        };
        let now = Instant::now();
        let failures = if is_final == self.backoff.is_final { self.backoff.failures + 1 } else { 1 };
        let (first, longest) = if is_final { (MINUTE, HOUR) } else { (SECOND, 2 * MINUTE) };
        let delay = (first * (1 << (failures - 1).min(12))).min(longest);
        let (earliest, latest) = (Some(now + delay.mul_f64(0.799)), Some(now + delay.mul_f64(1.201)));
        self.backoff = Expected { failures, is_final, failed_at: Some(now), earliest, latest };
    }

    pub(super) fn plan(&mut self) -> (Duration, Plan) {
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

    pub(super) fn issue(&mut self, again: bool) -> Result<AccessToken, TokenError> {
        let lifetime = match self.rng.u8(..10) {
            _ if matches!(self.mood, Mood::Perfect) => Some(12 * HOUR),
            0 => None,
            1..5 => Some(SECOND.mul_f64(1.0 + 200.0 * self.rng.f64())),
            _ => Some(10 * MINUTE + (24 * HOUR).mul_f64(self.rng.f64().powi(3))),
        };
        let issued = Issued { at: Instant::now(), lifetime };
        match self.issued.last_mut() {
            Some(last) if again => *last = issued,
            _ => {
                self.valid.insert(self.issued.len());
                self.issued.push(issued);
            }
        }
        let number = self.issued.len() - 1;
        self.note(format_args!("token {number} for {lifetime:?}"));
        let token = AccessToken::bearer(number.to_string())?;
        Ok(match lifetime {
            Some(lifetime) => token.expires_in(lifetime),
            None => token,
        })
    }

    pub(super) fn is_expired(&self, number: usize) -> bool {
        let Issued { at, lifetime } = self.issued[number];
        lifetime.is_some_and(|lifetime| {
            at + lifetime.saturating_sub((lifetime / 10).min(30 * SECOND)) <= Instant::now()
        })
    }
}
