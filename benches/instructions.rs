//! How many instructions one request takes, counted by callgrind: a number that does not depend on how busy a machine is.
//!
//! Started by `benches/check_instructions`, which compares with `benches/instructions.json`. Each case runs in a process of
//! its own, and counts one request after 64 like it, on the same thread. Counted is the call and the answer, with the end
//! of the request; not the making of it. The request is that of `hot_path`, with room for one more header: whether the heap
//! can let a map of headers grow where it stands is chance.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // a bench has no callers to be kind to
#![allow(unused_qualifications)] // that is how the macros write

mod support;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use gungraun::{Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use tower::{Layer, Service, ServiceBuilder};
use tower_oauth::{AccessToken, CachedToken, OAuth, OAuthLayer, Origins, TokenCache, replay::Never};

use support::{
    Body, Inner, RUNTIME, RetryOnce, StaticHeaderAndClone, bearer, call, oauth, peers::ClonePerRequest,
    request, requests::warm_up, settle, static_header, token,
};

library_benchmark_group!(name = attach, benchmarks = [attach_kept, attach_cloned]);
library_benchmark_group!(name = keep, benchmarks = keep_one);
library_benchmark_group!(name = pass, benchmarks = pass_one);
library_benchmark_group!(name = recover, benchmarks = recover_one);
library_benchmark_group!(name = cache, benchmarks = cache_one);

main!(
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no", "--separate-threads=no"]))
        .env("GLIBC_TUNABLES", NOTHING_BY_CHANCE),
    library_benchmark_groups = [attach, keep, pass, recover, cache]
);

/// A thread keeps all that it frees, so that no count depends on what another thread has left of the heap; and memory is
/// copied as any processor can, so that no count depends on which one it is.
const NOTHING_BY_CHANCE: &str = "glibc.malloc.tcache_count=65535:glibc.malloc.tcache_max=65536:\
    glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

// The header alone.
#[library_benchmark]
#[bench::bare(warm(Inner, request))]
#[bench::static_header(warm(static_header().layer(Inner), request))]
#[bench::oauth_never(warm(oauth().replay(Never).layer(Inner), request))]
fn attach_kept<S: Service<Request<Body>>>(warm: Warm<S>) -> S {
    send(warm)
}

// The header alone, from a service that is cloned for each request.
#[library_benchmark]
#[bench::bare_cloned(warm(ClonePerRequest(Inner), request))]
#[bench::static_header_cloned(warm(ClonePerRequest(static_header().layer(Inner)), request))]
#[bench::oauth_never_cloned(warm(ClonePerRequest(oauth().replay(Never).layer(Inner)), request))]
fn attach_cloned<S: Service<Request<Body>>>(warm: Warm<S>) -> S {
    send(warm)
}

// The header, and a copy for one more attempt.
#[library_benchmark]
#[bench::bare(warm(Inner, request))]
#[bench::static_header_and_clone(warm(StaticHeaderAndClone { inner: Inner, value: bearer() }, request))]
#[bench::tower_retry(warm(tower_retry(), request))]
#[bench::oauth(warm(oauth().layer(Inner), request))]
fn keep_one<S: Service<Request<Body>>>(warm: Warm<S>) -> S {
    send(warm)
}

// Requests that have no token from the layer.
#[library_benchmark]
#[bench::other_origin(warm(oauth().replay(Never).layer(Inner), to_another_origin))]
#[bench::own_header(warm(oauth().replay(Never).layer(Inner), with_a_header_of_its_own))]
fn pass_one<S: Service<Request<Body>>>(warm: Warm<S>) -> S {
    send(warm)
}

// A request that is refused when its token has been replaced already: from the refusal to the answer of the retry.
#[library_benchmark]
#[bench::refused_late(refused_late())]
fn recover_one(mut refused: Refused) -> Refused {
    answer(&mut refused);
    refused
}

#[library_benchmark]
#[bench::current(warm_cache())]
fn cache_one(cache: TokenCache) -> (TokenCache, Option<CachedToken>) {
    let current = black_box(&cache).current();
    (cache, current)
}

/// A service that has served, and a request for it.
struct Warm<S> {
    service: S,
    request: Request<Body>,
}

const ROUNDS: usize = 32;

fn warm<S: Service<Request<Body>>>(mut service: S, request: fn() -> Request<Body>) -> Warm<S> {
    let roomy = || {
        let mut request = request();
        request.headers_mut().reserve(1);
        request
    };
    warm_up(&mut service, roomy);
    Warm { service, request: roomy() }
}

fn send<S: Service<Request<Body>>>(warm: Warm<S>) -> S {
    let Warm { mut service, request } = warm;
    call(&mut service, request);
    service
}

fn tower_retry() -> impl Service<Request<Body>> {
    ServiceBuilder::new().retry(RetryOnce).layer(static_header()).service(Inner)
}

fn to_another_origin() -> Request<Body> {
    let mut request = request();
    *request.uri_mut() = "https://cdn.example.net/v1/orders?limit=10".parse().unwrap();
    request
}

fn with_a_header_of_its_own() -> Request<Body> {
    let mut request = request();
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Basic dGVzdDoxMjPCow=="));
    request
}

fn warm_cache() -> TokenCache {
    let cache = TokenCache::new(|| async {
        Ok(AccessToken::bearer(token())?.expires_in(Duration::from_secs(86_400)))
    });
    RUNTIME.block_on(cache.token()).unwrap();
    let _in_runtime = RUNTIME.enter();
    for _ in 0..2 {
        settle();
        for _ in 0..ROUNDS {
            black_box(cache.current());
        }
    }
    settle();
    cache
}

type Refused = Pin<Box<<OAuth<RefusesTheFirst> as Service<Request<Body>>>::Future>>;

/// A request under way with the first token, while the second is at hand.
fn refused_late() -> Refused {
    let mut service = two_tokens().layer(RefusesTheFirst);
    let [mut warming, measured] = [(); 2].map(|()| Box::pin(service.call(request())));
    RUNTIME.block_on(service.call(request())).unwrap();
    settle();
    answer(&mut warming);
    measured
}

/// A layer whose cache holds the first of two tokens.
fn two_tokens() -> OAuthLayer {
    let is_second = AtomicBool::new(false);
    let cache = TokenCache::new(move || {
        let token = if is_second.swap(true, Ordering::Relaxed) { token() } else { FIRST.to_owned() };
        async { Ok(AccessToken::bearer(token)?.expires_in(Duration::from_secs(86_400))) }
    });
    RUNTIME.block_on(cache.token()).unwrap();
    OAuthLayer::new(cache, Origins::new(["https://api.example.com"]).unwrap())
}

fn answer(refused: &mut Refused) {
    match refused.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => assert_eq!(response.status(), StatusCode::OK),
        Poll::Ready(Err(_)) | Poll::Pending => unreachable!("the second token is at hand"),
    }
}

const FIRST: &str = "first";

#[derive(Clone)]
struct RefusesTheFirst;

impl Service<Request<Body>> for RefusesTheFirst {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_first = request.headers()[AUTHORIZATION].as_bytes().ends_with(FIRST.as_bytes());
        drop(black_box(request));
        let mut response = Response::new(Body::default());
        *response.status_mut() = if is_first { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
        ready(Ok(response))
    }
}
