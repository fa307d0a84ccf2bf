//! One fetch for everybody who waits, whatever comes of it.

use std::time::Duration;

use tokio_test::{assert_pending, assert_ready, task};
use tower_oauth::{TokenCache, TokenErrorKind};

use crate::support::{Api, Issuer, Plan, World, after_back_off};

#[tokio::test(start_paused = true)]
async fn all_who_wait_share_one_fetch_and_its_token() {
    let world = World::new();
    world.issuer.close_the_door();
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let cache = world.cache.clone();
            tokio::spawn(async move { cache.token().await.unwrap().generation().get() })
        })
        .collect();
    tokio::task::yield_now().await;
    world.issuer.let_in(1);
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap(), 1);
    }
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_there_is_given_at_once() {
    let world = World::with_token().await;
    assert!(assert_ready!(task::spawn(world.cache.token()).poll()).is_ok());
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_fetched_before_somebody_asks() {
    let world = World::new();
    let token = world.cache.token();
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert!(world.cache.current().is_none());
    drop(token);
    assert_eq!(world.issuer.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_shared_by_all_who_wait_and_by_those_who_come_during_the_back_off() {
    let world = World::new();
    world.issuer.plan([Plan::Fail]);
    world.issuer.close_the_door();
    let mut waiting: Vec<_> = (0..10).map(|_| task::spawn(world.cache.token())).collect();
    for waiter in &mut waiting {
        assert_pending!(waiter.poll());
    }
    world.issuer.let_in(1);
    tokio::time::sleep(Duration::from_millis(1)).await;
    for waiter in &mut waiting {
        let error = assert_ready!(waiter.poll()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Transport);
    }
    assert_eq!(world.issuer.asked(), 1);
    let error = world.cache.token().await.unwrap_err();
    assert_eq!(world.issuer.asked(), 1, "nor is it asked for again at once");
    after_back_off(&error).await;
    world.issuer.let_in(1);
    assert!(world.cache.token().await.is_ok());
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_the_token_in_use_can_be_invalidated() {
    let world = World::with_token().await;
    let first = world.cache.current().unwrap();
    assert!(world.cache.invalidate(first.generation()));
    assert!(!world.cache.invalidate(first.generation()), "it is out of use already");
    let second = world.cache.token().await.unwrap();
    assert!(second.generation() > first.generation());
    assert!(!world.cache.invalidate(first.generation()), "a newer one is in use");
    assert_eq!(world.cache.current().unwrap().generation(), second.generation());
}

#[tokio::test(start_paused = true)]
async fn a_token_refused_before_a_waiter_woke_is_not_given_to_it() {
    let world = World::new();
    world.issuer.close_the_door();
    let mut waiter = task::spawn(world.cache.token());
    assert_pending!(waiter.poll());
    world.issuer.let_in(2);
    let first = world.cache.token().await.unwrap();
    world.cache.invalidate(first.generation());
    let token = waiter.await.unwrap();
    assert_eq!(token.generation().get(), 2);
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_expired_on_arrival_is_an_error() {
    for lifetime in [Duration::ZERO, Duration::from_nanos(0)] {
        let world = World::new();
        world.issuer.plan([Plan::Issue(lifetime)]);
        let error = world.cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains("expired"), "{error}");
        assert!(world.cache.current().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_wakes_after_the_expiry_looks_once_more_and_no_more_than_that() {
    let world = World::new();
    world.issuer.plan([Plan::Issue(Duration::from_secs(1)), Plan::Issue(Duration::from_secs(1))]);
    let mut waiter = task::spawn(world.cache.token());
    for asked in 1..=2 {
        assert_pending!(waiter.poll());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(world.issuer.asked(), asked);
    }
    let error = assert_ready!(waiter.poll()).unwrap_err();
    assert!(error.to_string().contains("lifetime is too short"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn clones_share_the_token_and_caches_do_not() {
    let world = World::with_token().await;
    assert_eq!(world.cache.clone().token().await.unwrap().generation().get(), 1);
    let api = Api::default();
    let other = TokenCache::new(Issuer::new(&api));
    assert!(other.current().is_none());
}

#[test]
fn handles_can_be_shared_between_threads() {
    fn is<T: Send + Sync + Clone + std::fmt::Debug + 'static>() {}
    is::<TokenCache>();
    is::<tower_oauth::CachedToken>();
    is::<tower_oauth::AccessToken>();
    is::<tower_oauth::TokenError>();
    is::<tower_oauth::ConfigError>();
    is::<tower_oauth::TokenEndpoint>();
    is::<tower_oauth::ClientCredentials>();
    is::<tower_oauth::ClientAuth>();
    is::<tower_oauth::Origins>();
    is::<tower_oauth::OAuthLayer>();
    is::<tower_oauth::OAuth<()>>();
}

#[test]
fn the_future_of_the_layer_can_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    let world = World::new();
    let layer =
        tower_oauth::OAuthLayer::new(world.cache, tower_oauth::Origins::new([crate::support::API]).unwrap());
    let mut service = tower::Layer::layer(&layer, world.api.service());
    is_send(&tower::Service::call(&mut service, crate::support::get("/")));
}
