//! A cache outlives the runtimes that it is used from.

use std::{num::NonZeroU32, time::Duration};

use tokio::runtime::{Builder, Runtime};
use tokio_test::task;
use tower_oauth::TokenErrorKind;

use crate::support::World;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn everything_is_built_without_a_runtime() {
    let world = World::new();
    runtime().block_on(async { world.get().await.unwrap() });
}

#[test]
fn a_fetch_without_a_runtime_is_a_clear_error_and_not_a_panic() {
    let world = World::new();
    let mut token = task::spawn(world.cache.token());
    let error = tokio_test::assert_ready!(token.poll()).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Runtime);
    assert!(error.to_string().contains("no tokio runtime"), "{error}");
    drop(token);
    assert!(runtime().block_on(world.cache.token()).is_ok());
    assert_eq!(world.issuer.asked(), 1);
}

#[test]
fn a_fetch_that_could_not_begin_is_no_token_request_of_those_that_the_limit_allows() {
    let world = World::with(|cache| cache.token_request_limit(NonZeroU32::MIN, Duration::from_secs(3600)));
    for _ in 0..3 {
        let error = tokio_test::assert_ready!(task::spawn(world.cache.token()).poll()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Runtime);
    }
    assert!(runtime().block_on(world.cache.token()).is_ok());
}

#[test]
fn a_runtime_without_a_timer_is_an_error_for_all_and_not_a_hang() {
    let world = World::new();
    let without_time = Builder::new_current_thread().build().unwrap();
    let error = without_time.block_on(world.cache.token()).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Panicked);
    assert!(error.to_string().contains("enable_all"), "{error}");
    assert!(error.next_attempt_in().is_some());
}

#[test]
fn waiters_of_a_runtime_that_shuts_down_get_an_error_and_another_runtime_goes_on() {
    let world = World::new();
    world.issuer.close_the_door();
    let first = runtime();
    let mut here = task::spawn(world.cache.token());
    first.block_on(async {
        assert!(here.poll().is_pending());
        tokio::task::yield_now().await;
    });
    assert_eq!(world.issuer.asked(), 1);
    let mut elsewhere = task::spawn(world.cache.token());
    assert!(elsewhere.poll().is_pending());
    drop(first);
    for waiter in [&mut here, &mut elsewhere] {
        let error = tokio_test::assert_ready!(waiter.poll()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Runtime);
        assert!(error.to_string().contains("shut down"), "{error}");
    }
    world.issuer.let_in(1);
    assert!(runtime().block_on(world.cache.token()).is_ok());
    assert_eq!(world.issuer.asked(), 2);
}

#[test]
fn a_token_fetched_on_one_runtime_is_used_on_the_next() {
    let world = World::new();
    for _ in 0..3 {
        runtime().block_on(async { world.get().await.unwrap() });
    }
    assert_eq!(world.issuer.asked(), 1);
}
