//! The layer calls `poll_ready` before both attempts, and works with concurrency limits above it,
//! below it and on the token transport.

use std::{
    convert::Infallible,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::{sleep, timeout};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer};
use tower_oauth::{
    AccessToken, ClientAuth, ClientCredentials, OAuth, TokenCache, TokenEndpoint, source_fn,
};
use tower_test::mock::{self, Mock};

use crate::{
    recovery::{empty_response, layer},
    support::{Body, TestSetup, bearer, get, lock},
};

/// A deadlock makes a request exceed this time.
const DEADLOCK: Duration = Duration::from_secs(60);

async fn send_100_requests<S>(client: S)
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Debug + Send,
    S::Future: Send,
{
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.oneshot(get("/")).await.unwrap().status() })
        })
        .collect();
    for request in requests {
        let status = timeout(DEADLOCK, request).await.expect("no deadlock");
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn limit_of_one_above_the_layer_does_not_deadlock() {
    let setup = TestSetup::with_token().await;
    setup.api.revoke(1);
    let client = ServiceBuilder::new()
        .concurrency_limit(1)
        .layer(layer(&setup.cache))
        .service(setup.api.service());
    send_100_requests(client).await;
    assert_eq!(setup.source.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn limit_of_one_below_the_layer_does_not_deadlock() {
    for with_token in [true, false] {
        let setup = if with_token { TestSetup::with_token().await } else { TestSetup::new() };
        setup.api.revoke(1);
        let client = ServiceBuilder::new()
            .layer(layer(&setup.cache))
            .concurrency_limit(1)
            .service(setup.api.service());
        send_100_requests(client).await;
        assert_eq!(setup.source.request_count(), 1 + usize::from(with_token));
    }
}

/// The layer must call the service that `poll_ready` made ready. If it called a clone, the kept
/// service would hold an unused permit, and the clone would wait for a permit forever.
#[tokio::test(start_paused = true)]
async fn acquired_permit_is_used_after_waiting_for_a_token() {
    let setup = TestSetup::new();
    let mut service = ServiceBuilder::new()
        .layer(layer(&setup.cache))
        .concurrency_limit(1)
        .service(setup.api.service());
    let response = service.ready().await.unwrap().call(get("/"));
    let response = timeout(DEADLOCK, response).await.expect("no deadlock");
    assert_eq!(response.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn limits_buffer_and_timeout_can_be_combined() {
    let setup = TestSetup::with_token().await;
    setup.api.revoke(1);
    let client = ServiceBuilder::new()
        .buffer(8)
        .concurrency_limit(1)
        .layer(layer(&setup.cache))
        .timeout(Duration::from_secs(10))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(setup.api.service());
    send_100_requests(client).await;
    assert_eq!(setup.source.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn limit_of_one_on_the_token_transport_does_not_deadlock() {
    let setup = TestSetup::new();
    setup.api.accept(1);
    let transport =
        ServiceBuilder::new().concurrency_limit(1).service_fn(|_: Request<Full<Bytes>>| async {
            sleep(Duration::from_millis(10)).await;
            let body = r#"{"access_token":"token-1"}"#;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(body)))
        });
    let auth = ClientAuth::client_secret_basic("id", "secret");
    let endpoint = TokenEndpoint::with_transport("https://as.test/token", auth, transport).unwrap();
    let cache = TokenCache::new(ClientCredentials::new(endpoint));
    for _ in 0..3 {
        let client = ServiceBuilder::new().layer(layer(&cache)).service(setup.api.service());
        send_100_requests(client).await;
        cache.invalidate(cache.current().unwrap().generation());
    }
}

type MockService = OAuth<Mock<Request<Body>, Response<Body>>>;
type MockHandle = mock::Handle<Request<Body>, Response<Body>>;
type MockResponse = task::Spawn<<MockService as Service<Request<Body>>>::Future>;

/// Sends a request that is rejected. Returns it when it has a new token and waits for the inner
/// service, which is not ready for the retry.
async fn rejected_request(cache: &TokenCache) -> (MockResponse, MockHandle) {
    let (service, mut api) = mock::pair();
    let mut service = task::spawn(layer(cache).layer(service));
    api.allow(1);
    assert_ready_ok!(service.enter(|cx, mut service| service.poll_ready(cx)));
    let mut response = task::spawn(service.call(get("/")));
    assert_pending!(response.poll());
    let (_, responder) = api.next_request().await.unwrap();
    responder.send_response(empty_response(StatusCode::UNAUTHORIZED));
    run_until_idle(&mut response).await;
    assert_pending!(task::spawn(api.next_request()).poll());
    (response, api)
}

/// Lets the request and the refresh continue as far as possible.
async fn run_until_idle(response: &mut MockResponse) {
    for _ in 0..10 {
        assert_pending!(response.poll());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn retry_waits_until_the_inner_service_is_ready() {
    let setup = TestSetup::with_token().await;
    let (mut response, mut api) = rejected_request(&setup.cache).await;
    assert_eq!(setup.source.request_count(), 2);
    api.allow(1);
    assert!(response.is_woken());
    assert_pending!(response.poll());
    let (request, responder) = api.next_request().await.unwrap();
    assert_eq!(bearer(&request).as_deref(), Some("token-2"));
    responder.send_response(Response::new(Body::default()));
    assert_eq!(assert_ready_ok!(response.poll()).status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn token_rejected_while_the_retry_waits_is_not_sent() {
    let setup = TestSetup::with_token().await;
    let (mut response, mut api) = rejected_request(&setup.cache).await;
    let second = setup.cache.current().unwrap();
    assert_eq!(second.generation().get(), 2);
    setup.cache.invalidate(second.generation());
    api.allow(1);
    run_until_idle(&mut response).await;
    let (request, responder) = api.next_request().await.unwrap();
    assert_eq!(bearer(&request).as_deref(), Some("token-3"));
    responder.send_response(Response::new(Body::default()));
    assert_eq!(assert_ready_ok!(response.poll()).status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn rejected_token_issued_while_the_retry_waits_is_not_sent() {
    let tokens = Arc::new(Mutex::new(vec!["A", "B", "A"].into_iter()));
    let cache = TokenCache::new(source_fn(move |_| {
        let next = lock(&tokens).next().unwrap();
        async move { AccessToken::bearer(next) }
    }));
    cache.token().await.unwrap();
    let (mut response, mut api) = rejected_request(&cache).await;
    cache.invalidate(cache.current().unwrap().generation());
    assert_eq!(cache.token().await.unwrap().expose_secret(), "A");
    api.allow(1);
    let error = assert_ready_err!(response.poll());
    assert!(error.to_string().contains("returned a rejected token again"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn readiness_error_before_the_retry_is_returned() {
    let setup = TestSetup::with_token().await;
    let (mut response, mut api) = rejected_request(&setup.cache).await;
    api.send_error("connection lost");
    assert!(assert_ready_err!(response.poll()).to_string().contains("connection lost"));
}
