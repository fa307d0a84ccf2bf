//! The limit on token requests.

use std::{convert::Infallible, num::NonZeroU32, time::Duration};

use http::{Request, Response, StatusCode};
use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_oauth::{OAuthLayer, Origins, RefreshState, TokenErrorKind};

use crate::support::{API, Body, Reply, TestSetup, get, token_error, wait_for_backoff};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);

fn limited(most: u32) -> TestSetup {
    let most = NonZeroU32::new(most).unwrap();
    TestSetup::with_settings(|cache| cache.token_request_limit(most, DAY))
}

#[tokio::test(start_paused = true)]
async fn token_is_served_until_it_expires_when_the_limit_is_reached() {
    let setup = limited(2);
    setup.get().await.unwrap();
    advance(Duration::from_secs(2520)).await; // the token is stale now
    setup.get().await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(setup.source.request_count(), 2, "the token is refreshed in the background");
    let left = DAY - Duration::from_secs(2520);
    let refresh = setup.cache.status().refresh;
    assert_eq!(refresh, RefreshState::LimitReached { next_attempt_in: left });

    advance(Duration::from_secs(3569)).await;
    assert_eq!(setup.get().await.unwrap(), StatusCode::OK, "the stale token is still sent");
    advance(Duration::from_secs(1)).await;
    let error = setup.get().await.unwrap_err();
    let error = token_error(&error);
    assert_eq!(error.kind(), TokenErrorKind::LimitReached);
    assert_eq!(error.next_attempt_in(), Some(left - Duration::from_secs(3570)));
    assert!(
        error.to_string().contains("the token request limit of this cache is reached"),
        "{error}"
    );
    assert_eq!(setup.source.request_count(), 2);

    wait_for_backoff(error).await;
    assert_eq!(setup.get().await.unwrap(), StatusCode::OK, "one day after the first request");
    assert_eq!(setup.source.request_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn token_rejected_after_the_limit_is_reached_stays_in_use() {
    let setup = limited(1);
    setup.get().await.unwrap();
    setup.api.revoke(1);
    for _ in 0..3 {
        assert_eq!(setup.get().await.unwrap(), StatusCode::UNAUTHORIZED);
    }
    assert!(setup.cache.current().is_some());
    assert_eq!(setup.source.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_rejects_all_does_not_stop_the_others() {
    let most = NonZeroU32::new(6).unwrap();
    let setup = TestSetup::with_settings(|cache| cache.token_request_limit(most, HOUR));
    let rejecting = OAuthLayer::new(setup.cache.clone(), Origins::new([API]).unwrap());
    let rejecting = rejecting.layer(tower::service_fn(|_: Request<Body>| {
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        std::future::ready(Ok::<_, Infallible>(response))
    }));
    // Shorter than the lifetime of the last token: no token expires while the limit is reached.
    for _ in 0..3000 {
        let rejected = rejecting.clone().oneshot(get("/")).await.unwrap();
        assert_eq!(rejected.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(setup.source.request_count(), 6);
}

#[tokio::test(start_paused = true)]
async fn failed_token_requests_count_towards_the_limit() {
    let setup = limited(2);
    setup.source.script([Reply::Fail, Reply::Fail]);
    for _ in 0..2 {
        let error = setup.cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Transport);
        wait_for_backoff(&error).await;
    }
    assert_eq!(setup.cache.token().await.unwrap_err().kind(), TokenErrorKind::LimitReached);
    advance(DAY - HOUR).await;
    assert_eq!(setup.cache.token().await.unwrap_err().kind(), TokenErrorKind::LimitReached);
    advance(HOUR).await;
    assert!(setup.cache.token().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn limit_with_the_longest_period_never_resets() {
    let setup =
        TestSetup::with_settings(|cache| cache.token_request_limit(NonZeroU32::MIN, Duration::MAX));
    let token = setup.cache.token().await.unwrap();
    setup.cache.invalidate(token.generation());
    advance(1000 * DAY).await;
    assert_eq!(setup.cache.token().await.unwrap_err().kind(), TokenErrorKind::LimitReached);
    assert!(matches!(setup.cache.status().refresh, RefreshState::LimitReached { .. }));
}
