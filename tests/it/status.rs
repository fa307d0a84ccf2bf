//! What a cache shows of itself, and its beginning and end.

use std::time::Duration;

use http::StatusCode;
use tokio::{
    task::yield_now,
    time::{Instant, advance},
};
use tokio_test::{assert_pending, assert_ready, task};
use tower_oauth::{RefreshState, Status, StatusChanges, TokenCache, TokenError, TokenErrorKind, TokenState};

use crate::support::{Plan, World, after_back_off, token_error};

const SECOND: Duration = Duration::from_secs(1);

fn backing_off(status: &Status) -> Option<Duration> {
    match status.refresh {
        RefreshState::BackingOff { next_attempt_in } => Some(next_attempt_in),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_is_empty_then_refreshing_then_fresh_then_stale_then_empty() {
    let world = World::new();
    let shown = || world.cache.status().to_string();
    assert_eq!(shown(), "no token; no refresh under way");

    world.issuer.close_the_door();
    let mut token = task::spawn(world.cache.token());
    assert_pending!(token.poll());
    assert_eq!(shown(), "no token; a refresh is under way");
    world.issuer.let_in(1);
    token.await.unwrap();
    assert_eq!(shown(), "token 1 is fresh and expires in 3600 s; no refresh under way");

    advance(2520 * SECOND).await;
    assert_eq!(shown(), "token 1 is due for renewal and expires in 1080 s; no refresh under way");
    world.get().await.unwrap();
    assert_eq!(shown(), "token 1 is due for renewal and expires in 1080 s; a refresh is under way");
    yield_now().await;
    advance(1050 * SECOND).await;
    yield_now().await;
    let status = world.cache.status();
    assert!(matches!(status.token, TokenState::Empty));
    assert_eq!(status.last_error.unwrap().kind(), TokenErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_of_the_back_off_and_its_error_until_an_attempt_succeeds() {
    let world = World::new();
    world.issuer.plan([Plan::Fail]);
    world.cache.token().await.unwrap_err();
    let status = world.cache.status();
    assert!(matches!(status.token, TokenState::Empty));
    assert!(!status.can_serve());
    let left = backing_off(&status).unwrap();
    assert!((800..=1200).contains(&left.as_millis()), "{left:?}");
    assert_eq!(status.last_error.unwrap().kind(), TokenErrorKind::Transport);

    advance(left).await;
    let status = world.cache.status();
    assert_eq!(status.refresh, RefreshState::Idle);
    assert!(status.last_error.is_some() && status.can_serve());
    world.cache.token().await.unwrap();
    assert!(world.cache.status().last_error.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_status_of_an_outage_is_a_stale_token_and_a_back_off() {
    let world = World::with_token().await;
    world.issuer.is_down(true);
    advance(2520 * SECOND).await;
    world.get().await.unwrap();
    yield_now().await;
    let status = world.cache.status();
    assert!(matches!(&status.token, TokenState::Stale(token) if token.generation().get() == 1));
    assert!(status.can_serve());
    assert!(backing_off(&status).is_some());
}

/// What is there to see without waiting.
async fn seen(changes: &mut StatusChanges) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let mut next = task::spawn(changes.next());
        match next.poll() {
            std::task::Poll::Ready(Some(status)) => seen.push(status.to_string()),
            std::task::Poll::Ready(None) => seen.push("the end".to_owned()),
            std::task::Poll::Pending => return seen,
        }
        if seen.last().is_some_and(|last| last == "the end") {
            return seen;
        }
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_sees_each_change_of_state_and_then_the_end() {
    let world = World::new();
    let mut changes = world.cache.subscribe();
    assert_eq!(seen(&mut changes).await, ["no token; no refresh under way"]);

    world.issuer.close_the_door();
    let mut token = task::spawn(world.cache.token());
    assert_pending!(token.poll());
    assert_eq!(seen(&mut changes).await, ["no token; a refresh is under way"]);
    world.issuer.let_in(1);
    let token = token.await.unwrap();
    assert_eq!(seen(&mut changes).await, ["token 1 is fresh and expires in 3600 s; no refresh under way"]);
    world.cache.invalidate(token.generation());
    assert_eq!(seen(&mut changes).await, ["no token; no refresh under way"]);
    world.cache.close();
    assert_eq!(seen(&mut changes).await, ["no token; closed", "the end"]);
    assert_eq!(seen(&mut changes).await, ["the end"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_waits_is_woken_by_each_change() {
    let world = World::new();
    let mut changes = world.cache.subscribe();
    changes.next().await;
    let mut next = task::spawn(async {
        let mut seen = Vec::new();
        while let Some(status) = changes.next().await {
            seen.push(status.refresh);
        }
        seen
    });
    assert_pending!(next.poll());
    world.issuer.close_the_door();
    let mut token = task::spawn(world.cache.token());
    assert_pending!(token.poll());
    assert!(next.is_woken());
    assert_pending!(next.poll());
    world.issuer.let_in(1);
    let token = token.await.unwrap();
    assert!(next.is_woken());
    assert_pending!(next.poll());
    world.cache.invalidate(token.generation());
    assert!(next.is_woken());
    assert_pending!(next.poll());
    drop(world);
    assert!(next.is_woken());
    let seen = assert_ready!(next.poll());
    assert_eq!(
        seen,
        [RefreshState::Refreshing, RefreshState::Idle, RefreshState::Idle, RefreshState::Closed]
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_is_woken_by_time_too_and_asks_for_no_token() {
    let world = World::with_token().await;
    let start = Instant::now();
    let mut changes = world.cache.subscribe();
    assert!(matches!(changes.next().await.unwrap().token, TokenState::Fresh(_)));
    assert!(matches!(changes.next().await.unwrap().token, TokenState::Stale(_)));
    assert!((2400..=2520).contains(&start.elapsed().as_secs()));
    assert!(matches!(changes.next().await.unwrap().token, TokenState::Empty));
    assert_eq!(start.elapsed().as_secs(), 3570);
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn warming_up_waits_for_an_authorization_server_that_is_not_there_yet() {
    let world = World::new();
    world.issuer.plan([Plan::Fail, Plan::Hang, Plan::Fail]);
    world.cache.warm_up().await.unwrap();
    assert_eq!(world.issuer.asked(), 4);
    assert_eq!(world.get().await.unwrap(), StatusCode::OK);
    assert_eq!(world.issuer.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn warming_up_ends_with_what_somebody_has_to_mend() {
    let world = World::new();
    world.issuer.plan([Plan::Panic]);
    assert_eq!(world.cache.warm_up().await.unwrap_err().kind(), TokenErrorKind::Panicked);
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn warming_up_ends_as_soon_as_the_cache_is_closed() {
    let world = World::new();
    world.issuer.plan([Plan::Fail]);
    let mut warm_up = task::spawn(world.cache.warm_up());
    assert_pending!(warm_up.poll());
    yield_now().await;
    assert_pending!(warm_up.poll(), "in the back-off");
    world.cache.close();
    assert!(warm_up.is_woken());
    assert_eq!(assert_ready!(warm_up.poll()).unwrap_err().kind(), TokenErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn closing_before_the_fetch_has_begun_makes_no_token_request() {
    let world = World::new();
    let mut token = task::spawn(world.cache.token());
    assert_pending!(token.poll());
    world.cache.close();
    assert_eq!(token.await.unwrap_err().kind(), TokenErrorKind::Closed);
    assert_eq!(world.issuer.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_sees_the_end_once_also_where_a_fetch_is_under_way() {
    let world = World::new();
    world.issuer.plan([Plan::Hang]);
    let mut token = task::spawn(world.cache.token());
    assert_pending!(token.poll());
    yield_now().await;
    let mut changes = world.cache.subscribe();
    world.cache.close();
    assert_eq!(changes.next().await.unwrap().refresh, RefreshState::Closed);
    assert!(token.await.is_err());
    assert!(changes.next().await.is_none() && changes.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_own_cache_is_closed_is_asked_again_after_a_back_off_only() {
    let inner = World::new().cache;
    inner.close();
    let outer = TokenCache::new(move || {
        let inner = inner.clone();
        async move { inner.token().await.map(|token| (*token).clone()) }
    });
    let error = outer.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Closed);
    assert!(error.next_attempt_in().is_some());
}

/// The cause of an error, which looks at the cache when it is dropped.
#[derive(Debug)]
struct Nosy(std::sync::Weak<std::sync::OnceLock<TokenCache>>);

impl Drop for Nosy {
    fn drop(&mut self) {
        let cache = self.0.upgrade();
        let status = cache.as_ref().and_then(|cache| cache.get()).map(TokenCache::status);
        assert!(status.is_none_or(|status| status.current().is_none()));
    }
}

impl std::fmt::Display for Nosy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nosy")
    }
}

impl std::error::Error for Nosy {}

#[tokio::test(start_paused = true)]
async fn what_an_error_does_when_it_is_dropped_may_be_to_look_at_the_cache() {
    let cache = std::sync::Arc::new(std::sync::OnceLock::new());
    let weak = std::sync::Arc::downgrade(&cache);
    let source = move || {
        let cause = Nosy(weak.clone());
        async { Err(TokenError::new(TokenErrorKind::Transport, "down").with_source(cause)) }
    };
    let cache = cache.get_or_init(|| TokenCache::new(source));
    for _ in 0..3 {
        after_back_off(&cache.token().await.unwrap_err()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn closing_ends_the_fetch_under_way_and_all_who_wait_for_it_and_whoever_comes_later() {
    let world = World::new();
    world.issuer.plan([Plan::Hang]);
    let mut waiting = task::spawn(world.get());
    assert_pending!(waiting.poll());
    yield_now().await;
    assert_eq!(world.issuer.asked(), 1);
    let before = Instant::now();
    world.cache.close();
    world.cache.close();
    for error in [waiting.await.unwrap_err(), world.get().await.unwrap_err()] {
        let error = token_error(&error);
        assert_eq!((error.kind(), error.next_attempt_in()), (TokenErrorKind::Closed, None));
        assert!(error.to_string().contains("closed"), "{error}");
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(world.issuer.asked(), 1);
    assert_eq!(world.cache.warm_up().await.unwrap_err().kind(), TokenErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_closed_cache_gives_up_its_token_and_takes_no_other() {
    let world = World::with_token().await;
    world.issuer.close_the_door();
    advance(2520 * SECOND).await;
    assert!(world.cache.token().await.unwrap().is_stale());
    yield_now().await;
    assert_eq!(world.issuer.asked(), 2, "the renewal has begun");
    world.cache.close();
    assert!(world.cache.current().is_none());
    world.issuer.let_in(1);
    yield_now().await;
    assert!(world.cache.current().is_none());
}

/// A source that says when its future is dropped.
fn hanging(ended: tokio::sync::mpsc::UnboundedSender<()>) -> TokenCache {
    struct Tell(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }
    TokenCache::new(move || {
        let tell = Tell(ended.clone());
        async move {
            let _tell = tell;
            std::future::pending().await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn the_fetch_under_way_ends_with_the_last_clone_and_not_before() {
    let (tell, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let cache = hanging(tell);
    let (clone, changes) = (cache.clone(), cache.subscribe());
    let mut token = task::spawn(async move { cache.token().await });
    assert_pending!(token.poll());
    yield_now().await;
    drop(token);
    yield_now().await;
    assert!(ended.try_recv().is_err(), "a clone is left");
    drop(clone);
    ended.recv().await.unwrap();
    drop(changes);
}
