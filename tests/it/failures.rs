//! Whatever a token endpoint does ends in an error that says what and where, and the next call works once it is well again.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tower::BoxError;
use tower_oauth::{ClientAuth, ClientCredentials, TokenCache, TokenEndpoint, TokenErrorKind};

use crate::support::{Plan, World, after_back_off, get, lock, token_error};

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

const URL: &str = "https://as.test/oauth2/token";
const GOOD: &str = r#"{"access_token":"T0KEN","token_type":"Bearer","expires_in":3600}"#;

/// A token endpoint that does `first` once and issues a token ever after.
fn cache_of<F, Fut>(first: F) -> TokenCache
where
    F: FnOnce(Request<Full<Bytes>>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Answer, BoxError>> + Send + 'static,
{
    let first = Arc::new(Mutex::new(Some(first)));
    let transport = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let first = lock(&first).take();
        async move {
            match first {
                Some(first) => first(request).await,
                None => Ok(answer(200, GOOD)),
            }
        }
    });
    let auth = ClientAuth::client_secret_basic("id", "S3CRET");
    let endpoint = TokenEndpoint::with_transport(format!("{URL}?api-key=K3Y"), auth, transport).unwrap();
    TokenCache::new(ClientCredentials::new(endpoint))
}

fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

/// The error of the first fetch, the same for two who wait; then the recovery.
async fn failure(cache: TokenCache) -> tower_oauth::TokenError {
    let (one, other) = tokio::join!(cache.token(), cache.token());
    let (one, other) = (one.unwrap_err(), other.unwrap_err());
    assert_eq!(one.to_string(), other.to_string());
    assert_eq!(one.endpoint(), Some(URL));
    let chain = format!("{one} {one:?}");
    assert!(chain.contains(URL), "{chain}");
    for secret in ["T0KEN", "S3CRET", "K3Y", "aWQ6UzNDUkVU"] {
        assert!(!chain.contains(secret), "{chain}");
    }
    assert_eq!(cache.token().await.unwrap_err().to_string(), one.to_string(), "at once, without a request");
    after_back_off(&one).await;
    assert_eq!(cache.token().await.unwrap().expose_secret(), "T0KEN");
    one
}

async fn failure_of_answer(status: u16, body: &'static str) -> tower_oauth::TokenError {
    let error = failure(cache_of(move |_| async move { Ok(answer(status, body)) })).await;
    assert_eq!(error.status(), Some(StatusCode::from_u16(status).unwrap()));
    error
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_cannot_be_reached_is_a_transport_error_with_its_cause() {
    let refused = || std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
    let error = failure(cache_of(move |_| async move { Err(refused().into()) })).await;
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(std::error::Error::source(&error).unwrap().is::<std::io::Error>());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_a_timeout() {
    let started = tokio::time::Instant::now();
    let error = failure(cache_of(|_| std::future::pending())).await;
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert!(started.elapsed() > TokenEndpoint::DEFAULT_TIMEOUT);
    assert!(error.to_string().contains("within 20s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_hangs_after_its_head_is_a_timeout_and_one_that_breaks_off_a_transport_error() {
    let hanging = StreamBody::new(tokio_stream::pending()).boxed_unsync();
    let error = failure(cache_of(|_| async { Ok(Response::new(hanging)) })).await;
    assert_eq!(error.kind(), TokenErrorKind::Timeout);

    let half = Ok(http_body::Frame::data(Bytes::from_static(br#"{"access_token":"T0KEN"#)));
    let reset = Err(std::io::Error::other("reset by peer").into());
    let broken = StreamBody::new(tokio_stream::iter([half, reset])).boxed_unsync();
    let error = failure(cache_of(|_| async { Ok(Response::new(broken)) })).await;
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert!(error.to_string().contains("broke off: reset by peer"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_endless_answer_is_not_read_to_its_end() {
    let spaces = Bytes::from(vec![b' '; 65_536]);
    let read = Arc::new(AtomicUsize::new(0));
    let reading = Arc::clone(&read);
    let frames = std::iter::repeat_with(move || {
        reading.fetch_add(spaces.len(), Ordering::SeqCst);
        Ok(http_body::Frame::data(spaces.clone()))
    });
    let endless = StreamBody::new(tokio_stream::iter(frames)).boxed_unsync();
    let error = failure(cache_of(|_| async { Ok(Response::new(endless)) })).await;
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    assert!(error.to_string().contains("larger than 1048576 bytes"), "{error}");
    assert!(read.load(Ordering::SeqCst) <= TokenEndpoint::MAX_RESPONSE_BYTES + 65_536);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_the_code_the_description_and_the_uri_of_the_server() {
    let error = failure_of_answer(
        401,
        r#"{"error":"invalid_client","error_description":"I do not know id:S3CRET","error_uri":"https://as.test/e"}"#,
    )
    .await;
    assert_eq!(error.kind(), TokenErrorKind::Refused);
    assert_eq!(error.error_code(), Some("invalid_client"));
    assert_eq!(error.error_description(), Some("I do not know id:[redacted]"));
    assert_eq!(error.error_uri(), Some("https://as.test/e"));
}

#[tokio::test(start_paused = true)]
async fn garbage_and_things_that_are_no_token_are_invalid_responses() {
    for body in [
        "",
        "garbage",
        "<html><body>502 Bad Gateway</body></html>",
        "[]",
        "null",
        r#"{"access_token":null}"#,
        r#"{"access_token":"line\nfeed T0KEN"}"#,
        r#"{"access_token":"T0KEN","expires_in":0}"#,
        r#"{"access_token":"T0KEN","token_type":"DPoP"}"#,
        "\u{feff}{}",
    ] {
        assert_eq!(failure_of_answer(200, body).await.kind(), TokenErrorKind::InvalidResponse, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_without_an_oauth_error_is_the_servers_problem_and_a_redirect_is_not_followed() {
    for status in [301, 307, 400, 404, 429, 500, 503] {
        assert_eq!(failure_of_answer(status, "oops").await.kind(), TokenErrorKind::Server, "{status}");
    }
    let redirect = failure_of_answer(307, "").await;
    assert!(redirect.to_string().contains("not followed"), "{redirect}");
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_is_never_ready_is_a_timeout() {
    let (transport, mut handle) = tower_test::mock::pair::<Request<Full<Bytes>>, Response<Full<Bytes>>>();
    handle.allow(0);
    let auth = ClientAuth::client_secret_basic("id", "S3CRET");
    let endpoint = TokenEndpoint::with_transport(URL, auth, transport).unwrap();
    let error = TokenCache::new(ClientCredentials::new(endpoint)).token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_fails_or_panics_gives_all_waiters_its_error_and_then_works() {
    for (plan, kind) in [
        (Plan::Hang, TokenErrorKind::Timeout),
        (Plan::Fail, TokenErrorKind::Transport),
        (Plan::Panic, TokenErrorKind::Panicked),
    ] {
        let world = World::new();
        world.issuer.plan([plan]);
        let (one, other, request) = tokio::join!(world.cache.token(), world.cache.token(), world.get());
        let error = one.unwrap_err();
        assert_eq!((error.kind(), other.unwrap_err().kind()), (kind, kind));
        assert_eq!(token_error(&request.unwrap_err()).kind(), kind);
        assert_eq!(world.issuer.asked(), 1);
        after_back_off(&error).await;
        assert_eq!(world.get().await.unwrap(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_before_its_future_exists_is_no_different() {
    let cache = TokenCache::new(|| -> std::future::Ready<_> { panic!("at once") });
    assert_eq!(cache.token().await.unwrap_err().kind(), TokenErrorKind::Panicked);
    assert_eq!(cache.token().await.unwrap_err().kind(), TokenErrorKind::Panicked);
}

#[tokio::test(start_paused = true)]
async fn the_refresh_timeout_can_be_set() {
    let world = World::new();
    world.issuer.plan([Plan::Hang]);
    let cache = TokenCache::builder(world.issuer.clone()).refresh_timeout(Duration::from_secs(3)).build();
    let started = tokio::time::Instant::now();
    let error = cache.token().await.unwrap_err();
    assert_eq!((error.kind(), started.elapsed()), (TokenErrorKind::Timeout, Duration::from_secs(3)));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_have_a_token_is_not_sent() {
    let world = World::new();
    world.issuer.plan([Plan::Fail]);
    let error = tower::ServiceExt::oneshot(world.client.clone(), get("/")).await.unwrap_err();
    assert_eq!(token_error(&error).kind(), TokenErrorKind::Transport);
    assert!(world.api.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_token_request_is_what_rfc_6749_says() {
    let (sent, seen) = tokio::sync::oneshot::channel();
    let cache = cache_of(move |request| async move {
        sent.send(request).ok();
        Ok(answer(200, GOOD))
    });
    cache.token().await.unwrap();
    let (head, body) = seen.await.unwrap().into_parts();
    assert_eq!((head.method, head.uri.to_string()), (http::Method::POST, format!("{URL}?api-key=K3Y")));
    assert_eq!(head.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(head.headers["accept"], "application/json");
    assert_eq!(head.headers["authorization"], "Basic aWQ6UzNDUkVU");
    assert!(head.headers["authorization"].is_sensitive());
    assert_eq!(body.collect().await.unwrap().to_bytes(), "grant_type=client_credentials");
}

#[tokio::test(start_paused = true)]
async fn a_grant_sends_scope_audience_resources_and_what_else_was_set() {
    let (sent, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let transport = tower::service_fn(move |request: Request<Full<Bytes>>| {
        sent.send(request).ok();
        async { Ok::<_, Infallible>(answer(200, GOOD)) }
    });
    let auth = ClientAuth::client_secret_post("id", "S3CRET");
    let grant = ClientCredentials::new(TokenEndpoint::with_transport(URL, auth, transport).unwrap())
        .scope("api:recs api:search")
        .audience("https://api.test")
        .resource("urn:one")
        .resource("urn:two")
        .parameter("tenant", "blue & green")
        .unwrap();
    TokenCache::new(grant).token().await.unwrap();
    let (head, body) = seen.recv().await.unwrap().into_parts();
    assert!(!head.headers.contains_key("authorization"), "never two methods");
    let body = body.collect().await.unwrap().to_bytes();
    let pairs: Vec<(String, String)> = form_urlencoded::parse(&body).into_owned().collect();
    let expected = [
        ("grant_type", "client_credentials"),
        ("scope", "api:recs api:search"),
        ("audience", "https://api.test"),
        ("resource", "urn:one"),
        ("resource", "urn:two"),
        ("tenant", "blue & green"),
        ("client_id", "id"),
        ("client_secret", "S3CRET"),
    ];
    assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn a_parameter_that_has_a_setter_or_is_there_already_is_refused() {
    let transport =
        tower::service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(answer(200, GOOD)) });
    let auth = ClientAuth::client_secret_post("id", "S3CRET");
    let grant = ClientCredentials::new(TokenEndpoint::with_transport(URL, auth, transport).unwrap());
    for name in ["grant_type", "client_secret", "client_assertion", "scope"] {
        let error = grant.clone().parameter(name, "x").unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let twice = grant.parameter("tenant", "x").unwrap().parameter("tenant", "y");
    assert!(twice.unwrap_err().to_string().contains("there already"));
}
