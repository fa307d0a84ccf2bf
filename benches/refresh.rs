//! The latency of requests while the token is replaced. As many threads as cores send requests, and
//! every millisecond the token is replaced.
//!
//! - `oauth_rejected`: the token is invalidated before a new one exists, as after a rejection.
//!   Requests wait for the new token, and their latency includes the wait.
//! - `oauth_background_refresh`: no token is rejected. A token that lives for 20 ms is refreshed in
//!   the background after about 10 ms.
//! - The other cases get a new value from a task.
//!
//! A latency is measured with two reads of the clock around the call and its response. The case
//! `bare` pays for these reads, too.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // panics are fine in a bench
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
use tower_oauth::{OAuthLayer, Origins, TokenCache, replay::NoReplay};

use support::{
    Body, Inner, LIFETIME, ORIGIN, RUNTIME,
    figures::{self, Figures},
    interleaved::{Case, measure_interleaved},
    peers::{self, MutexOverRefresh},
    request,
    requests::{on_threads, send, thread_waker},
    token_cache,
};

const REPLACE_EVERY: Duration = Duration::from_millis(1);
const SHORT_LIFETIME: Duration = Duration::from_millis(20);
const BATCH: u64 = 100;
/// Enough for about ten new tokens in a round.
const BATCHES: u64 = 100;
/// About one request of a thousand meets a new token, and in every case the task that replaces the
/// token takes the core from some requests. Both show beyond the 99.9th percentile only.
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
        figures::record("refresh_latencies", latencies.figures());
    }
}

fn refresh(criterion: &mut Criterion, latencies: &Latencies) {
    let (rejected, refreshed) = (token_cache(LIFETIME), token_cache(SHORT_LIFETIME));
    let (rw_lock, mutex) = (peers::rw_lock(), MutexOverRefresh::default());
    let (of_rw_lock, of_mutex) = (Arc::clone(&rw_lock.token), Arc::clone(&mutex.token));
    let (sender, watch) = peers::watch();
    let cases = vec![
        latencies.case("bare", Inner, || async {}),
        latencies.case("oauth_rejected", layer(&rejected).layer(Inner), move || {
            invalidate(rejected.clone())
        }),
        latencies.case("oauth_background_refresh", layer(&refreshed).layer(Inner), move || {
            read_token(refreshed.clone())
        }),
        latencies.case("rw_lock", rw_lock, move || {
            *of_rw_lock.write().unwrap() = support::bearer();
            ready(())
        }),
        latencies.case("mutex_over_refresh", mutex, move || {
            let token = Arc::clone(&of_mutex);
            async move { *token.lock().await = Some((support::bearer(), in_one_day())) }
        }),
        latencies.case("watch", watch, move || {
            sender.send_replace(support::bearer());
            ready(())
        }),
    ];
    let group = criterion.benchmark_group("refresh");
    measure_interleaved(group, "refresh", BATCH * BATCHES, cases);
}

fn layer(cache: &TokenCache) -> OAuthLayer<NoReplay> {
    OAuthLayer::new(cache.clone(), Origins::new([ORIGIN]).unwrap()).with_replay(NoReplay)
}

async fn invalidate(cache: TokenCache) {
    cache.invalidate(cache.token().await.unwrap().generation());
    cache.token().await.unwrap();
}

/// Reads the token, so that it is refreshed in the background before it expires.
async fn read_token(cache: TokenCache) {
    cache.token().await.unwrap();
}

fn in_one_day() -> tokio::time::Instant {
    tokio::time::Instant::now() + LIFETIME
}

/// The latencies of all rounds in nanoseconds, by case.
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
            let replacing = RUNTIME.spawn(replace_repeatedly(replace.clone()));
            let round = send_from_all_threads(&service);
            replacing.abort();
            let mut all = self.0.borrow_mut();
            *all.entry(format!("refresh/{name}")).or_insert_with(histogram) += &round;
            round.mean()
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

async fn replace_repeatedly<F: Future<Output = ()>>(replace: impl Fn() -> F) {
    let mut interval = tokio::time::interval(REPLACE_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        replace().await;
    }
}

fn send_from_all_threads<S: Service<Request<Body>> + Clone + Send>(service: &S) -> Histogram<u64> {
    let threads = thread::available_parallelism().unwrap().get();
    let start = Barrier::new(threads);
    let latencies = on_threads(threads, || {
        let (mut service, start) = (service.clone(), &start);
        move || {
            start.wait();
            send_batches(&mut service)
        }
    });
    latencies.into_iter().fold(histogram(), |all, of_thread| all + of_thread)
}

fn send_batches<S: Service<Request<Body>>>(service: &mut S) -> Histogram<u64> {
    let (waker, mut latencies) = (thread_waker(), histogram());
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
