//! The limit on token requests.

use std::{num::NonZeroU32, time::Duration};

use http::StatusCode;
use tokio::time::advance;
use tower_oauth::{RefreshState, TokenErrorKind};

use crate::support::{Plan, World, after_back_off, token_error};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);

fn limited(most: u32) -> World {
    World::with(|cache| cache.token_request_limit(NonZeroU32::new(most).unwrap(), DAY))
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_used_up_serves_the_token_until_it_expires_and_says_so() {
    let world = limited(2);
    world.get().await.unwrap();
    advance(Duration::from_secs(2520)).await; // stale
    world.get().await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(world.issuer.asked(), 2, "renewed behind");
    let left = DAY - Duration::from_secs(2520);
    assert_eq!(world.cache.status().refresh, RefreshState::LimitReached { next_attempt_in: left });

    advance(Duration::from_secs(3569)).await;
    assert_eq!(world.get().await.unwrap(), StatusCode::OK, "it is stale, and served");
    advance(Duration::from_secs(1)).await;
    let error = world.get().await.unwrap_err();
    let error = token_error(&error);
    assert_eq!(error.kind(), TokenErrorKind::LimitReached);
    assert_eq!(error.next_attempt_in(), Some(left - Duration::from_secs(3570)));
    assert!(error.to_string().contains("limit on token requests"), "{error}");
    assert_eq!(world.issuer.asked(), 2);

    after_back_off(error).await;
    assert_eq!(world.get().await.unwrap(), StatusCode::OK, "a day after the first request");
    assert_eq!(world.issuer.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_when_the_limit_is_used_up_is_not_sent_again() {
    let world = limited(1);
    world.get().await.unwrap();
    world.api.revoke(1);
    assert_eq!(world.get().await.unwrap(), StatusCode::UNAUTHORIZED);
    let error = world.get().await.unwrap_err();
    assert_eq!(token_error(&error).kind(), TokenErrorKind::LimitReached);
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_count_as_well() {
    let world = limited(2);
    world.issuer.plan([Plan::Fail, Plan::Fail]);
    for _ in 0..2 {
        let error = world.cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Transport);
        after_back_off(&error).await;
    }
    assert_eq!(world.cache.token().await.unwrap_err().kind(), TokenErrorKind::LimitReached);
    advance(DAY - HOUR).await;
    assert_eq!(world.cache.token().await.unwrap_err().kind(), TokenErrorKind::LimitReached);
    advance(HOUR).await;
    assert!(world.cache.token().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_limit_may_be_for_ever() {
    let world = World::with(|cache| cache.token_request_limit(NonZeroU32::MIN, Duration::MAX));
    let token = world.cache.token().await.unwrap();
    world.cache.invalidate(token.generation());
    advance(1000 * DAY).await;
    assert_eq!(world.cache.token().await.unwrap_err().kind(), TokenErrorKind::LimitReached);
    assert!(matches!(world.cache.status().refresh, RefreshState::LimitReached { .. }));
}
