//! Faults of the API that takes the tokens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::time::advance;

use super::{
    caller::Caller,
    endpoint::{Port, SECRET},
};
use crate::{
    loopback::{Authority, serve},
    support::Asleep,
};

/// A caller of an API that answers 401 where `refuses` says so, and 200 else.
async fn facing<F>(authority: &Authority, refuses: F) -> Caller
where
    F: Fn(&http::HeaderMap) -> bool + Send + Sync + 'static,
{
    let refuses = Arc::new(refuses);
    let api = serve(move |request| {
        let mut response = Response::<Full<Bytes>>::default();
        if refuses(request.headers()) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        std::future::ready(response)
    })
    .await;
    let port = Port::new();
    port.serve(authority, []);
    Caller::of_api(api, port.endpoint(SECRET))
}

/// A request a second, for so many seconds.
async fn call_each_second(caller: &mut Caller, seconds: usize) {
    for _ in 0..seconds {
        caller.get().await;
        advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_answers_401_to_everything_costs_a_few_tokens() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let mut caller = facing(&Authority::default(), move |_| is_broken.load(Ordering::SeqCst)).await;
    call_each_second(&mut caller, 600).await;
    broken.store(false, Ordering::SeqCst);
    caller.fault_is_over();
    caller.get().await;
    caller.is_row("API answers 401 to everything: 10 minutes, a request each second");
}

#[tokio::test(start_paused = true)]
async fn an_api_of_which_one_replica_lags_behind_costs_a_few_tokens_until_they_are_left_in_use_for_long_enough()
 {
    const LAG: Duration = Duration::from_secs(10);
    let authority = Authority::default();
    let lags = Arc::new(AtomicBool::new(true));
    let (knows, is_lagging, turn) = (authority.clone(), Arc::clone(&lags), AtomicUsize::new(0));
    let mut caller = facing(&authority, move |headers| {
        let second = turn.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        let lag = if second && is_lagging.load(Ordering::SeqCst) { LAG } else { Duration::ZERO };
        !knows.accepts_from_age(lag, headers)
    })
    .await;
    call_each_second(&mut caller, 60).await;
    lags.store(false, Ordering::SeqCst);
    caller.fault_is_over();
    caller.get().await;
    caller.in_sum();
    caller.is_row("two replicas in turns, one learns of tokens 10 s late: a minute, a request each second");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_does_not_send_the_token_that_died_meanwhile() {
    let (authority, asleep) = (Authority::default(), Asleep::default());
    let api = authority.api().await;
    let port = Port::new();
    port.serve(&authority, []);
    let mut caller = Caller::with(api, port.endpoint(SECRET), |cache| asleep.wall_clock(cache));
    caller.get().await;
    authority.revoke_all();
    asleep.for_another(Duration::from_secs(2 * 3600));
    advance(Duration::from_secs(30)).await;
    caller.fault_is_over();
    caller.get().await;
    assert_eq!(authority.refusals(), 0);
    caller.is_row("machine asleep for 2 hours, one-hour tokens; the next request comes 30 s after");
}
