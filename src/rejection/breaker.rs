//! A circuit breaker that decides whether a rejection may cause a refresh.
//!
//! Each refresh costs a token request. The breaker bounds their number for an API that answers 401
//! to everything, or now and then. It judges by outcome, for each origin: a refresh counts as
//! futile from its start until the request that caused it succeeds with the new token. Futile
//! refreshes keep the next one away for longer and longer. So a second revocation right after a
//! first one that was recovered is recovered at once. A request that is cancelled, fails, or cannot
//! be retried costs no more than one that is rejected again.
//!
//! A refresh that helped for less than a minute may be a coincidence, as with replicas of which one
//! does not know the token yet. The first few of them in a row are free. After them, the next
//! refresh is kept away for longer and longer, too.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    doubling_delay::doubling_delay,
    origins::OriginId,
    sync::{Mutex, MutexGuard, lock},
    token::Generation,
};

const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(5 * 60);

/// The time after which futile refreshes are forgotten. It is longer than any delay: otherwise the
/// delay would never grow for a client that sends few requests.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);

/// A refresh has helped briefly if its token is rejected within this time.
const BRIEF: Duration = Duration::from_secs(60);

/// The number of refreshes in a row that may help briefly before the next one is delayed:
/// revocations can follow each other.
const MAX_FREE_BRIEF: u32 = 3;

/// One state for each named origin, and one for requests without an authority.
#[derive(Debug)]
pub(crate) struct Breaker(Box<[Mutex<OriginState>]>);

#[derive(Clone, Copy, Debug, Default)]
struct OriginState {
    /// The number of refreshes in a row that have not helped so far.
    futile: u32,
    /// The number of refreshes in a row that have helped briefly. The last one counts until it is
    /// known to have helped for longer.
    brief: u32,
    /// The instant at which the last refresh helped, if no token was rejected since.
    helped_at: Option<Instant>,
    blocked_until: Option<Instant>,
    /// The last token that a rejection was permitted to take out of use.
    permitted: Option<Generation>,
}

/// The decision whether a rejection may take the token out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    Given,
    /// Given to another rejection of the same token, which is about to go out of use.
    GivenBefore,
    Denied,
}

impl Breaker {
    pub(crate) fn new(origins: usize) -> Self {
        Self((0..origins).map(|_| Mutex::default()).collect())
    }

    /// Decides whether a rejection of the current token may take it out of use now. If so, the
    /// refresh counts as futile until it has [helped](Self::refresh_helped).
    pub(super) fn permits(&self, origin: OriginId, rejected: Generation) -> Permission {
        let mut state = self.state(origin);
        if state.permitted == Some(rejected) {
            return Permission::GivenBefore;
        }
        if !state.permits(Instant::now()) {
            return Permission::Denied;
        }
        state.permitted = Some(rejected);
        Permission::Given
    }

    /// Records that the request which caused a refresh has succeeded with the new token.
    pub(super) fn refresh_helped(&self, origin: OriginId) {
        self.state(origin).refresh_helped(Instant::now());
    }

    fn state(&self, origin: OriginId) -> MutexGuard<'_, OriginState> {
        lock(&self.0[origin.index()])
    }
}

impl OriginState {
    fn permits(&mut self, now: Instant) -> bool {
        if self.helped_at.take().is_some_and(|at| now >= at + BRIEF) {
            self.brief = 0;
        }
        if let Some(until) = self.blocked_until {
            if now < until {
                return false;
            }
            if now >= until + FORGET_AFTER {
                *self = Self::default();
            }
        }
        self.blocked_until = Some(now + delay(self.futile));
        self.futile = self.futile.saturating_add(1);
        true
    }

    fn refresh_helped(&mut self, now: Instant) {
        self.futile = 0;
        self.helped_at = Some(now);
        self.blocked_until =
            self.brief.checked_sub(MAX_FREE_BRIEF).map(|excess| now + delay(excess));
        self.brief = self.brief.saturating_add(1);
    }
}

fn delay(repetitions: u32) -> Duration {
    doubling_delay(FIRST_DELAY, repetitions, MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn futile_refreshes_back_off_from_1_s_to_5_min() {
        let (mut state, mut now) = (OriginState::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..40 {
            assert!(state.permits(now));
            let until = state.blocked_until.unwrap();
            assert!(!state.permits(until.checked_sub(Duration::from_nanos(1)).unwrap()));
            delays.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(delays[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(delays[39], 300);
    }

    #[test]
    fn old_futile_refreshes_are_forgotten() {
        let (mut state, mut now) = (OriginState::default(), Instant::now());
        for _ in 0..5 {
            assert!(state.permits(now));
            now = state.blocked_until.unwrap();
        }
        now += FORGET_AFTER;
        assert!(state.permits(now));
        assert_eq!(state.blocked_until, Some(now + FIRST_DELAY));
    }

    /// Returns the time in seconds between a refresh that helped and the next permitted one, for
    /// tokens that are rejected at once.
    fn pause_after_help(state: &mut OriginState, now: &mut Instant) -> u64 {
        assert!(state.permits(*now));
        state.refresh_helped(*now);
        let start = *now;
        while !state.clone().permits(*now) {
            assert!(!state.permits(*now));
            *now += FIRST_DELAY;
        }
        (*now - start).as_secs()
    }

    #[test]
    fn brief_refreshes_back_off_after_the_third_in_a_row() {
        let (mut state, mut now) = (OriginState::default(), Instant::now());
        let pauses: Vec<_> = (0..16).map(|_| pause_after_help(&mut state, &mut now)).collect();
        assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
    }

    #[test]
    fn refresh_that_helps_for_a_minute_resets_the_brief_count() {
        let (mut state, mut now) = (OriginState::default(), Instant::now());
        for _ in 0..6 {
            pause_after_help(&mut state, &mut now);
        }
        assert!(state.permits(now));
        state.refresh_helped(now);
        now += BRIEF.saturating_sub(Duration::from_nanos(1));
        assert_eq!(
            pause_after_help(&mut state.clone(), &mut now.clone()),
            16,
            "it has helped for less than a minute"
        );
        now += Duration::from_nanos(1);
        assert_eq!([0; 3].map(|_| pause_after_help(&mut state, &mut now)), [0; 3]);
        assert_eq!(pause_after_help(&mut state, &mut now), 1);
    }

    #[test]
    fn origins_are_independent_and_a_helped_one_starts_over() {
        let breaker = Breaker::new(2);
        let (first, second) = (Generation::FIRST, Generation::FIRST.next());
        assert_eq!(breaker.permits(OriginId::for_test(0), first), Permission::Given);
        assert_eq!(breaker.permits(OriginId::for_test(0), second), Permission::Denied);
        assert_eq!(breaker.permits(OriginId::for_test(1), second), Permission::Given);
        breaker.refresh_helped(OriginId::for_test(0));
        assert_eq!(breaker.permits(OriginId::for_test(0), second), Permission::Given);
    }

    #[test]
    fn two_rejections_of_one_token_at_once_count_as_one() {
        let breaker = Breaker::new(1);
        assert_eq!(breaker.permits(OriginId::for_test(0), Generation::FIRST), Permission::Given);
        assert_eq!(
            breaker.permits(OriginId::for_test(0), Generation::FIRST),
            Permission::GivenBefore
        );
    }
}
