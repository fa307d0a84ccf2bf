//! The number of token requests in a period: a pure function of the requests so far and of time.

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// Stands for a period that ends beyond the range of the clock: 30 years.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Allows at most `max` requests in any stretch of time as long as `period`.
#[derive(Debug)]
pub(super) struct RequestLimit {
    max: NonZeroU32,
    period: Duration,
    /// The requests within the last period, oldest first. Its length never exceeds `max`.
    requests: VecDeque<Instant>,
}

impl RequestLimit {
    pub(super) fn new(max: NonZeroU32, period: Duration) -> Self {
        Self { max, period, requests: VecDeque::new() }
    }

    /// Returns the end of the pause if the limit is reached. `None`: the next request may start
    /// now.
    pub(super) fn blocked_until(&mut self, now: Instant) -> Option<Instant> {
        let counts_until =
            |made: Instant| made.checked_add(self.period).unwrap_or_else(|| made + FOREVER);
        while self.requests.front().is_some_and(|made| counts_until(*made) <= now) {
            self.requests.pop_front();
        }
        let max = usize::try_from(self.max.get()).unwrap_or(usize::MAX);
        let oldest = self.requests.front().filter(|_| self.requests.len() >= max);
        oldest.map(|made| counts_until(*made))
    }

    pub(super) fn count_request(&mut self, now: Instant) {
        self.requests.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn no_stretch_as_long_as_the_period_exceeds_the_limit() {
        let start = Instant::now();
        let at = |seconds| start + seconds * SECOND;
        let mut limit = RequestLimit::new(NonZeroU32::new(2).unwrap(), 10 * SECOND);
        assert_eq!(limit.blocked_until(at(0)), None);
        limit.count_request(at(0));
        assert_eq!(limit.blocked_until(at(4)), None);
        limit.count_request(at(4));
        assert_eq!(limit.blocked_until(at(4)), Some(at(10)));
        assert_eq!(limit.blocked_until(at(9)), Some(at(10)));
        assert_eq!(limit.blocked_until(at(10)), None, "the first request is ten seconds old");
        limit.count_request(at(10));
        assert_eq!(limit.blocked_until(at(10)), Some(at(14)));
        assert_eq!(limit.blocked_until(at(20)), None);
        assert_eq!(limit.requests.len(), 0, "requests outside of the period are forgotten");
    }

    #[test]
    fn period_may_be_endless_or_zero() {
        let now = Instant::now();
        let mut endless = RequestLimit::new(NonZeroU32::MIN, Duration::MAX);
        endless.count_request(now);
        assert!(endless.blocked_until(now + Duration::from_secs(365 * 24 * 3600)).is_some());
        let mut zero = RequestLimit::new(NonZeroU32::MIN, Duration::ZERO);
        zero.count_request(now);
        assert_eq!(zero.blocked_until(now), None);
    }
}
