//! A machine that sleeps: its monotonic clock stands still, the wall clock does not.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use http::StatusCode;
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, task};
use tower_oauth::TokenCache;

use crate::support::{Asleep, World};

const SECOND: Duration = Duration::from_secs(1);
const HALF_A_MINUTE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_token_that_expired_while_the_machine_slept_is_not_sent() {
    let asleep = Asleep::default();
    let world = World::with(|cache| asleep.wall_clock(cache));
    world.get().await.unwrap();
    asleep.for_another(2 * HOUR);
    advance(HALF_A_MINUTE).await;
    assert!(world.cache.current().is_none());
    assert_eq!(world.get().await.unwrap(), StatusCode::OK);
    assert_eq!(world.api.transcript(), ["token-1 200", "token-2 200"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_grows_older_by_the_sleep_each_time() {
    let asleep = Asleep::default();
    let world = World::with(|cache| asleep.wall_clock(cache));
    let token = world.cache.token().await.unwrap();
    for _ in 0..3 {
        asleep.for_another(600 * SECOND);
        advance(HALF_A_MINUTE).await;
    }
    let older = world.cache.current().unwrap();
    assert_eq!(older.remaining(), Some(HOUR - 3 * (600 * SECOND + HALF_A_MINUTE)));
    assert_eq!((older.generation(), older.is_stale()), (token.generation(), false));
    asleep.for_another(700 * SECOND);
    advance(HALF_A_MINUTE).await;
    assert!(world.cache.current().unwrap().is_stale(), "2620 of 3600 seconds old");
    assert_eq!(world.get().await.unwrap(), StatusCode::OK);
    tokio::task::yield_now().await;
    assert_eq!(world.issuer.asked(), 2, "renewed behind");
}

#[tokio::test(start_paused = true)]
async fn a_sleep_during_the_token_request_counts() {
    let asleep = Asleep::default();
    let world = World::with(|cache| asleep.wall_clock(cache));
    world.issuer.close_the_door();
    let mut token = task::spawn(world.cache.token());
    assert!(token.poll().is_pending());
    tokio::task::yield_now().await;
    asleep.for_another(2 * HOUR);
    world.issuer.let_in(2);
    token.await.unwrap();
    advance(HALF_A_MINUTE).await;
    assert!(world.cache.current().is_none());
}

#[tokio::test(start_paused = true)]
async fn who_follows_the_status_is_told_of_what_the_sleep_did_to_the_token() {
    let asleep = Asleep::default();
    let world = World::with(|cache| asleep.wall_clock(cache));
    world.get().await.unwrap();
    let mut changes = world.cache.subscribe();
    changes.next().await;
    let mut next = task::spawn(changes.next());
    assert_pending!(next.poll());
    asleep.for_another(2 * HOUR);
    advance(HALF_A_MINUTE).await;
    assert_pending!(next.poll());
    assert!(world.cache.current().is_none());
    assert!(next.is_woken());
    assert!(assert_ready!(next.poll()).unwrap().current().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_may_itself_look_at_the_cache() {
    static CACHE: OnceLock<TokenCache> = OnceLock::new();
    let world = World::with(|cache| {
        cache.wall_clock(|| {
            CACHE.get().map(TokenCache::current);
            SystemTime::now()
        })
    });
    world.cache.token().await.unwrap();
    CACHE.set(world.cache.clone()).unwrap();
    advance(HALF_A_MINUTE).await;
    assert!(world.cache.current().is_some());
}

#[tokio::test(start_paused = true)]
async fn clocks_that_drift_are_set_or_stand_still_change_nothing() {
    let asleep = Asleep::default();
    let world = World::with(|cache| asleep.wall_clock(cache));
    world.cache.token().await.unwrap();
    asleep.for_another(4 * SECOND);
    advance(HALF_A_MINUTE).await;
    assert_eq!(world.cache.current().unwrap().remaining(), Some(HOUR - HALF_A_MINUTE));
    asleep.for_another(SECOND);
    advance(HALF_A_MINUTE).await;
    assert_eq!(world.cache.current().unwrap().remaining(), Some(HOUR - 65 * SECOND), "drift adds up");

    let standing = World::with(|cache| cache.wall_clock(|| SystemTime::UNIX_EPOCH));
    standing.cache.token().await.unwrap();
    advance(HOUR / 2).await;
    assert_eq!(standing.cache.current().unwrap().remaining(), Some(HOUR / 2));
}
