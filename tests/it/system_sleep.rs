//! System sleep: the monotonic clock stops, the wall clock does not.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use http::StatusCode;
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, task};
use tower_oauth::{
    AccessToken, RefreshState, TokenCache, TokenErrorKind, source_fn, test_util::FakeWallClock,
};

use crate::support::TestSetup;

const SECOND: Duration = Duration::from_secs(1);
const HALF_A_MINUTE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn token_that_expired_during_sleep_is_not_sent() {
    let clock = FakeWallClock::new();
    let setup = TestSetup::with_settings(|cache| cache.wall_clock(clock.reader()));
    setup.get().await.unwrap();
    clock.advance(2 * HOUR);
    advance(HALF_A_MINUTE).await;
    assert!(setup.cache.current().is_none());
    assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
    assert_eq!(setup.api.transcript(), ["token-1 200", "token-2 200"]);
}

#[tokio::test(start_paused = true)]
async fn each_sleep_adds_to_the_age_of_the_token() {
    let clock = FakeWallClock::new();
    let setup = TestSetup::with_settings(|cache| cache.wall_clock(clock.reader()));
    let token = setup.cache.token().await.unwrap();
    for _ in 0..3 {
        clock.advance(600 * SECOND);
        advance(HALF_A_MINUTE).await;
    }
    let older = setup.cache.current().unwrap();
    assert_eq!(older.remaining(), Some(HOUR - 3 * (600 * SECOND + HALF_A_MINUTE)));
    assert_eq!((older.generation(), older.is_stale()), (token.generation(), false));
    clock.advance(700 * SECOND);
    advance(HALF_A_MINUTE).await;
    assert!(setup.cache.current().unwrap().is_stale(), "the token is 2620 of 3600 seconds old");
    assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
    tokio::task::yield_now().await;
    assert_eq!(setup.source.request_count(), 2, "the token is refreshed in the background");
}

#[tokio::test(start_paused = true)]
async fn sleep_during_the_token_request_adds_to_the_age() {
    let clock = FakeWallClock::new();
    let setup = TestSetup::with_settings(|cache| cache.wall_clock(clock.reader()));
    setup.source.hold_requests();
    let mut token = task::spawn(setup.cache.token());
    assert!(token.poll().is_pending());
    tokio::task::yield_now().await;
    clock.advance(2 * HOUR);
    setup.source.release_requests(2);
    token.await.unwrap();
    advance(HALF_A_MINUTE).await;
    assert!(setup.cache.current().is_none());
}

#[tokio::test(start_paused = true)]
async fn status_subscriber_is_notified_when_sleep_expires_the_token() {
    let clock = FakeWallClock::new();
    let setup = TestSetup::with_settings(|cache| cache.wall_clock(clock.reader()));
    setup.get().await.unwrap();
    let mut changes = setup.cache.subscribe();
    changes.next().await;
    let mut next = task::spawn(changes.next());
    assert_pending!(next.poll());
    clock.advance(2 * HOUR);
    advance(HALF_A_MINUTE).await;
    assert_pending!(next.poll());
    assert!(setup.cache.current().is_none());
    assert!(next.is_woken());
    assert!(assert_ready!(next.poll()).unwrap().current().is_none());
}

#[tokio::test(start_paused = true)]
async fn wall_clock_may_call_the_cache() {
    static CACHE: OnceLock<TokenCache> = OnceLock::new();
    let setup = TestSetup::with_settings(|cache| {
        cache.wall_clock(|| {
            CACHE.get().map(TokenCache::current);
            SystemTime::now()
        })
    });
    setup.cache.token().await.unwrap();
    CACHE.set(setup.cache.clone()).unwrap();
    advance(HALF_A_MINUTE).await;
    assert!(setup.cache.current().is_some());
}

#[tokio::test(start_paused = true)]
async fn clock_drift_and_a_stopped_wall_clock_keep_the_token() {
    let clock = FakeWallClock::new();
    let setup = TestSetup::with_settings(|cache| cache.wall_clock(clock.reader()));
    setup.cache.token().await.unwrap();
    clock.advance(4 * SECOND);
    advance(HALF_A_MINUTE).await;
    assert_eq!(setup.cache.current().unwrap().remaining(), Some(HOUR - HALF_A_MINUTE));
    clock.advance(SECOND);
    advance(HALF_A_MINUTE).await;
    let remaining = setup.cache.current().unwrap().remaining();
    assert_eq!(remaining, Some(HOUR - 65 * SECOND), "drift adds up");

    let stopped = TestSetup::with_settings(|cache| cache.wall_clock(|| SystemTime::UNIX_EPOCH));
    stopped.cache.token().await.unwrap();
    advance(HOUR / 2).await;
    assert_eq!(stopped.cache.current().unwrap().remaining(), Some(HOUR / 2));
}

/// Returns a cache, with `act` called by the next reading of the wall clock once the flag is set.
/// When it has acted, the clock shows that the system slept for half an hour.
fn cache_with_clock_that(
    act: impl Fn(&TokenCache) -> bool + Send + Sync + 'static,
) -> (TokenCache, Arc<AtomicBool>) {
    let (cell, armed) = (Arc::new(OnceLock::<TokenCache>::new()), Arc::new(AtomicBool::new(false)));
    let (cache_of_clock, is_armed) = (Arc::clone(&cell), Arc::clone(&armed));
    let has_acted = AtomicBool::new(false);
    let source = source_fn(|_| async { Ok(AccessToken::bearer("t")?.expires_in(HOUR)) });
    let cache = TokenCache::builder(source)
        .wall_clock(move || {
            if is_armed.swap(false, SeqCst) {
                let acts = act(cache_of_clock.get().unwrap());
                is_armed.store(!acts, SeqCst);
                has_acted.store(acts, SeqCst);
            }
            let slept = if has_acted.load(SeqCst) { HOUR / 2 } else { Duration::ZERO };
            SystemTime::UNIX_EPOCH + slept
        })
        .build();
    cell.set(cache.clone()).unwrap();
    (cache, armed)
}

#[tokio::test(start_paused = true)]
async fn token_invalidated_during_the_clock_check_is_not_returned() {
    let first = Arc::new(OnceLock::new());
    let rejected = Arc::clone(&first);
    let (cache, armed) =
        cache_with_clock_that(move |cache| cache.invalidate(*rejected.get().unwrap()));
    first.set(cache.token().await.unwrap().generation()).unwrap();
    advance(HALF_A_MINUTE + SECOND).await;
    armed.store(true, SeqCst);
    assert!(cache.current().is_none());
}

#[tokio::test(start_paused = true)]
async fn token_of_a_cache_closed_as_a_refresh_starts_is_not_returned() {
    let (cache, armed) = cache_with_clock_that(|cache| {
        let is_refreshing = matches!(cache.status().refresh, RefreshState::Refreshing);
        if is_refreshing {
            cache.close();
        }
        is_refreshing
    });
    cache.token().await.unwrap();
    advance(Duration::from_secs(3000)).await;
    armed.store(true, SeqCst);
    assert_eq!(cache.token().await.unwrap_err().kind(), TokenErrorKind::Closed);
}
