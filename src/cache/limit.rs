//! How many token requests a period may see: a pure function of those made and of time.

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// A period that is longer than the clock can count is as good as this.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// At most `most` requests in any stretch of time as long as `period`.
#[derive(Debug)]
pub(super) struct Limit {
    most: NonZeroU32,
    period: Duration,
    /// The requests within the last period, oldest first: never more than `most`.
    made: VecDeque<Instant>,
}

impl Limit {
    pub(super) fn new(most: NonZeroU32, period: Duration) -> Self {
        Self { most, period, made: VecDeque::new() }
    }

    /// Until when no request may be made any more. `None`: the next one may be made now.
    pub(super) fn reached(&mut self, now: Instant) -> Option<Instant> {
        let counts_until = |made: Instant| made.checked_add(self.period).unwrap_or_else(|| made + NEVER);
        while self.made.front().is_some_and(|made| counts_until(*made) <= now) {
            self.made.pop_front();
        }
        let is_reached = self.made.len() >= usize::try_from(self.most.get()).unwrap_or(usize::MAX);
        self.made.front().filter(|_| is_reached).map(|oldest| counts_until(*oldest))
    }

    pub(super) fn count(&mut self, now: Instant) {
        self.made.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn no_stretch_as_long_as_the_period_sees_more_than_the_limit() {
        let start = Instant::now();
        let at = |seconds| start + seconds * SECOND;
        let mut limit = Limit::new(NonZeroU32::new(2).unwrap(), 10 * SECOND);
        assert_eq!(limit.reached(at(0)), None);
        limit.count(at(0));
        assert_eq!(limit.reached(at(4)), None);
        limit.count(at(4));
        assert_eq!(limit.reached(at(4)), Some(at(10)));
        assert_eq!(limit.reached(at(9)), Some(at(10)));
        assert_eq!(limit.reached(at(10)), None, "the first is ten seconds ago");
        limit.count(at(10));
        assert_eq!(limit.reached(at(10)), Some(at(14)));
        assert_eq!(limit.reached(at(20)), None);
        assert_eq!(limit.made.len(), 0, "nothing is remembered for longer than it counts");
    }

    #[test]
    fn a_period_may_be_endless_or_none_at_all() {
        let now = Instant::now();
        let mut endless = Limit::new(NonZeroU32::MIN, Duration::MAX);
        endless.count(now);
        assert!(endless.reached(now + Duration::from_secs(365 * 24 * 3600)).is_some());
        let mut none = Limit::new(NonZeroU32::MIN, Duration::ZERO);
        none.count(now);
        assert_eq!(none.reached(now), None);
    }
}
