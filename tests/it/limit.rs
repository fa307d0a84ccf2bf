//! The limit on token requests.

use std::{num::NonZeroU32, time::Duration};

use http::StatusCode;
use tokio::time::advance;
use tower_oauth::{RefreshState, TokenErrorKind};

use crate::support::{Reply, TestSetup, token_error, wait_for_backoff};

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
async fn token_rejected_after_the_limit_is_reached_is_not_sent_again() {
    let setup = limited(1);
    setup.get().await.unwrap();
    setup.api.revoke(1);
    assert_eq!(setup.get().await.unwrap(), StatusCode::UNAUTHORIZED);
    let error = setup.get().await.unwrap_err();
    assert_eq!(token_error(&error).kind(), TokenErrorKind::LimitReached);
    assert_eq!(setup.source.request_count(), 1);
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
