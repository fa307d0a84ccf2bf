//! One cache used from several runtimes, from several threads, and without a runtime.

use std::{
    convert::Infallible,
    future::ready,
    num::NonZeroU32,
    panic,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};
use tokio_test::task;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_oauth::{OAuthLayer, Origins, TokenCache, TokenErrorKind};

use crate::support::{API, Body, TestSetup, bearer, get};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn client_can_be_built_without_a_runtime() {
    let setup = TestSetup::new();
    runtime().block_on(async { setup.get().await.unwrap() });
}

#[test]
fn fetch_without_a_runtime_is_an_error() {
    let setup = TestSetup::new();
    let mut token = task::spawn(setup.cache.token());
    let error = tokio_test::assert_ready!(token.poll()).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Runtime);
    assert!(error.to_string().contains("no tokio runtime"), "{error}");
    drop(token);
    assert!(runtime().block_on(setup.cache.token()).is_ok());
    assert_eq!(setup.source.request_count(), 1);
}

#[test]
fn fetch_without_a_runtime_does_not_count_towards_the_limit() {
    let setup = TestSetup::with_settings(|cache| {
        cache.token_request_limit(NonZeroU32::MIN, Duration::from_secs(3600))
    });
    for _ in 0..3 {
        let mut token = task::spawn(setup.cache.token());
        let error = tokio_test::assert_ready!(token.poll()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Runtime);
    }
    assert!(runtime().block_on(setup.cache.token()).is_ok());
}

#[test]
fn fetch_on_a_runtime_without_a_timer_is_an_error() {
    let setup = TestSetup::new();
    let without_timer = Builder::new_current_thread().build().unwrap();
    let error = without_timer.block_on(setup.cache.token()).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Panicked);
    assert!(error.to_string().contains("enable_all"), "{error}");
    assert!(error.next_attempt_in().is_some());
}

#[test]
fn close_ends_the_wait_for_a_fetch_on_an_unused_runtime() {
    let setup = TestSetup::new();
    setup.source.hold_requests();
    let kept = runtime();
    // The runtime starts the fetch and is not run any more.
    let mut first = task::spawn(setup.cache.token());
    kept.block_on(async { tokio_test::assert_pending!(first.poll()) });
    let mut other = task::spawn(setup.cache.token());
    tokio_test::assert_pending!(other.poll());

    setup.cache.close();
    for mut waiter in [first, other] {
        assert!(waiter.is_woken());
        let error = tokio_test::assert_ready!(waiter.poll()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Closed);
    }
    // The task finds the cache closed and ends.
    kept.block_on(tokio::task::yield_now());
    assert_eq!(setup.cache.status().last_error.unwrap().kind(), TokenErrorKind::Closed);
}

/// A panic in a detached task would be caught by tokio, so the panic hook counts panics as well.
#[test]
fn fresh_token_is_read_on_a_runtime_without_a_timer() {
    const NAME: &str = "without a timer";
    let panics = Arc::new(AtomicUsize::new(0));
    let (counter, previous) = (Arc::clone(&panics), panic::take_hook());
    panic::set_hook(Box::new(move |panic| {
        if thread::current().name() == Some(NAME) {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        previous(panic);
    }));
    let setup = TestSetup::new();
    runtime().block_on(setup.cache.token()).unwrap();
    let without_timer =
        Builder::new_multi_thread().worker_threads(1).thread_name(NAME).build().unwrap();
    for _ in 0..100 {
        assert!(without_timer.block_on(setup.get()).unwrap().is_success());
    }
    drop(without_timer);
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

#[test]
fn runtime_shutdown_fails_its_waiters_and_no_later_fetch() {
    let setup = TestSetup::new();
    setup.source.hold_requests();
    let first = runtime();
    let mut here = task::spawn(setup.cache.token());
    first.block_on(async {
        assert!(here.poll().is_pending());
        tokio::task::yield_now().await;
    });
    assert_eq!(setup.source.request_count(), 1);
    let mut elsewhere = task::spawn(setup.cache.token());
    assert!(elsewhere.poll().is_pending());
    drop(first);
    for waiter in [&mut here, &mut elsewhere] {
        let error = tokio_test::assert_ready!(waiter.poll()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Runtime);
        assert!(error.to_string().contains("shut down"), "{error}");
    }
    setup.source.release_requests(1);
    assert!(runtime().block_on(setup.cache.token()).is_ok());
    assert_eq!(setup.source.request_count(), 2);
}

#[test]
fn token_of_one_runtime_is_used_on_the_next() {
    let setup = TestSetup::new();
    for _ in 0..3 {
        runtime().block_on(async { setup.get().await.unwrap() });
    }
    assert_eq!(setup.source.request_count(), 1);
}

/// Three tasks send requests while the token is invalidated again and again.
#[test]
fn request_after_an_invalidation_never_has_the_old_token() {
    const INVALIDATIONS: u64 = 300;
    let setup = TestSetup::new();
    let invalidated = Arc::new(AtomicU64::new(0));
    let runtime = Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let requests = runtime.block_on(async {
        let senders: Vec<_> = (0..3)
            .map(|_| {
                let sender =
                    send_until(INVALIDATIONS, setup.cache.clone(), Arc::clone(&invalidated));
                tokio::spawn(sender)
            })
            .collect();
        for number in 1..=INVALIDATIONS {
            let token = setup.cache.token().await.unwrap();
            assert_eq!(token.generation().get(), number);
            tokio::time::sleep(Duration::from_millis(3)).await;
            assert!(setup.cache.invalidate(token.generation()));
            invalidated.store(number, Ordering::SeqCst);
        }
        let mut requests = 0;
        for sender in senders {
            requests += sender.await.unwrap();
        }
        requests
    });
    assert!(requests > 3 * INVALIDATIONS, "{requests} requests");
    drop(setup);
    for _ in 0..1000 {
        if runtime.metrics().num_alive_tasks() == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{} tasks outlive the cache", runtime.metrics().num_alive_tasks());
}

/// Sends requests until the token with this number is invalidated, and checks that each request has
/// a newer token than the last one invalidated. Returns the number of requests.
async fn send_until(last: u64, cache: TokenCache, invalidated: Arc<AtomicU64>) -> u64 {
    let echo = service_fn(|request: Request<Body>| {
        ready(Ok::<_, Infallible>(Response::new(Body::from(bearer(&request).unwrap()))))
    });
    let layer = OAuthLayer::new(cache, Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(echo);
    let mut requests = 0_u64;
    loop {
        let before = invalidated.load(Ordering::SeqCst);
        if before == last {
            return requests;
        }
        let response = client.clone().oneshot(get("/")).await.unwrap();
        let token = response.into_body().collect().await.unwrap().to_bytes();
        let number = str::from_utf8(&token).unwrap().trim_start_matches("token-");
        let number = number.parse::<u64>().unwrap();
        assert!(number > before, "token {number} was sent, {before} was invalidated before");
        requests += 1;
        if requests.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
    }
}
