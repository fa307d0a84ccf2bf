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
async fn warm_up_waits_for_a_file_that_is_missing_or_empty() {
    let token_file = |file: &TempFile| TokenCache::new(TokenFile::new(&file.0));
    let secret_file = |file: &TempFile| {
        TokenCache::new(StaticToken::basic("id", Secret::from_file(&file.0)).unwrap())
    };
    for cache in [token_file as fn(&TempFile) -> TokenCache, secret_file] {
        for content in [None, Some(""), Some("\n")] {
            let file = TempFile::new("late");
            if let Some(content) = content {
                file.write(content);
            }
            let cache = cache(&file);
            let write = async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                assert!(cache.status().last_error.is_some() && cache.current().is_none());
                file.write("token-1");
            };
            let (warm, ()) = tokio::join!(cache.warm_up(), write);
            warm.unwrap();
            assert!(cache.current().is_some(), "{content:?}");
        }
    }
}

/// Kubernetes replaces the files of a projected volume by a new symbolic link to their directory.
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn token_file_behind_a_replaced_link_is_read_again() {
    use std::{fs, os::unix::fs::symlink};

    let volume = std::env::temp_dir().join(format!("tower-oauth-volume-{}", std::process::id()));
    let write_version = |number: usize| {
        let version = format!("..version_{number}");
        fs::create_dir_all(volume.join(&version)).unwrap();
        fs::write(volume.join(&version).join("token"), format!("token-{number}")).unwrap();
        symlink(&version, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        let previous = format!("..version_{}", number - 1);
        fs::remove_dir_all(volume.join(previous)).ok();
    };
    write_version(1);
    symlink("..data/token", volume.join("token")).unwrap();
    let api = FakeApi::default();
    let tokens = TokenCache::new(TokenFile::new(volume.join("token")));
    let layer = OAuthLayer::new(tokens, Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(api.service());
    for number in 1..=3 {
        api.accept(number);
        if number > 1 {
            write_version(number);
            api.revoke(number - 1);
        }
        let response = client.clone().oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{number}");
    }
    fs::remove_dir_all(volume).unwrap();
}

/// The process that updates the file may be late, while the API rejects the old token.
#[tokio::test(start_paused = true)]
async fn late_update_of_a_token_file_is_used_within_a_minute() {
    let api = FakeApi::default();
    let file = TempFile::new("late-update");
    file.write("token-1");
    let tokens = TokenCache::new(TokenFile::new(&file.0));
    let layer = OAuthLayer::new(tokens, Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(api.service());
    let send = || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.clone().oneshot(get("/")).await.unwrap().status()
    };
    for _ in 0..600 {
        assert_eq!(send().await, StatusCode::UNAUTHORIZED);
    }
    file.write("token-2");
    api.accept(2);
    let mut rejected = 0;
    while send().await != StatusCode::OK {
        rejected += 1;
        assert!(rejected <= 60);
    }
}

/// Some programs remove the file after the start, so that the token is exposed for a short time.
#[tokio::test(start_paused = true)]
async fn token_of_a_removed_file_stays_in_use() {
    let api = FakeApi::default();
    api.accept(1);
    let file = TempFile::new("removed");
    file.write("token-1");
    let tokens = TokenCache::new(TokenFile::new(&file.0));
    let layer = OAuthLayer::new(tokens.clone(), Origins::new([API]).unwrap());
    let client = ServiceBuilder::new().layer(layer).service(api.service());
    for second in 0..600 {
        let response = client.clone().oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{second}");
        if second == 0 {
            std::fs::remove_file(&file.0).unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(tokens.status().last_error.is_some());
}

#[tokio::test(start_paused = true)]
async fn scheme_in_front_of_a_token_is_sent_once() {
    let file = TempFile::new("scheme");
    file.write("Bearer token-1\n");
    for tokens in [
        TokenCache::new(TokenFile::new(&file.0)),
        TokenCache::new(StaticToken::bearer("bearer token-1").unwrap()),
    ] {
        let api = FakeApi::default();
        api.accept(1);
        let client = OAuthLayer::new(tokens, Origins::new([API]).unwrap()).layer(api.service());
        client.oneshot(get("/")).await.unwrap();
        assert_eq!(api.transcript(), ["token-1 200"]);
    }
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
