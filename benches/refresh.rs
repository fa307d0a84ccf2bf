//! What readers notice while the token is replaced: as many threads as cores send requests, and every millisecond there is a
//! new token.
//!
//! `oauth_invalidate` takes the token out of use before there is a new one, as a refusal does: requests wait for it, and the wait
//! is in their latency. `oauth_renewal` is what happens without a refusal: a token that lives for 20 ms is renewed in the
//! background after 10 ms, or a little less. The peers are given their new value by a task. A latency is that of the call and
//! its answer, with the clock read twice, which `bare` has, too.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // a bench has no callers to be kind to
#![allow(clippy::cast_precision_loss)] // of nanoseconds

mod support;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::ready,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use criterion::Criterion;
use hdrhistogram::Histogram;
use http::Request;
use tokio::time::MissedTickBehavior;
use tower::{Layer, Service};
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, replay::Never};

use support::{
    Body, Inner, RUNTIME,
    figures::{self, Figures},
    peers::{self, MutexOverRefresh},
    request,
    requests::{on_threads, send, waker},
    token,
    turns::{Case, by_turns},
};

const EVERY: Duration = Duration::from_millis(1);
const LIFETIME: Duration = Duration::from_millis(20);
const BATCH: u64 = 100;
/// Enough to see some ten new tokens.
const BATCHES: u64 = 100;
/// About one request of a thousand meets a new token, and in every case some lose their core to the task that brings it: both
/// show beyond the 99.9th percentile only.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

fn main() {
    let criterion = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.configure_from_args();
    let latencies = Latencies::default();
    refresh(&mut criterion, &latencies);
    criterion.final_summary();
    if !figures::is_smoke_test() {
        latencies.print();
        figures::keep("refresh_latencies", latencies.figures());
    }
}

fn refresh(criterion: &mut Criterion, latencies: &Latencies) {
    let refused = TokenCache::new(|| async { AccessToken::bearer(token()) });
    let renewed = TokenCache::new(|| async { Ok(AccessToken::bearer(token())?.expires_in(LIFETIME)) });
    let (rw_lock, mutex) = (peers::rw_lock(), MutexOverRefresh::default());
    let (lock, locked) = (Arc::clone(&rw_lock.token), Arc::clone(&mutex.token));
    let (sender, watch) = peers::watch();
    let cases = vec![
        latencies.case("bare", Inner, || async {}),
        latencies.case("oauth_invalidate", layer(&refused).layer(Inner), move || refuse(refused.clone())),
        latencies.case("oauth_renewal", layer(&renewed).layer(Inner), move || look_at(renewed.clone())),
        latencies.case("rw_lock", rw_lock, move || {
            *lock.write().unwrap() = support::bearer();
            ready(())
        }),
        latencies.case("mutex_over_refresh", mutex, move || {
            let locked = Arc::clone(&locked);
            async move { *locked.lock().await = Some((support::bearer(), far())) }
        }),
        latencies.case("watch", watch, move || {
            sender.send_replace(support::bearer());
            ready(())
        }),
    ];
    by_turns(criterion.benchmark_group("refresh"), "refresh", BATCH * BATCHES, cases);
}

fn layer(cache: &TokenCache) -> OAuthLayer<Never> {
    OAuthLayer::new(cache.clone(), Origins::new(["https://api.example.com"]).unwrap()).replay(Never)
}

async fn refuse(cache: TokenCache) {
    cache.invalidate(cache.token().await.unwrap().generation());
    cache.token().await.unwrap();
}

/// Keeps it from expiring between the turns.
async fn look_at(cache: TokenCache) {
    cache.token().await.unwrap();
}

fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(86_400)
}

/// Of all turns, by case, in nanoseconds.
#[derive(Default)]
struct Latencies(RefCell<BTreeMap<String, Histogram<u64>>>);

impl Latencies {
    fn case<'a, S, R, F>(&'a self, name: &'a str, service: S, replace: R) -> Case<'a>
    where
        S: Service<Request<Body>> + Clone + Send + 'a,
        R: Fn() -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Case::new(name, move || {
            RUNTIME.block_on(replace());
            let replacing = RUNTIME.spawn(again_and_again(replace.clone()));
            let turn = read(&service);
            replacing.abort();
            let mut all = self.0.borrow_mut();
            *all.entry(format!("refresh/{name}")).or_insert_with(histogram) += &turn;
            turn.mean()
        })
    }

    fn figures(&self) -> Figures {
        let all = self.0.borrow();
        let quantiles = all.iter().flat_map(|(case, latencies)| {
            QUANTILES.map(|(name, quantile)| {
                (format!("{case} {name}"), latencies.value_at_quantile(quantile) as f64)
            })
        });
        quantiles.collect()
    }

    fn print(&self) {
        for (case, latencies) in &*self.0.borrow() {
            let quantiles = QUANTILES.map(|(name, quantile)| {
                format!("{name} {:.2} µs", latencies.value_at_quantile(quantile) as f64 / 1000.0)
            });
            println!("{case}: {}", quantiles.join(", "));
        }
    }
}

async fn again_and_again<F: Future<Output = ()>>(replace: impl Fn() -> F) {
    let mut interval = tokio::time::interval(EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        replace().await;
    }
}

/// By all threads together.
fn read<S: Service<Request<Body>> + Clone + Send>(service: &S) -> Histogram<u64> {
    let threads = thread::available_parallelism().unwrap().get();
    let start = Barrier::new(threads);
    let read = on_threads(threads, || {
        let (mut service, start) = (service.clone(), &start);
        move || {
            start.wait();
            read_by_one(&mut service)
        }
    });
    read.into_iter().fold(histogram(), |all, one| all + one)
}

fn read_by_one<S: Service<Request<Body>>>(service: &mut S) -> Histogram<u64> {
    let (waker, mut latencies) = (waker(), histogram());
    for _ in 0..BATCHES {
        let requests: Vec<_> = (0..BATCH).map(|_| request()).collect();
        for request in requests {
            let started = Instant::now();
            send(service, request, &waker);
            latencies.saturating_record(u64::try_from(started.elapsed().as_nanos()).unwrap());
        }
    }
    latencies
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 3).unwrap()
}
