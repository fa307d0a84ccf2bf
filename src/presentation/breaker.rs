//! Whether a refusal may take the token out of use: not where the last new token did not help.
//!
//! Taking a token out of use costs a token request, so that this bounds them for an API that answers 401 to everything.
//! Judged by outcomes and for each origin: a refresh counts as futile from its beginning, and keeps the next one away for
//! longer and longer, until the very request that caused it succeeds with the new token. So a second real revocation right
//! after a first that was recovered is recovered at once, and a request that is cancelled, fails, or cannot be retried costs no
//! more than one that is refused again.

use std::time::Duration;

use tokio::time::Instant;

use super::origins::OriginId;
use crate::sync::{Mutex, MutexGuard, lock};

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(5 * 60);

/// Futile refreshes of so long ago say nothing of today. Longer than any delay, or a patient client would never see it grow.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);

/// One state for each origin that is named, and one for the inner service's own requests.
#[derive(Debug)]
pub(crate) struct Breaker(Box<[Mutex<State>]>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// How many refreshes in a row have not been seen to help.
    futile: u32,
    closed_until: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new(origins: usize) -> Self {
        Self((0..origins).map(|_| Mutex::default()).collect())
    }

    /// Whether a refusal may take the token out of use now. If so, the refresh counts as futile until it has
    /// [`helped`](Self::helped).
    pub(crate) fn permits(&self, origin: OriginId) -> bool {
        self.state(origin).permits(Instant::now())
    }

    /// The request that was permitted to cause a refresh has succeeded with the new token.
    pub(crate) fn helped(&self, origin: OriginId) {
        *self.state(origin) = State::default();
    }

    fn state(&self, OriginId(index): OriginId) -> MutexGuard<'_, State> {
        lock(&self.0[index])
    }
}

impl State {
    fn permits(&mut self, now: Instant) -> bool {
        if let Some(until) = self.closed_until {
            if now < until {
                return false;
            }
            if now >= until + FORGOTTEN_AFTER {
                self.futile = 0;
            }
        }
        let doubled = FIRST_DELAY.saturating_mul(1_u32.checked_shl(self.futile).unwrap_or(u32::MAX));
        let delay = doubled.min(LONGEST_DELAY);
        self.futile = self.futile.saturating_add(1);
        self.closed_until = Some(now + delay);
        true
    }
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

    #[test]
    fn origins_do_not_know_each_other_and_one_that_was_helped_starts_anew() {
        let breaker = Breaker::new(2);
        assert!(breaker.permits(OriginId(0)));
        assert!(!breaker.permits(OriginId(0)));
        assert!(breaker.permits(OriginId(1)));
        breaker.helped(OriginId(0));
        assert!(breaker.permits(OriginId(0)));
    }
}
