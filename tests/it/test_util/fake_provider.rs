//! The fake authorization server and its API.

use std::time::Duration;

use http::{
    Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body_util::BodyExt;
use tokio::time::advance;
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::{
    ClientAuth, ClientCredentials, ConfigError, OAuth, OAuthLayer, Origins, TokenCache,
    TokenEndpoint, TokenErrorKind, test_util::FakeProvider,
};

use crate::{
    loopback::{HyperClient, http1_client, http2_client},
    support::{Body, StoppedClock},
};

const FORM: &str = "application/x-www-form-urlencoded";

fn basic() -> ClientAuth {
    ClientAuth::client_secret_basic(FakeProvider::CLIENT_ID, FakeProvider::CLIENT_SECRET)
}

fn cache(provider: &FakeProvider, auth: ClientAuth) -> Result<TokenCache, ConfigError> {
    let endpoint = TokenEndpoint::new(provider.token_url(), auth)?;
    Ok(TokenCache::new(ClientCredentials::new(endpoint).scope("orders:read")))
}

fn client(provider: &FakeProvider, inner: HyperClient) -> OAuth<HyperClient> {
    let origins = Origins::new([provider.api_origin()]).unwrap();
    let oauth = OAuthLayer::new(cache(provider, basic()).unwrap(), origins);
    ServiceBuilder::new().layer(oauth).service(inner)
}

fn post(provider: &FakeProvider, path: &str) -> Request<Body> {
    let url = format!("{}{path}", provider.api_origin());
    Request::post(url).header(CONTENT_TYPE, "text/plain").body(Body::from("order")).unwrap()
}

/// Sends a request to the API with this token and returns its status and challenge.
async fn status_with_token(provider: &FakeProvider, token: Option<&str>) -> (StatusCode, String) {
    let mut request = post(provider, "/orders");
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let response = http1_client().request(request).await.unwrap();
    let challenge = response.headers().get(WWW_AUTHENTICATE);
    let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
    (response.status(), challenge.unwrap_or_default())
}

/// Sends a token request of our own and returns its status and body.
async fn token_request(
    provider: &FakeProvider,
    change: impl FnOnce(&mut Request<Body>),
) -> (StatusCode, String) {
    let mut request = Request::post(provider.token_url())
        .header(CONTENT_TYPE, FORM)
        .body(form("grant_type=client_credentials"))
        .unwrap();
    change(&mut request);
    let response = http1_client().request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Returns a form with the credentials of the client.
fn form(parameters: &str) -> Body {
    format!("client_id=my-client&client_secret=s3cr%25t%3A%2B%2F&{parameters}").into()
}

#[tokio::test]
async fn revoked_token_is_replaced_and_every_request_counted() {
    for inner in [http1_client(), http2_client()] {
        let provider = FakeProvider::start().await.unwrap();
        let client = client(&provider, inner);
        for path in ["/orders/1", "/orders/2"] {
            let response = client.clone().oneshot(post(&provider, path)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[CONTENT_TYPE], "text/plain");
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "order");
            provider.revoke_all();
        }
        assert_eq!(provider.token_endpoint().request_count(), 2);
        assert_eq!(provider.api().request_count(), 3);
        assert_eq!(provider.rejected_paths(), ["/orders/2"]);
    }
}

#[tokio::test]
async fn client_is_known_by_header_or_body() {
    let provider = FakeProvider::builder().client("my client", "a:b%ü").start().await.unwrap();
    let methods: [fn(&'static str, &'static str) -> ClientAuth; 2] =
        [ClientAuth::client_secret_basic, ClientAuth::client_secret_post];
    for auth in methods {
        let token = cache(&provider, auth("my client", "a:b%ü")).unwrap().token().await;
        let token = token.unwrap();
        assert_eq!(token.scope(), Some("orders:read"));
        assert_eq!(token.lifetime(), Some(FakeProvider::DEFAULT_LIFETIME));
        for (id, secret) in [("my client", "other"), ("other", "a:b%ü")] {
            let cache = cache(&provider, auth(id, secret)).unwrap();
            let error = cache.token().await.unwrap_err();
            assert_eq!(error.error_code(), Some("invalid_client"));
            assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
        }
    }
    let error = cache(&provider, ClientAuth::none("my client")).unwrap().token().await;
    assert_eq!(error.unwrap_err().error_code(), Some("invalid_client"));
    assert_eq!(provider.token_endpoint().request_count(), 7);
}

#[tokio::test]
async fn malformed_token_request_is_rejected() {
    let provider = FakeProvider::start().await.unwrap();
    let (status, body) = token_request(&provider, |_| {}).await;
    assert_eq!(status, StatusCode::OK, "{body}");

    let with_body = |parameters: &'static str| {
        move |request: &mut Request<Body>| *request.body_mut() = form(parameters)
    };
    for (parameters, code) in [
        ("grant_type=password", "unsupported_grant_type"),
        ("grant_type=", "invalid_request"),
        ("grant_type=client_credentials&scope=a&scope=b", "invalid_request"),
    ] {
        let (status, body) = token_request(&provider, with_body(parameters)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{parameters}");
        assert!(body.contains(&format!(r#""error":"{code}""#)), "{parameters}: {body}");
    }
    for (name, value) in [(AUTHORIZATION, "Basic bTpz"), (CONTENT_TYPE, "application/json")] {
        let change = |request: &mut Request<Body>| {
            request.headers_mut().insert(name, value.parse().unwrap());
        };
        let (status, body) = token_request(&provider, change).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{value}");
        assert!(body.contains("invalid_request"), "{value}: {body}");
    }
    let get = |request: &mut Request<Body>| *request.method_mut() = Method::GET;
    assert_eq!(token_request(&provider, get).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let url = provider.token_url() + "s";
    let other_path = |request: &mut Request<Body>| *request.uri_mut() = url.parse().unwrap();
    assert_eq!(token_request(&provider, other_path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn api_tells_missing_revoked_and_expired_tokens_apart() {
    let provider = FakeProvider::start().await.unwrap();
    let hour = Duration::from_secs(3600);
    let (first, second) = (provider.issue(hour), provider.issue(Duration::MAX));
    let ended = provider.issue(Duration::ZERO);
    let (ok, unauthorized) = (StatusCode::OK, StatusCode::UNAUTHORIZED);
    for token in [&first, &second] {
        assert_eq!(status_with_token(&provider, Some(token)).await, (ok, String::new()));
    }
    assert_eq!(status_with_token(&provider, None).await, (unauthorized, "Bearer".to_owned()));
    let (status, challenge) = status_with_token(&provider, Some(&ended)).await;
    assert_eq!(status, unauthorized);
    assert!(challenge.starts_with(r#"Bearer error="invalid_token""#), "{challenge}");
    assert!(challenge.contains("expired"), "{challenge}");

    provider.revoke(&first);
    let (status, challenge) = status_with_token(&provider, Some(&first)).await;
    assert_eq!(status, unauthorized);
    assert!(challenge.starts_with(r#"Bearer error="invalid_token""#), "{challenge}");
    assert!(challenge.contains("revoked"), "{challenge}");
    assert_eq!(status_with_token(&provider, Some(&second)).await.0, ok);

    provider.expire_all();
    assert!(status_with_token(&provider, Some(&second)).await.1.contains("expired"));
    assert_eq!(provider.rejected_paths().len(), 4);
    assert_eq!(provider.token_endpoint().request_count(), 0);
}

#[tokio::test]
async fn token_of_another_provider_is_rejected() {
    let (one, other) = (FakeProvider::start().await.unwrap(), FakeProvider::start().await.unwrap());
    let token = one.issue(FakeProvider::DEFAULT_LIFETIME);
    assert_eq!(status_with_token(&one, Some(&token)).await.0, StatusCode::OK);
    assert_eq!(status_with_token(&other, Some(&token)).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn lifetime_and_scope_are_as_set() {
    let provider = FakeProvider::start().await.unwrap();
    provider.set_lifetime(Duration::from_secs(90));
    provider.set_scope("a \"b\" \\c\n");
    let token = cache(&provider, basic()).unwrap().token().await.unwrap();
    assert_eq!(token.lifetime(), Some(Duration::from_secs(90)));
    assert_eq!(token.scope(), Some("a \"b\" \\c\n"));
}

#[tokio::test]
async fn planned_faults_come_in_order_and_then_end() {
    let provider = FakeProvider::start().await.unwrap();
    let busy = Response::builder().status(503).header(RETRY_AFTER, "7").body("busy").unwrap();
    provider.token_endpoint().respond_next(1, busy);
    provider.token_endpoint().disconnect_next(1);
    let error = cache(&provider, basic()).unwrap().token().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    let error = cache(&provider, basic()).unwrap().token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport, "{error}");
    cache(&provider, basic()).unwrap().token().await.unwrap();
    assert_eq!(provider.token_endpoint().request_count(), 3);

    for inner in [http1_client(), http2_client()] {
        let client = client(&provider, inner);
        provider.api().disconnect_next(1);
        provider.api().respond_next(2, Response::builder().status(500).body("down").unwrap());
        client.clone().oneshot(post(&provider, "/")).await.unwrap_err();
        for status in [500, 500, 200] {
            let response = client.clone().oneshot(post(&provider, "/")).await.unwrap();
            assert_eq!(response.status(), status);
        }
    }
    assert_eq!(provider.api().request_count(), 8);
    assert!(provider.rejected_paths().is_empty());
}

#[tokio::test]
async fn fault_may_be_planned_for_all_requests() {
    let provider = FakeProvider::start().await.unwrap();
    let down = Response::builder().status(503).body("down").unwrap();
    provider.api().respond_next(0, Response::new("never"));
    provider.api().respond_next(usize::MAX, down);
    provider.api().disconnect_next(1);
    assert!(format!("{:?}", provider.api()).contains(&usize::MAX.to_string()));
    let client = client(&provider, http1_client());
    for _ in 0..2 {
        let response = client.clone().oneshot(post(&provider, "/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn held_request_is_checked_after_the_release() {
    let provider = FakeProvider::start().await.unwrap();
    let client = client(&provider, http1_client());
    let (hold, second_hold) = (provider.api().hold(), provider.api().hold());
    let call = tokio::spawn(client.oneshot(post(&provider, "/held")));
    provider.api().wait_for_requests(1).await;
    provider.revoke_all();
    drop(hold);
    assert!(!call.is_finished() && provider.rejected_paths().is_empty());
    drop(second_hold);
    assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(provider.rejected_paths(), ["/held"]);
    assert_eq!(provider.token_endpoint().request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn delayed_request_is_answered_after_its_delay() {
    let _stopped = StoppedClock::new();
    let provider = FakeProvider::start().await.unwrap();
    let delay = Duration::from_secs(60);
    provider.api().set_delay(delay);
    let call = tokio::spawn(http1_client().request(post(&provider, "/orders")));
    provider.api().wait_for_requests(1).await;
    advance(delay - Duration::from_millis(1)).await;
    assert!(provider.rejected_paths().is_empty() && !call.is_finished());
    advance(Duration::from_millis(2)).await;
    assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
}

/// The client keeps its connection open, so that both the port and the connection must be closed.
#[tokio::test]
async fn drop_stops_both_servers() {
    let provider = FakeProvider::start().await.unwrap();
    let (client, request) = (http1_client(), || post(&provider, "/orders"));
    let response = client.request(request()).await.unwrap();
    response.into_body().collect().await.unwrap();
    let (later, cache) = (request(), cache(&provider, basic()).unwrap());
    drop(provider);
    client.request(later).await.unwrap_err();
    assert_eq!(cache.token().await.unwrap_err().kind(), TokenErrorKind::Transport);
}

#[tokio::test]
async fn ports_are_free_at_once_after_the_drop() {
    let provider = FakeProvider::start().await.unwrap();
    let port = |url: String| url.parse::<http::Uri>().unwrap().port_u16().unwrap();
    let (token_port, api_port) = (port(provider.token_url()), port(provider.api_origin()));
    drop(provider);
    let builder = FakeProvider::builder().token_port(token_port).api_port(api_port);
    builder.start().await.unwrap();
}

#[tokio::test]
async fn port_in_use_is_an_error() {
    let provider = FakeProvider::start().await.unwrap();
    let origin = provider.api_origin();
    let port: u16 = origin.rsplit(':').next().unwrap().parse().unwrap();
    for builder in
        [FakeProvider::builder().token_port(port), FakeProvider::builder().api_port(port)]
    {
        assert_eq!(builder.start().await.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    }
}

#[tokio::test]
async fn debug_shows_neither_secret_nor_token() {
    let builder = FakeProvider::builder().client("my-client", "S3CRET");
    let shown = format!("{builder:?}");
    let provider = builder.start().await.unwrap();
    let token = provider.issue(FakeProvider::DEFAULT_LIFETIME);
    provider.token_endpoint().respond_next(1, Response::new(token.clone()));
    let shown = format!("{shown} {provider:?} {:?}", provider.api().hold());
    assert!(!shown.contains("S3CRET") && !shown.contains(&token), "{shown}");
    assert!(shown.contains("my-client") && shown.contains(&provider.token_url()), "{shown}");
}

#[cfg(feature = "tonic")]
#[tokio::test]
async fn grpc_call_is_retried_after_unauthenticated() {
    use tonic::{Code, transport::Endpoint};
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };

    let provider = FakeProvider::start().await.unwrap();
    let channel = Endpoint::from_shared(provider.api_origin()).unwrap().connect().await.unwrap();
    let tokens = cache(&provider, basic()).unwrap();
    let oauth = OAuthLayer::new(tokens, Origins::without_authority()).grpc();
    let layered = ServiceBuilder::new().layer(oauth).service(channel.clone());
    let mut client = HealthClient::new(layered);
    for _ in 0..2 {
        let response = client.check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(response.into_inner().status(), ServingStatus::Serving);
        provider.revoke_all();
    }
    assert_eq!(provider.rejected_paths(), ["/grpc.health.v1.Health/Check"]);
    let status = client.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);

    let status = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    assert_eq!(status.unwrap_err().code(), Code::Unauthenticated);
}
