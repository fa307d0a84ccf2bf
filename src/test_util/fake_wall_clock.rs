//! A wall clock that a test sets.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};

/// A wall clock that a test sets, for
/// [`TokenCacheBuilder::wall_clock`](crate::TokenCacheBuilder::wall_clock).
///
/// It starts at the current time and runs with tokio's clock, paused or not.
/// [`advance`](Self::advance) moves it alone, as if the system had been suspended. Clones are the
/// same clock.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::TokenCache;
/// use tower_oauth::test_util::{FakeWallClock, ScriptedSource};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::TokenError> {
/// let clock = FakeWallClock::new();
/// let cache = TokenCache::builder(ScriptedSource::default()).wall_clock(clock.reader()).build();
/// cache.warm_up().await?;
///
/// // The system is suspended for two hours. The token has expired when the cache looks again.
/// clock.advance(Duration::from_secs(2 * 3600));
/// tokio::time::advance(Duration::from_secs(30)).await;
/// assert!(cache.current().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FakeWallClock {
    /// A point in time on both clocks.
    set: watch::Sender<(SystemTime, Instant)>,
}

impl FakeWallClock {
    /// Creates a clock that shows the current time.
    #[must_use]
    pub fn new() -> Self {
        Self { set: watch::Sender::new((SystemTime::now(), Instant::now())) }
    }

    /// Returns the time that the clock shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let (wall, monotonic) = *self.set.borrow();
        wall + monotonic.elapsed()
    }

    /// Sets the clock, forwards or back.
    pub fn set(&self, time: SystemTime) {
        self.set.send_replace((time, Instant::now()));
    }

    /// Moves the clock forwards by this time.
    pub fn advance(&self, time: Duration) {
        self.set.send_modify(|(wall, _)| *wall += time);
    }

    /// Returns a closure that reads the clock, as
    /// [`wall_clock`](crate::TokenCacheBuilder::wall_clock) takes it.
    pub fn reader(&self) -> impl Fn() -> SystemTime + Send + Sync + use<> {
        let clock = self.clone();
        move || clock.now()
    }
}

impl Default for FakeWallClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FakeWallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeWallClock").field("now", &self.now()).finish()
    }
}
