//! A token goes where it was meant to go, and nowhere else.

use std::sync::{Arc, Mutex};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header::LOCATION};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_oauth::{OAuthLayer, Origins};

use crate::support::{API, Body, World, bearer, get, lock};

fn layer(world: &World) -> OAuthLayer {
    OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_request_to_another_origin_passes_without_a_token_and_its_401_is_not_recovered() {
    let world = World::new();
    for uri in
        ["https://evil.test/", "http://api.test/", "https://api.test:8443/", "https://api.test.evil.test/"]
    {
        let request = Request::get(uri).body(Body::default()).unwrap();
        let response = world.client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(world.api.transcript(), ["- 401", "- 401", "- 401", "- 401"]);
    assert_eq!(world.issuer.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_the_header_already_is_left_alone_and_not_retried() {
    let world = World::with_token().await;
    let mut request = get("/");
    request.headers_mut().insert("authorization", "Bearer of-the-caller".parse().unwrap());
    let response = world.client.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.api.transcript(), ["of-the-caller 401"]);
    assert!(world.cache.current().is_some(), "and the shared token is not held to be refused");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_authority_is_the_inner_services_own() {
    let world = World::new();
    let request = Request::get("/relative").body(Body::default()).unwrap();
    assert_eq!(world.client.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_to_another_host_does_not_carry_the_token_and_cannot_cause_a_refresh() {
    let world = World::with_token().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let servers = {
        let seen = Arc::clone(&seen);
        tower::service_fn(move |request: Request<Body>| {
            let host = request.uri().host().unwrap().to_owned();
            lock(&seen).push((host.clone(), bearer(&request)));
            let mut response = Response::new(Body::default());
            if host == "evil.test" {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            } else {
                *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
                response.headers_mut().insert(LOCATION, "https://evil.test/".parse().unwrap());
            }
            async { Ok::<_, tower::BoxError>(response) }
        })
    };
    let client =
        ServiceBuilder::new().layer(FollowRedirectLayer::new()).layer(layer(&world)).service(servers);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let token = Some("token-1".to_owned());
    assert_eq!(*lock(&seen), [("api.test".to_owned(), token), ("evil.test".to_owned(), None)]);
    assert_eq!(world.issuer.asked(), 1);
    assert!(world.cache.current().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_redirect_within_the_origin_carries_the_token() {
    let world = World::with_token().await;
    let servers = tower::service_fn(|request: Request<Body>| async move {
        assert_eq!(bearer(&request).as_deref(), Some("token-1"));
        let mut response = Response::new(Body::default());
        if request.uri().path() == "/old" {
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert(LOCATION, "/new".parse().unwrap());
        }
        Ok::<_, tower::BoxError>(response)
    });
    let client =
        ServiceBuilder::new().layer(FollowRedirectLayer::new()).layer(layer(&world)).service(servers);
    assert_eq!(client.oneshot(get("/old")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_without_room_for_the_header_does_not_wait_for_a_token() {
    let world = World::new();
    world.issuer.is_down(true);
    let mut full = get("/");
    for number in 0.. {
        let name = HeaderName::try_from(format!("x-{number}")).unwrap();
        if full.headers_mut().try_insert(name, HeaderValue::from_static("v")).is_err() {
            break;
        }
    }
    let answer = world.client.clone().oneshot(full).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.issuer.asked(), 0);
}
