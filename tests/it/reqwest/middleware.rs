use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Response, StatusCode, Version, header::AUTHORIZATION};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use tower_oauth::{
    OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind,
    reqwest::{OAuthMiddleware, RequestError},
    source_fn,
};

use super::{client, layer, redirects::redirecting_api};
use crate::{loopback::Authority, support::lock, wire::storm};

fn with_middleware(oauth: OAuthLayer) -> ClientWithMiddleware {
    let (reqwest, oauth) = client(oauth).into_middleware();
    ClientBuilder::new(reqwest).with(oauth).build()
}

#[tokio::test]
async fn revocation_under_load_costs_one_token_request() {
    storm(100, |oauth, url| {
        let client = with_middleware(oauth);
        move || {
            let response = client.post(&url).body("the body").send();
            async {
                let response = response.await.unwrap();
                (response.status(), response.bytes().await.unwrap())
            }
        }
    })
    .await;
}

#[tokio::test]
async fn stream_is_sent_again_after_a_rejection() {
    let authority = Authority::default();
    let api = authority.api().await;
    let client = with_middleware(authority.layer(api).await);
    for rejections in 0..2 {
        let chunks = ["a ", "stream"].map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)));
        let body = reqwest::Body::wrap_stream(tokio_stream::iter(chunks));
        let response = client.put(format!("http://{api}/")).body(body).send().await.unwrap();
        assert_eq!((response.status(), authority.refusals()), (StatusCode::OK, rejections));
        assert_eq!(response.text().await.unwrap(), "a stream");
        authority.revoke_all();
    }
}

/// A middleware that records the requests, counts them in the extensions, and rejects the first.
#[derive(Clone, Default)]
struct FakeServer(Arc<Mutex<Vec<(reqwest::Request, usize)>>>);

#[async_trait::async_trait]
impl Middleware for FakeServer {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let count = extensions.get::<usize>().copied().unwrap_or_default() + 1;
        extensions.insert(count);
        lock(&self.0).push((request, count));
        let response = Response::builder().status(if count == 1 { 401 } else { 200 });
        Ok(response.body("made by a middleware").unwrap().into())
    }
}

/// A middleware outside, which sees the extensions that are left.
struct CheckExtensions;

#[async_trait::async_trait]
impl Middleware for CheckExtensions {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        extensions.insert("from outside");
        let response = next.run(request, extensions).await;
        assert_eq!(extensions.get::<usize>(), Some(&2));
        assert_eq!(extensions.get::<&str>(), Some(&"from outside"));
        response
    }
}

#[tokio::test]
async fn inner_middleware_gets_both_attempts_complete() {
    let server = FakeServer::default();
    let (inner, oauth) = client(layer(([127, 0, 0, 1], 1).into())).into_middleware();
    let client =
        ClientBuilder::new(inner).with(CheckExtensions).with(oauth).with(server.clone()).build();
    let url = "http://127.0.0.1:1/orders?page=2#line";
    let request = client.post(url).version(Version::HTTP_10).timeout(Duration::from_secs(7));
    let response = request.header("x-a", "1").body("text").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "made by a middleware");

    let requests = std::mem::take(&mut *lock(&server.0));
    let tokens = ["Bearer A", "Bearer AA"];
    assert_eq!(requests.len(), tokens.len());
    for ((request, count), (number, token)) in requests.into_iter().zip((1..).zip(tokens)) {
        assert_eq!(count, number, "each attempt sees the extensions of the previous one");
        assert_eq!(request.method(), "POST");
        assert_eq!(request.url().as_str(), url);
        assert_eq!(request.version(), Version::HTTP_10);
        assert_eq!(request.timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(request.body().unwrap().as_bytes(), Some(b"text".as_slice()));
        let expected = [("x-a", "1"), ("authorization", token)];
        let expected =
            expected.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        assert_eq!(request.headers(), &HeaderMap::from_iter(expected));
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
    }
}

#[tokio::test]
async fn missing_token_is_an_error_of_the_middleware() {
    let tokens = TokenCache::new(source_fn(|_| async {
        Err(TokenError::new(TokenErrorKind::Rejected, "unknown client"))
    }));
    let client = with_middleware(OAuthLayer::new(tokens, Origins::new(["http://a.test"]).unwrap()));
    let error = client.get("http://a.test/").send().await.unwrap_err();
    let reqwest_middleware::Error::Middleware(error) = error else { panic!("{error:?}") };
    let error = error.downcast_ref::<RequestError>().unwrap();
    assert_eq!(error.token_error().unwrap().kind(), TokenErrorKind::Rejected);
}

#[tokio::test]
async fn error_of_reqwest_is_passed_on() {
    let client = with_middleware(layer(([127, 0, 0, 1], 1).into()));
    let error = client.get("ftp://127.0.0.1/").send().await.unwrap_err();
    let reqwest_middleware::Error::Reqwest(error) = error else { panic!("{error:?}") };
    assert!(error.is_builder());
}

#[tokio::test]
async fn redirect_is_not_followed_by_the_client_of_the_middleware() {
    let (api, mut received) = redirecting_api().await;
    let response = with_middleware(layer(api)).get(format!("http://{api}/")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn response_of_a_client_that_redirects_is_discarded() {
    let (api, mut received) = redirecting_api().await;
    let (_, oauth) = client(layer(api)).into_middleware();
    let redirecting = reqwest::Client::builder().no_proxy().build().unwrap();
    let client = ClientBuilder::new(redirecting).with(oauth).build();
    let error = client.get(format!("http://{api}/")).send().await.unwrap_err();
    assert!(error.is_middleware());
    let message = error.source().unwrap().to_string();
    assert!(message.contains(".redirect(Policy::none())"), "{message}");
    assert!(!received.try_recv().unwrap().contains_key(AUTHORIZATION));
}

#[test]
fn middleware_is_clone_send_and_sync() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<OAuthMiddleware>();
}
