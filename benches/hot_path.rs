//! What one request pays on its way through the layer, beside what a user would write by hand.
//!
//! `cargo bench` prints the medians above `bare` and their ratios at its end. Every case sends the same request: a POST with
//! six headers and a small body, and a token of 900 bytes; the inner service answers at once. Not measured: the network, the
//! making of the request, waiting for a token.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // a bench has no callers to be kind to

mod support;

use std::{
    path::PathBuf,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use criterion::{BatchSize, BenchmarkGroup, Criterion, measurement::WallTime};
use http::Request;
use tower::{BoxError, Layer, Service, ServiceBuilder};
use tower_oauth::replay::Never;

use support::{Body, Inner, RetryOnce, StaticHeaderAndClone, bearer, call, oauth, request, static_header};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    attach(&mut criterion);
    keep(&mut criterion);
    contended(&mut criterion);
    criterion.final_summary();
    print_ratios();
}

/// The header alone.
fn attach(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attach");
    one_at_a_time(&mut group, "bare", Inner);
    one_at_a_time(&mut group, "static_header", static_header().layer(Inner));
    one_at_a_time(&mut group, "oauth_never", oauth().replay(Never).layer(Inner));
    group.finish();
}

/// The header, and a copy for one more attempt.
fn keep(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keep");
    one_at_a_time(&mut group, "bare", Inner);
    one_at_a_time(
        &mut group,
        "static_header_and_clone",
        StaticHeaderAndClone { inner: Inner, value: bearer() },
    );
    let tower_retry = ServiceBuilder::new().retry(RetryOnce).layer(static_header()).service(Inner);
    one_at_a_time(&mut group, "tower_retry", tower_retry);
    one_at_a_time(&mut group, "oauth", oauth().layer(Inner));
    group.finish();
}

/// One shared layer, as many threads as cores, a service for each thread.
fn contended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("contended");
    all_at_once(&mut group, "bare", || Inner);
    let layer = static_header();
    all_at_once(&mut group, "static_header", || layer.layer(Inner));
    let layer = oauth().replay(Never);
    all_at_once(&mut group, "oauth_never", || layer.layer(Inner));
    group.finish();
}

fn one_at_a_time<S>(group: &mut BenchmarkGroup<'_, WallTime>, id: &str, mut service: S)
where
    S: Service<Request<Body>>,
{
    group.bench_function(id, |bencher| {
        bencher.iter_batched(request, |request| call(&mut service, request), BatchSize::SmallInput);
    });
}

fn all_at_once<S>(group: &mut BenchmarkGroup<'_, WallTime>, id: &str, service: impl Fn() -> S)
where
    S: Service<Request<Body>> + Send,
{
    let threads = thread::available_parallelism().unwrap().get();
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|iterations| {
            let start = Arc::new(Barrier::new(threads));
            thread::scope(|scope| {
                let running: Vec<_> = (0..threads)
                    .map(|_| {
                        let (service, start) = (service(), Arc::clone(&start));
                        scope.spawn(move || timed(service, iterations, &start))
                    })
                    .collect();
                running.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
            })
        });
    });
}

/// The time of the calls alone: requests are made in batches beforehand.
fn timed<S: Service<Request<Body>>>(mut service: S, iterations: u64, start: &Barrier) -> Duration {
    const BATCH: u64 = 1000;
    start.wait();
    let mut elapsed = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let requests: Vec<_> = (0..left.min(BATCH)).map(|_| request()).collect();
        left -= requests.len() as u64;
        let started = Instant::now();
        for request in requests {
            call(&mut service, request);
        }
        elapsed += started.elapsed();
    }
    elapsed
}

/// From what criterion has written of this run, or of the last one for cases left out.
fn print_ratios() {
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let above_bare = |group: &str, id: &str| Ok::<_, BoxError>(median(group, id)? - median(group, "bare")?);
    for (group, case, peer) in [
        ("attach", "oauth_never", "static_header"),
        ("keep", "oauth", "static_header_and_clone"),
        ("keep", "oauth", "tower_retry"),
        ("contended", "static_header", "oauth_never"),
    ] {
        match (above_bare(group, case), above_bare(group, peer)) {
            (Ok(case_ns), Ok(peer_ns)) => println!(
                "{group}/{case} {case_ns:.0} ns ÷ {group}/{peer} {peer_ns:.0} ns = {:.2}",
                case_ns / peer_ns
            ),
            _ => println!("{group}/{case} ÷ {group}/{peer}: not measured"),
        }
    }
}

fn median(group: &str, id: &str) -> Result<f64, BoxError> {
    let home = std::env::var_os("CRITERION_HOME").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let home = home.unwrap_or_else(|| target.join("criterion"));
    let file = std::fs::read(home.join(group).join(id).join("new/estimates.json"))?;
    let estimates: serde_json::Value = serde_json::from_slice(&file)?;
    estimates["median"]["point_estimate"].as_f64().ok_or_else(|| "no median".into())
}
