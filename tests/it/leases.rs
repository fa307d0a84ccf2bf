//! Who reads much has a keeper watch the clocks, where that is of use and can be done.

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use tokio::runtime::Builder;

use crate::support::{Issuer, Plan, World};

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
