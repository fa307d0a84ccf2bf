//! Tokens that no grant gives.

use std::{fs, path::PathBuf, time::Duration};

use http::StatusCode;
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::{OAuthLayer, Origins, StaticToken, TokenCache, TokenErrorKind, TokenFile};

use crate::support::{API, Api, after_back_off, get};

/// A file of this test alone, gone at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tower-oauth-{name}-{}", std::process::id())))
    }

    fn write(&self, content: &str) {
        fs::write(&self.0, content).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

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
