//! Tokens that no grant gives.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_oauth::{
    AccessToken, ClientSecret, OAuthLayer, Origins, StaticToken, TokenCache, TokenErrorKind, TokenFile,
};

use crate::support::{API, Api, Body, File, after_back_off, get};

#[tokio::test(start_paused = true)]
async fn a_refused_static_token_is_the_callers_401_and_is_tried_again_by_the_next_request() {
    let api = Api::default();
    let tokens = TokenCache::new(StaticToken::bearer("token-1").unwrap());
    let layer = OAuthLayer::new(tokens, Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(api.service());
    assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    api.accept(1);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.transcript(), ["token-1 401", "token-1 200"]);
}

#[tokio::test(start_paused = true)]
async fn a_rotated_basic_credential_is_recovered_for_all_by_a_challenge_of_its_own_scheme() {
    let file = File::new("basic");
    file.write("old");
    let tokens = TokenCache::new(StaticToken::basic("id", ClientSecret::from_file(&file.0)).unwrap());
    let new = AccessToken::basic("id", "new").unwrap().header_value().clone();
    let api = tower::service_fn(move |request: Request<Body>| {
        let known = request.headers().get("authorization") == Some(&new);
        async move {
            tokio::task::yield_now().await;
            let response = Response::builder().status(if known { 200 } else { 401 });
            Ok::<_, Infallible>(response.header("www-authenticate", "Basic").body(Body::default()).unwrap())
        }
    });
    let client = OAuthLayer::new(tokens.clone(), Origins::new([API]).unwrap()).layer(api);
    tokens.token().await.unwrap();
    file.write("new");
    let requests: Vec<_> = (0..100).map(|_| tokio::spawn(client.clone().oneshot(get("/")))).collect();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_file_that_was_read_again_without_change_is_read_again_when_its_token_is_refused() {
    let api = Api::default();
    let file = File::new("unchanged");
    file.write("token-1");
    let tokens = TokenCache::new(TokenFile::new(&file.0));
    let sent_with = tokens.token().await.unwrap();
    tokio::time::advance(TokenFile::DEFAULT_REREAD_AFTER).await;
    tokens.token().await.unwrap();
    while tokens.current().unwrap().is_stale() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(tokens.current().unwrap().generation(), sent_with.generation(), "it is the same token");
    file.write("token-2");
    api.accept(2);
    let layer = OAuthLayer::new(tokens, Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(api.service());
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.transcript(), ["token-1 401", "token-2 200"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_no_small_file_is_refused() {
    let file = File::new("large");
    file.write(&"x".repeat(65 * 1024));
    for (path, said) in [(file.0.clone(), "larger than"), (std::env::temp_dir(), "not a file")] {
        let error = TokenCache::new(TokenFile::new(path)).token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Configuration);
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_file_is_read_again_at_its_age_and_not_before() {
    let file = File::new("age");
    file.write("token-1\n");
    let cache = TokenCache::new(TokenFile::new(&file.0));
    assert_eq!(cache.token().await.unwrap().expose_secret(), "token-1");
    file.write("token-2");
    tokio::time::advance(TokenFile::DEFAULT_REREAD_AFTER.saturating_sub(Duration::from_millis(1))).await;
    assert_eq!(cache.token().await.unwrap().expose_secret(), "token-1");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(cache.token().await.unwrap().expose_secret(), "token-1", "until the next one is read");
    while cache.current().unwrap().expose_secret() == "token-1" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(cache.current().unwrap().expose_secret(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_token_file_is_read_again_when_its_token_is_refused() {
    let api = Api::default();
    let file = File::new("refused");
    file.write("token-1");
    api.accept(1);
    let tokens = TokenCache::new(TokenFile::new(&file.0));
    let layer = OAuthLayer::new(tokens, Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(api.service());
    assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    file.write("token-2");
    api.revoke(1);
    api.accept(2);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.transcript(), ["token-1 200", "token-1 401", "token-2 200"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_file_without_a_token_is_an_error_that_names_the_file_and_shows_nothing_of_it() {
    let file = File::new("bad");
    let cache = TokenCache::new(TokenFile::new(&file.0));
    let path = file.0.to_str().unwrap();
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Configuration);
    assert!(error.to_string().contains(path), "{error}");
    after_back_off(&error).await;
    for content in ["", "\n", "S3CRET\nS3CRET", " S3CRET", "S3CRETü"] {
        file.write(content);
        let error = cache.token().await.unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
        assert!(!format!("{error} {error:?}").contains("S3CRET"), "{error}");
        after_back_off(&error).await;
    }
}
