//! Whether a refusal may take the token out of use: not where the last new token did not help.
//!
//! Taking a token out of use costs a token request, so that this bounds them for an API that answers 401 to everything, or
//! now and then. Judged by outcomes and for each origin: a refresh counts as futile from its beginning, and keeps the next one
//! away for longer and longer, until the very request that caused it succeeds with the new token. So a second real revocation
//! right after a first that was recovered is recovered at once, and a request that is cancelled, fails, or cannot be retried costs
//! no more than one that is refused again.
//!
//! A refresh that helped for less than a minute may be a coincidence, as with replicas of which one does not know the token: the
//! first few in a row are as good as any, after them the next one is kept away for longer and longer, too.

use std::time::Duration;

use tokio::time::Instant;

use super::origins::OriginId;
use crate::{
    cache::Generation,
    sync::{Mutex, MutexGuard, lock},
};

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(5 * 60);

/// Futile refreshes of so long ago say nothing of today. Longer than any delay, or a patient client would never see it grow.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);

/// A token that is refused sooner than this after it helped has helped briefly.
const BRIEF: Duration = Duration::from_secs(60);

/// How many refreshes in a row may help briefly before the next one is kept away: revocations can follow each other.
const BENEFIT_OF_DOUBT: u32 = 3;

/// One state for each origin that is named, and one for the inner service's own requests.
#[derive(Debug)]
pub(crate) struct Breaker(Box<[Mutex<State>]>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// How many refreshes in a row have not been seen to help.
    futile: u32,
    /// How many in a row have helped but briefly, the last one included until it is known to have helped for longer.
    brief: u32,
    /// When the last one helped, where nothing was refused since.
    helped_at: Option<Instant>,
    closed_until: Option<Instant>,
    /// Whose refusal was permitted last.
    permitted: Option<Generation>,
}

/// The answer to the question whether a refusal may take the token out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    Given,
    /// To another refusal of the same token, in this very moment: it is about to go out of use.
    GivenBefore,
    Denied,
}

impl Breaker {
    pub(crate) fn new(origins: usize) -> Self {
        Self((0..origins).map(|_| Mutex::default()).collect())
    }

    /// Whether a refusal of the current token may take it out of use now. If so, the refresh counts as futile until it has
    /// [`helped`](Self::helped).
    pub(super) fn permits(&self, origin: OriginId, refused: Generation) -> Permission {
        let mut state = self.state(origin);
        if state.permitted == Some(refused) {
            return Permission::GivenBefore;
        }
        if !state.permits(Instant::now()) {
            return Permission::Denied;
        }
        state.permitted = Some(refused);
        Permission::Given
    }

    /// The request that was permitted to cause a refresh has succeeded with the new token.
    pub(crate) fn helped(&self, origin: OriginId) {
        self.state(origin).helped(Instant::now());
    }

    fn state(&self, OriginId(index): OriginId) -> MutexGuard<'_, State> {
        lock(&self.0[index])
    }
}

impl State {
    fn permits(&mut self, now: Instant) -> bool {
        if self.helped_at.take().is_some_and(|at| now >= at + BRIEF) {
            self.brief = 0;
        }
        if let Some(until) = self.closed_until {
            if now < until {
                return false;
            }
            if now >= until + FORGOTTEN_AFTER {
                *self = Self::default();
            }
        }
        self.closed_until = Some(now + delay(self.futile));
        self.futile = self.futile.saturating_add(1);
        true
    }

    fn helped(&mut self, now: Instant) {
        self.futile = 0;
        self.helped_at = Some(now);
        self.closed_until = self.brief.checked_sub(BENEFIT_OF_DOUBT).map(|excess| now + delay(excess));
        self.brief = self.brief.saturating_add(1);
    }
}

fn delay(before: u32) -> Duration {
    let doubled = FIRST_DELAY.saturating_mul(1_u32.checked_shl(before).unwrap_or(u32::MAX));
    doubled.min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn futile_refreshes_back_off_from_one_second_to_five_minutes() {
        let (mut state, mut now) = (State::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..40 {
            assert!(state.permits(now));
            let until = state.closed_until.unwrap();
            assert!(!state.permits(until.checked_sub(Duration::from_nanos(1)).unwrap()));
            delays.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(delays[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(delays[39], 300);
    }

    #[test]
    fn futile_refreshes_of_long_ago_are_forgotten() {
        let (mut state, mut now) = (State::default(), Instant::now());
        for _ in 0..5 {
            assert!(state.permits(now));
            now = state.closed_until.unwrap();
        }
        now += FORGOTTEN_AFTER;
        assert!(state.permits(now));
        assert_eq!(state.closed_until, Some(now + FIRST_DELAY));
    }

    /// The time between a refresh that helped and the next one that is permitted, for refusals that follow at once.
    fn pause_after_help(state: &mut State, now: &mut Instant) -> u64 {
        assert!(state.permits(*now));
        state.helped(*now);
        let start = *now;
        while !state.clone().permits(*now) {
            assert!(!state.permits(*now));
            *now += FIRST_DELAY;
        }
        (*now - start).as_secs()
    }

    #[test]
    fn refreshes_that_help_briefly_back_off_after_the_third_in_a_row() {
        let (mut state, mut now) = (State::default(), Instant::now());
        let pauses: Vec<_> = (0..16).map(|_| pause_after_help(&mut state, &mut now)).collect();
        assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
    }

    #[test]
    fn a_refresh_that_helps_for_a_minute_gives_the_next_ones_the_benefit_of_doubt_again() {
        let (mut state, mut now) = (State::default(), Instant::now());
        for _ in 0..6 {
            pause_after_help(&mut state, &mut now);
        }
        assert!(state.permits(now));
        state.helped(now);
        now += BRIEF.saturating_sub(Duration::from_nanos(1));
        assert_eq!(pause_after_help(&mut state.clone(), &mut now.clone()), 16, "not yet for a minute");
        now += Duration::from_nanos(1);
        assert_eq!([0; 3].map(|_| pause_after_help(&mut state, &mut now)), [0; 3]);
        assert_eq!(pause_after_help(&mut state, &mut now), 1);
    }

    #[test]
    fn origins_do_not_know_each_other_and_one_that_was_helped_starts_anew() {
        let breaker = Breaker::new(2);
        let (first, second) = (Generation::FIRST, Generation::FIRST.next());
        assert_eq!(breaker.permits(OriginId(0), first), Permission::Given);
        assert_eq!(breaker.permits(OriginId(0), second), Permission::Denied);
        assert_eq!(breaker.permits(OriginId(1), second), Permission::Given);
        breaker.helped(OriginId(0));
        assert_eq!(breaker.permits(OriginId(0), second), Permission::Given);
    }

    #[test]
    fn two_refusals_of_one_token_in_the_same_moment_count_as_one() {
        let breaker = Breaker::new(1);
        assert_eq!(breaker.permits(OriginId(0), Generation::FIRST), Permission::Given);
        assert_eq!(breaker.permits(OriginId(0), Generation::FIRST), Permission::GivenBefore);
    }
}
