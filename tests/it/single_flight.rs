//! Single flight: all callers that wait share one refresh and its result.

use std::{fmt::Debug, time::Duration};

use tokio::{task::yield_now, time::sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service};
use tower_oauth::{
    AccessToken, CachedToken, ClientAuth, ClientCredentials, ConfigError, OAuth, OAuthLayer,
    Origins, TokenCache, TokenEndpoint, TokenError, TokenErrorKind,
};

use crate::{
    recovery::layer,
    support::{FakeApi, Reply, ScriptedSource, TestSetup, get, wait_for_backoff},
};

#[tokio::test(start_paused = true)]
async fn waiting_callers_share_one_refresh() {
    let setup = TestSetup::new();
    setup.source.hold_requests();
    let waiters: Vec<_> = (0..100)
        .map(|_| {
            let cache = setup.cache.clone();
            tokio::spawn(async move { cache.token().await.unwrap().generation().get() })
        })
        .collect();
    yield_now().await;
    setup.source.release_requests(1);
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap(), 1);
    }
    assert_eq!(setup.source.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn cached_token_is_returned_immediately() {
    let setup = TestSetup::with_token().await;
    assert!(assert_ready!(task::spawn(setup.cache.token()).poll()).is_ok());
    assert_eq!(setup.source.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn unpolled_future_makes_no_token_request() {
    let setup = TestSetup::new();
    let token = setup.cache.token();
    sleep(Duration::from_secs(86_400)).await;
    assert!(setup.cache.current().is_none());
    drop(token);
    assert_eq!(setup.source.request_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn error_is_shared_by_waiters_and_by_callers_in_the_backoff() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Fail]);
    setup.source.hold_requests();
    let mut waiters: Vec<_> = (0..10).map(|_| task::spawn(setup.cache.token())).collect();
    for waiter in &mut waiters {
        assert_pending!(waiter.poll());
    }
    setup.source.release_requests(1);
    sleep(Duration::from_millis(1)).await;
    for waiter in &mut waiters {
        let error = assert_ready!(waiter.poll()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Transport);
    }
    assert_eq!(setup.source.request_count(), 1);
    let error = setup.cache.token().await.unwrap_err();
    assert_eq!(setup.source.request_count(), 1, "the back-off must prevent a token request");
    wait_for_backoff(&error).await;
    setup.source.release_requests(1);
    assert!(setup.cache.token().await.is_ok());
    assert_eq!(setup.source.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_the_current_token_can_be_invalidated() {
    let setup = TestSetup::with_token().await;
    let first = setup.cache.current().unwrap();
    assert!(setup.cache.invalidate(first.generation()));
    assert!(!setup.cache.invalidate(first.generation()), "the token is already invalidated");
    let second = setup.cache.token().await.unwrap();
    assert!(second.generation() > first.generation());
    assert!(!setup.cache.invalidate(first.generation()), "the cache has a newer token");
    assert_eq!(setup.cache.current().unwrap().generation(), second.generation());
}

#[tokio::test(start_paused = true)]
async fn token_rejected_before_a_waiter_wakes_is_not_returned() {
    let setup = TestSetup::new();
    setup.source.hold_requests();
    let mut waiter = task::spawn(setup.cache.token());
    assert_pending!(waiter.poll());
    setup.source.release_requests(2);
    let first = setup.cache.token().await.unwrap();
    setup.cache.invalidate(first.generation());
    let token = waiter.await.unwrap();
    assert_eq!(token.generation().get(), 2);
    assert_eq!(setup.source.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn token_that_is_expired_on_arrival_is_an_error() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Issue(Duration::ZERO)]);
    let error = setup.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    assert!(error.to_string().contains("expired"), "{error}");
    assert!(setup.cache.current().is_none());
}

#[tokio::test(start_paused = true)]
async fn waiter_that_wakes_after_the_expiry_retries_once() {
    let setup = TestSetup::new();
    let short = || Reply::Issue(Duration::from_secs(1));
    setup.source.script([short(), short()]);
    let mut waiter = task::spawn(setup.cache.token());
    for request_count in 1..=2 {
        assert_pending!(waiter.poll());
        sleep(Duration::from_secs(2)).await;
        assert_eq!(setup.source.request_count(), request_count);
    }
    let error = assert_ready!(waiter.poll()).unwrap_err();
    assert!(error.to_string().contains("lifetime is too short"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn clones_share_a_token_and_separate_caches_do_not() {
    let setup = TestSetup::with_token().await;
    assert_eq!(setup.cache.clone().token().await.unwrap().generation().get(), 1);
    let other = TokenCache::new(ScriptedSource::new(&FakeApi::default()));
    assert!(other.current().is_none());
}

#[test]
fn handles_can_be_shared_between_threads() {
    fn assert_shareable<T: Send + Sync + Clone + Debug + 'static>() {}
    assert_shareable::<TokenCache>();
    assert_shareable::<CachedToken>();
    assert_shareable::<AccessToken>();
    assert_shareable::<TokenError>();
    assert_shareable::<ConfigError>();
    assert_shareable::<TokenEndpoint>();
    assert_shareable::<ClientCredentials>();
    assert_shareable::<ClientAuth>();
    assert_shareable::<Origins>();
    assert_shareable::<OAuthLayer>();
    assert_shareable::<OAuth<()>>();
}

#[test]
fn response_future_is_send() {
    fn assert_send<T: Send>(_: &T) {}
    let setup = TestSetup::new();
    let mut service = layer(&setup.cache).layer(setup.api.service());
    assert_send(&service.call(get("/")));
}
