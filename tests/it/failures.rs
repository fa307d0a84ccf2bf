//! Failures of the token endpoint and of token sources. Each is an error that says what failed and
//! where, and the next call after the back-off works.

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
use tower_oauth::{
    AccessToken, ClientAuth, ClientCredentials, FetchContext, TokenCache, TokenEndpoint,
    TokenError, TokenErrorKind, source_fn,
};

use crate::support::{Reply, TestSetup, get, lock, token_error, wait_for_backoff};

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

const URL: &str = "https://as.test/oauth2/token";
const GOOD: &str = r#"{"access_token":"T0KEN","token_type":"Bearer","expires_in":3600}"#;

/// Returns a cache with a token endpoint of its own. The endpoint handles the first request with
/// `first` and answers all later requests with a token.
fn cache_with_first_reply<F, Fut>(first: F) -> TokenCache
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
    let url = format!("{URL}?api-key=K3Y");
    let endpoint = TokenEndpoint::with_transport(url, auth, transport).unwrap();
    TokenCache::new(ClientCredentials::new(endpoint))
}

fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

/// Returns the error of the first fetch. Checks that two callers share it, that it shows no secret,
/// and that the cache recovers after the back-off.
async fn failure(cache: TokenCache) -> TokenError {
    let (one, other) = tokio::join!(cache.token(), cache.token());
    let (one, other) = (one.unwrap_err(), other.unwrap_err());
    assert_eq!(one.to_string(), other.to_string());
    assert_eq!(one.endpoint(), Some(URL));
    let shown = format!("{one} {one:?}");
    assert!(shown.contains(URL), "{shown}");
    for secret in ["T0KEN", "S3CRET", "K3Y", "aWQ6UzNDUkVU"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let repeated = cache.token().await.unwrap_err();
    assert_eq!(repeated.to_string(), one.to_string(), "the error is repeated during the back-off");
    wait_for_backoff(&one).await;
    assert_eq!(cache.token().await.unwrap().expose_secret(), "T0KEN");
    one
}

async fn failure_of_answer(status: u16, body: &'static str) -> TokenError {
    let cache = cache_with_first_reply(move |_| async move { Ok(answer(status, body)) });
    let error = failure(cache).await;
    assert_eq!(error.status(), Some(StatusCode::from_u16(status).unwrap()));
    error
}

#[tokio::test(start_paused = true)]
async fn unreachable_endpoint_is_a_transport_error_with_its_cause() {
    let refused =
        || std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
    let cache = cache_with_first_reply(move |_| async move { Err(refused().into()) });
    let error = failure(cache).await;
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(std::error::Error::source(&error).unwrap().is::<std::io::Error>());
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_never_responds_is_a_timeout() {
    let started = tokio::time::Instant::now();
    let error = failure(cache_with_first_reply(|_| std::future::pending())).await;
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert!(started.elapsed() > TokenEndpoint::DEFAULT_TIMEOUT);
    assert!(error.to_string().contains("within 20s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn response_body_that_never_ends_is_a_timeout() {
    let hanging = StreamBody::new(tokio_stream::pending()).boxed_unsync();
    let cache = cache_with_first_reply(|_| async { Ok(Response::new(hanging)) });
    assert_eq!(failure(cache).await.kind(), TokenErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn response_body_that_breaks_off_is_a_transport_error() {
    let half = Ok(http_body::Frame::data(Bytes::from_static(br#"{"access_token":"T0KEN"#)));
    let reset = Err(std::io::Error::other("reset by peer").into());
    let broken = StreamBody::new(tokio_stream::iter([half, reset])).boxed_unsync();
    let cache = cache_with_first_reply(|_| async { Ok(Response::new(broken)) });
    let error = failure(cache).await;
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert!(error.to_string().contains("broke off: reset by peer"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn endless_response_body_is_read_up_to_the_limit() {
    let spaces = Bytes::from(vec![b' '; 65_536]);
    let read = Arc::new(AtomicUsize::new(0));
    let reading = Arc::clone(&read);
    let frames = std::iter::repeat_with(move || {
        reading.fetch_add(spaces.len(), Ordering::SeqCst);
        Ok(http_body::Frame::data(spaces.clone()))
    });
    let endless = StreamBody::new(tokio_stream::iter(frames)).boxed_unsync();
    let error = failure(cache_with_first_reply(|_| async { Ok(Response::new(endless)) })).await;
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    assert!(error.to_string().contains("larger than 1048576 bytes"), "{error}");
    assert!(read.load(Ordering::SeqCst) <= TokenEndpoint::MAX_RESPONSE_BYTES + 65_536);
}

#[tokio::test(start_paused = true)]
async fn oauth_error_has_its_code_description_and_uri() {
    let error = failure_of_answer(
        401,
        r#"{
            "error": "invalid_client",
            "error_description": "I do not know id:S3CRET",
            "error_uri": "https://as.test/e"
        }"#,
    )
    .await;
    assert_eq!(error.kind(), TokenErrorKind::Rejected);
    assert_eq!(error.error_code(), Some("invalid_client"));
    assert_eq!(error.error_description(), Some("I do not know id:[redacted]"));
    assert_eq!(error.error_uri(), Some("https://as.test/e"));
}

#[tokio::test(start_paused = true)]
async fn response_without_a_usable_token_is_invalid() {
    for body in [
        "",
        "garbage",
        "<html><body>502 Bad Gateway</body></html>",
        "[]",
        "null",
        r#"{"access_token":null}"#,
        r#"{"access_token":"line\nfeed T0KEN"}"#,
        r#"{"access_token":"T0KEN","token_type":"DPoP"}"#,
        "\u{feff}{}",
        "\u{feff}",
    ] {
        let error = failure_of_answer(200, body).await;
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn status_without_an_oauth_error_is_a_server_error() {
    for status in [301, 307, 400, 404, 429, 500, 503] {
        let error = failure_of_answer(status, "oops").await;
        assert_eq!(error.kind(), TokenErrorKind::Server, "{status}");
    }
    let redirect = failure_of_answer(307, "").await;
    assert!(redirect.to_string().contains("not followed"), "{redirect}");
}

/// Zero is also what a date in the past means.
#[tokio::test(start_paused = true)]
async fn retry_after_of_zero_does_not_shorten_the_back_off() {
    for value in ["0", "0.0", "-1", "Fri, 31 Dec 1999 23:59:59 GMT"] {
        for status in [429, 503] {
            let requests = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&requests);
            let transport = tower::service_fn(move |_: Request<Full<Bytes>>| {
                counter.fetch_add(1, Ordering::SeqCst);
                let mut answer = answer(status, "");
                answer.headers_mut().insert("retry-after", value.parse().unwrap());
                async { Ok::<_, Infallible>(answer) }
            });
            let auth = ClientAuth::client_secret_basic("id", "S3CRET");
            let endpoint = TokenEndpoint::with_transport(URL, auth, transport).unwrap();
            let cache = TokenCache::new(ClientCredentials::new(endpoint));
            let minute = Duration::from_secs(60);
            tokio::time::timeout(minute, cache.warm_up()).await.unwrap_err();
            let requests = requests.load(Ordering::SeqCst);
            assert!((2..=7).contains(&requests), "{requests} in a minute: {status} {value}");
        }
    }
}

/// A lifetime begins when the token is requested: it may have been issued at that moment.
#[tokio::test(start_paused = true)]
async fn slow_response_does_not_extend_the_lifetime() {
    let cache = cache_with_first_reply(|_| async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        Ok(answer(200, GOOD))
    });
    let token = cache.token().await.unwrap();
    assert_eq!(token.remaining(), Some(Duration::from_secs(3590)));
}

#[tokio::test(start_paused = true)]
async fn transport_that_is_never_ready_is_a_timeout() {
    let (transport, mut handle) =
        tower_test::mock::pair::<Request<Full<Bytes>>, Response<Full<Bytes>>>();
    handle.allow(0);
    let auth = ClientAuth::client_secret_basic("id", "S3CRET");
    let endpoint = TokenEndpoint::with_transport(URL, auth, transport).unwrap();
    let error = TokenCache::new(ClientCredentials::new(endpoint)).token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn source_failure_reaches_all_waiters_and_then_recovers() {
    for (reply, kind) in [
        (Reply::Hang, TokenErrorKind::Timeout),
        (Reply::Fail, TokenErrorKind::Transport),
        (Reply::Panic, TokenErrorKind::Panicked),
    ] {
        let setup = TestSetup::new();
        setup.source.script([reply]);
        let (one, other, request) =
            tokio::join!(setup.cache.token(), setup.cache.token(), setup.get());
        let error = one.unwrap_err();
        assert_eq!((error.kind(), other.unwrap_err().kind()), (kind, kind));
        assert_eq!(token_error(&request.unwrap_err()).kind(), kind);
        assert_eq!(setup.source.request_count(), 1);
        wait_for_backoff(&error).await;
        assert_eq!(setup.get().await.unwrap(), StatusCode::OK);
    }
}

/// The panic happens before the source has returned its future.
#[tokio::test(start_paused = true)]
async fn panic_outside_the_future_of_a_source_is_caught() {
    type Fetch = std::future::Ready<Result<AccessToken, TokenError>>;
    let source = source_fn(|_: FetchContext| -> Fetch { panic!("at once") });
    let cache = TokenCache::new(source);
    assert_eq!(cache.token().await.unwrap_err().kind(), TokenErrorKind::Panicked);
    assert_eq!(cache.token().await.unwrap_err().kind(), TokenErrorKind::Panicked);
}

#[tokio::test(start_paused = true)]
async fn refresh_timeout_limits_the_fetch() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Hang]);
    let timeout = Duration::from_secs(3);
    let cache = TokenCache::builder(setup.source.clone()).refresh_timeout(timeout).build();
    let started = tokio::time::Instant::now();
    let error = cache.token().await.unwrap_err();
    assert_eq!((error.kind(), started.elapsed()), (TokenErrorKind::Timeout, timeout));
}

#[tokio::test(start_paused = true)]
async fn request_is_not_sent_when_the_fetch_fails() {
    let setup = TestSetup::new();
    setup.source.script([Reply::Fail]);
    let error = tower::ServiceExt::oneshot(setup.client.clone(), get("/")).await.unwrap_err();
    assert_eq!(token_error(&error).kind(), TokenErrorKind::Transport);
    assert!(setup.api.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn token_request_follows_rfc_6749() {
    let (sent, received) = tokio::sync::oneshot::channel();
    let cache = cache_with_first_reply(move |request| async move {
        sent.send(request).ok();
        Ok(answer(200, GOOD))
    });
    cache.token().await.unwrap();
    let (head, body) = received.await.unwrap().into_parts();
    assert_eq!(head.method, http::Method::POST);
    assert_eq!(head.uri.to_string(), format!("{URL}?api-key=K3Y"));
    assert_eq!(head.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(head.headers["accept"], "application/json");
    assert_eq!(head.headers["authorization"], "Basic aWQ6UzNDUkVU");
    assert!(head.headers["authorization"].is_sensitive());
    assert_eq!(body.collect().await.unwrap().to_bytes(), "grant_type=client_credentials");
}

#[tokio::test(start_paused = true)]
async fn grant_sends_all_configured_parameters() {
    let (sent, mut received) = tokio::sync::mpsc::unbounded_channel();
    let transport = tower::service_fn(move |request: Request<Full<Bytes>>| {
        sent.send(request).ok();
        async { Ok::<_, Infallible>(answer(200, GOOD)) }
    });
    let auth = ClientAuth::client_secret_post("id", "S3CRET");
    let endpoint = TokenEndpoint::with_transport(URL, auth, transport).unwrap();
    let grant = ClientCredentials::new(endpoint)
        .scope("api:recs api:search")
        .audience("https://api.test")
        .resource("urn:one")
        .resource("urn:two")
        .parameter("tenant", "blue & green")
        .unwrap();
    TokenCache::new(grant).token().await.unwrap();
    let (head, body) = received.recv().await.unwrap().into_parts();
    assert!(!head.headers.contains_key("authorization"), "only one method of authentication");
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
fn reserved_or_repeated_parameter_is_an_error() {
    let transport = tower::service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(answer(200, GOOD))
    });
    let auth = ClientAuth::client_secret_post("id", "S3CRET");
    let endpoint = TokenEndpoint::with_transport(URL, auth, transport).unwrap();
    let grant = ClientCredentials::new(endpoint);
    for name in ["grant_type", "client_secret", "client_assertion", "scope"] {
        let error = grant.clone().parameter(name, "x").unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let twice = grant.parameter("tenant", "x").unwrap().parameter("tenant", "y");
    assert!(twice.unwrap_err().to_string().contains("there already"));
}
