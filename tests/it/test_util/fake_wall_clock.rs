//! The wall clock that a test sets.

use std::time::{Duration, SystemTime};

use tokio::time::advance;
use tower_oauth::{
    TokenCache,
    test_util::{FakeWallClock, ScriptedSource},
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn clock_runs_with_tokio_and_can_be_moved() {
    let clock = FakeWallClock::new();
    let reader = clock.reader();
    clock.set(SystemTime::UNIX_EPOCH);
    assert_eq!(reader(), SystemTime::UNIX_EPOCH);
    advance(HOUR).await;
    clock.advance(HOUR);
    assert_eq!(clock.clone().now(), SystemTime::UNIX_EPOCH + 2 * HOUR);
    clock.set(SystemTime::UNIX_EPOCH);
    assert_eq!(reader(), SystemTime::UNIX_EPOCH);
}

#[tokio::test(start_paused = true)]
async fn only_a_moved_clock_looks_like_a_suspended_system() {
    let clock = FakeWallClock::new();
    let cache = TokenCache::builder(ScriptedSource::default()).wall_clock(clock.reader()).build();
    cache.warm_up().await.unwrap();
    advance(HOUR / 4).await;
    assert!(cache.current().is_some(), "both clocks have moved by the same time");
    clock.advance(2 * HOUR);
    advance(Duration::from_secs(30)).await;
    assert!(cache.current().is_none(), "the wall clock is two hours ahead");
}
