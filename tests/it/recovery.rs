//! A refused token is replaced once, and the caller does not notice.

use std::time::Duration;

use http::{Method, StatusCode};
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::{OAuthLayer, Origins, TokenError, TokenErrorKind, replay::Never};

use crate::support::{API, Issuer, Plan, World, get, post};

#[tokio::test(start_paused = true)]
async fn the_first_request_fetches_the_token_and_the_others_reuse_it() {
    let world = World::new();
    for _ in 0..1000 {
        assert_eq!(world.get().await.unwrap(), StatusCode::OK);
    }
    assert_eq!(world.issuer.asked(), 1);
    assert!(world.api.transcript().iter().all(|line| line == "token-1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_and_the_request_sent_once_more_with_all_that_it_had() {
    let world = World::with_token().await;
    world.api.revoke(1);
    let response = world.client.clone().oneshot(post("a body")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(world.api.transcript(), ["token-1 401", "token-2 200"]);
    assert!(world.api.seen().iter().all(|seen| seen.body == "a body"));
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_storm_on_a_revoked_token_costs_one_token_request_and_no_caller_sees_the_401() {
    let world = World::with_token().await;
    // A second revocation right after the first is recovered in the same way.
    for round in 1..=2 {
        world.api.revoke(round);
        let requests: Vec<_> = (0..1000)
            .map(|_| {
                let client = world.client.clone();
                tokio::spawn(async move { client.oneshot(get("/")).await.unwrap().status() })
            })
            .collect();
        for request in requests {
            assert_eq!(request.await.unwrap(), StatusCode::OK);
        }
        assert_eq!(world.issuer.asked(), 1 + round);
    }
}

#[tokio::test(start_paused = true)]
async fn ten_late_refusals_of_an_old_token_cost_one_token_request() {
    let world = World::with_token().await;
    let old = world.cache.token().await.unwrap().generation();
    world.api.revoke(1);
    for _ in 0..10 {
        // Each comes when the refresh of the one before has long ended.
        world.cache.invalidate(old);
        assert_eq!(world.get().await.unwrap(), StatusCode::OK);
    }
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_sent_with_the_old_token_and_refused_late_are_retried_with_the_new_one() {
    let world = World::with_token().await;
    let (service, mut api) = tower_test::mock::spawn_with(|service| {
        let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap());
        ServiceBuilder::new().layer(layer).service(service)
    });
    let service: tower_oauth::OAuth<
        tower_test::mock::Mock<http::Request<crate::support::Body>, http::Response<crate::support::Body>>,
    > = service.into_inner();

    let callers: Vec<_> = (0..10).map(|_| tokio::spawn(service.clone().oneshot(get("/")))).collect();
    let mut unanswered = Vec::new();
    api.allow(20);
    for _ in 0..10 {
        let (request, answer) = api.next_request().await.unwrap();
        assert_eq!(crate::support::bearer(&request).as_deref(), Some("token-1"));
        unanswered.push(answer);
    }
    for answer in unanswered {
        answer.send_response(status(StatusCode::UNAUTHORIZED));
        let (request, answer) = api.next_request().await.unwrap();
        assert_eq!(crate::support::bearer(&request).as_deref(), Some("token-2"));
        answer.send_response(status(StatusCode::OK));
    }
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(world.issuer.asked(), 2);
}

fn status(status: StatusCode) -> http::Response<crate::support::Body> {
    http::Response::builder().status(status).body(crate::support::Body::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_second_401_is_the_callers_answer() {
    let world = World::with_token().await;
    world.api.revoke(1);
    world.issuer.plan([Plan::Issue(Issuer::LIFETIME)]);
    let api = world.api.clone();
    let revoking = tower::service_fn(move |request| {
        api.revoke(2);
        let service = api.service();
        async move { service.oneshot(request).await }
    });
    let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(revoking);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.api.transcript(), ["token-1 401", "token-2 401"]);
    assert!(world.cache.current().is_none(), "the second token was refused, too");
}

#[tokio::test(start_paused = true)]
async fn when_the_refresh_fails_the_caller_gets_the_original_401_whole() {
    let world = World::with_token().await;
    world.api.revoke(1);
    world.issuer.plan([Plan::Fail]);
    let response = world.client.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let error = response.extensions().get::<TokenError>().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Transport, "and learns why it was not recovered");
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(body, "answer");
    assert_eq!(world.get().await.unwrap(), StatusCode::OK, "and the next request recovers");
}

#[tokio::test(start_paused = true)]
async fn when_the_refused_token_is_issued_again_the_caller_gets_the_original_401() {
    let world = World::with_token().await;
    world.api.revoke(1);
    world.issuer.plan([Plan::SameAgain]);
    assert_eq!(world.get().await.unwrap(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.api.transcript(), ["token-1 401"], "not sent a second time");
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_issued_again_after_a_passing_refusal_is_taken_again() {
    let world = World::with_token().await;
    world.api.revoke(1);
    world.issuer.plan([Plan::SameAgain]);
    assert_eq!(world.get().await.unwrap(), StatusCode::UNAUTHORIZED);
    world.api.accept(1);
    assert_eq!(world.get().await.unwrap(), StatusCode::OK);
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_expires_and_never_sent_after() {
    let world = World::new();
    world.issuer.plan([Plan::Issue(Duration::from_secs(100))]);
    world.get().await.unwrap();
    tokio::time::advance(Duration::from_millis(89_999)).await;
    world.get().await.unwrap();
    tokio::time::advance(Duration::from_millis(1)).await;
    world.get().await.unwrap();
    assert_eq!(world.api.transcript(), ["token-1 200", "token-1 200", "token-2 200"]);
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_replay_the_401_is_the_answer_and_the_next_request_has_a_new_token() {
    let world = World::with_token().await;
    world.api.revoke(1);
    let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap()).replay(Never);
    let client = ServiceBuilder::new().layer(layer).service(world.api.service());
    assert_eq!(client.clone().oneshot(post("b")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.issuer.asked(), 1);
    assert_eq!(client.oneshot(post("b")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(world.api.transcript(), ["token-1 401", "token-2 200"]);
}

#[tokio::test(start_paused = true)]
async fn other_statuses_are_passed_on_as_they_are() {
    let world = World::with_token().await;
    for status in [200, 204, 302, 400, 403, 404, 407, 419, 500, 503] {
        let answering = tower::service_fn(move |_: http::Request<crate::support::Body>| async move {
            Ok::<_, tower::BoxError>(self::status(StatusCode::from_u16(status).unwrap()))
        });
        let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap());
        let client = ServiceBuilder::new().layer(layer).service(answering);
        assert_eq!(client.oneshot(get("/")).await.unwrap().status().as_u16(), status);
    }
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_has_method_uri_version_headers_and_extensions_of_the_first_attempt() {
    #[derive(Clone, Debug, PartialEq)]
    struct Marker(u32);

    let world = World::with_token().await;
    let (service, mut api) =
        tower_test::mock::pair::<http::Request<crate::support::Body>, http::Response<crate::support::Body>>();
    let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(service);
    let mut request = http::Request::builder()
        .method(Method::PATCH)
        .uri(format!("{API}/a?b=c"))
        .version(http::Version::HTTP_2)
        .header("x-many", "1")
        .header("x-many", "2")
        .body(crate::support::Body::from("body"))
        .unwrap();
    request.extensions_mut().insert(Marker(7));
    let caller = tokio::spawn(client.oneshot(request));

    api.allow(2);
    for (token, answer_with) in
        [("Bearer token-1", StatusCode::UNAUTHORIZED), ("Bearer token-2", StatusCode::OK)]
    {
        let (request, answer) = api.next_request().await.unwrap();
        assert_eq!(request.method(), Method::PATCH);
        assert_eq!(request.uri(), "https://api.test/a?b=c");
        assert_eq!(request.version(), http::Version::HTTP_2);
        assert_eq!(request.headers().get_all("x-many").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(request.headers().get_all("authorization").iter().collect::<Vec<_>>(), [token]);
        assert_eq!(request.headers().len(), 3);
        assert_eq!(request.extensions().get(), Some(&Marker(7)));
        answer.send_response(status(answer_with));
    }
    assert_eq!(caller.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_inner_service_is_passed_on_and_costs_no_token() {
    let world = World::with_token().await;
    let failing = tower::service_fn(|_: http::Request<crate::support::Body>| async {
        Err::<http::Response<crate::support::Body>, _>(std::io::Error::other("connection reset"))
    });
    let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap());
    let error = ServiceBuilder::new().layer(layer).service(failing).oneshot(get("/")).await.unwrap_err();
    assert!(error.is::<std::io::Error>(), "{error}");
    assert!(world.cache.current().is_some());
}
