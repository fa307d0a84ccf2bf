//! Requests over a whole day of virtual time, and the end of a cache.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{
    AccessToken, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind, source_fn,
};

use crate::support::{API, Body, Reply, TestSetup, get};

const DAY: Duration = Duration::from_secs(86_400);

/// Sends 20 requests a second for one day. Returns the number of requests that waited for a token.
async fn send_for_a_day(setup: &TestSetup, mut before_each: impl FnMut(Instant)) -> usize {
    let api = tower::service_fn(|request: Request<Body>| {
        assert!(request.headers().contains_key("authorization"));
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::default())))
    });
    let layer = OAuthLayer::new(setup.cache.clone(), Origins::new([API]).unwrap());
    let mut client = layer.layer(api);
    let start = Instant::now();
    let mut waited = 0;
    while start.elapsed() < DAY {
        before_each(start);
        let before = Instant::now();
        client.ready().await.unwrap().call(get("/")).await.unwrap();
        waited += usize::from(before.elapsed() > Duration::ZERO);
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    waited
}

/// Builds a setup in which a token request takes 300 ms.
fn slow_setup() -> TestSetup {
    let setup = TestSetup::new();
    setup.source.set_latency(Duration::from_millis(300));
    setup
}

#[tokio::test(start_paused = true)]
async fn outage_of_a_quarter_of_an_hour_fails_no_request() {
    let setup = slow_setup();
    let mut outage_from = None;
    let waited = send_for_a_day(&setup, |start| {
        // The outage begins at the worst moment: when the token is due for a refresh.
        let noon = start + DAY / 2;
        if outage_from.is_none()
            && Instant::now() > noon
            && setup.cache.current().is_some_and(|token| token.is_stale())
        {
            outage_from = Some(Instant::now());
        }
        let down = outage_from.is_some_and(|from| from.elapsed() < Duration::from_secs(15 * 60));
        setup.source.set_down(down);
    })
    .await;
    assert!(outage_from.is_some());
    assert_eq!(waited, 1, "only the first request waits");
    let requests = setup.source.request_count();
    assert!((24..=60).contains(&requests), "{requests} token requests");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_one_day_need_two_token_requests_a_day() {
    let setup = slow_setup();
    setup.source.script((0..3).map(|_| Reply::Issue(DAY)));
    assert_eq!(send_for_a_day(&setup, |_| {}).await, 1);
    assert_eq!(setup.source.request_count(), 2);
}

/// A new random number for each request would make an early refresh almost certain.
#[tokio::test(start_paused = true)]
async fn refresh_jitter_is_drawn_once_per_token() {
    for _ in 0..20 {
        let setup = TestSetup::new();
        setup.source.script([Reply::Issue(Duration::from_secs(1000))]);
        setup.get().await.unwrap();
        setup.source.hold_requests();
        // The token becomes stale at a random moment between 500 and 550 seconds.
        tokio::time::advance(Duration::from_secs(525)).await;
        setup.get().await.unwrap();
        let requests = setup.source.request_count();
        for _ in 0..50 {
            setup.get().await.unwrap();
        }
        assert_eq!(setup.source.request_count(), requests);
    }
}

#[tokio::test(start_paused = true)]
async fn closed_cache_drops_its_token_source() {
    let held = Arc::new(());
    let still_held = Arc::downgrade(&held);
    let cache = TokenCache::new(source_fn(move |_| {
        let held = Arc::clone(&held);
        async move {
            let never = std::future::pending::<Result<AccessToken, TokenError>>().await;
            drop(held);
            never
        }
    }));
    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.token().await }
    });
    tokio::task::yield_now().await;
    cache.close();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), TokenErrorKind::Closed);
    while still_held.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(cache.token().await.unwrap_err().kind(), TokenErrorKind::Closed);
}
