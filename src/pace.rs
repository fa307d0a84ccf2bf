//! A limit on how often something may happen: a few times at once, then at a steady interval.

use std::time::Duration;

use tokio::time::Instant;

/// A pace that allows `burst` uses at once, and one more after each `interval`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    interval: Duration,
    /// At least one.
    burst: u32,
    /// The instant at which all uses are available again.
    full_at: Option<Instant>,
}

impl Pace {
    pub(crate) const fn new(interval: Duration, burst: u32) -> Self {
        Self { interval, burst, full_at: None }
    }

    /// Returns true if another use is allowed now.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        // One use is available when all uses will be within the intervals of the others.
        self.full_at.is_none_or(|at| at <= now + self.interval * (self.burst - 1))
    }

    /// Counts one use, allowed or not.
    pub(crate) fn count_use(&mut self, now: Instant) {
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        self.full_at = Some(full_at + self.interval);
    }

    /// Takes back one use.
    pub(crate) fn give_back(&mut self) {
        self.full_at = self.full_at.and_then(|at| at.checked_sub(self.interval));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the seconds at which a use was allowed, for one attempt a second.
    fn uses(pace: &mut Pace, seconds: u32, gives_back: bool) -> Vec<u32> {
        let start = Instant::now();
        let is_used = |second: &u32| {
            let now = start + SECOND * *second;
            let is_allowed = pace.allows(now);
            if is_allowed {
                pace.count_use(now);
            }
            if is_allowed && gives_back {
                pace.give_back();
            }
            is_allowed
        };
        (0..seconds).filter(is_used).collect()
    }

    #[test]
    fn burst_is_followed_by_a_steady_interval() {
        let mut pace = Pace::new(5 * SECOND, 3);
        assert_eq!(uses(&mut pace, 20, false), [0, 1, 2, 5, 10, 15]);
    }

    #[test]
    fn use_that_is_given_back_does_not_count() {
        let mut pace = Pace::new(5 * SECOND, 1);
        assert_eq!(uses(&mut pace, 4, true), [0, 1, 2, 3]);
    }
}
