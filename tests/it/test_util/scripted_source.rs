//! The scripted token source.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tower_oauth::{
    AccessToken, FetchReason, TokenCache, TokenError, TokenErrorKind,
    test_util::{Answer, ScriptedSource},
};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn answers_are_given_in_the_order_of_the_script() {
    let fixed = AccessToken::bearer("fixed").unwrap();
    let error = TokenError::new(TokenErrorKind::Server, "busy").with_retry_after(MINUTE);
    let source = ScriptedSource::new([
        Answer::token(MINUTE),
        Answer::error(TokenErrorKind::Transport),
        Answer::from_error(error),
        Answer::panic(),
        Answer::from_token(fixed),
    ]);
    source.push([Answer::token(2 * MINUTE)]);
    let cache = TokenCache::new(source.clone());

    let mut outcomes = Vec::new();
    for _ in 0..7 {
        match cache.token().await {
            Ok(token) => {
                let lifetime = token.lifetime().unwrap_or_default().as_secs();
                outcomes.push(format!("{} {lifetime}", token.expose_secret()));
                cache.invalidate(token.generation());
            }
            Err(error) => {
                outcomes.push(error.kind().as_str().to_owned());
                sleep(error.next_attempt_in().unwrap()).await;
            }
        }
    }
    let expected =
        ["token-1 60", "transport", "server", "panicked", "fixed 0", "token-2 120", "token-3 3600"];
    assert_eq!(outcomes, expected);
    assert_eq!(source.fetch_count(), 7);
}

#[tokio::test(start_paused = true)]
async fn reasons_are_recorded_and_shared_by_clones() {
    let source = ScriptedSource::new([Answer::token(10 * MINUTE), Answer::token(10 * MINUTE)]);
    let cache = TokenCache::new(source.clone());
    assert_eq!((source.fetch_count(), source.reasons()), (0, vec![]));

    cache.token().await.unwrap();
    sleep(6 * MINUTE).await;
    cache.token().await.unwrap();
    source.wait_for_fetches(2).await;
    sleep(10 * MINUTE).await;
    let token = cache.token().await.unwrap();
    cache.invalidate(token.generation());
    cache.token().await.unwrap();

    let expected =
        [FetchReason::First, FetchReason::Stale, FetchReason::Expired, FetchReason::Rejected];
    assert_eq!(source.reasons(), expected);
    assert_eq!(source.clone().fetch_count(), 4);
}

#[tokio::test(start_paused = true)]
async fn held_answer_waits_for_its_release() {
    let source = ScriptedSource::new([Answer::token(MINUTE).held(), Answer::token(MINUTE).held()]);
    let cache = TokenCache::new(source.clone());
    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.token().await }
    });
    source.wait_for_fetches(1).await;
    sleep(Duration::from_secs(20)).await;
    assert!(!waiting.is_finished());
    source.release();
    let token = waiting.await.unwrap().unwrap();
    assert_eq!(token.expose_secret(), "token-1");

    // The second answer is released before its fetch begins.
    source.release();
    cache.invalidate(token.generation());
    let start = Instant::now();
    assert_eq!(cache.token().await.unwrap().expose_secret(), "token-2");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn wait_for_fetches_ends_only_at_its_count() {
    let source = ScriptedSource::default();
    let cache = TokenCache::new(source.clone());
    cache.token().await.unwrap();
    source.wait_for_fetches(1).await;
    timeout(MINUTE, source.wait_for_fetches(2)).await.unwrap_err();
}

#[tokio::test]
async fn debug_shows_no_token() {
    let token = AccessToken::bearer("T0KEN").unwrap();
    let source =
        ScriptedSource::new([Answer::from_token(token.clone()), Answer::from_token(token)]);
    let cache = TokenCache::new(source.clone());
    cache.token().await.unwrap();
    let shown = format!("{source:?}");
    assert!(!shown.contains("T0KEN"), "{shown}");
    assert!(shown.contains("First"), "{shown}");
}
