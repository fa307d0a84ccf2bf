//! Detection of a system that was suspended: its monotonic clock stood still, its wall clock did
//! not, and the token has aged meanwhile.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// The interval at which the clocks are compared while a token is used.
pub(super) const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// A smaller difference is clock drift or a small correction of the wall clock.
const TOLERANCE: Duration = Duration::from_secs(5);

/// The source of the wall-clock time.
#[derive(Clone)]
pub(super) struct WallClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl WallClock {
    pub(super) fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
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

/// One instant, read from both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timestamps {
    pub(super) monotonic: Instant,
    wall: SystemTime,
}

impl Timestamps {
    pub(super) fn now(clock: &WallClock) -> Self {
        Self { monotonic: Instant::now(), wall: (clock.0)() }
    }

    /// Returns the time for which the system slept between `self` and `now`. A wall clock that was
    /// set back yields `None`.
    pub(super) fn slept_until(&self, now: Self) -> Option<Duration> {
        let awake = now.monotonic.saturating_duration_since(self.monotonic);
        let passed = now.wall.duration_since(self.wall).unwrap_or_default();
        passed.checked_sub(awake).filter(|slept| *slept >= TOLERANCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the detected sleep in seconds, after `awake` seconds of monotonic time in which the
    /// wall clock moved by `wall` seconds.
    fn slept(awake: u64, wall: i64) -> Option<u64> {
        let start = Timestamps { monotonic: Instant::now(), wall: SystemTime::now() };
        let moved = Duration::from_secs(wall.unsigned_abs());
        let wall = if wall < 0 { start.wall - moved } else { start.wall + moved };
        let monotonic = start.monotonic + Duration::from_secs(awake);
        start.slept_until(Timestamps { monotonic, wall }).map(|slept| slept.as_secs())
    }

    #[test]
    fn wall_clock_ahead_beyond_tolerance_is_a_sleep() {
        assert_eq!(slept(30, 30), None);
        assert_eq!(slept(30, 34), None);
        assert_eq!(slept(30, 35), Some(5));
        assert_eq!(slept(30, 7230), Some(7200));
    }

    #[test]
    fn wall_clock_that_was_set_back_is_ignored() {
        assert_eq!(slept(30, 0), None);
        assert_eq!(slept(30, -7200), None);
    }
}
