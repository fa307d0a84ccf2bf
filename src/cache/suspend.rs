//! A machine that slept: the monotonic clock stood still, the wall clock did not, and the token has grown older.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::sync::{AtomicU32, Ordering};

/// How often the clocks are compared, while the token is used.
pub(super) const COMPARED_EVERY: Duration = Duration::from_secs(30);

/// Clocks drift, and the wall clock is set now and then: less than this is no sleep.
const TOLERANCE: Duration = Duration::from_secs(5);

/// What tells the time of day.
#[derive(Clone)]
pub(super) struct WallClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl WallClock {
    pub(super) fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

/// One moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) monotonic: Instant,
    pub(super) wall: SystemTime,
}

impl Moment {
    pub(super) fn now(clock: &WallClock) -> Self {
        Self { monotonic: Instant::now(), wall: clock.now() }
    }

    /// How much longer the wall clock says it is ago. A wall clock that was set back says nothing.
    fn slept_until(&self, now: Self) -> Option<Duration> {
        let awake = now.monotonic.saturating_duration_since(self.monotonic);
        let passed = now.wall.duration_since(self.wall).unwrap_or_default();
        passed.checked_sub(awake).filter(|slept| *slept >= TOLERANCE)
    }
}

/// Looks out for a sleep since one moment.
#[derive(Debug)]
pub(super) struct Lookout {
    since: Moment,
    /// In seconds after that moment.
    next: AtomicU32,
}

impl Lookout {
    pub(super) fn since(since: Moment) -> Self {
        Self { since, next: AtomicU32::new(seconds(COMPARED_EVERY)) }
    }

    /// Whether the clocks are to be compared: on the way of every request, so that it costs next to nothing.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        seconds(now.saturating_duration_since(self.since.monotonic)) >= self.next.load(Ordering::Relaxed)
    }

    /// For one of those to whom it was due: puts the next comparison off, and compares.
    pub(super) fn slept(&self, clock: &WallClock) -> Option<Duration> {
        let monotonic = Instant::now();
        let next = monotonic.saturating_duration_since(self.since.monotonic) + COMPARED_EVERY;
        self.next.store(seconds(next), Ordering::Relaxed);
        self.since.slept_until(Moment { monotonic, wall: clock.now() })
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found after so much time awake, by a wall clock that has moved by so much.
    fn slept(awake: u64, wall: i64) -> Option<u64> {
        let start = Moment { monotonic: Instant::now(), wall: SystemTime::now() };
        let moved = Duration::from_secs(wall.unsigned_abs());
        let wall = if wall < 0 { start.wall - moved } else { start.wall + moved };
        let slept =
            start.slept_until(Moment { monotonic: start.monotonic + Duration::from_secs(awake), wall });
        slept.map(|slept| slept.as_secs())
    }

    #[test]
    fn a_wall_clock_that_is_ahead_by_more_than_clocks_drift_tells_of_a_sleep() {
        assert_eq!(slept(30, 30), None);
        assert_eq!(slept(30, 34), None);
        assert_eq!(slept(30, 35), Some(5));
        assert_eq!(slept(30, 7230), Some(7200));
    }

    #[test]
    fn a_wall_clock_that_was_set_back_tells_nothing() {
        assert_eq!(slept(30, 0), None);
        assert_eq!(slept(30, -7200), None);
    }
}
