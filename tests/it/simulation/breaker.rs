//! The rejections that may cause a refresh: a second, independent implementation of the breaker.

use std::time::Duration;

use tokio::time::Instant;

use super::{MINUTE, SECOND};

#[derive(Default)]
pub(super) struct BreakerModel {
    /// The start times of consecutive refreshes without a known success.
    unhelpful: Vec<Instant>,
    /// The success times of consecutive refreshes, none of which is known to have helped for long.
    helpful: Vec<Instant>,
    /// True if a token was rejected after the last success.
    was_rejected: bool,
}

impl BreakerModel {
    const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);
    const LONG: Duration = MINUTE;
    /// The number of refreshes that may help only briefly without any delay.
    const BRIEF_SUCCESSES_WITHOUT_DELAY: usize = 3;

    /// Returns true if a refresh may start now, and records its start.
    pub(super) fn try_refresh(&mut self) -> bool {
        let now = Instant::now();
        if !self.was_rejected && self.helped_for_long_at().is_some_and(|at| at <= now) {
            self.helpful.clear();
        }
        self.was_rejected = true;
        if let Some(blocked_until) = self.blocked_until() {
            if now < blocked_until {
                return false;
            }
            if now >= blocked_until + Self::FORGOTTEN_AFTER {
                *self = Self::default();
            }
        }
        self.unhelpful.push(now);
        true
    }

    /// Records that the retry of the request that caused the last refresh succeeded.
    pub(super) fn on_success(&mut self) {
        self.unhelpful.clear();
        self.helpful.push(Instant::now());
        self.was_rejected = false;
    }

    pub(super) fn blocked_until(&self) -> Option<Instant> {
        let delay = |count| (1..count).fold(SECOND, |delay, _| (2 * delay).min(5 * MINUTE));
        let delayed = self.helpful.len().saturating_sub(Self::BRIEF_SUCCESSES_WITHOUT_DELAY);
        match (self.unhelpful.last(), self.helpful.last()) {
            (Some(&started), _) => Some(started + delay(self.unhelpful.len())),
            (None, Some(&helped)) if delayed > 0 => Some(helped + delay(delayed)),
            (None, _) => None,
        }
    }

    fn helped_for_long_at(&self) -> Option<Instant> {
        self.helpful.last().map(|&helped| helped + Self::LONG)
    }

    /// Returns the moments at which time alone changes a decision.
    pub(super) fn change_times(&self) -> impl Iterator<Item = Instant> {
        let blocked_until = self.blocked_until();
        let forgotten_at = blocked_until.map(|at| at + Self::FORGOTTEN_AFTER);
        blocked_until.into_iter().chain(forgotten_at).chain(self.helped_for_long_at())
    }
}
