//! The rejections that may cause a refresh: a second, independent implementation of the breaker.

use std::time::Duration;

use tokio::time::Instant;

use super::{MINUTE, SECOND, current_token::CurrentToken};

/// The breaker of one origin.
#[derive(Default)]
pub(super) struct BreakerModel {
    /// The refreshes that were permitted since everything was last forgotten.
    refreshes: Vec<Refresh>,
    /// The permitted refreshes, including forgotten ones, since that last happened to the pace.
    paced: Vec<Instant>,
    /// The start of the present run of rejections, and those of them that were counted.
    run: Vec<Rejection>,
    /// True if an acceptance soon after the start of the run was ignored.
    run_has_overlap: bool,
    last_rejection: Option<Instant>,
    /// The first rejection since the last refresh was permitted or helped.
    first_rejection: Option<Instant>,
    /// The trials that have not helped since one did.
    vain_trials: u32,
    /// The moment of the last help, if no token was rejected after it.
    unbroken_help: Option<Instant>,
    futile: u32,
    brief: u32,
}

#[derive(Clone, Copy)]
struct Refresh {
    generation: u64,
    at: Instant,
    /// True if the rejected request is not sent again, so that any success counts.
    any_success_counts: bool,
    /// True if it was permitted although successes came between the rejections.
    is_trial: bool,
}

#[derive(Clone, Copy)]
struct Rejection {
    generation: u64,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Refresh,
    /// Another rejection of this token may cause the refresh.
    AlreadyPermitted,
    Suppress,
}

impl BreakerModel {
    const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
    const LONG: Duration = MINUTE;
    const OVERLAP: Duration = Duration::from_millis(100);

    /// Decides about a rejection of the current token.
    pub(super) fn decide(&mut self, rejected: CurrentToken, is_replayable: bool) -> Decision {
        let now = Instant::now();
        let generation = rejected.generation;
        if let Some(last) = self.refreshes.last_mut() {
            if last.generation == generation {
                return Decision::AlreadyPermitted;
            }
            if rejected.token.requested_at < last.at {
                last.generation = generation;
                last.any_success_counts = !is_replayable;
                return Decision::Refresh;
            }
        }
        self.forget_if_due();
        if self.unbroken_help.take().is_some_and(|at| at + Self::LONG <= now) {
            (self.futile, self.brief, self.vain_trials) = (0, 0, 0);
        }
        self.count_rejection(generation);
        let is_certain = self.futile == 0 && self.brief < 3;
        let run_length = u32::try_from(self.run.len()).unwrap();
        let is_long_run = run_length >= 12.min(3 + self.futile);
        let lasts_long = self.run[0].at + MINUTE <= now;
        let is_too_early = self.blocked_until().is_some_and(|until| now < until);
        let is_certain = is_certain || is_long_run || lasts_long;
        let is_trial_due = self.trial_at().is_some_and(|at| at <= now);
        if is_too_early || !(is_certain || is_trial_due) {
            return Decision::Suppress;
        }
        *(if is_certain { &mut self.futile } else { &mut self.vain_trials }) += 1;
        self.run.clear();
        self.first_rejection = None;
        self.paced.push(now);
        self.refreshes.push(Refresh {
            generation,
            at: now,
            any_success_counts: !is_replayable,
            is_trial: !is_certain,
        });
        Decision::Refresh
    }

    fn forget_if_due(&mut self) {
        let is_due = |at| at + Self::FORGOTTEN_AFTER <= Instant::now();
        if self.last_rejection.is_some_and(is_due) {
            *self = Self::default();
        }
    }

    fn trial_at(&self) -> Option<Instant> {
        let delay = (0..self.vain_trials).fold(MINUTE, |delay, _| (2 * delay).min(30 * MINUTE));
        self.first_rejection.map(|at| at + delay)
    }

    fn count_rejection(&mut self, generation: u64) {
        let at = Instant::now();
        self.last_rejection = Some(at);
        self.first_rejection = self.first_rejection.or(Some(at));
        if self.run.is_empty() {
            self.run_has_overlap = false;
        }
        self.run.push(Rejection { generation, at });
    }

    pub(super) fn on_retry_rejected(&mut self, generation: u64) {
        if self.refreshes.last().is_none_or(|last| last.generation < generation) {
            self.forget_if_due();
            self.count_rejection(generation);
        }
    }

    /// Records that the retry of the request that caused the last refresh succeeded.
    pub(super) fn on_help(&mut self) {
        self.brief = if self.futile > 1 { self.brief.max(3) } else { self.brief + 1 };
        self.futile = self.futile.saturating_sub(2);
        self.unbroken_help = Some(Instant::now());
        self.run.clear();
        self.first_rejection = None;
        if let Some(last) = self.refreshes.last_mut() {
            last.any_success_counts = false;
            if last.is_trial {
                self.vain_trials = 0;
            }
        }
    }

    /// Records a success with this token. Returns true if it shows that the refresh has helped.
    pub(super) fn on_success(&mut self, generation: u64) -> bool {
        let newest = self.run.iter().map(|rejection| rejection.generation).max();
        if newest.is_some_and(|newest| newest <= generation) {
            let is_early = Instant::now() < self.run[0].at + Self::OVERLAP;
            if is_early && !self.run_has_overlap {
                self.run_has_overlap = true;
            } else {
                self.run.clear();
            }
        }
        let helped = self
            .refreshes
            .last()
            .is_some_and(|last| last.any_success_counts && last.generation < generation);
        if helped {
            self.on_help();
        }
        helped
    }

    pub(super) fn blocked_until(&self) -> Option<Instant> {
        let delay = match self.futile {
            0 | 1 => Duration::ZERO,
            futile => (2..futile).fold(SECOND, |delay, _| (2 * delay).min(5 * MINUTE)),
        };
        let backoff_end = self.refreshes.last().map(|last| last.at + delay);
        backoff_end.max(pace_end(&self.paced, 5 * SECOND, 3))
    }

    /// Returns the moments at which time alone changes a decision.
    pub(super) fn change_times(&self) -> impl Iterator<Item = Instant> {
        let forgotten_at = self.last_rejection.map(|at| at + Self::FORGOTTEN_AFTER);
        let run_lasts_long = self.run.first().map(|first| first.at + MINUTE);
        let helped_for_long = self.unbroken_help.map(|at| at + Self::LONG);
        self.blocked_until()
            .into_iter()
            .chain(forgotten_at)
            .chain(run_lasts_long)
            .chain(helped_for_long)
            .chain(self.trial_at())
    }
}

/// Returns the moment from which another use is allowed, after these uses: `burst` at once, and one
/// more after each interval.
pub(super) fn pace_end(uses: &[Instant], interval: Duration, burst: u32) -> Option<Instant> {
    let full_at = uses.iter().copied().fold(None, |full_at: Option<Instant>, at| {
        Some(full_at.map_or(at, |full_at| full_at.max(at)) + interval)
    });
    full_at.map(|full_at| full_at - interval * (burst - 1))
}
