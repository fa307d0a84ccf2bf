//! What a request through the layer allocates. A binary of its own: its allocator counts, for each thread by itself.

#![allow(clippy::unwrap_used, clippy::panic)] // that is how a test fails

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
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, replay::Never};

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(Box::new(1))), 1);
    assert_eq!(allocations(|| drop(vec![Box::new(1), Box::new(2)])), 3);
}

#[test]
fn a_request_with_a_fresh_token_allocates_nothing_of_its_own() {
    let by_hand = of_one(&mut WithHeader(bearer()), request);
    let through = of_one(&mut oauth().replay(Never).layer(Inner), request);
    assert_eq!(through, by_hand);
}

#[test]
fn nor_does_it_where_nobody_watches_the_clock_for_it() {
    let by_hand = of_one(&mut WithHeader(bearer()), request);
    let mut service = oauth().replay(Never).layer(Inner);
    many(&mut service, &request);
    assert_eq!(counted(&mut service, request()), by_hand);
}

#[test]
fn nor_does_it_where_the_service_is_cloned_for_each_request() {
    let service = oauth().replay(Never).layer(Inner);
    let by_hand = of_one(&mut each_cloned(WithHeader(bearer())), request);
    let through = of_one(&mut each_cloned(service), request);
    assert_eq!(through, by_hand);
}

#[test]
fn nor_does_it_on_several_threads_at_once() {
    const THREADS: usize = 4;
    let service = oauth().replay(Never).layer(Inner);
    let by_hand = of_one(&mut WithHeader(bearer()), request);
    let all_are_there = Barrier::new(THREADS);
    let on_a_thread = || {
        let mut service = service.clone();
        all_are_there.wait();
        (0..ROUNDS).map(|_| of_one(&mut service, request)).collect::<Vec<_>>()
    };
    let counted: BTreeSet<_> = thread::scope(|scope| {
        let running = [(); THREADS].map(|()| scope.spawn(on_a_thread));
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(counted, [by_hand].into());
}

#[test]
fn nor_does_a_request_to_another_origin() {
    let elsewhere = || {
        let mut request = request();
        *request.uri_mut() = "https://cdn.example.net/v1/orders".parse().unwrap();
        request
    };
    let by_hand = of_one(&mut Inner, elsewhere);
    let through = of_one(&mut oauth().replay(Never).layer(Inner), elsewhere);
    assert_eq!(through, by_hand);
}

#[test]
fn nor_does_a_request_with_a_header_of_its_own() {
    let with_header = || {
        let mut request = request();
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Basic dGVzdDoxMjPCow=="));
        request
    };
    let by_hand = of_one(&mut Inner, with_header);
    let through = of_one(&mut oauth().replay(Never).layer(Inner), with_header);
    assert_eq!(through, by_hand);
}

#[test]
fn a_request_that_is_kept_allocates_its_copy_and_one_box() {
    let by_hand = of_one(&mut WithHeader(bearer()), request);
    let through = of_one(&mut oauth().layer(Inner), request);
    assert_eq!(through - by_hand, 2);
}

/// Its end may refuse the token, and is looked at.
#[cfg(feature = "tonic")]
#[test]
fn a_call_without_retry_allocates_one_box_for_its_end() {
    use tonic::body::Body;

    let call = || Request::post("https://api.example.com/a.B/C").body(Body::empty()).unwrap();
    let answer = |_: Request<Body>| {
        let message = Body::new(Full::from(Bytes::from_static(b"\0\0\0\0\0")));
        ready(Ok::<_, Infallible>(Response::new(message)))
    };
    let bearer = bearer();
    let with_header = |mut request: Request<Body>| {
        request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        answer(request)
    };
    let by_hand = of_one(&mut service_fn(with_header), call);
    let through = of_one(&mut oauth().grpc().replay(Never).layer(service_fn(answer)), call);
    assert_eq!(through - by_hand, 1);
}

type Body = Full<Bytes>;

/// As in most programs: with threads of its own, and there for as long as requests are made.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
});

/// A layer whose cache holds a fresh token.
fn oauth() -> OAuthLayer {
    let cache = TokenCache::new(|| async {
        Ok(AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA")?.expires_in(Duration::from_secs(86_400)))
    });
    RUNTIME.block_on(cache.token()).unwrap();
    OAuthLayer::new(cache, Origins::new(["https://api.example.com"]).unwrap())
}

fn bearer() -> HeaderValue {
    HeaderValue::from_str("Bearer 2YotnFZFEjr1zCsicMWpAA").unwrap()
}

fn request() -> Request<Body> {
    Request::post("https://api.example.com/v1/orders?limit=10")
        .header("accept", "application/json")
        .header("x-request-id", HeaderValue::from_str("7b9f2f0e-54a5-4d68-9d3a-2f8f5f1c0a11").unwrap())
        .body(Full::from(Bytes::from_static(br#"{"article":"42","quantity":1}"#)))
        .unwrap()
}

const ROUNDS: usize = 100;

/// What one request allocates after some like it, on this thread: with a token under lease, copied for the thread.
fn of_one<S: Service<Request<B>>, B>(service: &mut S, request: impl Fn() -> Request<B>) -> u64 {
    let _in_runtime = RUNTIME.enter();
    many(service, &request);
    RUNTIME.block_on(RUNTIME.spawn(async {})).unwrap(); // who watches the clocks has begun
    many(service, &request);
    counted(service, request())
}

fn many<S: Service<Request<B>>, B>(service: &mut S, request: &impl Fn() -> Request<B>) {
    (0..ROUNDS).for_each(|_| call(service, request()));
}

fn counted<S: Service<Request<B>>, B>(service: &mut S, request: Request<B>) -> u64 {
    allocations(|| call(service, request))
}

fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

/// Polls once, as nothing here ever waits.
fn call<S: Service<Request<B>>, B>(service: &mut S, request: Request<B>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    match pin!(service.call(request)).poll(&mut context) {
        Poll::Ready(Ok(_)) => {}
        Poll::Ready(Err(_)) | Poll::Pending => panic!("the inner service answers at once"),
    }
}

/// Takes the request and answers.
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

/// What the layer is compared with: the header, put on by hand.
#[derive(Clone)]
struct WithHeader(HeaderValue);

impl Service<Request<Body>> for WithHeader {
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

fn each_cloned<S>(service: S) -> impl Service<Request<Body>, Error = S::Error>
where
    S: Service<Request<Body>> + Clone,
{
    service_fn(move |request| {
        let mut clone = service.clone();
        assert!(clone.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        clone.call(request)
    })
}
