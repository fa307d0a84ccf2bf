//! Who reads much has a keeper watch the clocks, where that is of use and can be done.

use std::{
    convert::Infallible,
    future::ready,
    panic,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::runtime::Builder;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_oauth::{OAuthLayer, Origins};

use crate::support::{API, Body, Issuer, Plan, World, bearer, get};

#[test]
fn a_fresh_token_is_read_on_a_runtime_without_a_timer_and_nothing_panics() {
    const NAME: &str = "without a timer";
    let panics = Arc::new(AtomicUsize::new(0));
    let (counted, previous) = (Arc::clone(&panics), panic::take_hook());
    panic::set_hook(Box::new(move |panic| {
        if thread::current().name() == Some(NAME) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        previous(panic);
    }));
    let world = World::new();
    Builder::new_current_thread().enable_all().build().unwrap().block_on(world.cache.token()).unwrap();
    let without_time = Builder::new_multi_thread().worker_threads(1).thread_name(NAME).build().unwrap();
    for _ in 0..100 {
        assert!(without_time.block_on(world.get()).unwrap().is_success());
    }
    drop(without_time);
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

#[test]
fn a_token_too_short_lived_for_a_lease_has_no_keeper_begin_again_and_again() {
    let looked = Arc::new(AtomicUsize::new(0));
    let looks = Arc::clone(&looked);
    let world = World::with(|cache| {
        cache.wall_clock(move || {
            looks.fetch_add(1, Ordering::SeqCst);
            SystemTime::now()
        })
    });
    assert!(Issuer::LIFETIME > Duration::from_secs(60));
    world.issuer.plan([Plan::Issue(Duration::from_secs(60))]);
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        world.cache.token().await.unwrap();
        looked.store(0, Ordering::SeqCst);
        for _ in 0..1000 {
            assert!(world.get().await.unwrap().is_success());
        }
    });
    drop(runtime);
    let looked = looked.load(Ordering::SeqCst);
    assert!(looked <= 2, "keepers looked at the clock {looked} times");
}

/// Many requests on a runtime with threads of its own, so that the token is under lease for nearly all of them.
#[test]
fn no_request_that_begins_after_a_refusal_carries_the_refused_token_and_no_keeper_outlives_its_cache() {
    const REFUSALS: u64 = 300;
    let world = World::new();
    let refused = Arc::new(AtomicU64::new(0));
    let runtime = Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let requests = runtime.block_on(async {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (cache, refused) = (world.cache.clone(), Arc::clone(&refused));
                let seen = service_fn(|request: Request<Body>| {
                    ready(Ok::<_, Infallible>(Response::new(Body::from(bearer(&request).unwrap()))))
                });
                let layer = OAuthLayer::new(cache, Origins::new([API]).unwrap());
                let client = ServiceBuilder::new().layer(layer).service(seen);
                tokio::spawn(async move {
                    let mut requests = 0_u64;
                    loop {
                        let before = refused.load(Ordering::SeqCst);
                        if before == REFUSALS {
                            return requests;
                        }
                        let answer = client.clone().oneshot(get("/")).await.unwrap();
                        let token = answer.into_body().collect().await.unwrap().to_bytes();
                        let number = str::from_utf8(&token)
                            .unwrap()
                            .trim_start_matches("token-")
                            .parse::<u64>()
                            .unwrap();
                        assert!(number > before, "{number} was refused before, as {before} was");
                        requests += 1;
                        if requests.is_multiple_of(64) {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for number in 1..=REFUSALS {
            let token = world.cache.token().await.unwrap();
            assert_eq!(token.generation().get(), number);
            tokio::time::sleep(Duration::from_millis(3)).await;
            assert!(world.cache.invalidate(token.generation()));
            refused.store(number, Ordering::SeqCst);
        }
        let mut requests = 0;
        for reader in readers {
            requests += reader.await.unwrap();
        }
        requests
    });
    assert!(requests > 3 * REFUSALS);
    drop(world);
    for _ in 0..1000 {
        if runtime.metrics().num_alive_tasks() == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{} tasks are left", runtime.metrics().num_alive_tasks());
}
