//! Responses of a token endpoint in bytes that are not quite in order, or not JSON.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower_oauth::{
    CachedToken, ClientAuth, ClientCredentials, Issuer, ResponseFormat, TokenCache, TokenEndpoint,
    TokenError, TokenErrorKind,
};

use crate::support::Body;

type Headers = &'static [(&'static str, &'static str)];

/// Requests a token from an endpoint that gives this response.
async fn fetch(
    status: u16,
    headers: Headers,
    body: &'static [u8],
    format: ResponseFormat,
) -> Result<CachedToken, TokenError> {
    let transport = tower::service_fn(move |_: Request<Body>| {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(Full::<Bytes>::from(body)).unwrap();
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let auth = ClientAuth::client_secret_basic("id", "S3CRET");
    let endpoint = TokenEndpoint::with_transport("https://as.test/token", auth, transport).unwrap();
    TokenCache::new(ClientCredentials::new(endpoint.response_format(format))).token().await
}

async fn token(body: &'static [u8], format: ResponseFormat) -> CachedToken {
    fetch(200, &[], body, format).await.unwrap()
}

async fn error(status: u16, headers: Headers, body: &'static [u8]) -> TokenError {
    fetch(status, headers, body, ResponseFormat::default()).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn byte_order_mark_and_latin_1_do_not_hide_a_token() {
    let json = ResponseFormat::default;
    let token_1 = token(b"\xef\xbb\xbf{\"access_token\":\"t\",\"expires_in\":60}", json()).await;
    assert_eq!(token_1.lifetime(), Some(Duration::from_secs(60)));
    let token_2 = token(b"{\"access_token\":\"t\",\"owner\":\"J\xfcrgen\"}", json()).await;
    assert_eq!(token_2.expose_secret(), "t");
    let huge = token(b"{\"access_token\":\"t\",\"expires_in\":1e400}", json()).await;
    assert_eq!(huge.lifetime(), Some(TokenEndpoint::DEFAULT_LIFETIME));
}

#[tokio::test(start_paused = true)]
async fn byte_order_mark_and_latin_1_do_not_hide_an_error() {
    let body = b"\xef\xbb\xbf{\"error\":\"invalid_client\",\"error_description\":\"ung\xfcltig\"}";
    let error = error(400, &[], body).await;
    assert_eq!(error.error_code(), Some("invalid_client"));
    assert_eq!(error.error_description(), Some("ung ltig"));
}

#[tokio::test(start_paused = true)]
async fn byte_order_mark_and_latin_1_do_not_hide_metadata() {
    let transport = tower::service_fn(|request: Request<Body>| {
        let body = match request.method().as_str() {
            "GET" => {
                &b"\xef\xbb\xbf{\"issuer\":\"https://as.test\",\"name\":\"\xfc\",\
                \"token_endpoint\":\"https://as.test/token\"}"[..]
            }
            _ => b"{\"access_token\":\"t\"}",
        };
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::from(body))))
    });
    let issuer: Issuer = "https://as.test".parse().unwrap();
    let endpoint =
        TokenEndpoint::with_transport(issuer, ClientAuth::none("id"), transport).unwrap();
    TokenCache::new(ClientCredentials::new(endpoint)).token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn compressed_response_names_its_encoding_and_a_way_out() {
    const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03T0KEN-T0KEN-T0";
    for (headers, named) in [
        (&[("content-encoding", "gzip")][..], "Content-Encoding \"gzip\", 24 bytes"),
        (&[("content-encoding", "br"), ("content-type", "application/json")], "\"br\", 24 bytes"),
        (&[], "no Content-Type, 24 bytes"),
    ] {
        for status in [200, 400] {
            let message = error(status, headers, GZIP).await.to_string();
            assert!(message.contains(named), "{message}");
            assert!(message.contains("decompresses") && !message.contains("T0KEN"), "{message}");
            assert_eq!(message.contains("is compressed"), status == 200, "{message}");
        }
    }
    for (status, headers, body) in [
        (503, &[("content-encoding", "gzip")][..], GZIP),
        (403, &[("content-encoding", "gzip")], b"{\"detail\":\"x\"}"),
        (200, &[("content-encoding", "Identity")], b"T0KEN"),
    ] {
        let message = error(status, headers, body).await.to_string();
        assert!(!message.contains("compress"), "{message}");
    }
    let plain = fetch(
        200,
        &[("content-encoding", "gzip")],
        b"{\"access_token\":\"t\"}",
        ResponseFormat::default(),
    );
    assert_eq!(plain.await.unwrap().expose_secret(), "t", "the header is wrong, the body is not");
}

#[tokio::test(start_paused = true)]
async fn response_that_is_not_json_names_its_type_and_length() {
    for (body, said) in [
        (&b"T0KEN"[..], "the response is not JSON (Content-Type \"text/plain; x=y\", 5 bytes): "),
        (b"<p>T0KEN", "the response is HTML or XML, not JSON (Content-Type \"text/plain"),
        (b"[]", "the response is JSON, but not an object (Content-Type \"text/plain"),
    ] {
        let error = error(200, &[("content-type", "text/plain; x=y")], body).await;
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains(said), "{error}");
        assert!(!error.to_string().contains("T0KEN"), "{error}");
    }
    let message = error(503, &[("content-type", "text/html")], b"<p>busy").await.to_string();
    let said =
        "503 Service Unavailable, without an OAuth error (Content-Type \"text/html\", 7 bytes)";
    assert!(message.contains(said), "{message}");
    let message = error(503, &[("content-type", "text/html")], b"").await.to_string();
    assert!(message.contains("503 Service Unavailable, without an OAuth error;"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn form_and_text_are_read_where_they_are_chosen() {
    let form = || ResponseFormat::form().expires_in("/expires").unwrap();
    let body = b"access_token=t&expires=5184000";
    let from_form = token(body, form()).await;
    assert_eq!(from_form.expose_secret(), "t");
    assert_eq!(from_form.lifetime(), Some(Duration::from_secs(5_184_000)));
    let form_headers: Headers = &[("content-type", "application/x-www-form-urlencoded")];
    let unread = error(200, form_headers, body).await.to_string();
    assert!(unread.contains("read the response as a form: ResponseFormat::form"), "{unread}");

    let from_text = token(b"t0k.en\n", ResponseFormat::text()).await;
    assert_eq!(from_text.expose_secret(), "t0k.en");
    assert_eq!(from_text.lifetime(), Some(TokenEndpoint::DEFAULT_LIFETIME));

    for (format, body) in [
        (form(), &b"error=invalid_client&error_description=no+S3CRET"[..]),
        (form(), br#"{"error":"invalid_client","error_description":"no S3CRET"}"#),
        (ResponseFormat::text(), br#"{"error":"invalid_client","error_description":"no S3CRET"}"#),
    ] {
        let error = fetch(400, &[], body, format).await.unwrap_err();
        assert_eq!(error.error_code(), Some("invalid_client"));
        assert_eq!(error.error_description(), Some("no [redacted]"));
        assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
    }
    let page = fetch(200, &[], b"<p>Sign in</p>", ResponseFormat::text()).await.unwrap_err();
    assert!(page.to_string().contains("HTML"), "{page}");
}
