//! Tokens that expire within a second.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, advance, sleep};
use tower_oauth::{RefreshState, TokenErrorKind};

use crate::support::{Reply, TestSetup};

const LIFETIME: Duration = Duration::from_millis(10);

fn setup() -> TestSetup {
    let setup = TestSetup::new();
    setup.source.script((0..1000).map(|_| Reply::Issue(LIFETIME)));
    setup
}

#[tokio::test(start_paused = true)]
async fn lifetime_of_10_ms_costs_one_token_request_a_second() {
    let setup = setup();
    let end = Instant::now() + Duration::from_secs(10);
    let callers = (0..10).map(|_| async {
        let mut requests = 0;
        while Instant::now() < end {
            assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
            requests += 1;
            sleep(Duration::from_millis(1)).await;
        }
        requests
    });
    let requests = futures_util::future::join_all(callers).await;
    assert!(requests.iter().all(|requests| *requests >= 10), "{requests:?}");
    let token_requests = setup.source.request_count();
    assert!((10..=11).contains(&token_requests), "{token_requests}");
}

#[tokio::test(start_paused = true)]
async fn status_shows_the_pause_after_a_short_lived_token() {
    let setup = setup();
    setup.get().await.unwrap();
    assert_eq!(setup.cache.status().refresh, RefreshState::Idle);
    advance(Duration::from_millis(100)).await;
    let status = setup.cache.status();
    let next_attempt_in = Duration::from_millis(900);
    assert_eq!(status.refresh, RefreshState::Pausing { next_attempt_in });
    assert!(status.can_serve() && status.current().is_none());
    advance(next_attempt_in).await;
    assert_eq!(setup.cache.status().refresh, RefreshState::Idle);
}

#[tokio::test(start_paused = true)]
async fn close_ends_the_wait_for_the_next_token() {
    let setup = setup();
    setup.get().await.unwrap();
    sleep(LIFETIME).await;
    let start = Instant::now();
    let close = async {
        sleep(Duration::from_millis(1)).await;
        setup.cache.close();
    };
    let (token, ()) = tokio::join!(setup.cache.token(), close);
    assert_eq!(token.unwrap_err().kind(), TokenErrorKind::Closed);
    assert!(start.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn token_of_another_refresh_ends_the_pause() {
    let setup = setup();
    let first = setup.cache.token().await.unwrap();
    sleep(LIFETIME).await;
    let start = Instant::now();
    // An invalidation permits a refresh at once, while this caller waits for the next second.
    let others = async {
        sleep(Duration::from_millis(10)).await;
        assert!(setup.cache.invalidate(first.generation()));
        setup.cache.token().await.unwrap();
    };
    let (token, ()) = tokio::join!(setup.cache.token(), others);
    assert!(token.unwrap().generation() > first.generation());
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn rejected_short_lived_token_is_replaced_at_once() {
    let setup = setup();
    setup.get().await.unwrap();
    setup.api.revoke(1);
    let start = Instant::now();
    assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
    assert_eq!((start.elapsed(), setup.source.request_count()), (Duration::ZERO, 2));
}
