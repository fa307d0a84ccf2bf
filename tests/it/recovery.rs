//! Recovery from a rejected token: it is replaced once, and the request is sent again.

use std::{
    convert::Infallible,
    io, mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode, Version,
    header::{AUTHORIZATION, LOCATION},
};
use http_body_util::BodyExt;
use tokio::{
    task::yield_now,
    time::{Instant, advance, sleep},
};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_oauth::{
    AccessToken, OAuth, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind,
    replay::NoReplay, source_fn,
};
use tower_test::mock::{self, Mock};

use crate::support::{
    API, Body, Client, Reply, ScriptedSource, TestSetup, bearer, get, post, wait_for_backoff,
};

/// Returns a layer for the API of the tests.
pub(crate) fn layer(cache: &TokenCache) -> OAuthLayer {
    OAuthLayer::new(cache.clone(), Origins::new([API]).unwrap())
}

/// Returns a response with this status and an empty body.
pub(crate) fn empty_response(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(Body::default()).unwrap()
}

/// Returns a client of an API that rejects all tokens.
fn client_of_rejecting_api(setup: &TestSetup) -> OAuth<Client> {
    layer(&setup.cache).layer(rejecting_api())
}

fn rejecting_api() -> Client {
    Client::new(service_fn(|_: Request<Body>| async {
        Ok::<_, BoxError>(empty_response(StatusCode::UNAUTHORIZED))
    }))
}

#[tokio::test(start_paused = true)]
async fn requests_share_one_token() {
    let setup = TestSetup::new();
    for _ in 0..1000 {
        assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
    }
    assert_eq!(setup.source.request_count(), 1);
    assert!(setup.api.transcript().iter().all(|line| line == "token-1 200"));
}

#[tokio::test(start_paused = true)]
async fn rejected_token_is_replaced_and_the_request_is_repeated() {
    let setup = TestSetup::with_token().await;
    setup.api.revoke(1);
    let response = setup.client.clone().oneshot(post("a body")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(setup.api.transcript(), ["token-1 401", "token-2 200"]);
    assert!(setup.api.requests().iter().all(|request| request.body == "a body"));
    assert_eq!(setup.source.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn thousand_rejections_at_once_cost_one_refresh() {
    let setup = TestSetup::with_token().await;
    // A second revocation right after the first is recovered in the same way.
    for round in 1..=2 {
        setup.api.revoke(round);
        let requests: Vec<_> = (0..1000)
            .map(|_| {
                let client = setup.client.clone();
                tokio::spawn(async move { client.oneshot(get("/")).await.unwrap().status() })
            })
            .collect();
        for request in requests {
            assert_eq!(request.await.unwrap(), StatusCode::OK);
        }
        assert_eq!(setup.source.request_count(), 1 + round);
    }
}

#[tokio::test(start_paused = true)]
async fn late_rejections_of_an_old_token_cost_one_refresh() {
    let setup = TestSetup::with_token().await;
    let old = setup.cache.token().await.unwrap().generation();
    setup.api.revoke(1);
    for _ in 0..10 {
        // The refresh that the first rejection causes has ended before the next rejection.
        setup.cache.invalidate(old);
        assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
    }
    assert_eq!(setup.source.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn late_rejections_are_retried_with_the_new_token() {
    let setup = TestSetup::with_token().await;
    let (service, mut api) = mock::spawn_with(|service| layer(&setup.cache).layer(service));
    let service: OAuth<Mock<Request<Body>, Response<Body>>> = service.into_inner();

    let callers: Vec<_> =
        (0..10).map(|_| tokio::spawn(service.clone().oneshot(get("/")))).collect();
    let mut pending_responses = Vec::new();
    api.allow(20);
    for _ in 0..10 {
        let (request, response) = api.next_request().await.unwrap();
        assert_eq!(bearer(&request).as_deref(), Some("token-1"));
        pending_responses.push(response);
    }
    for response in pending_responses {
        response.send_response(empty_response(StatusCode::UNAUTHORIZED));
        let (request, response) = api.next_request().await.unwrap();
        assert_eq!(bearer(&request).as_deref(), Some("token-2"));
        response.send_response(empty_response(StatusCode::OK));
    }
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(setup.source.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn second_rejection_is_returned_to_the_caller() {
    let setup = TestSetup::with_token().await;
    setup.api.revoke(1);
    setup.source.script([Reply::Issue(ScriptedSource::LIFETIME)]);
    let api = setup.api.clone();
    let revoking_api = service_fn(move |request| {
        api.revoke(2);
        let service = api.service();
        async move { service.oneshot(request).await }
    });
    let client = layer(&setup.cache).layer(revoking_api);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(setup.api.transcript(), ["token-1 401", "token-2 401"]);
}

#[tokio::test(start_paused = true)]
async fn rejecting_api_costs_at_most_ten_tokens_a_minute() {
    let setup = TestSetup::new();
    let client = client_of_rejecting_api(&setup);
    for _ in 0..10_000 {
        let response = client.clone().oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        advance(Duration::from_millis(6)).await;
    }
    let token_requests = setup.source.request_count();
    assert!((5..=10).contains(&token_requests), "{token_requests}");
}

#[tokio::test(start_paused = true)]
async fn rejecting_api_costs_few_tokens_also_with_slow_requests() {
    let setup = TestSetup::new();
    let client = client_of_rejecting_api(&setup);
    for _ in 0..1200 {
        client.clone().oneshot(get("/")).await.unwrap();
        advance(Duration::from_secs(3)).await;
    }
    let token_requests = setup.source.request_count();
    assert!((15..=25).contains(&token_requests), "{token_requests}");
}

#[tokio::test(start_paused = true)]
async fn thousand_rejections_at_once_cause_two_refreshes() {
    let setup = TestSetup::with_token().await;
    let client = client_of_rejecting_api(&setup);
    let requests: Vec<_> =
        (0..1000).map(|_| tokio::spawn(client.clone().oneshot(get("/")))).collect();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    // The second one, as the second token may have been revoked as well.
    assert_eq!(setup.source.request_count(), 3);
    advance(Duration::from_millis(1001)).await;
    client.oneshot(get("/")).await.unwrap();
    assert_eq!(setup.source.request_count(), 4, "the breaker must block for 1 s and not for 2 s");
}

#[tokio::test(start_paused = true)]
async fn request_without_replay_does_not_block_concurrent_retries() {
    let setup = TestSetup::with_token().await;
    let upload = layer(&setup.cache).with_replay(NoReplay).layer(setup.api.service());
    let client = layer(&setup.cache).layer(setup.api.service());
    setup.api.revoke(1);
    let upload = tokio::spawn(upload.oneshot(post("once")));
    let requests: Vec<_> =
        (0..100).map(|_| tokio::spawn(client.clone().oneshot(get("/")))).collect();
    assert_eq!(upload.await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(setup.source.request_count(), 2);
}

/// A retry that ends with another error says nothing about the new token, so that the circuit
/// breaker must not take it for a success.
#[tokio::test(start_paused = true)]
async fn failing_retries_do_not_lift_the_limit_on_refreshes() {
    for failure in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
        let setup = TestSetup::new();
        let last_token = Arc::new(Mutex::new(None));
        let api = service_fn(move |request: Request<Body>| {
            let token = request.headers().get(AUTHORIZATION).cloned();
            let is_retry = mem::replace(&mut *last_token.lock().unwrap(), token.clone()) != token;
            let status = if is_retry { failure } else { StatusCode::UNAUTHORIZED };
            async move { Ok::<_, BoxError>(empty_response(status)) }
        });
        let client = layer(&setup.cache).layer(api);
        for _ in 0..600 {
            client.clone().oneshot(get("/")).await.unwrap();
            advance(Duration::from_secs(1)).await;
        }
        let token_requests = setup.source.request_count();
        assert!(token_requests <= 15, "{token_requests}");
    }
}

/// In the pause after a transient failure, the token may soon be replaced.
#[tokio::test(start_paused = true)]
async fn rejected_token_stays_in_use_after_a_final_failure() {
    for (kind, stays) in [(TokenErrorKind::Rejected, true), (TokenErrorKind::Transport, false)] {
        let is_first = AtomicBool::new(true);
        let source = source_fn(move |_| {
            let is_first = is_first.swap(false, Ordering::SeqCst);
            async move {
                let token = AccessToken::bearer("t")?.expires_in(Duration::from_secs(3600));
                if is_first { Ok(token) } else { Err(TokenError::new(kind, "no")) }
            }
        });
        let cache = TokenCache::new(source);
        cache.token().await.unwrap();
        advance(Duration::from_secs(2520)).await; // the token is stale now
        cache.token().await.unwrap();
        yield_now().await;
        assert_eq!(cache.status().last_error.unwrap().kind(), kind, "of the background refresh");
        let response = layer(&cache).layer(rejecting_api()).oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(cache.current().is_some(), stays, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rejecting_origin_does_not_block_recovery_of_another() {
    let setup = TestSetup::with_token().await;
    let servers = {
        let api = setup.api.clone();
        service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                match request.uri().host() {
                    Some("api.test") => api.service().oneshot(request).await,
                    _ => Ok(empty_response(StatusCode::UNAUTHORIZED)),
                }
            }
        })
    };
    let origins = Origins::new([API, "https://rejecting.test"]).unwrap();
    let client = OAuthLayer::new(setup.cache.clone(), origins).layer(servers);
    let rejected = Request::get("https://rejecting.test/").body(Body::default()).unwrap();
    let response = client.clone().oneshot(rejected).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    for generation in 1..=3 {
        setup.api.revoke(generation + 1);
        assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn rejecting_api_costs_few_tokens_also_without_replay() {
    let setup = TestSetup::new();
    let client = layer(&setup.cache).with_replay(NoReplay).layer(rejecting_api());
    for _ in 0..1000 {
        client.clone().oneshot(get("/")).await.unwrap();
        advance(Duration::from_millis(10)).await;
    }
    // The first token request, and those after 1, 2, 4 and 8 seconds.
    assert_eq!(setup.source.request_count(), 5);
}

#[tokio::test(start_paused = true)]
async fn failed_refresh_returns_the_original_rejection() {
    let setup = TestSetup::with_token().await;
    setup.api.revoke(1);
    setup.source.script([Reply::Fail]);
    let response = setup.client.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let (head, body) = response.into_parts();
    let error = head.extensions.get::<TokenError>().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Transport, "the response has the refresh error");
    assert_eq!(body.collect().await.unwrap().to_bytes(), "answer");
    wait_for_backoff(error).await;
    assert_eq!(setup.get().await.unwrap(), StatusCode::OK, "a later request recovers");
}

#[tokio::test(start_paused = true)]
async fn rejected_token_that_is_issued_again_is_not_sent_again() {
    let setup = TestSetup::with_token().await;
    setup.api.revoke(1);
    setup.source.script([Reply::RepeatLast]);
    assert_eq!(setup.get().await.unwrap(), StatusCode::UNAUTHORIZED);
    assert_eq!(setup.api.transcript(), ["token-1 401"], "the request must not be retried");
    assert_eq!(setup.source.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn source_that_repeats_a_rejected_token_costs_two_refreshes() {
    let setup = TestSetup::with_token().await;
    setup.api.revoke(1);
    setup.source.script((0..10).map(|_| Reply::RepeatLast));
    for _ in 0..10 {
        assert_eq!(setup.get().await.unwrap(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(setup.source.request_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn repeated_token_is_used_again_once_the_api_accepts_it() {
    let setup = TestSetup::with_token().await;
    setup.api.revoke(1);
    setup.source.script([Reply::RepeatLast]);
    assert_eq!(setup.get().await.unwrap(), StatusCode::UNAUTHORIZED);
    setup.api.accept(1);
    assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
    assert_eq!(setup.source.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn stale_token_is_used_during_its_background_refresh() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Issue(Duration::from_secs(100))]);
    setup.get().await.unwrap();
    advance(Duration::from_secs(56)).await;
    setup.source.hold_requests();
    for _ in 0..10 {
        setup.get().await.unwrap();
    }
    assert_eq!(setup.source.request_count(), 2, "all requests share one refresh");
    setup.source.release_requests(1);
    sleep(Duration::from_millis(1)).await;
    setup.get().await.unwrap();
    let transcript = setup.api.transcript();
    assert!(transcript[..11].iter().all(|line| line == "token-1 200"), "{transcript:?}");
    assert_eq!(transcript[11], "token-2 200");
}

/// Returns a setup with a revoked first token, during its background refresh. The source holds that
/// refresh, and gives `replies` to it and to the following ones.
async fn revoked_during_a_refresh(replies: impl IntoIterator<Item = Reply>) -> TestSetup {
    let setup = TestSetup::new();
    setup.source.script([Reply::Issue(Duration::from_secs(100))]);
    setup.source.script(replies);
    setup.get().await.unwrap();
    advance(Duration::from_secs(56)).await;
    setup.source.hold_requests();
    setup.get().await.unwrap();
    sleep(Duration::from_millis(1)).await;
    setup.api.revoke(1);
    setup
}

/// The refresh had begun before the rejection, so its token was revoked as well.
#[tokio::test(start_paused = true)]
async fn revocation_during_a_refresh_is_recovered_by_a_second_retry() {
    let setup = revoked_during_a_refresh([Reply::IssueRevoked]).await;
    let requests: Vec<_> =
        (0..20).map(|_| tokio::spawn(setup.client.clone().oneshot(post("a body")))).collect();
    sleep(Duration::from_millis(1)).await;
    setup.source.release_requests(2);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(setup.source.request_count(), 3);
    let transcript = setup.api.transcript();
    for (token, count) in [("token-1 401", 20), ("token-2 401", 20), ("token-3 200", 20)] {
        assert_eq!(transcript.iter().filter(|line| *line == token).count(), count, "{token}");
    }
    assert!(setup.api.requests()[2..].iter().all(|request| request.body == "a body"));
}

#[tokio::test(start_paused = true)]
async fn second_retry_is_the_last_one() {
    let setup = revoked_during_a_refresh([Reply::IssueRevoked, Reply::IssueRevoked]).await;
    let request = tokio::spawn(setup.client.clone().oneshot(get("/")));
    sleep(Duration::from_millis(1)).await;
    setup.source.release_requests(10);
    assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(setup.api.transcript()[2..], ["token-1 401", "token-2 401", "token-3 401"]);
}

#[tokio::test(start_paused = true)]
async fn expired_token_is_not_sent() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Issue(Duration::from_secs(100))]);
    setup.get().await.unwrap();
    advance(Duration::from_secs(90)).await;
    setup.get().await.unwrap();
    assert_eq!(setup.api.transcript(), ["token-1 200", "token-2 200"]);
}

#[tokio::test(start_paused = true)]
async fn idle_cache_makes_no_token_requests() {
    let setup = TestSetup::with_token().await;
    sleep(Duration::from_secs(86_400)).await;
    assert_eq!(setup.source.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn failed_background_refresh_keeps_the_token_and_backs_off() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Issue(Duration::from_secs(1000)), Reply::Fail, Reply::Fail]);
    setup.get().await.unwrap();
    advance(Duration::from_secs(560)).await;
    let start = Instant::now();
    while setup.source.request_count() < 4 {
        assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
        sleep(Duration::from_millis(100)).await;
    }
    // One second and then two seconds, each with a jitter of 20 %.
    let took = start.elapsed().as_secs_f64();
    assert!((2.4..=3.8).contains(&took), "{took}");
    assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
    assert_eq!(setup.api.transcript().last().unwrap(), "token-2 200");
}

#[tokio::test(start_paused = true)]
async fn wrong_secret_is_not_sent_with_every_request() {
    let request_count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&request_count);
    let cache = TokenCache::new(source_fn(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Err(TokenError::new(TokenErrorKind::Rejected, "invalid_client")) }
    }));
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3600) {
        let error = cache.token().await.unwrap_err();
        assert!(error.next_attempt_in().unwrap() <= Duration::from_secs(4320));
        sleep(Duration::from_secs(1)).await;
    }
    // Requests are sent after about 0, 1, 3, 7, 15 and 31 minutes.
    let token_requests = request_count.load(Ordering::SeqCst);
    assert!((5..=7).contains(&token_requests), "{token_requests}");
}

#[tokio::test(start_paused = true)]
async fn rejection_without_replay_invalidates_the_token() {
    let setup = TestSetup::with_token().await;
    setup.api.revoke(1);
    let client = layer(&setup.cache).with_replay(NoReplay).layer(setup.api.service());
    let response = client.clone().oneshot(post("b")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(setup.source.request_count(), 1);
    assert_eq!(client.oneshot(post("b")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(setup.api.transcript(), ["token-1 401", "token-2 200"]);
}

/// Sends a request with a revoked token to an API that answers it with `status` and a challenge.
/// Returns the outcome and the number of token requests.
async fn send_revoked(
    status: StatusCode,
    challenge: &'static str,
    settings: impl FnOnce(OAuthLayer) -> OAuthLayer,
) -> (StatusCode, usize) {
    let setup = TestSetup::with_token().await;
    let api = service_fn(move |request: Request<Body>| async move {
        let is_revoked = bearer(&request).as_deref() == Some("token-1");
        let mut response = empty_response(if is_revoked { status } else { StatusCode::OK });
        response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
        Ok::<_, BoxError>(response)
    });
    let client = settings(layer(&setup.cache)).layer(api);
    let response = client.oneshot(get("/")).await.unwrap();
    (response.status(), setup.source.request_count())
}

#[tokio::test(start_paused = true)]
async fn challenge_of_another_scheme_is_recovered() {
    for challenge in [
        "Basic realm=\"api\"",
        "Token",
        "JWT realm=\"x\"",
        "Negotiate",
        "OAuth realm=\"x\", error=\"invalid_token\"",
    ] {
        let outcome = send_revoked(StatusCode::UNAUTHORIZED, challenge, |layer| layer).await;
        assert_eq!(outcome, (StatusCode::OK, 2), "{challenge}");
    }
}

#[tokio::test(start_paused = true)]
async fn missing_scope_or_step_up_keeps_the_token() {
    for challenge in [
        "Bearer error=\"insufficient_scope\", scope=\"admin\"",
        "Bearer error=\"insufficient_user_authentication\", acr_values=\"x\"",
    ] {
        let outcome = send_revoked(StatusCode::UNAUTHORIZED, challenge, |layer| layer).await;
        assert_eq!(outcome, (StatusCode::UNAUTHORIZED, 1), "{challenge}");
    }
}

#[tokio::test(start_paused = true)]
async fn configured_status_is_a_rejection_whatever_its_challenge() {
    for status in [419, 403, 401].map(|status| StatusCode::from_u16(status).unwrap()) {
        for challenge in ["Basic", "Bearer error=\"insufficient_scope\"", "\""] {
            let settings = |layer: OAuthLayer| layer.rejection_statuses([status]);
            let outcome = send_revoked(status, challenge, settings).await;
            assert_eq!(outcome, (StatusCode::OK, 2), "{status} {challenge}");
        }
    }
}

/// Some APIs send an expired client to a login page instead of answering 401.
#[tokio::test(start_paused = true)]
async fn configured_redirect_to_a_login_page_is_recovered() {
    let setup = TestSetup::with_token().await;
    let api = setup.api.clone();
    let service = service_fn(move |request: Request<Body>| {
        assert_eq!(request.uri().path(), "/orders", "the redirect is not followed");
        let mut response = api.answer(bearer(&request), Bytes::new());
        if response.status() == StatusCode::UNAUTHORIZED {
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert(LOCATION, "/login".parse().unwrap());
        }
        async { Ok::<_, Infallible>(response) }
    });
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(layer(&setup.cache).rejection_statuses([StatusCode::FOUND]))
        .service(service);
    setup.api.revoke(1);
    assert_eq!(client.oneshot(get("/orders")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(setup.api.transcript(), ["token-1 401", "token-2 200"]);
}

#[tokio::test(start_paused = true)]
async fn other_statuses_are_not_rejections() {
    let setup = TestSetup::with_token().await;
    for status in [200, 204, 302, 400, 403, 404, 407, 419, 500, 503] {
        let api = service_fn(move |_: Request<Body>| async move {
            Ok::<_, BoxError>(empty_response(StatusCode::from_u16(status).unwrap()))
        });
        let client = layer(&setup.cache).layer(api);
        assert_eq!(client.oneshot(get("/")).await.unwrap().status().as_u16(), status);
    }
    assert_eq!(setup.source.request_count(), 1);
}

/// Method, URI, version, headers and extensions of the retry are those of the first attempt.
#[tokio::test(start_paused = true)]
async fn retry_has_the_request_head_of_the_first_attempt() {
    #[derive(Clone, Debug, PartialEq)]
    struct Marker(u32);

    let setup = TestSetup::with_token().await;
    let (service, mut api) = mock::pair::<Request<Body>, Response<Body>>();
    let client = layer(&setup.cache).layer(service);
    let mut request = Request::builder()
        .method(Method::PATCH)
        .uri(format!("{API}/a?b=c"))
        .version(Version::HTTP_2)
        .header("x-many", "1")
        .header("x-many", "2")
        .body(Body::from("body"))
        .unwrap();
    request.extensions_mut().insert(Marker(7));
    let caller = tokio::spawn(client.oneshot(request));

    api.allow(2);
    for (token, status) in
        [("Bearer token-1", StatusCode::UNAUTHORIZED), ("Bearer token-2", StatusCode::OK)]
    {
        let (request, response) = api.next_request().await.unwrap();
        let headers = request.headers();
        assert_eq!(request.method(), Method::PATCH);
        assert_eq!(request.uri(), "https://api.test/a?b=c");
        assert_eq!(request.version(), Version::HTTP_2);
        assert_eq!(headers.get_all("x-many").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(headers.get_all("authorization").iter().collect::<Vec<_>>(), [token]);
        assert_eq!(headers.len(), 3);
        assert_eq!(request.extensions().get(), Some(&Marker(7)));
        response.send_response(empty_response(status));
    }
    assert_eq!(caller.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn error_of_the_inner_service_keeps_the_token() {
    let setup = TestSetup::with_token().await;
    let failing_api = service_fn(|_: Request<Body>| async {
        Err::<Response<Body>, _>(io::Error::other("connection reset"))
    });
    let client = layer(&setup.cache).layer(failing_api);
    let error = client.oneshot(get("/")).await.unwrap_err();
    assert!(error.is::<io::Error>(), "{error}");
    assert!(setup.cache.current().is_some());
}
