//! A process with 100,000 tenants, each with its own token cache: memory, processor time while
//! idle, and the cost of a request. The data of a tenant is rarely in the CPU cache.
//!
//! The allocator counts the bytes that the program requests. The length of the header value is
//! subtracted. The services that send the requests are built later, and are counted separately.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // panics are fine in a bench
#![allow(clippy::cast_precision_loss)] // of nanoseconds

mod support;

use std::{
    collections::BTreeMap,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use cpu_time::ProcessTime;
use criterion::Criterion;
use http::Request;
use peak_alloc::PeakAlloc;
use tower::{Layer, Service};
use tower_oauth::{OAuthLayer, Origins, TokenCache, replay::NoReplay};

use support::{
    Body, Inner, LIFETIME, ORIGIN, RUNTIME, bearer, figures,
    interleaved::measure_interleaved,
    requests::{BATCH, single_threaded},
    static_header,
    targets::{CACHE_MEMORY, IDLE_CPU, print_rows},
    token_cache,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The time in which no caller asks for a token.
const IDLE_TIME: Duration = Duration::from_secs(5);

fn main() {
    let criterion = Criterion::default().warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.configure_from_args();
    let tenants = if figures::is_smoke_test() { 100 } else { 100_000 };
    let caches = measure_memory(tenants);
    let before_requests = measure_idle_cpu();
    measure_requests(&mut criterion, &caches);
    record(IDLE_CPU, before_requests.max(measure_idle_cpu()));
    criterion.final_summary();
    print_rows("cargo bench --bench tenants");
}

/// Returns caches that hold a fresh token each.
fn measure_memory(tenants: usize) -> Vec<TokenCache> {
    let mut caches = Vec::with_capacity(tenants);
    RUNTIME.block_on(async {}); // allocates the runtime, which must not count
    let before = ALLOCATOR.current_usage();
    caches.extend((0..tenants).map(|_| token_cache(LIFETIME)));
    RUNTIME.block_on(async {
        for cache in &caches {
            cache.token().await.unwrap();
        }
    });
    thread::sleep(Duration::from_millis(100)); // the tasks of the refreshes end meanwhile
    let bytes = (ALLOCATOR.current_usage() - before) / tenants;
    let beside_token = bytes - bearer().len();
    println!(
        "tenants: {bytes} bytes for each of {tenants} caches, {beside_token} beside the token"
    );
    record(CACHE_MEMORY, beside_token as f64);
    caches
}

/// Returns the processor time of the process in [`IDLE_TIME`], in milliseconds.
fn measure_idle_cpu() -> f64 {
    if figures::is_smoke_test() {
        return 0.0;
    }
    let started = ProcessTime::now();
    thread::sleep(IDLE_TIME);
    let used = started.elapsed();
    println!("tenants: {used:?} of processor time in {IDLE_TIME:?} of idleness");
    used.as_secs_f64() * 1000.0
}

/// Each request is sent by the next tenant.
fn measure_requests(criterion: &mut Criterion, caches: &[TokenCache]) {
    let before = ALLOCATOR.current_usage();
    let services = caches.iter().map(|cache| {
        let layer = OAuthLayer::new(cache.clone(), Origins::new([ORIGIN]).unwrap());
        layer.with_replay(NoReplay).layer(Inner)
    });
    let services: Vec<_> = services.collect();
    let bytes = (ALLOCATOR.current_usage() - before) / services.len();
    println!("tenants: {bytes} more bytes for a layer and a service over each cache");
    let static_services = caches.iter().map(|_| static_header().layer(Inner)).collect();
    let cases = vec![
        single_threaded("bare", Inner),
        single_threaded("static_header", RoundRobin { services: static_services, next: 0 }),
        single_threaded("oauth_no_replay", RoundRobin { services, next: 0 }),
    ];
    measure_interleaved(criterion.benchmark_group("tenants"), "tenants", BATCH, cases);
}

fn record(figure: &str, value: f64) {
    figures::record("tenants_at_rest", BTreeMap::from([(figure.to_owned(), value)]));
}

struct RoundRobin<S> {
    services: Vec<S>,
    next: usize,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for RoundRobin<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.next = (self.next + 1) % self.services.len();
        self.services[self.next].poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.services[self.next].call(request)
    }
}
