//! After a cache was closed or dropped, no memory of the crate holds its tokens and the secrets of
//! its client.
//!
//! The test searches the memory of its own process for the text of the tokens. An allocator keeps
//! the bytes of a freed block, so the text could also be found in memory that the crate has freed.
//! The global allocator of this binary therefore overwrites each block with zeros when it is freed:
//! a text that is found is in memory that is still allocated, on a stack, or in a static. Whether
//! the crate itself overwrites memory before it frees it is tested in `tests/freed_memory`.
//!
//! This test needs a binary of its own because it replaces the global allocator.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a panic is how a test fails

mod client_secret;
mod hidden_text;

use std::{
    alloc::System,
    convert::Infallible,
    future::ready,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::runtime::{Builder, Runtime};
use tower::{BoxError, Layer, ServiceExt, service_fn, util::BoxCloneService};
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, replay::NoReplay, source_fn};
use zeroizing_alloc::ZeroAlloc;

use hidden_text::HiddenText;

#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

const ORIGIN: &str = "https://api.example.com";
const THREADS: usize = 3;
const REQUESTS_PER_THREAD: usize = 100;

/// The time limit of each wait. It is reached only if a test fails.
const TIMEOUT: Duration = Duration::from_secs(10);

type Body = Full<Bytes>;
type Client = BoxCloneService<Request<Body>, Response<Body>, BoxError>;

#[test]
fn closed_cache_with_clone_body_leaves_no_token() {
    check_that_no_token_is_left(with_clone_body, CacheEnd::Close);
}

#[test]
fn closed_cache_without_replay_leaves_no_token() {
    check_that_no_token_is_left(without_replay, CacheEnd::Close);
}

#[test]
fn dropped_cache_with_clone_body_leaves_no_token() {
    check_that_no_token_is_left(with_clone_body, CacheEnd::Drop);
}

#[test]
fn dropped_cache_without_replay_leaves_no_token() {
    check_that_no_token_is_left(without_replay, CacheEnd::Drop);
}

#[test]
fn ended_cache_leaves_no_client_secret() {
    let _guard = one_test_at_a_time();
    client_secret::check_that_no_secret_is_left(client_secret::token);
}

/// The error that the cache keeps has a message from which the secrets were removed.
#[test]
fn ended_cache_leaves_no_echoed_client_secret() {
    let _guard = one_test_at_a_time();
    client_secret::check_that_no_secret_is_left(|request| {
        let request = String::from_utf8_lossy(request);
        let body = serde_json::json!({ "error": "x", "error_description": request });
        (400, Bytes::from(body.to_string()))
    });
}

fn with_clone_body(cache: TokenCache, api: &Arc<Api>) -> Client {
    let api = Arc::clone(api);
    let service = service_fn(move |request| ready(Ok::<_, Infallible>(api.answer(&request))));
    BoxCloneService::new(layer(cache).layer(service))
}

fn without_replay(cache: TokenCache, api: &Arc<Api>) -> Client {
    let api = Arc::clone(api);
    let service = service_fn(move |request| ready(Ok::<_, Infallible>(api.answer(&request))));
    BoxCloneService::new(layer(cache).with_replay(NoReplay).layer(service))
}

fn layer(cache: TokenCache) -> OAuthLayer {
    OAuthLayer::new(cache, Origins::new([ORIGIN]).unwrap())
}

/// The end of the cache, after which no token must be left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CacheEnd {
    /// The cache is closed while clients that share it still exist.
    Close,
    /// The last clone is dropped.
    Drop,
}

/// A search copies memory into its buffer, where a parallel test could find its own tokens.
fn one_test_at_a_time() -> MutexGuard<'static, ()> {
    static ONE_TEST_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_TEST_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_that_no_token_is_left(client: fn(TokenCache, &Arc<Api>) -> Client, end: CacheEnd) {
    let _guard = one_test_at_a_time();
    let api = Arc::new(Api::new());
    let cache = TokenCache::new({
        let (api, fetches) = (Arc::clone(&api), AtomicUsize::new(0));
        source_fn(move |_| {
            let token = match fetches.fetch_add(1, Ordering::SeqCst) {
                0 => api.rejected.reveal(),
                _ => api.accepted.reveal(),
            };
            ready(AccessToken::bearer(token))
        })
    });
    let client = client(cache.clone(), &api);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();

    // The API rejects the first token. Without a replay, that request gets the rejection.
    runtime.block_on(client.clone().oneshot(request())).unwrap();
    let senders: Vec<_> = (0..THREADS).map(|_| SenderThread::start(&runtime, &client)).collect();
    senders.iter().for_each(SenderThread::wait_until_sent);
    assert!(api.accepted.count_in_memory() > 0, "the search finds the token of an open cache");

    let held = cache.current().unwrap();
    match end {
        CacheEnd::Close => cache.close(),
        CacheEnd::Drop => {
            drop((cache, client));
            senders.iter().for_each(SenderThread::drop_client);
        }
    }
    // The end of the cache also ends its tasks.
    wait_until(|| runtime.metrics().num_alive_tasks() == 0);
    assert!(api.accepted.count_in_memory() > 0, "the search finds the token of the caller");

    drop(held);
    // The threads that have sent the requests still exist, and so does their thread-local memory.
    assert!(senders.iter().all(SenderThread::is_running));
    assert_eq!(api.accepted.count_in_memory(), 0, "places with the accepted token");
    assert_eq!(api.rejected.count_in_memory(), 0, "places with the rejected token");
}

fn request() -> Request<Body> {
    Request::post(ORIGIN).body(Full::from("body")).unwrap()
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition was not met within {TIMEOUT:?}");
        thread::yield_now();
    }
}

/// An API that accepts one token and rejects another one.
struct Api {
    accepted: HiddenText,
    rejected: HiddenText,
}

impl Api {
    fn new() -> Self {
        Self { accepted: HiddenText::random(), rejected: HiddenText::random() }
    }

    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        let value = request.headers()[AUTHORIZATION].as_bytes();
        let token = value.strip_prefix(b"Bearer ").unwrap();
        let mut response = Response::new(Body::default());
        if !self.accepted.is_equal_to(token) {
            assert!(self.rejected.is_equal_to(token), "a token of the source was sent");
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response
    }
}

/// A thread that sends requests and then waits.
struct SenderThread {
    thread: thread::JoinHandle<()>,
    sent: mpsc::Receiver<()>,
    drop_client: mpsc::Sender<()>,
    client_dropped: mpsc::Receiver<()>,
    _end: mpsc::Sender<()>,
}

impl SenderThread {
    fn start(runtime: &Runtime, client: &Client) -> Self {
        let (runtime, client) = (runtime.handle().clone(), client.clone());
        let (report_sent, sent) = mpsc::channel();
        let (drop_client, dropping) = mpsc::channel();
        let (report_dropped, client_dropped) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            for _ in 0..REQUESTS_PER_THREAD {
                let response = runtime.block_on(client.clone().oneshot(request())).unwrap();
                assert_eq!(response.status(), StatusCode::OK);
            }
            report_sent.send(()).unwrap();
            if dropping.recv().is_ok() {
                drop(client);
                report_dropped.send(()).unwrap();
            }
            // Returns an error when `end` is dropped.
            ended.recv().ok();
        });
        Self { thread, sent, drop_client, client_dropped, _end: end }
    }

    fn wait_until_sent(&self) {
        self.sent.recv_timeout(TIMEOUT).expect("the thread sends its requests");
    }

    fn drop_client(&self) {
        self.drop_client.send(()).unwrap();
        self.client_dropped.recv_timeout(TIMEOUT).expect("the thread drops its client");
    }

    fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }
}
