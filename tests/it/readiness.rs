//! `poll_ready` is honoured on both attempts, whatever limits stand above, below and beside.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer};
use tower_oauth::{
    AccessToken, ClientAuth, ClientCredentials, OAuth, OAuthLayer, Origins, TokenCache, TokenEndpoint,
};

use crate::support::{API, Body, World, bearer, get, lock};

fn layer(cache: &TokenCache) -> OAuthLayer {
    OAuthLayer::new(cache.clone(), Origins::new([API]).unwrap())
}

async fn hundred_at_once<S>(client: S)
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: std::fmt::Debug + Send,
    S::Future: Send,
{
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.oneshot(get("/")).await.unwrap().status() })
        })
        .collect();
    for request in requests {
        let answer = tokio::time::timeout(Duration::from_secs(60), request).await;
        assert_eq!(answer.expect("no deadlock").unwrap(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_above_the_layer_neither_panics_nor_deadlocks() {
    let world = World::with_token().await;
    world.api.revoke(1);
    let client =
        ServiceBuilder::new().concurrency_limit(1).layer(layer(&world.cache)).service(world.api.service());
    hundred_at_once(client).await;
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_below_the_layer_neither_panics_nor_deadlocks() {
    for with_token in [true, false] {
        let world = if with_token { World::with_token().await } else { World::new() };
        world.api.revoke(1);
        let limited = ConcurrencyLimitLayer::new(1);
        let client =
            ServiceBuilder::new().layer(layer(&world.cache)).layer(limited).service(world.api.service());
        hundred_at_once(client).await;
        assert_eq!(world.issuer.asked(), 1 + usize::from(with_token));
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_was_obtained_is_used_also_when_the_token_has_to_be_fetched_first() {
    let world = World::new();
    let limited = ConcurrencyLimitLayer::new(1);
    let mut service =
        ServiceBuilder::new().layer(layer(&world.cache)).layer(limited).service(world.api.service());
    // The service stays, and with it a permit that it had and did not use.
    let response = service.ready().await.unwrap().call(get("/"));
    let answer = tokio::time::timeout(Duration::from_secs(60), response).await;
    assert_eq!(answer.expect("no deadlock").unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_above_and_below_and_a_buffer_and_a_timeout_work_together() {
    let world = World::with_token().await;
    world.api.revoke(1);
    let client = ServiceBuilder::new()
        .buffer(8)
        .concurrency_limit(1)
        .layer(layer(&world.cache))
        .timeout(Duration::from_secs(10))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(world.api.service());
    hundred_at_once(client).await;
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_on_the_token_transport_neither_panics_nor_deadlocks() {
    let world = World::new();
    world.api.accept(1);
    let transport = ServiceBuilder::new().concurrency_limit(1).service_fn(|_: Request<Full<Bytes>>| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(r#"{"access_token":"token-1"}"#)))
    });
    let auth = ClientAuth::client_secret_basic("id", "secret");
    let endpoint = TokenEndpoint::with_transport("https://as.test/token", auth, transport).unwrap();
    let cache = TokenCache::new(ClientCredentials::new(endpoint));
    for _ in 0..3 {
        let client = ServiceBuilder::new().layer(layer(&cache)).service(world.api.service());
        hundred_at_once(client).await;
        cache.invalidate(cache.current().unwrap().generation());
    }
}

type Mocked = OAuth<tower_test::mock::Mock<Request<Body>, Response<Body>>>;
type Answering = task::Spawn<<Mocked as Service<Request<Body>>>::Future>;

/// A request that was refused, has a new token, and waits for an inner service that is not ready.
async fn refused(cache: &TokenCache) -> (Answering, tower_test::mock::Handle<Request<Body>, Response<Body>>) {
    let (service, mut api) = tower_test::mock::pair();
    let mut service = task::spawn(layer(cache).layer(service));
    api.allow(1);
    assert_ready_ok!(service.enter(|cx, mut service| service.poll_ready(cx)));
    let mut response = task::spawn(service.call(get("/")));
    assert_pending!(response.poll());
    api.next_request().await.unwrap().1.send_response(unauthorized());
    run(&mut response).await;
    assert_pending!(task::spawn(api.next_request()).poll());
    (response, api)
}

/// Lets the request, and the fetch beside it, come as far as they can.
async fn run(response: &mut Answering) {
    for _ in 0..10 {
        assert_pending!(response.poll());
        tokio::task::yield_now().await;
    }
}

fn unauthorized() -> Response<Body> {
    Response::builder().status(StatusCode::UNAUTHORIZED).body(Body::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_retry_waits_for_readiness_again() {
    let world = World::with_token().await;
    let (mut response, mut api) = refused(&world.cache).await;
    assert_eq!(world.issuer.asked(), 2);
    api.allow(1);
    assert!(response.is_woken());
    assert_pending!(response.poll());
    let (request, answer) = api.next_request().await.unwrap();
    assert_eq!(bearer(&request).as_deref(), Some("token-2"));
    answer.send_response(Response::new(Body::default()));
    assert_eq!(assert_ready_ok!(response.poll()).status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_while_the_retry_waits_for_readiness_is_not_sent() {
    let world = World::with_token().await;
    let (mut response, mut api) = refused(&world.cache).await;
    let second = world.cache.current().unwrap();
    assert_eq!(second.generation().get(), 2);
    world.cache.invalidate(second.generation());
    api.allow(1);
    run(&mut response).await;
    let (request, answer) = api.next_request().await.unwrap();
    assert_eq!(bearer(&request).as_deref(), Some("token-3"));
    answer.send_response(Response::new(Body::default()));
    assert_eq!(assert_ready_ok!(response.poll()).status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_that_comes_back_while_the_retry_waits_for_readiness_is_not_sent_again() {
    let tokens = Arc::new(Mutex::new(vec!["A", "B", "A"].into_iter()));
    let cache = TokenCache::new(move || {
        let next = lock(&tokens).next().unwrap();
        async move { AccessToken::bearer(next) }
    });
    cache.token().await.unwrap();
    let (mut response, mut api) = refused(&cache).await;
    cache.invalidate(cache.current().unwrap().generation());
    assert_eq!(cache.token().await.unwrap().expose_secret(), "A");
    api.allow(1);
    let error = assert_ready_err!(response.poll());
    assert!(error.to_string().contains("gave a refused token again"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_fails_to_become_ready_for_the_retry_is_an_error() {
    let world = World::with_token().await;
    let (mut response, mut api) = refused(&world.cache).await;
    api.send_error("gone for good");
    assert!(assert_ready_err!(response.poll()).to_string().contains("gone for good"));
}
