//! The status of a cache, its warm-up and its end.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::StatusCode;
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::yield_now,
    time::{Instant, advance},
};
use tokio_stream::{Stream, StreamExt};
use tokio_test::{assert_pending, assert_ready, task};
use tower_oauth::{
    RefreshState, Status, StatusChanges, TokenCache, TokenError, TokenErrorKind, TokenState,
    source_fn,
};

use crate::support::{Reply, TestSetup, token_error};

const SECOND: Duration = Duration::from_secs(1);

const EMPTY: &str = "no token; no refresh is running";
const REFRESHING: &str = "no token; a refresh is running";
const FRESH: &str = "token 1 is fresh and expires in 3600 s; no refresh is running";
const STALE: &str = "token 1 is stale and expires in 1080 s; no refresh is running";
const CLOSED: &str = "no token; closed";

/// Returns the remaining time of the back-off.
fn backoff(status: &Status) -> Option<Duration> {
    match status.refresh {
        RefreshState::BackingOff { next_attempt_in } => Some(next_attempt_in),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn status_follows_the_life_of_a_token() {
    let setup = TestSetup::new();
    let status = || setup.cache.status().to_string();
    assert_eq!(status(), EMPTY);

    setup.source.hold_requests();
    let mut token = task::spawn(setup.cache.token());
    assert_pending!(token.poll());
    assert_eq!(status(), REFRESHING);
    setup.source.release_requests(1);
    token.await.unwrap();
    assert_eq!(status(), FRESH);

    advance(2520 * SECOND).await;
    assert_eq!(status(), STALE);
    setup.get().await.unwrap();
    assert_eq!(status(), "token 1 is stale and expires in 1080 s; a refresh is running");
    yield_now().await;
    advance(1050 * SECOND).await;
    yield_now().await;
    let status = setup.cache.status();
    assert!(matches!(status.token, TokenState::Empty));
    assert_eq!(status.last_error.unwrap().kind(), TokenErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn status_has_the_error_until_a_refresh_succeeds() {
    let setup = TestSetup::new();
    let mut changes = setup.cache.subscribe();
    assert_eq!(available_by_next(&mut changes).await, [EMPTY]);
    setup.source.script([Reply::Fail]);
    setup.cache.token().await.unwrap_err();
    let status = setup.cache.status();
    assert!(matches!(status.token, TokenState::Empty));
    assert!(!status.can_serve());
    let left = backoff(&status).unwrap();
    assert!((800..=1200).contains(&left.as_millis()), "{left:?}");
    assert_eq!(status.last_error.unwrap().kind(), TokenErrorKind::Transport);

    advance(left).await;
    let status = setup.cache.status();
    assert_eq!(status.refresh, RefreshState::Idle);
    assert!(status.last_error.is_some() && status.can_serve());
    let late = available_by_next(&mut changes).await;
    assert_eq!(late.len(), 1, "a subscriber that was late sees that there was an error");
    setup.cache.token().await.unwrap();
    assert!(setup.cache.status().last_error.is_none());
}

#[tokio::test(start_paused = true)]
async fn status_in_an_outage_is_a_stale_token_and_a_backoff() {
    let setup = TestSetup::with_token().await;
    setup.source.set_down(true);
    advance(2520 * SECOND).await;
    setup.get().await.unwrap();
    yield_now().await;
    let status = setup.cache.status();
    assert!(matches!(&status.token, TokenState::Stale(token) if token.generation().get() == 1));
    assert!(status.can_serve());
    assert!(backoff(&status).is_some());
}

/// Returns the statuses that are available without waiting, and `end` after the last one.
async fn available<T: ToString>(mut poll_next: impl FnMut() -> Poll<Option<T>>) -> Vec<String> {
    let mut statuses = Vec::new();
    while let Poll::Ready(next) = poll_next() {
        let Some(status) = next else {
            statuses.push("end".to_owned());
            break;
        };
        statuses.push(status.to_string());
        yield_now().await;
    }
    statuses
}

async fn available_by_next(changes: &mut StatusChanges) -> Vec<String> {
    available(|| task::spawn(changes.next()).poll()).await
}

#[tokio::test(start_paused = true)]
async fn subscriber_sees_each_change_and_the_end() {
    let setup = TestSetup::new();
    let mut changes = setup.cache.subscribe();
    assert_eq!(available_by_next(&mut changes).await, [EMPTY]);

    setup.source.hold_requests();
    let mut token = task::spawn(setup.cache.token());
    assert_pending!(token.poll());
    assert_eq!(available_by_next(&mut changes).await, [REFRESHING]);
    setup.source.release_requests(1);
    let token = token.await.unwrap();
    assert_eq!(available_by_next(&mut changes).await, [FRESH]);
    setup.cache.invalidate(token.generation());
    assert_eq!(available_by_next(&mut changes).await, [EMPTY]);
    setup.cache.close();
    assert_eq!(available_by_next(&mut changes).await, [CLOSED, "end"]);
    assert_eq!(available_by_next(&mut changes).await, ["end"]);
}

/// Checks that `next` and the stream both have exactly these statuses available.
async fn assert_next_and_stream(
    changes: &mut StatusChanges,
    stream: &mut task::Spawn<impl Stream<Item = String>>,
    expected: &[&str],
) {
    assert_eq!(available_by_next(changes).await, expected, "by `next`");
    assert_eq!(available(|| stream.poll_next()).await, expected, "by the stream");
}

#[tokio::test(start_paused = true)]
async fn stream_yields_the_same_statuses_as_next() {
    let setup = TestSetup::new();
    let mut changes = setup.cache.subscribe();
    let mut stream = task::spawn(setup.cache.subscribe().map(|status| status.to_string()));
    assert_next_and_stream(&mut changes, &mut stream, &[EMPTY]).await;

    setup.source.hold_requests();
    let mut token = task::spawn(setup.cache.token());
    assert_pending!(token.poll());
    assert!(stream.is_woken());
    assert_next_and_stream(&mut changes, &mut stream, &[REFRESHING]).await;
    setup.source.release_requests(1);
    let token = token.await.unwrap();
    assert!(stream.is_woken());
    assert_next_and_stream(&mut changes, &mut stream, &[FRESH]).await;
    advance(2520 * SECOND).await;
    assert!(stream.is_woken());
    assert_next_and_stream(&mut changes, &mut stream, &[STALE]).await;
    setup.cache.invalidate(token.generation());
    assert!(stream.is_woken());
    assert_next_and_stream(&mut changes, &mut stream, &[EMPTY]).await;
    setup.cache.close();
    assert!(stream.is_woken());
    assert_next_and_stream(&mut changes, &mut stream, &[CLOSED, "end"]).await;
}

/// A task reads the stream to its end. It runs after each change, so it must see all of them.
#[tokio::test(start_paused = true)]
async fn task_that_reads_the_stream_sees_each_change() {
    let setup = TestSetup::new();
    let stream = setup.cache.subscribe().map(|status| status.to_string());
    let reader = tokio::spawn(stream.collect::<Vec<_>>());
    yield_now().await;

    setup.source.hold_requests();
    let mut token = task::spawn(setup.cache.token());
    assert_pending!(token.poll());
    yield_now().await;
    setup.source.release_requests(1);
    let token = token.await.unwrap();
    yield_now().await;
    advance(2520 * SECOND).await;
    yield_now().await;
    setup.cache.invalidate(token.generation());
    yield_now().await;
    setup.cache.close();
    assert_eq!(reader.await.unwrap(), [EMPTY, REFRESHING, FRESH, STALE, EMPTY, CLOSED]);
}

#[tokio::test(start_paused = true)]
async fn waiting_subscriber_is_woken_by_each_change() {
    let setup = TestSetup::new();
    let mut changes = setup.cache.subscribe();
    changes.next().await;
    let mut reader = task::spawn(async {
        let mut states = Vec::new();
        while let Some(status) = changes.next().await {
            states.push(status.refresh);
        }
        states
    });
    assert_pending!(reader.poll());
    setup.source.hold_requests();
    let mut token = task::spawn(setup.cache.token());
    assert_pending!(token.poll());
    assert!(reader.is_woken());
    assert_pending!(reader.poll());
    setup.source.release_requests(1);
    let token = token.await.unwrap();
    assert!(reader.is_woken());
    assert_pending!(reader.poll());
    setup.cache.invalidate(token.generation());
    assert!(reader.is_woken());
    assert_pending!(reader.poll());
    drop(setup);
    assert!(reader.is_woken());
    let states = assert_ready!(reader.poll());
    assert_eq!(
        states,
        [RefreshState::Refreshing, RefreshState::Idle, RefreshState::Idle, RefreshState::Closed,]
    );
}

#[tokio::test(start_paused = true)]
async fn subscriber_is_woken_by_time_and_starts_no_refresh() {
    let setup = TestSetup::with_token().await;
    let start = Instant::now();
    let mut changes = setup.cache.subscribe();
    assert!(matches!(changes.next().await.unwrap().token, TokenState::Fresh(_)));
    assert!(matches!(changes.next().await.unwrap().token, TokenState::Stale(_)));
    assert!((2400..=2520).contains(&start.elapsed().as_secs()));
    assert!(matches!(changes.next().await.unwrap().token, TokenState::Empty));
    assert_eq!(start.elapsed().as_secs(), 3570);
    assert_eq!(setup.source.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn warm_up_retries_until_the_server_answers() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Fail, Reply::Hang, Reply::Fail]);
    setup.cache.warm_up().await.unwrap();
    assert_eq!(setup.source.request_count(), 4);
    assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
    assert_eq!(setup.source.request_count(), 4);
}

#[tokio::test(start_paused = true)]
async fn warm_up_fails_if_a_retry_cannot_help() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Panic]);
    assert_eq!(setup.cache.warm_up().await.unwrap_err().kind(), TokenErrorKind::Panicked);
    assert_eq!(setup.source.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn warm_up_fails_when_the_cache_is_closed() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Fail]);
    let mut warm_up = task::spawn(setup.cache.warm_up());
    assert_pending!(warm_up.poll());
    yield_now().await;
    assert_pending!(warm_up.poll(), "the back-off is not over");
    setup.cache.close();
    assert!(warm_up.is_woken());
    assert_eq!(assert_ready!(warm_up.poll()).unwrap_err().kind(), TokenErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn closing_before_the_fetch_starts_makes_no_token_request() {
    let setup = TestSetup::new();
    let mut token = task::spawn(setup.cache.token());
    assert_pending!(token.poll());
    setup.cache.close();
    assert_eq!(token.await.unwrap_err().kind(), TokenErrorKind::Closed);
    assert_eq!(setup.source.request_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn subscriber_sees_one_end_also_during_a_refresh() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Hang]);
    let mut token = task::spawn(setup.cache.token());
    assert_pending!(token.poll());
    yield_now().await;
    let mut changes = setup.cache.subscribe();
    setup.cache.close();
    assert_eq!(changes.next().await.unwrap().refresh, RefreshState::Closed);
    assert!(token.await.is_err());
    assert!(changes.next().await.is_none() && changes.next().await.is_none());
}

/// The error `Closed` is final if it is about the cache itself. If it is about another cache that
/// the source reads from, the cache backs off and tries again.
#[tokio::test(start_paused = true)]
async fn source_that_reads_a_closed_cache_is_retried() {
    let inner = TestSetup::new().cache;
    inner.close();
    let outer = TokenCache::new(source_fn(move |_| {
        let inner = inner.clone();
        async move { inner.token().await.map(|token| (*token).clone()) }
    }));
    let error = outer.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Closed);
    assert!(error.next_attempt_in().is_some());
}

/// The cause of an error that reads the status of the cache when it is dropped.
#[derive(Debug)]
struct ReadsStatusOnDrop(Weak<OnceLock<TokenCache>>);

impl Drop for ReadsStatusOnDrop {
    fn drop(&mut self) {
        let cache = self.0.upgrade();
        let status = cache.as_ref().and_then(|cache| cache.get()).map(TokenCache::status);
        assert!(status.is_none_or(|status| status.current().is_none()));
    }
}

impl fmt::Display for ReadsStatusOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reads the status on drop")
    }
}

impl Error for ReadsStatusOnDrop {}

#[tokio::test(start_paused = true)]
async fn error_that_reads_the_status_on_drop_does_not_deadlock() {
    let cell = Arc::new(OnceLock::new());
    let weak = Arc::downgrade(&cell);
    let count = AtomicUsize::new(0);
    let source = source_fn(move |_| {
        let cause = ReadsStatusOnDrop(weak.clone());
        let kind = match count.fetch_add(1, Ordering::SeqCst) {
            // It replaces the last error, and not the error of the back-off.
            2 => TokenErrorKind::Runtime,
            _ => TokenErrorKind::Transport,
        };
        async move { Err(TokenError::new(kind, "down").with_source(cause)) }
    });
    let cache = cell.get_or_init(|| TokenCache::new(source));
    for _ in 0..4 {
        let left = cache.token().await.unwrap_err().next_attempt_in();
        advance(left.unwrap_or_default()).await;
    }
    assert_eq!(Arc::weak_count(&cell), 2, "the source and the last error");
}

#[tokio::test(start_paused = true)]
async fn close_fails_waiting_and_later_callers() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Hang]);
    let mut waiting = task::spawn(setup.get());
    assert_pending!(waiting.poll());
    yield_now().await;
    assert_eq!(setup.source.request_count(), 1);
    let before = Instant::now();
    setup.cache.close();
    setup.cache.close();
    for error in [waiting.await.unwrap_err(), setup.get().await.unwrap_err()] {
        let error = token_error(&error);
        assert_eq!((error.kind(), error.next_attempt_in()), (TokenErrorKind::Closed, None));
        assert!(error.to_string().contains("closed"), "{error}");
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(setup.source.request_count(), 1);
    assert_eq!(setup.cache.warm_up().await.unwrap_err().kind(), TokenErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn closed_cache_drops_its_token_and_accepts_no_other() {
    let setup = TestSetup::with_token().await;
    setup.source.hold_requests();
    advance(2520 * SECOND).await;
    assert!(setup.cache.token().await.unwrap().is_stale());
    yield_now().await;
    assert_eq!(setup.source.request_count(), 2, "the background refresh has started");
    setup.cache.close();
    assert!(setup.cache.current().is_none());
    setup.source.release_requests(1);
    yield_now().await;
    assert!(setup.cache.current().is_none());
}

/// Returns a cache with a source that hangs, and that sends a message when its future is dropped.
fn hanging_cache(dropped: UnboundedSender<()>) -> TokenCache {
    struct SendOnDrop(UnboundedSender<()>);
    impl Drop for SendOnDrop {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }
    TokenCache::new(source_fn(move |_| {
        let guard = SendOnDrop(dropped.clone());
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    }))
}

#[tokio::test(start_paused = true)]
async fn fetch_is_cancelled_with_the_last_clone_of_the_cache() {
    let (sender, mut dropped) = unbounded_channel();
    let cache = hanging_cache(sender);
    let (clone, changes) = (cache.clone(), cache.subscribe());
    let mut token = task::spawn(async move { cache.token().await });
    assert_pending!(token.poll());
    yield_now().await;
    drop(token);
    yield_now().await;
    assert!(dropped.try_recv().is_err(), "one clone of the cache is left");
    drop(clone);
    dropped.recv().await.unwrap();
    drop(changes);
}

#[test]
fn subscription_continues_on_another_runtime() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let source = source_fn(|_| async {
        Ok(tower_oauth::AccessToken::bearer("t")?.expires_in(Duration::from_secs(100)))
    });
    for drop_the_first in [true, false] {
        let cache = TokenCache::new(source);
        let mut changes = cache.subscribe();
        let first = runtime();
        first.block_on(async {
            cache.token().await.unwrap();
            changes.next().await.unwrap();
            // The next change is a minute ahead: this leaves a timer of the first runtime.
            assert_pending!(task::spawn(changes.next()).poll());
        });
        let first = (!drop_the_first).then_some(first);
        runtime().block_on(async {
            let status = changes.next().await.unwrap();
            assert!(!matches!(status.token, TokenState::Fresh(_)), "{status}");
        });
        drop(first);
    }
}
