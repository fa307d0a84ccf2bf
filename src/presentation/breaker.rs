//! Whether a refusal may cost a token request: not where the last new token did not help.
//!
//! Judged by outcomes and for each origin: when the retry with the new token is refused, too, that refresh was futile. After
//! futile refreshes the next one is kept away for longer and longer; one that helped makes an end of it. So an API that answers
//! 401 to everything does not cost a token for each request, and a second real revocation right after the first is recovered
//! at once.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::origins::OriginId;
use crate::cache::Generation;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(5 * 60);

/// One state for each origin that is named, and one for the inner service's own requests.
#[derive(Debug)]
pub(crate) struct Breaker(Box<[Mutex<State>]>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// How many retries are under way, and the newest token that they were refused with.
    trials: usize,
    tried: Option<Generation>,
    futile: u32,
    /// The token whose refusal was counted last: many requests may bring the same news.
    counted: Option<Generation>,
    closed_until: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new(origins: usize) -> Self {
        Self((0..origins).map(|_| Mutex::default()).collect())
    }

    /// Whether the refusal of a token may cost a token request now. Where a newer one is there already it costs nothing.
    pub(crate) fn permits(&self, origin: OriginId, refused: Generation, is_late: bool) -> bool {
        is_late || self.state(origin).permits(refused, Instant::now())
    }

    /// Begins a retry after a refusal that was permitted.
    pub(crate) fn begin(self: &Arc<Self>, origin: OriginId, refused: Generation) -> Trial {
        self.state(origin).begin(refused);
        Trial { breaker: Arc::clone(self), origin, refused }
    }

    /// A refused request could not be retried, so that there is no telling whether the new token will help.
    pub(crate) fn is_unproven(&self, origin: OriginId) {
        self.state(origin).close(FIRST_DELAY, Instant::now());
    }

    fn state(&self, OriginId(index): OriginId) -> MutexGuard<'_, State> {
        self.0[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A retry under way. Dropped without an outcome it proves nothing.
#[derive(Debug)]
pub(crate) struct Trial {
    breaker: Arc<Breaker>,
    origin: OriginId,
    refused: Generation,
}

impl Trial {
    /// The token whose refusal led to this retry.
    pub(crate) fn refused(&self) -> Generation {
        self.refused
    }

    /// The new token was not refused.
    pub(crate) fn helped(self) {
        self.breaker.state(self.origin).reset();
    }

    /// The new token was refused, too, or was no other.
    pub(crate) fn was_futile(self, generation: Generation) {
        self.breaker.state(self.origin).count(generation, Instant::now());
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.breaker.state(self.origin).trials -= 1;
    }
}

impl State {
    fn permits(&mut self, refused: Generation, now: Instant) -> bool {
        // What the retries under way are waiting to learn of the new token, somebody else has learnt.
        if self.trials > 0 && Some(refused) > self.tried {
            self.count(refused, now);
        }
        self.closed_until.is_none_or(|until| until <= now)
    }

    fn begin(&mut self, refused: Generation) {
        let before = if self.trials == 0 { None } else { self.tried };
        self.tried = before.max(Some(refused));
        self.trials += 1;
    }

    fn reset(&mut self) {
        *self = Self { trials: self.trials, tried: self.tried, ..Self::default() };
    }

    fn count(&mut self, generation: Generation, now: Instant) {
        if Some(generation) <= self.counted {
            return;
        }
        self.counted = Some(generation);
        let doubled = FIRST_DELAY.saturating_mul(1_u32.checked_shl(self.futile).unwrap_or(u32::MAX));
        self.futile = self.futile.saturating_add(1);
        self.close(doubled.min(LONGEST_DELAY), now);
    }

    fn close(&mut self, delay: Duration, now: Instant) {
        self.closed_until = Some(now + delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Generation = Generation::FIRST;

    #[test]
    fn futile_refreshes_back_off_from_one_second_to_five_minutes() {
        let (mut state, mut now) = (State::default(), Instant::now());
        let mut generation = FIRST;
        let mut delays = Vec::new();
        for _ in 0..40 {
            assert!(state.permits(generation, now));
            generation = generation.next();
            state.count(generation, now);
            let until = state.closed_until.unwrap();
            assert!(!state.permits(generation, until.checked_sub(Duration::from_nanos(1)).unwrap()));
            delays.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(delays[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(delays[39], 300);
    }

    #[test]
    fn the_same_token_and_an_older_one_count_once() {
        let (mut state, now) = (State::default(), Instant::now());
        for generation in [FIRST.next(), FIRST.next(), FIRST] {
            state.count(generation, now);
        }
        assert_eq!(state.futile, 1);
    }

    #[test]
    fn a_refusal_of_the_new_token_counts_while_a_retry_waits_for_its_own() {
        let breaker = Arc::new(Breaker::new(1));
        let trial = breaker.begin(OriginId(0), FIRST);
        assert!(breaker.permits(OriginId(0), FIRST, false), "that is the old one");
        assert!(!breaker.permits(OriginId(0), FIRST.next(), false));
        assert!(breaker.permits(OriginId(0), FIRST, true), "a newer token costs nothing");
        drop(trial);
    }

    #[test]
    fn a_retry_that_was_cancelled_proves_nothing() {
        let breaker = Arc::new(Breaker::new(1));
        drop(breaker.begin(OriginId(0), FIRST));
        assert!(breaker.permits(OriginId(0), FIRST.next(), false));
    }

    #[test]
    fn origins_do_not_know_each_other_and_one_that_was_helped_starts_anew() {
        let breaker = Arc::new(Breaker::new(2));
        breaker.begin(OriginId(0), FIRST).was_futile(FIRST.next());
        assert!(!breaker.permits(OriginId(0), FIRST.next(), false));
        assert!(breaker.permits(OriginId(1), FIRST.next(), false));
        breaker.begin(OriginId(0), FIRST.next()).helped();
        assert!(breaker.permits(OriginId(0), FIRST.next(), false));
        assert_eq!(breaker.state(OriginId(0)).trials, 0);
    }
}
