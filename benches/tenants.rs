//! A process with a hundred thousand tenants, each with a token: what the caches hold in memory, what they do when nobody asks
//! them for anything, and what a request pays that finds its cache cold.
//!
//! The allocator counts what the program asks for. The token itself, its header value, is taken off. The services that send the
//! requests are made after that, and are measured by themselves.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // a bench has no callers to be kind to
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
use futures_util::future::join_all;
use http::Request;
use peak_alloc::PeakAlloc;
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, replay::Never};

use support::{
    Body, Inner, RUNTIME, bearer, figures,
    ratios::print_ratios,
    requests::{BATCH, one_at_a_time},
    token,
    turns::by_turns,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// In which nobody asks for a token.
const IDLE: Duration = Duration::from_secs(5);
/// After which nobody watches the clocks for a token that is not used: two looks, and some time to spare.
const FORSAKEN: Duration = Duration::from_secs(65);

fn main() {
    let mut criterion = Criterion::default().warm_up_time(Duration::from_secs(1)).configure_from_args();
    let tenants = if figures::is_smoke_test() { 100 } else { 100_000 };
    let caches = memory(tenants);
    let before_use = idleness();
    read(&mut criterion, &caches);
    if !figures::is_smoke_test() {
        thread::sleep(FORSAKEN);
    }
    keep("tenants, processor time of idle caches in 5 s", before_use.max(idleness()));
    criterion.final_summary();
    print_ratios("tenants");
}

/// Tokens of a day, all there.
fn memory(tenants: usize) -> Vec<TokenCache> {
    let mut caches = Vec::with_capacity(tenants);
    RUNTIME.block_on(async {}); // its own memory is not that of the caches
    let before = ALLOCATOR.current_usage();
    caches.extend((0..tenants).map(|_| {
        TokenCache::new(|| async {
            Ok(AccessToken::bearer(token())?.expires_in(Duration::from_secs(86_400)))
        })
    }));
    for some in caches.chunks(1000) {
        RUNTIME.block_on(join_all(some.iter().map(TokenCache::token))).into_iter().for_each(|token| {
            token.unwrap();
        });
    }
    thread::sleep(Duration::from_millis(100)); // until the tasks that fetched are gone, too
    let held = (ALLOCATOR.current_usage() - before) / tenants;
    let beside = held - bearer().len();
    println!("tenants: {held} bytes for each of {tenants} caches, {beside} of them beside the token");
    keep("tenants, memory of a cache beside its token", beside as f64);
    caches
}

/// The caches have their tokens, and are there. In milliseconds.
fn idleness() -> f64 {
    if figures::is_smoke_test() {
        return 0.0;
    }
    let started = ProcessTime::now();
    thread::sleep(IDLE);
    let used = started.elapsed();
    println!("tenants: {used:?} of processor time in {IDLE:?} of idleness");
    used.as_secs_f64() * 1000.0
}

/// Each request by the next tenant.
fn read(criterion: &mut Criterion, caches: &[TokenCache]) {
    let before = ALLOCATOR.current_usage();
    let services = caches.iter().map(|cache| {
        let origins = Origins::new(["https://api.example.com"]).unwrap();
        OAuthLayer::new(cache.clone(), origins).replay(Never).layer(Inner)
    });
    let services: Vec<_> = services.collect();
    let each = (ALLOCATOR.current_usage() - before) / services.len();
    println!("tenants: {each} bytes more for a layer and a service over each");
    let by_hand = caches.iter().map(|_| AddAuthorizationLayer::bearer(&token()).layer(Inner));
    let cases = vec![
        one_at_a_time("bare", Inner),
        one_at_a_time("static_header", RoundRobin { services: by_hand.collect(), next: 0 }),
        one_at_a_time("read", RoundRobin { services, next: 0 }),
    ];
    by_turns(criterion.benchmark_group("tenants"), "tenants", BATCH, cases);
}

fn keep(figure: &str, value: f64) {
    figures::keep("tenants_at_rest", BTreeMap::from([(figure.to_owned(), value)]));
}

struct RoundRobin<S> {
    services: Vec<S>,
    next: usize,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for RoundRobin<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.next = (self.next + 1) % self.services.len();
        self.services[self.next].poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.services[self.next].call(request)
    }
}
