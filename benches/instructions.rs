//! The number of instructions of one request, counted by callgrind. It does not depend on the load
//! of the machine.
//!
//! `benches/check_instructions` starts this bench and compares the counts with
//! `benches/instructions.json`. Each case runs in its own process, and counts one request after 64
//! others on the same thread. The count includes the call, the response and the drop of both.
//! Building the request does not count. The request is that of `hot_path`, but its header map has
//! room for one more header: the cost of growing the map depends on the state of the heap.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // panics are fine in a bench
#![allow(unused_qualifications)] // in code that the macros generate

mod support;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
};

use gungraun::{
    Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use tower::{Layer, Service};
use tower_oauth::{
    AccessToken, CachedToken, OAuth, OAuthLayer, Origins, TokenCache, replay::NoReplay, source_fn,
};

use support::{
    Body, Inner, LIFETIME, ORIGIN, RUNTIME,
    hand_written::hand_written,
    oauth,
    peers::{ClonePerRequest, rw_lock, static_header_and_clone, tower_retry},
    request,
    requests::{send_without_waiting, warm_up},
    static_header, token, warm_token_cache,
};

library_benchmark_group!(name = attach, benchmarks = [attach_one, attach_with_clone]);
library_benchmark_group!(name = keep, benchmarks = keep_one);
library_benchmark_group!(name = skip, benchmarks = skip_one);
library_benchmark_group!(name = retry, benchmarks = retry_one);
library_benchmark_group!(name = cache, benchmarks = cache_one);

main!(
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no", "--separate-threads=no"]))
        .env("GLIBC_TUNABLES", GLIBC_TUNABLES),
    library_benchmark_groups = [attach, keep, skip, retry, cache]
);

/// A thread keeps all memory that it frees, so that no count depends on the heap of another thread.
/// Memory is copied with instructions that every processor has, so that no count depends on the
/// model of the processor.
const GLIBC_TUNABLES: &str = "glibc.malloc.tcache_count=65535:glibc.malloc.tcache_max=65536:\
    glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

// Attaches a token, and keeps nothing for a retry. `check_instructions` looks for the lock of
// `rw_lock`, and fails if it does not find it.
#[library_benchmark]
#[bench::bare(warm(Inner, request))]
#[bench::static_header(warm(static_header().layer(Inner), request))]
#[bench::hand_written(warm(hand_written(), request))]
#[bench::oauth_no_replay(warm(oauth().with_replay(NoReplay).layer(Inner), request))]
#[bench::rw_lock(warm(rw_lock(), request))]
fn attach_one<S: Service<Request<Body>>>(warm: Warm<S>) -> S {
    send(warm)
}

// The same with a service that is cloned for each request.
#[library_benchmark]
#[bench::bare_clone_per_request(warm_cloned(Inner))]
#[bench::static_header_clone_per_request(warm_cloned(static_header().layer(Inner)))]
#[bench::hand_written_clone_per_request(warm_cloned(hand_written()))]
#[bench::oauth_no_replay_clone_per_request(
    warm_cloned(oauth().with_replay(NoReplay).layer(Inner))
)]
fn attach_with_clone<S: Service<Request<Body>>>(warm: Warm<S>) -> S {
    send(warm)
}

// Attaches a token, and keeps a copy of the request for a retry.
#[library_benchmark]
#[bench::bare(warm(Inner, request))]
#[bench::static_header_and_clone(warm(static_header_and_clone(), request))]
#[bench::tower_retry(warm(tower_retry(Inner), request))]
#[bench::oauth(warm(oauth().layer(Inner), request))]
fn keep_one<S: Service<Request<Body>>>(warm: Warm<S>) -> S {
    send(warm)
}

// Requests to which the layer attaches no token.
#[library_benchmark]
#[bench::other_origin(warm(oauth().with_replay(NoReplay).layer(Inner), to_other_origin))]
#[bench::own_header(warm(oauth().with_replay(NoReplay).layer(Inner), with_own_header))]
fn skip_one<S: Service<Request<Body>>>(warm: Warm<S>) -> S {
    send(warm)
}

// From the rejection of a token that was already replaced to the response of the retry.
#[library_benchmark]
#[bench::rejected_late(rejected_late())]
fn retry_one(mut rejected: Rejected) -> Rejected {
    poll_to_response(&mut rejected);
    rejected
}

#[library_benchmark]
#[bench::current(warm_token_cache_after_reads())]
fn cache_one(cache: TokenCache) -> (TokenCache, Option<CachedToken>) {
    let current = black_box(&cache).current();
    (cache, current)
}

/// A service that has sent requests, and one more request for it.
struct Warm<S> {
    service: S,
    request: Request<Body>,
}

fn warm<S: Service<Request<Body>>>(mut service: S, request: fn() -> Request<Body>) -> Warm<S> {
    let with_room = || {
        let mut request = request();
        request.headers_mut().reserve(1);
        request
    };
    warm_up(&mut service, with_room);
    Warm { service, request: with_room() }
}

fn warm_cloned<S: Service<Request<Body>> + Clone>(service: S) -> Warm<ClonePerRequest<S>> {
    warm(ClonePerRequest(service), request)
}

fn send<S: Service<Request<Body>>>(warm: Warm<S>) -> S {
    let Warm { mut service, request } = warm;
    send_without_waiting(&mut service, request);
    service
}

fn to_other_origin() -> Request<Body> {
    let mut request = request();
    *request.uri_mut() = "https://cdn.example.net/v1/orders?limit=10".parse().unwrap();
    request
}

fn with_own_header() -> Request<Body> {
    let mut request = request();
    let value = HeaderValue::from_static("Basic dGVzdDoxMjPCow==");
    request.headers_mut().insert(AUTHORIZATION, value);
    request
}

fn warm_token_cache_after_reads() -> TokenCache {
    let cache = warm_token_cache();
    for _ in 0..64 {
        black_box(cache.current());
    }
    wait_for_spawned_tasks();
    cache
}

type Rejected = Pin<Box<<OAuth<RejectFirstToken> as Service<Request<Body>>>::Future>>;

/// Returns a request that was sent with the first token, after the cache has got the second one.
fn rejected_late() -> Rejected {
    let mut service = layer_with_two_tokens().layer(RejectFirstToken);
    let [mut warm_up, measured] = [(); 2].map(|()| Box::pin(service.call(request())));
    RUNTIME.block_on(service.call(request())).unwrap();
    wait_for_spawned_tasks();
    poll_to_response(&mut warm_up);
    measured
}

/// Returns a layer over a cache that holds the first of two tokens.
fn layer_with_two_tokens() -> OAuthLayer {
    let is_second = AtomicBool::new(false);
    let cache = TokenCache::new(source_fn(move |_| {
        let is_second = is_second.swap(true, Ordering::Relaxed);
        let token = if is_second { token() } else { FIRST_TOKEN.to_owned() };
        async { Ok(AccessToken::bearer(token)?.expires_in(LIFETIME)) }
    }));
    RUNTIME.block_on(cache.token()).unwrap();
    OAuthLayer::new(cache, Origins::new([ORIGIN]).unwrap())
}

/// Waits until the runtime, which has one worker, has run all tasks that were spawned before: the
/// instructions of all threads count.
fn wait_for_spawned_tasks() {
    RUNTIME.block_on(RUNTIME.spawn(async {})).unwrap();
}

fn poll_to_response(rejected: &mut Rejected) {
    match rejected.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => assert_eq!(response.status(), StatusCode::OK),
        Poll::Ready(Err(_)) | Poll::Pending => unreachable!("the cache holds the second token"),
    }
}

const FIRST_TOKEN: &str = "first";

#[derive(Clone)]
struct RejectFirstToken;

impl Service<Request<Body>> for RejectFirstToken {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let header = request.headers()[AUTHORIZATION].as_bytes();
        let is_rejected = header.ends_with(FIRST_TOKEN.as_bytes());
        drop(black_box(request));
        let mut response = Response::new(Body::default());
        *response.status_mut() =
            if is_rejected { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
        ready(Ok(response))
    }
}
