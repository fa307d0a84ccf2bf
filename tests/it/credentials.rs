//! Token sources without a token endpoint: `StaticToken` and `TokenFile`.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_oauth::{
    AccessToken, OAuthLayer, Origins, Secret, StaticToken, TokenCache, TokenErrorKind, TokenFile,
};

use crate::support::{API, Body, FakeApi, TempFile, get, wait_for_backoff};

/// The API accepts the token only after it has rejected it once.
#[tokio::test(start_paused = true)]
async fn rejected_static_token_is_sent_again_by_the_next_request() {
    let api = FakeApi::default();
    let tokens = TokenCache::new(StaticToken::bearer("token-1").unwrap());
    let layer = OAuthLayer::new(tokens, Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(api.service());
    let rejected = client.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(rejected.status(), StatusCode::UNAUTHORIZED);
    api.accept(1);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.transcript(), ["token-1 401", "token-1 200"]);
}

#[tokio::test(start_paused = true)]
async fn rotated_basic_credential_is_replaced_after_a_basic_challenge() {
    let file = TempFile::new("basic");
    file.write("old");
    let tokens = TokenCache::new(StaticToken::basic("id", Secret::from_file(&file.0)).unwrap());
    let new = AccessToken::basic("id", "new").unwrap().header_value().clone();
    let api = tower::service_fn(move |request: Request<Body>| {
        let accepted = request.headers().get("authorization") == Some(&new);
        async move {
            tokio::task::yield_now().await;
            let response = Response::builder()
                .status(if accepted { 200 } else { 401 })
                .header("www-authenticate", "Basic")
                .body(Body::default());
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    let client = OAuthLayer::new(tokens.clone(), Origins::new([API]).unwrap()).layer(api);
    tokens.token().await.unwrap();
    file.write("new");
    let requests: Vec<_> =
        (0..100).map(|_| tokio::spawn(client.clone().oneshot(get("/")))).collect();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

/// Before the rejection, the file is read again and still has the old token.
#[tokio::test(start_paused = true)]
async fn reread_token_file_is_read_again_after_a_rejection() {
    let api = FakeApi::default();
    let file = TempFile::new("unchanged");
    file.write("token-1");
    let tokens = TokenCache::new(TokenFile::new(&file.0));
    let first = tokens.token().await.unwrap();
    tokio::time::advance(TokenFile::DEFAULT_REREAD_AFTER).await;
    tokens.token().await.unwrap();
    while tokens.current().unwrap().is_stale() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let reread = tokens.current().unwrap();
    assert_eq!(reread.generation(), first.generation(), "the token is the same");
    file.write("token-2");
    api.accept(2);
    let layer = OAuthLayer::new(tokens, Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(api.service());
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.transcript(), ["token-1 401", "token-2 200"]);
}

#[tokio::test(start_paused = true)]
async fn large_file_and_directory_are_configuration_errors() {
    let file = TempFile::new("large");
    file.write(&"x".repeat(65 * 1024));
    for (path, said) in [(file.0.clone(), "larger than"), (std::env::temp_dir(), "not a file")] {
        let error = TokenCache::new(TokenFile::new(path)).token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Configuration);
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn token_file_is_read_again_at_its_age_and_not_before() {
    let file = TempFile::new("age");
    file.write("token-1\n");
    let cache = TokenCache::new(TokenFile::new(&file.0));
    assert_eq!(cache.token().await.unwrap().expose_secret(), "token-1");
    file.write("token-2");
    let just_before = TokenFile::DEFAULT_REREAD_AFTER.saturating_sub(Duration::from_millis(1));
    tokio::time::advance(just_before).await;
    assert_eq!(cache.token().await.unwrap().expose_secret(), "token-1");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let token = cache.token().await.unwrap();
    assert_eq!(token.expose_secret(), "token-1", "the old token is used during the refresh");
    while cache.current().unwrap().expose_secret() == "token-1" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(cache.current().unwrap().expose_secret(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn token_file_is_read_again_after_a_rejection() {
    let api = FakeApi::default();
    let file = TempFile::new("rejected");
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
async fn warm_up_waits_for_a_token_file_that_does_not_exist() {
    let file = TempFile::new("late");
    let cache = TokenCache::new(TokenFile::new(&file.0));
    let warm_up = cache.warm_up();
    let create = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(cache.status().last_error.is_some() && cache.current().is_none());
        file.write("token-1");
    };
    let (warm, ()) = tokio::join!(warm_up, create);
    warm.unwrap();
    assert_eq!(cache.current().unwrap().expose_secret(), "token-1");
}

#[tokio::test(start_paused = true)]
async fn invalid_token_file_error_has_the_path_and_no_content() {
    let file = TempFile::new("bad");
    let cache = TokenCache::new(TokenFile::new(&file.0));
    let path = file.0.to_str().unwrap();
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport, "the file does not exist");
    assert!(error.to_string().contains(path), "{error}");
    wait_for_backoff(&error).await;
    for content in ["", "\n", "S3CRET\nS3CRET", " S3CRET", "S3CRETü"] {
        file.write(content);
        let error = cache.token().await.unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
        assert!(!format!("{error} {error:?}").contains("S3CRET"), "{error}");
        wait_for_backoff(&error).await;
    }
}
