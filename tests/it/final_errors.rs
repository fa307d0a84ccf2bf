//! Final errors of the token endpoint: `warm_up` ends within one attempt, and the error shows the
//! text of the server.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::{Instant, timeout};
use tower_oauth::{
    ClientAuth, ClientCredentials, FetchContext, ResponseFormat, TokenCache, TokenEndpoint,
    TokenError, TokenErrorKind, source_fn,
};

type Answer = Response<Full<Bytes>>;

const HOUR: Duration = Duration::from_secs(3600);

/// Returns a cache with a token endpoint that always gives this answer, and its request count.
fn cache(answer: Answer, format: ResponseFormat) -> (TokenCache, Arc<AtomicUsize>) {
    let requests = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&requests);
    let transport = tower::service_fn(move |_: Request<Full<Bytes>>| {
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok::<_, Infallible>(answer.clone()))
    });
    let auth = ClientAuth::client_secret_basic("id", "S3CRET");
    let endpoint = TokenEndpoint::with_transport("https://as.test/token", auth, transport).unwrap();
    let grant = ClientCredentials::new(endpoint.response_format(format));
    (TokenCache::new(grant), requests)
}

fn answer(status: u16, body: &'static str) -> Answer {
    Response::builder().status(status).body(Full::from(body)).unwrap()
}

/// Checks that `warm_up` ends at once, after one request, with a back-off of about a minute.
async fn final_error(answer: Answer, format: ResponseFormat) -> TokenError {
    let (cache, requests) = cache(answer, format);
    let start = Instant::now();
    let error = timeout(HOUR, cache.warm_up()).await.expect("warm_up ends").unwrap_err();
    assert_eq!(start.elapsed(), Duration::ZERO, "{error}");
    assert_eq!(requests.load(Ordering::SeqCst), 1, "{error}");
    assert!(error.is_final(), "{error}");
    let backoff = error.next_attempt_in().unwrap().as_secs();
    assert!((48..=72).contains(&backoff), "{error}");
    assert!(!format!("{error} {error:?}").contains("S3CRET"), "{error}");
    error
}

#[tokio::test(start_paused = true)]
async fn warm_up_ends_at_a_final_answer_and_shows_its_text() {
    let numbered = || ResponseFormat::default().error("/code").unwrap();
    let default = ResponseFormat::default;
    for (status, body, format, said) in [
        (
            403,
            r#"{"status":403,"message":"invalid client secret"}"#,
            default(),
            "403 Forbidden, without an OAuth error (invalid client secret)",
        ),
        (401, "", default(), "401 Unauthorized, without"),
        (404, "", default(), "404 Not Found, without"),
        (405, "", default(), "405 Method Not Allowed, without"),
        (400, "<html><p>S3CRET</html>", default(), "400 Bad Request, without"),
        (400, r#"{"error":{"message":"no S3CRET"}}"#, default(), "(no [redacted])"),
        (403, r#"{"error":403}"#, default(), r#"rejected with "403""#),
        (
            200,
            r#"{"code":10014,"msg":"app secret invalid"}"#,
            numbered(),
            r#"rejected with "10014" (app secret invalid)"#,
        ),
        (200, r#"{"error":"invalid_client"}"#, default(), r#"rejected with "invalid_client""#),
        (503, r#"{"error":"invalid_client"}"#, default(), r#"rejected with "invalid_client""#),
        (401, r#"{"detail":"unknown client"}"#, default(), "(unknown client)"),
        (400, r#"{"error":"temporarily_unavailable"}"#, default(), "temporarily_unavailable"),
        (200, r#"{"code":10014,"msg":"app secret invalid"}"#, default(), "(app secret invalid)"),
    ] {
        let error = final_error(answer(status, body), format).await;
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(error.status().unwrap().as_u16(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn every_client_error_and_redirect_is_final_or_retried() {
    for status in 300..=599 {
        let (cache, requests) = cache(answer(status, "oops"), ResponseFormat::default());
        let warm = timeout(HOUR, cache.warm_up()).await;
        let requests = requests.load(Ordering::SeqCst);
        if status >= 500 || [408, 421, 425, 429].contains(&status) {
            assert!(warm.is_err() && requests > 10, "{status}: {requests} requests");
        } else {
            assert!(matches!(warm, Ok(Err(_))) && requests == 1, "{status}: {requests} requests");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn advice_of_a_redirect_names_its_target() {
    for (location, named) in [
        ("https://as.test/token/", "if https://as.test/token/ is the token endpoint"),
        ("/token/?key=K3Y", "if https://as.test/token/ is"),
        ("https://me:pw@other.test/t?a=K3Y#x", "if https://other.test/t is"),
        ("https://other.test/S3CRET", "if https://other.test/[redacted] is"),
        ("//other.test/t", "if //other.test/t is"),
    ] {
        for status in [301, 302, 307, 308] {
            let mut answer = answer(status, "");
            answer.headers_mut().insert("location", location.parse().unwrap());
            let error = final_error(answer, ResponseFormat::default()).await.to_string();
            assert!(error.contains("not followed") && error.contains(named), "{error}");
            assert!(!error.contains("K3Y") && !error.contains("pw"), "{error}");
        }
    }
    let error = final_error(answer(301, ""), ResponseFormat::default()).await.to_string();
    assert!(error.contains("; check the token URL; no further"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn text_of_a_redirect_target_is_cleaned_and_cut() {
    let location = format!("https://as.test/\t{}\u{202e}", "a".repeat(60_000));
    let mut answer = answer(301, "");
    let location = http::HeaderValue::from_bytes(location.as_bytes()).unwrap();
    answer.headers_mut().insert("location", location);
    let error = final_error(answer, ResponseFormat::default()).await.to_string();
    assert!(error.len() < 1500, "{}", error.len());
    assert!(error.is_ascii() || !error.contains(['\t', '\u{202e}']), "{error}");
}

#[tokio::test(start_paused = true)]
async fn errors_of_own_sources_follow_the_same_rule() {
    let forbidden = || {
        TokenError::new(TokenErrorKind::Server, "the store said no")
            .with_status(StatusCode::FORBIDDEN)
    };
    let wrong = || {
        TokenError::new(TokenErrorKind::Server, "the store said no")
            .with_error_code("invalid_client")
    };
    for error in [forbidden(), wrong()] {
        let cache = TokenCache::new(source_fn(move |_: FetchContext| {
            std::future::ready(Err(error.clone()))
        }));
        let error = timeout(HOUR, cache.warm_up()).await.expect("warm_up ends").unwrap_err();
        assert!(error.next_attempt_in().unwrap() >= Duration::from_secs(48), "{error}");
    }
    let busy = TokenError::new(TokenErrorKind::Rejected, "the store is busy")
        .with_status(StatusCode::SERVICE_UNAVAILABLE);
    let cache =
        TokenCache::new(source_fn(move |_: FetchContext| std::future::ready(Err(busy.clone()))));
    assert!(timeout(HOUR, cache.warm_up()).await.is_err(), "warm_up tries again");
}
