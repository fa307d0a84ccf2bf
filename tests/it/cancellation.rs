//! Cancelling one caller, at any point, does not affect the others.

use std::time::Duration;

use http::StatusCode;
use tokio_test::task;
use tower::ServiceExt;

use crate::support::{TestSetup, get};

/// An upper bound for the number of polls that a request in this file needs.
const MAX_POLLS: usize = 20;

#[tokio::test(start_paused = true)]
async fn cancelling_the_first_caller_leaves_one_fetch() {
    for polls in 0..MAX_POLLS {
        let setup = TestSetup::new();
        cancel_after(polls, &setup).await;
        let (one, other) = tokio::join!(setup.get(), setup.get());
        let statuses = (one.unwrap(), other.unwrap());
        assert_eq!(statuses, (StatusCode::OK, StatusCode::OK), "cancelled after {polls} polls");
        assert_eq!(setup.source.request_count(), 1, "cancelled after {polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn cancelling_the_first_rejected_caller_leaves_one_refresh() {
    for polls in 0..MAX_POLLS {
        let setup = TestSetup::with_token().await;
        setup.api.revoke(1);
        cancel_after(polls, &setup).await;
        let (one, other) = tokio::join!(setup.get(), setup.get());
        let statuses = (one.unwrap(), other.unwrap());
        assert_eq!(statuses, (StatusCode::OK, StatusCode::OK), "cancelled after {polls} polls");
        assert_eq!(setup.source.request_count(), 2, "cancelled after {polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn cancelling_one_waiter_neither_hangs_nor_repeats_the_fetch() {
    for cancelled in 0..5 {
        let setup = TestSetup::new();
        setup.source.hold_requests();
        let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(setup.cache.token())).collect();
        for waiter in &mut waiting {
            assert!(task::spawn(waiter.as_mut()).poll().is_pending());
        }
        drop(waiting.remove(cancelled));
        tokio::task::yield_now().await;
        setup.source.release_requests(1);
        for waiter in waiting {
            assert!(waiter.await.is_ok());
        }
        assert_eq!(setup.source.request_count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn fetch_completes_when_all_callers_are_cancelled() {
    let setup = TestSetup::new();
    setup.source.hold_requests();
    let mut waiting: Vec<_> = (0..5).map(|_| task::spawn(setup.cache.token())).collect();
    for waiter in &mut waiting {
        assert!(waiter.poll().is_pending());
    }
    drop(waiting);
    setup.source.release_requests(1);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(setup.cache.current().is_some());
}

#[tokio::test(start_paused = true)]
async fn fetch_of_a_timed_out_caller_serves_the_next_call() {
    let setup = TestSetup::new();
    setup.source.hold_requests();
    assert!(tokio::time::timeout(Duration::from_secs(1), setup.get()).await.is_err());
    setup.source.release_requests(1);
    assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
    assert_eq!(setup.source.request_count(), 1);
}

/// Polls one request `polls` times and drops it. All other tasks run between two polls.
async fn cancel_after(polls: usize, setup: &TestSetup) {
    let mut request = task::spawn(setup.client.clone().oneshot(get("/")));
    for _ in 0..polls {
        if request.poll().is_ready() {
            break;
        }
        tokio::task::yield_now().await;
    }
}
