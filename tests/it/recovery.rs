//! A refused token is replaced once, and the caller does not notice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_oauth::{OAuth, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind, replay::Never};

use crate::support::{API, Client, Issuer, Plan, World, after_back_off, get, post};

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
    let service: OAuth<
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
}

/// An API that takes no token at all.
fn refusing(world: &World) -> OAuth<Client> {
    let refusing = tower::service_fn(|_: http::Request<crate::support::Body>| async {
        Ok::<_, tower::BoxError>(status(StatusCode::UNAUTHORIZED))
    });
    let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap());
    ServiceBuilder::new().layer(layer).service(Client::new(refusing))
}

#[tokio::test(start_paused = true)]
async fn an_api_that_answers_401_to_everything_costs_at_most_ten_tokens_a_minute() {
    let world = World::new();
    let client = refusing(&world);
    for _ in 0..10_000 {
        assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
        tokio::time::advance(Duration::from_millis(6)).await;
    }
    assert!((5..=10).contains(&world.issuer.asked()), "{}", world.issuer.asked());
}

#[tokio::test(start_paused = true)]
async fn a_patient_client_of_an_api_that_answers_401_to_everything_does_not_cost_a_token_for_each_request() {
    let world = World::new();
    let client = refusing(&world);
    for _ in 0..1200 {
        client.clone().oneshot(get("/")).await.unwrap();
        tokio::time::advance(Duration::from_secs(3)).await;
    }
    assert!((15..=25).contains(&world.issuer.asked()), "{}", world.issuer.asked());
}

#[tokio::test(start_paused = true)]
async fn a_storm_on_an_api_that_answers_401_to_everything_counts_as_one_futile_refresh() {
    let world = World::with_token().await;
    let client = refusing(&world);
    let requests: Vec<_> = (0..1000).map(|_| tokio::spawn(client.clone().oneshot(get("/")))).collect();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(world.issuer.asked(), 2);
    tokio::time::advance(Duration::from_millis(1001)).await;
    client.oneshot(get("/")).await.unwrap();
    assert_eq!(world.issuer.asked(), 3, "after one second and not after two");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_replay_does_not_keep_the_others_of_its_storm_from_recovering() {
    let world = World::with_token().await;
    let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap());
    let upload = layer.clone().replay(Never).layer(world.api.service());
    let client = layer.layer(world.api.service());
    world.api.revoke(1);
    let upload = tokio::spawn(upload.oneshot(post("once")));
    let requests: Vec<_> = (0..100).map(|_| tokio::spawn(client.clone().oneshot(get("/")))).collect();
    assert_eq!(upload.await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn retries_that_are_cancelled_or_fail_do_not_make_an_api_that_refuses_everything_cost_more() {
    for failing in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
        let world = World::new();
        let seen = Arc::new(AtomicUsize::new(0));
        let api = tower::service_fn(move |_: http::Request<crate::support::Body>| {
            let first = seen.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
            let answer = if first { StatusCode::UNAUTHORIZED } else { failing };
            async move { Ok::<_, tower::BoxError>(status(answer)) }
        });
        let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap());
        let client = ServiceBuilder::new().layer(layer).service(api);
        for _ in 0..600 {
            client.clone().oneshot(get("/")).await.unwrap();
            tokio::time::advance(Duration::from_millis(90)).await;
        }
        assert!(world.issuer.asked() <= 10, "{}", world.issuer.asked());
    }
}

#[tokio::test(start_paused = true)]
async fn one_origin_that_refuses_everything_does_not_keep_another_from_recovering() {
    let world = World::with_token().await;
    let servers = {
        let api = world.api.clone();
        tower::service_fn(move |request: http::Request<crate::support::Body>| {
            let api = api.clone();
            async move {
                match request.uri().host() {
                    Some("api.test") => api.service().oneshot(request).await,
                    _ => Ok(status(StatusCode::UNAUTHORIZED)),
                }
            }
        })
    };
    let origins = Origins::new([API, "https://refusing.test"]).unwrap();
    let client = ServiceBuilder::new().layer(OAuthLayer::new(world.cache.clone(), origins)).service(servers);
    let bad = http::Request::get("https://refusing.test/").body(crate::support::Body::default()).unwrap();
    assert_eq!(client.clone().oneshot(bad).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    for generation in 1..=3 {
        world.api.revoke(generation + 1);
        assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_replay_an_api_that_refuses_everything_does_not_cost_a_token_for_each_request() {
    let world = World::new();
    let client = refusing(&world).into_inner();
    let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap()).replay(Never);
    let client = ServiceBuilder::new().layer(layer).service(client);
    for _ in 0..1000 {
        client.clone().oneshot(get("/")).await.unwrap();
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert_eq!(world.issuer.asked(), 5, "the first, and after 1, 2, 4 and 8 seconds");
}

#[tokio::test(start_paused = true)]
async fn when_the_refresh_fails_the_caller_gets_the_original_401_whole() {
    let world = World::with_token().await;
    world.api.revoke(1);
    world.issuer.plan([Plan::Fail]);
    let response = world.client.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let (head, body) = response.into_parts();
    let error = head.extensions.get::<TokenError>().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Transport, "and learns why it was not recovered");
    let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    assert_eq!(body, "answer");
    after_back_off(error).await;
    assert_eq!(world.get().await.unwrap(), StatusCode::OK, "and a later request recovers");
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
async fn a_token_that_is_issued_again_and_again_does_not_cost_a_fetch_for_each_request() {
    let world = World::with_token().await;
    world.api.revoke(1);
    world.issuer.plan((0..10).map(|_| Plan::SameAgain));
    for _ in 0..10 {
        assert_eq!(world.get().await.unwrap(), StatusCode::UNAUTHORIZED);
    }
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
async fn a_stale_token_is_used_while_it_is_renewed_behind_and_no_request_waits() {
    let world = World::new();
    world.issuer.plan([Plan::Issue(Duration::from_secs(100))]);
    world.get().await.unwrap();
    tokio::time::advance(Duration::from_secs(56)).await;
    world.issuer.close_the_door();
    for _ in 0..10 {
        world.get().await.unwrap();
    }
    assert_eq!(world.issuer.asked(), 2, "one renewal for all");
    world.issuer.let_in(1);
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.get().await.unwrap();
    let transcript = world.api.transcript();
    assert!(transcript[..11].iter().all(|line| line == "token-1 200"), "{transcript:?}");
    assert_eq!(transcript[11], "token-2 200");
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_never_sent() {
    let world = World::new();
    world.issuer.plan([Plan::Issue(Duration::from_secs(100))]);
    world.get().await.unwrap();
    tokio::time::advance(Duration::from_secs(90)).await;
    world.get().await.unwrap();
    assert_eq!(world.api.transcript(), ["token-1 200", "token-2 200"]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_cache_fetches_nothing() {
    let world = World::with_token().await;
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_leaves_the_token_in_use_and_backs_off() {
    let world = World::new();
    world.issuer.plan([Plan::Issue(Duration::from_secs(1000)), Plan::Fail, Plan::Fail]);
    world.get().await.unwrap();
    tokio::time::advance(Duration::from_secs(560)).await;
    let start = tokio::time::Instant::now();
    while world.issuer.asked() < 4 {
        assert_eq!(world.get().await.unwrap(), StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = start.elapsed().as_secs_f64();
    assert!((2.4..=3.8).contains(&took), "one second and two, a fifth either way: {took}");
    assert_eq!(world.get().await.unwrap(), StatusCode::OK);
    assert_eq!(world.api.transcript().last().unwrap(), "token-2 200");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_is_not_asked_for_with_every_request() {
    let refused = || TokenError::new(TokenErrorKind::Refused, "invalid_client");
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let cache = TokenCache::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        async move { Err(refused()) }
    });
    let start = tokio::time::Instant::now();
    while start.elapsed() < Duration::from_secs(3600) {
        let error = cache.token().await.unwrap_err();
        assert!(error.next_attempt_in().unwrap() <= Duration::from_secs(4320));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let asked = asked.load(Ordering::SeqCst);
    assert!((5..=7).contains(&asked), "after 0, 1, 3, 7, 15 and 31 minutes, about: {asked}");
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
async fn a_401_for_want_of_a_scope_is_passed_on_and_costs_no_token() {
    let world = World::with_token().await;
    let answering = tower::service_fn(|_: http::Request<crate::support::Body>| async {
        let mut response = status(StatusCode::UNAUTHORIZED);
        let challenge = "Bearer error=\"insufficient_scope\", scope=\"admin\"";
        response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
        Ok::<_, tower::BoxError>(response)
    });
    let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(answering);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(world.cache.current().is_some());
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_further_status_is_recovered_where_it_is_named() {
    let world = World::with_token().await;
    let answering = tower::service_fn(|request: http::Request<crate::support::Body>| async move {
        let first = crate::support::bearer(&request).as_deref() == Some("token-1");
        let answer = if first { StatusCode::from_u16(419).unwrap() } else { StatusCode::OK };
        Ok::<_, tower::BoxError>(status(answer))
    });
    let layer = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap());
    let layer = layer.refused_status(StatusCode::from_u16(419).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(answering);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(world.issuer.asked(), 2);
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
