use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use tokio::sync::{Notify, mpsc::unbounded_channel};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_oauth::{
    AccessToken, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind,
    reqwest::{OAuthClient, RequestError},
    source_fn,
};

use super::{client, layer};
use crate::{
    loopback::{Authority, serve},
    support::StoppedClock,
    wire::{check_connection_reuse, storm},
};

#[tokio::test]
async fn revocation_under_load_costs_one_token_request() {
    let http1 = || reqwest::Client::builder().no_proxy();
    let http2 = http1().http2_prior_knowledge();
    for (requests, builder) in [(100, http1()), (1000, http2)] {
        storm(requests, |oauth, url| {
            let client = OAuthClient::new(builder, oauth).unwrap();
            move || {
                let response = client.send(client.get_ref().post(&url).body("the body"));
                async {
                    let response = response.await.unwrap();
                    (response.status(), response.bytes().await.unwrap())
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn connection_is_reused_after_a_401() {
    let redirects = reqwest::redirect::Policy::none();
    let inner = reqwest::Client::builder().no_proxy().redirect(redirects).build().unwrap();
    check_connection_reuse(|oauth, url| {
        let client = OAuthClient::from_client_without_redirects(inner.clone(), oauth);
        async move {
            let response = client.send(client.get_ref().get(url)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            response.bytes().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn json_is_sent_again_after_a_rejection() {
    let authority = Authority::default();
    let api = authority.api().await;
    let client = client(authority.layer(api).await);
    for rejections in 0..2 {
        let request = client.get_ref().post(format!("http://{api}/")).json(&[1, 2]);
        let response = client.send(request).await.unwrap();
        assert_eq!((response.status(), authority.refusals()), (StatusCode::OK, rejections));
        assert_eq!(response.json::<[u8; 2]>().await.unwrap(), [1, 2]);
        authority.revoke_all();
    }
}

#[tokio::test]
async fn client_is_a_service_for_other_layers() {
    let authority = Authority::default();
    let api = authority.api().await;
    let mut client = ServiceBuilder::new()
        .concurrency_limit(1)
        .timeout(Duration::from_secs(60))
        .service(client(authority.layer(api).await));
    for _ in 0..2 {
        let url = format!("http://{api}/").parse().unwrap();
        let request = reqwest::Request::new(http::Method::GET, url);
        let response = client.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        authority.revoke_all();
    }
}

#[tokio::test]
async fn response_has_the_url_and_all_else_of_reqwest() {
    let api = serve(|_| {
        let response = Response::builder().header("x-a", "1").header("x-a", "2");
        std::future::ready(response.status(202).body(Full::<Bytes>::from("text")).unwrap())
    })
    .await;
    let client = client(layer(api));
    let url = format!("http://{api}/orders?page=2#line");
    let expected = client.get_ref().get(&url).send().await.unwrap();
    let response = client.send(client.get_ref().get(&url)).await.unwrap();
    assert_eq!(response.url().query(), Some("page=2"));
    assert_eq!(response.url(), expected.url());
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.version(), expected.version());
    assert_eq!(response.headers()["x-a"], "1");
    assert_eq!(response.headers(), expected.headers());
    assert_eq!((response.remote_addr(), response.content_length()), (Some(api), Some(4)));
    assert_eq!(response.text().await.unwrap(), "text");
}

/// The clock moves only when the retry has arrived at the server, which never answers it.
#[tokio::test(start_paused = true)]
async fn timeout_of_a_request_applies_to_each_attempt() {
    let _clock = StoppedClock::new();
    let (retry_arrived, mut retry) = unbounded_channel();
    let attempts = Arc::new(AtomicUsize::new(0));
    let api = serve(move |_| {
        let is_retry = attempts.fetch_add(1, Ordering::SeqCst) > 0;
        let retry_arrived = retry_arrived.clone();
        async move {
            if is_retry {
                retry_arrived.send(()).unwrap();
                std::future::pending::<()>().await;
            }
            Response::builder().status(401).body(Full::<Bytes>::default()).unwrap()
        }
    })
    .await;
    let client = client(layer(api));
    let timeout = Duration::from_secs(10);
    let request = client.get_ref().get(format!("http://{api}/")).timeout(timeout);
    let response = tokio::spawn(client.send(request));
    retry.recv().await.unwrap();
    assert!(!response.is_finished());
    tokio::time::advance(timeout).await;
    let error = response.await.unwrap().unwrap_err();
    assert!(error.reqwest_error().unwrap().is_timeout(), "{error:?}");
}

#[tokio::test]
async fn cancelled_caller_leaves_one_token_request() {
    let (started, may_continue) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let token_requests = Arc::new(AtomicUsize::new(0));
    let source = {
        let (started, may_continue) = (Arc::clone(&started), Arc::clone(&may_continue));
        let token_requests = Arc::clone(&token_requests);
        source_fn(move |_| {
            token_requests.fetch_add(1, Ordering::SeqCst);
            let (started, may_continue) = (Arc::clone(&started), Arc::clone(&may_continue));
            async move {
                started.notify_one();
                may_continue.notified().await;
                AccessToken::bearer("token")
            }
        })
    };
    let api = serve(|request| async move {
        let headers = request.headers();
        Response::new(Full::new(Bytes::copy_from_slice(headers[AUTHORIZATION].as_bytes())))
    })
    .await;
    let origins = Origins::new([format!("http://{api}")]).unwrap();
    let client = client(OAuthLayer::new(TokenCache::new(source), origins));
    let send = || client.send(client.get_ref().get(format!("http://{api}/")));
    let cancelled = tokio::spawn(send());
    started.notified().await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    let second = tokio::spawn(send());
    may_continue.notify_one();
    assert_eq!(second.await.unwrap().unwrap().text().await.unwrap(), "Bearer token");
    assert_eq!(token_requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn insufficient_scope_is_returned_without_a_retry() {
    let challenge = r#"Bearer error="insufficient_scope", scope="orders:write""#;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let api = serve(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        let response = Response::builder().status(401).header("www-authenticate", challenge);
        std::future::ready(response.body(Full::<Bytes>::from("not yours")).unwrap())
    })
    .await;
    let client = client(layer(api));
    let response = client.send(client.get_ref().get(format!("http://{api}/"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["www-authenticate"], challenge);
    assert_eq!(response.text().await.unwrap(), "not yours");
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn rejection_with_a_failed_refresh_contains_the_error() {
    let api = serve(|_| {
        let response = Response::builder().status(401);
        std::future::ready(response.body(Full::<Bytes>::from("revoked")).unwrap())
    })
    .await;
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let tokens = TokenCache::new(source_fn(move |_| {
        let failure = TokenError::new(TokenErrorKind::Transport, "server unreachable");
        let is_first = is_first.swap(false, Ordering::SeqCst);
        async move { if is_first { AccessToken::bearer("token") } else { Err(failure) } }
    }));
    let origins = Origins::new([format!("http://{api}")]).unwrap();
    let client = client(OAuthLayer::new(tokens, origins));
    let response = client.send(client.get_ref().get(format!("http://{api}/"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let error = response.extensions().get::<TokenError>().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert_eq!(response.text().await.unwrap(), "revoked");
}

#[tokio::test]
async fn other_origin_gets_the_request_without_a_token() {
    let other = serve(|request| async move {
        let has_token = request.headers().contains_key(AUTHORIZATION);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::from(format!("{has_token} {body:?}")))
    })
    .await;
    let client = client(layer(([127, 0, 0, 1], 1).into()));
    let request = client.get_ref().post(format!("http://{other}/")).body("x");
    let text = client.send(request).await.unwrap().text().await.unwrap();
    assert_eq!(text, r#"false b"x""#);
}

/// A `RequestBuilder` makes an `Authorization` header from the user information of its URL.
#[tokio::test]
async fn user_information_in_a_builder_replaces_the_token() {
    let api = serve(|request| async move {
        let values: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
        Response::new(Full::<Bytes>::from(format!("{values:?}")))
    })
    .await;
    let client = client(layer(api));
    let url = format!("http://me:pw@{api}/");
    let response = client.send(client.get_ref().get(&url)).await.unwrap();
    assert_eq!(response.text().await.unwrap(), r#"["Basic bWU6cHc="]"#);
    let request = reqwest::Request::new(http::Method::GET, url.parse().unwrap());
    let response = client.execute(request).await.unwrap();
    assert_eq!(response.text().await.unwrap(), r#"["Bearer A"]"#);
}

#[test]
fn types_are_send_sync_and_the_future_is_static() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    fn is_spawnable<T: Send + 'static>(_: T) {}
    check::<OAuthClient>();
    is_spawnable(|client: OAuthClient, request| {
        is_spawnable(client.send(request));
    });
    is_spawnable(RequestError::from(tower::BoxError::from("error")));
}
