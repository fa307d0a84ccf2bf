//! Whoever stops waiting, at whatever point, harms nobody else.

use std::time::Duration;

use http::StatusCode;
use tokio_test::task;
use tower::ServiceExt;

use crate::support::{World, get};

/// More polls than any request here needs.
const ENOUGH: usize = 20;

#[tokio::test(start_paused = true)]
async fn cancelling_the_caller_that_started_the_fetch_at_any_point_leaves_one_fetch_for_the_others() {
    for polls in 0..ENOUGH {
        let world = World::new();
        cancelled_after(polls, &world).await;
        let (one, other) = tokio::join!(world.get(), world.get());
        assert_eq!((one.unwrap(), other.unwrap()), (StatusCode::OK, StatusCode::OK), "{polls} polls");
        assert_eq!(world.issuer.asked(), 1, "{polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn cancelling_the_caller_that_was_refused_first_at_any_point_leaves_one_refresh_for_the_others() {
    for polls in 0..ENOUGH {
        let world = World::with_token().await;
        world.api.revoke(1);
        cancelled_after(polls, &world).await;
        let (one, other) = tokio::join!(world.get(), world.get());
        assert_eq!((one.unwrap(), other.unwrap()), (StatusCode::OK, StatusCode::OK), "{polls} polls");
        assert_eq!(world.issuer.asked(), 2, "{polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn cancelling_the_leader_while_others_wait_neither_hangs_nor_repeats_the_fetch() {
    for cancelled in 0..5 {
        let world = World::new();
        world.issuer.close_the_door();
        let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(world.cache.token())).collect();
        for waiter in &mut waiting {
            assert!(task::spawn(waiter.as_mut()).poll().is_pending());
        }
        drop(waiting.remove(cancelled));
        tokio::task::yield_now().await;
        world.issuer.let_in(1);
        for waiter in waiting {
            assert!(waiter.await.is_ok());
        }
        assert_eq!(world.issuer.asked(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_are_cancelled_the_fetch_still_ends_and_its_token_is_there() {
    let world = World::new();
    world.issuer.close_the_door();
    let mut waiting: Vec<_> = (0..5).map(|_| task::spawn(world.cache.token())).collect();
    for waiter in &mut waiting {
        assert!(waiter.poll().is_pending());
    }
    drop(waiting);
    world.issuer.let_in(1);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(world.cache.current().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_times_out_gets_its_token_the_next_time() {
    let world = World::new();
    world.issuer.close_the_door();
    assert!(tokio::time::timeout(Duration::from_secs(1), world.get()).await.is_err());
    world.issuer.let_in(1);
    assert_eq!(world.get().await.unwrap(), StatusCode::OK);
    assert_eq!(world.issuer.asked(), 1);
}

/// Polls one request so many times, letting everything else run in between, and drops it.
async fn cancelled_after(polls: usize, world: &World) {
    let mut request = task::spawn(world.client.clone().oneshot(get("/")));
    for _ in 0..polls {
        if request.poll().is_ready() {
            break;
        }
        tokio::task::yield_now().await;
    }
}
