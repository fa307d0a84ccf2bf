//! Tokens are sent to the allowed origins only.

use std::sync::{Arc, Mutex};

use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{HOST, LOCATION},
};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_oauth::{OAuthLayer, Origins};

use crate::support::{API, Body, TestSetup, bearer, get, lock};

fn layer(setup: &TestSetup) -> OAuthLayer {
    OAuthLayer::new(setup.cache.clone(), Origins::new([API]).unwrap())
}

#[tokio::test(start_paused = true)]
async fn request_to_another_origin_has_no_token_and_no_retry() {
    let setup = TestSetup::new();
    for uri in [
        "https://evil.test/",
        "http://api.test/",
        "https://api.test:8443/",
        "https://api.test.evil.test/",
    ] {
        let request = Request::get(uri).body(Body::default()).unwrap();
        let response = setup.client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(setup.api.transcript(), ["- 401", "- 401", "- 401", "- 401"]);
    assert_eq!(setup.source.request_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn authorization_header_of_the_caller_is_kept_and_not_retried() {
    let setup = TestSetup::with_token().await;
    let mut request = get("/");
    request.headers_mut().insert("authorization", "Bearer of-the-caller".parse().unwrap());
    let response = setup.client.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(setup.api.transcript(), ["of-the-caller 401"]);
    assert!(setup.cache.current().is_some(), "the cached token is not invalidated");
}

#[tokio::test(start_paused = true)]
async fn request_without_authority_gets_a_token_where_named() {
    let setup = TestSetup::with_token().await;
    let named = Origins::new([API]).unwrap();
    for (origins, uri, expected) in [
        (named.clone(), "/relative", StatusCode::UNAUTHORIZED),
        (named.clone().and_without_authority(), "/relative", StatusCode::OK),
        (named.clone().and_without_authority(), "https://api.test/", StatusCode::OK),
        (Origins::without_authority(), "/relative", StatusCode::OK),
        (Origins::without_authority(), "https://api.test/", StatusCode::UNAUTHORIZED),
        (Origins::without_authority(), "//evil.test/x", StatusCode::UNAUTHORIZED),
        (Origins::without_authority(), "/\\evil.test/x", StatusCode::UNAUTHORIZED),
        (named.and_without_authority(), "/\\/evil.test/x", StatusCode::UNAUTHORIZED),
    ] {
        let client = OAuthLayer::new(setup.cache.clone(), origins).layer(setup.api.service());
        let request = Request::get(uri).body(Body::default()).unwrap();
        assert_eq!(client.oneshot(request).await.unwrap().status(), expected, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn host_header_of_another_server_gets_no_token() {
    let setup = TestSetup::with_token().await;
    for (hosts, expected) in [
        (&["api.test"][..], StatusCode::OK),
        (&["API.test:443"], StatusCode::OK),
        (&["evil.test"], StatusCode::UNAUTHORIZED),
        (&["api.test:8443"], StatusCode::UNAUTHORIZED),
        (&["api.test", "api.test"], StatusCode::UNAUTHORIZED),
        (&["me@api.test"], StatusCode::UNAUTHORIZED),
        (&[""], StatusCode::UNAUTHORIZED),
    ] {
        let mut request = get("/");
        for host in hosts {
            request.headers_mut().append(HOST, HeaderValue::from_static(host));
        }
        let response = setup.client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected, "{hosts:?}");
    }
    assert_eq!(setup.source.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn redirect_to_another_host_has_no_token_and_no_refresh() {
    let setup = TestSetup::with_token().await;
    let requests = Arc::new(Mutex::new(Vec::new()));
    let servers = {
        let requests = Arc::clone(&requests);
        tower::service_fn(move |request: Request<Body>| {
            let host = request.uri().host().unwrap().to_owned();
            lock(&requests).push((host.clone(), bearer(&request)));
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
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(layer(&setup))
        .service(servers);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let token = Some("token-1".to_owned());
    let expected = [("api.test".to_owned(), token), ("evil.test".to_owned(), None)];
    assert_eq!(*lock(&requests), expected);
    assert_eq!(setup.source.request_count(), 1);
    assert!(setup.cache.current().is_some());
}

#[tokio::test(start_paused = true)]
async fn redirect_within_the_origin_has_the_token() {
    let setup = TestSetup::with_token().await;
    let servers = tower::service_fn(|request: Request<Body>| async move {
        assert_eq!(bearer(&request).as_deref(), Some("token-1"));
        let mut response = Response::new(Body::default());
        if request.uri().path() == "/old" {
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert(LOCATION, "/new".parse().unwrap());
        }
        Ok::<_, tower::BoxError>(response)
    });
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(layer(&setup))
        .service(servers);
    assert_eq!(client.oneshot(get("/old")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn request_with_a_full_header_map_does_not_wait_for_a_token() {
    let setup = TestSetup::new();
    setup.source.set_down(true);
    let mut full = get("/");
    for number in 0.. {
        let name = HeaderName::try_from(format!("x-{number}")).unwrap();
        if full.headers_mut().try_insert(name, HeaderValue::from_static("v")).is_err() {
            break;
        }
    }
    let response = setup.client.clone().oneshot(full).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(setup.source.request_count(), 0);
}
