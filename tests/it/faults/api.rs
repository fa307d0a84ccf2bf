//! Faults of the API that receives the tokens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use tokio::time::advance;
#[cfg(feature = "test-util")]
use tower_oauth::test_util::FakeWallClock;

use super::{
    caller::Caller,
    endpoint::{Port, SECRET},
};
use crate::loopback::{Authority, serve};

/// Returns a caller of an API that answers 401 if `rejects` returns true, and 200 otherwise.
async fn caller_of_api<F>(authority: &Authority, rejects: F) -> Caller
where
    F: Fn(&HeaderMap) -> bool + Send + Sync + 'static,
{
    let rejects = Arc::new(rejects);
    let api = serve(move |request| {
        let mut response = Response::<Full<Bytes>>::default();
        if rejects(request.headers()) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        std::future::ready(response)
    })
    .await;
    let port = Port::new();
    port.serve(authority, []);
    Caller::of_api(api, port.endpoint(SECRET))
}

/// Sends one request per second.
async fn call_each_second(caller: &mut Caller, seconds: usize) {
    for _ in 0..seconds {
        caller.get().await;
        advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn api_that_rejects_every_token_costs_few_refreshes() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let rejects = move |_: &HeaderMap| is_broken.load(Ordering::SeqCst);
    let mut caller = caller_of_api(&Authority::default(), rejects).await;
    call_each_second(&mut caller, 600).await;
    broken.store(false, Ordering::SeqCst);
    caller.end_fault();
    caller.get().await;
    caller.assert_row("API answers 401 to everything: 10 minutes, a request each second");
}

/// Two replicas answer in turns, and one of them learns of each token late. The breaker blocks
/// refreshes for longer and longer, until a token stays in use for longer than the lag.
#[tokio::test(start_paused = true)]
async fn lagging_api_replica_costs_few_refreshes() {
    const LAG: Duration = Duration::from_secs(10);
    let authority = Authority::default();
    let lagging = Arc::new(AtomicBool::new(true));
    let (replicas, is_lagging) = (authority.clone(), Arc::clone(&lagging));
    let request_count = AtomicUsize::new(0);
    let mut caller = caller_of_api(&authority, move |headers| {
        let is_second = request_count.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        let lag = if is_second && is_lagging.load(Ordering::SeqCst) { LAG } else { Duration::ZERO };
        !replicas.accepts_from_age(lag, headers)
    })
    .await;
    call_each_second(&mut caller, 60).await;
    lagging.store(false, Ordering::SeqCst);
    caller.end_fault();
    caller.get().await;
    caller.summarize_outcomes();
    caller.assert_row(
        "two replicas in turns, one learns of tokens 10 s late: a minute, a request each second",
    );
}

#[cfg(feature = "test-util")]
#[tokio::test(start_paused = true)]
async fn token_that_expired_during_system_sleep_is_not_sent() {
    let (authority, clock) = (Authority::default(), FakeWallClock::new());
    let api = authority.api().await;
    let port = Port::new();
    port.serve(&authority, []);
    let endpoint = port.endpoint(SECRET);
    let mut caller = Caller::with_settings(api, endpoint, |cache| cache.wall_clock(clock.reader()));
    caller.get().await;
    authority.revoke_all();
    clock.advance(Duration::from_secs(2 * 3600));
    advance(Duration::from_secs(30)).await;
    caller.end_fault();
    caller.get().await;
    assert_eq!(authority.refusals(), 0);
    caller.assert_row(
        "machine asleep for 2 hours, one-hour tokens; the next request comes 30 s after",
    );
}
