//! The heap allocations of a request through the layer.
//!
//! These tests need a binary of their own because they replace the global allocator. It counts the
//! allocations of each thread separately.

#![allow(clippy::unwrap_used, clippy::panic)] // a panic is how a test fails

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::{Ready, ready},
    pin::pin,
    sync::{Barrier, LazyLock},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::runtime::Runtime;
use tower::{Layer, Service, service_fn};
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, replay::NoReplay, source_fn};

#[test]
fn allocator_counts_every_allocation() {
    assert_eq!(allocations(|| drop(Box::new(1))), 1);
    assert_eq!(allocations(|| drop(vec![Box::new(1), Box::new(2)])), 3);
}

#[test]
fn fresh_token_adds_no_allocation() {
    let baseline = allocations_per_request(&mut InsertHeader(bearer()), request);
    let with_layer =
        allocations_per_request(&mut oauth().with_replay(NoReplay).layer(Inner), request);
    assert_eq!(with_layer, baseline);
}

#[test]
fn thread_without_runtime_context_adds_no_allocation() {
    let baseline = allocations_per_request(&mut InsertHeader(bearer()), request);
    let mut service = oauth().with_replay(NoReplay).layer(Inner);
    warm_up(&mut service, &request);
    assert_eq!(count_one(&mut service, request()), baseline);
}

#[test]
fn service_cloned_per_request_adds_no_allocation() {
    let service = oauth().with_replay(NoReplay).layer(Inner);
    let baseline = allocations_per_request(&mut clone_per_request(InsertHeader(bearer())), request);
    let with_layer = allocations_per_request(&mut clone_per_request(service), request);
    assert_eq!(with_layer, baseline);
}

#[test]
fn concurrent_threads_add_no_allocation() {
    const THREADS: usize = 4;
    let service = oauth().with_replay(NoReplay).layer(Inner);
    let baseline = allocations_per_request(&mut InsertHeader(bearer()), request);
    let start = Barrier::new(THREADS);
    let count_on_thread = || {
        let mut service = service.clone();
        start.wait();
        (0..ROUNDS).map(|_| allocations_per_request(&mut service, request)).collect::<Vec<_>>()
    };
    let counts: BTreeSet<_> = thread::scope(|scope| {
        let threads = [(); THREADS].map(|()| scope.spawn(count_on_thread));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(counts, [baseline].into());
}

#[test]
fn request_to_other_origin_adds_no_allocation() {
    let other_origin = || {
        let mut request = request();
        *request.uri_mut() = "https://cdn.example.net/v1/orders".parse().unwrap();
        request
    };
    let baseline = allocations_per_request(&mut Inner, other_origin);
    let with_layer =
        allocations_per_request(&mut oauth().with_replay(NoReplay).layer(Inner), other_origin);
    assert_eq!(with_layer, baseline);
}

#[test]
fn request_with_own_authorization_adds_no_allocation() {
    let with_header = || {
        let mut request = request();
        let value = HeaderValue::from_static("Basic dGVzdDoxMjPCow==");
        request.headers_mut().insert(AUTHORIZATION, value);
        request
    };
    let baseline = allocations_per_request(&mut Inner, with_header);
    let with_layer =
        allocations_per_request(&mut oauth().with_replay(NoReplay).layer(Inner), with_header);
    assert_eq!(with_layer, baseline);
}

#[test]
fn saved_request_adds_its_copy_and_one_box() {
    let baseline = allocations_per_request(&mut InsertHeader(bearer()), request);
    let with_layer = allocations_per_request(&mut oauth().layer(Inner), request);
    assert_eq!(with_layer - baseline, 2);
}

/// The trailers of a gRPC response may reject the token, so the layer wraps the response body.
#[cfg(feature = "tonic")]
#[test]
fn grpc_call_without_retry_adds_one_box() {
    use tonic::body::Body;

    let call = || Request::post("https://api.example.com/a.B/C").body(Body::empty()).unwrap();
    let answer = |_: Request<Body>| {
        let message = Body::new(Full::from(Bytes::from_static(b"\0\0\0\0\0")));
        ready(Ok::<_, Infallible>(Response::new(message)))
    };
    let bearer = bearer();
    let insert_header = |mut request: Request<Body>| {
        request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        answer(request)
    };
    let baseline = allocations_per_request(&mut service_fn(insert_header), call);
    let mut service = oauth().grpc().with_replay(NoReplay).layer(service_fn(answer));
    let with_layer = allocations_per_request(&mut service, call);
    assert_eq!(with_layer - baseline, 1);
}

type Body = Full<Bytes>;

/// A multi-thread runtime that exists for as long as the tests send requests, as in most programs.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
});

/// Returns a layer with a fresh token in its cache.
fn oauth() -> OAuthLayer {
    let cache = TokenCache::new(source_fn(|_| async {
        Ok(AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA")?.expires_in(Duration::from_secs(86_400)))
    }));
    RUNTIME.block_on(cache.token()).unwrap();
    OAuthLayer::new(cache, Origins::new(["https://api.example.com"]).unwrap())
}

fn bearer() -> HeaderValue {
    HeaderValue::from_str("Bearer 2YotnFZFEjr1zCsicMWpAA").unwrap()
}

fn request() -> Request<Body> {
    let id = HeaderValue::from_str("7b9f2f0e-54a5-4d68-9d3a-2f8f5f1c0a11").unwrap();
    Request::post("https://api.example.com/v1/orders?limit=10")
        .header("accept", "application/json")
        .header("x-request-id", id)
        .body(Full::from(Bytes::from_static(br#"{"article":"42","quantity":1}"#)))
        .unwrap()
}

const ROUNDS: usize = 100;

/// Returns the allocations of one request within the runtime, after several warm-up requests on the
/// same thread.
fn allocations_per_request<S, B>(service: &mut S, request: impl Fn() -> Request<B>) -> u64
where
    S: Service<Request<B>>,
{
    let _in_runtime = RUNTIME.enter();
    warm_up(service, &request);
    count_one(service, request())
}

fn warm_up<S: Service<Request<B>>, B>(service: &mut S, request: &impl Fn() -> Request<B>) {
    (0..2 * ROUNDS).for_each(|_| call(service, request()));
}

fn count_one<S: Service<Request<B>>, B>(service: &mut S, request: Request<B>) -> u64 {
    allocations(|| call(service, request))
}

fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

/// Sends one request. Polls its future once, because neither the layer nor the service waits.
fn call<S: Service<Request<B>>, B>(service: &mut S, request: Request<B>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    match pin!(service.call(request)).poll(&mut context) {
        Poll::Ready(Ok(_)) => {}
        Poll::Ready(Err(_)) | Poll::Pending => panic!("the request did not complete at once"),
    }
}

/// An inner service that answers at once.
#[derive(Clone)]
struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Body::default())))
    }
}

/// The baseline: a service that inserts a fixed `Authorization` header.
#[derive(Clone)]
struct InsertHeader(HeaderValue);

impl Service<Request<Body>> for InsertHeader {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(AUTHORIZATION, self.0.clone());
        Inner.call(request)
    }
}

fn clone_per_request<S>(service: S) -> impl Service<Request<Body>, Error = S::Error>
where
    S: Service<Request<Body>> + Clone,
{
    service_fn(move |request| {
        let mut clone = service.clone();
        assert!(clone.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        clone.call(request)
    })
}
