//! The default transport of the token request, over real sockets.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_oauth::{ClientAuth, ClientCredentials, TokenCache, TokenEndpoint, TokenErrorKind};

use crate::loopback::{Authority, json, serve};

fn cache(url: String) -> TokenCache {
    let (id, secret) = Authority::CLIENT;
    let endpoint = TokenEndpoint::new(url, ClientAuth::client_secret_basic(id, secret)).unwrap();
    TokenCache::new(ClientCredentials::new(endpoint))
}

#[tokio::test]
async fn default_transport_fetches_a_token() {
    let authority = Authority::default();
    let cache = cache(format!("http://{}/token", authority.token_endpoint().await));
    assert_eq!(cache.token().await.unwrap().expose_secret(), "T0KEN-1");
}

#[tokio::test]
async fn closed_port_is_a_transport_error_with_its_cause() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = cache(format!("http://{address}/token")).token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn server_without_tls_is_a_transport_error_with_its_cause() {
    let plain = serve(|_| std::future::ready(json(200, "{}"))).await;
    let cache = cache(format!("https://localhost:{}/token", plain.port()));
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert!(error.to_string().contains("corrupt message"), "{error}");
}

#[tokio::test]
async fn redirect_of_the_token_request_is_not_followed() {
    let authority = Authority::default();
    let target = authority.token_endpoint().await;
    let redirecting = serve(move |_| {
        let location = format!("http://{target}/token");
        let response = Response::builder().status(307).header("location", location);
        std::future::ready(response.body(Full::<Bytes>::default()).unwrap())
    })
    .await;
    let error = cache(format!("http://{redirecting}/token")).token().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::TEMPORARY_REDIRECT));
    assert_eq!(authority.token_requests(), 0);
}

#[tokio::test]
async fn connection_closed_without_a_response_is_a_transport_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
        }
    });
    let error = cache(format!("http://{address}/token")).token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport);
}

/// Each form of a response that HTTP/1 allows. The server closes each connection.
#[tokio::test]
async fn token_is_read_from_each_framing_and_no_cookie_is_kept() {
    const BODY: &str = r#"{"access_token":"T0KEN"}"#;
    let size = BODY.len();
    for response in [
        format!("HTTP/1.0 200 OK\r\n\r\n{BODY}"),
        format!("HTTP/1.1 200 \r\nCONTENT-LENGTH: {size}\r\nset-cookie: a=b; Path=/\r\n\r\n{BODY}"),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: x\r\n\r\n\
             {size:x}\r\n{BODY}\r\n0\r\nx: y\r\n\r\n"
        ),
        format!(
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n{BODY}"
        ),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let server = {
            let response = response.clone();
            tokio::spawn(async move {
                let mut requests = Vec::new();
                for _ in 0..2 {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = Vec::new();
                    while !request.ends_with(b"grant_type=client_credentials") {
                        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
                    }
                    stream.write_all(response.as_bytes()).await.unwrap();
                    requests.push(String::from_utf8(request).unwrap());
                }
                requests
            })
        };
        let cache = cache(url);
        for _ in 0..2 {
            let token = cache.token().await.unwrap_or_else(|error| panic!("{response}: {error}"));
            assert_eq!(token.expose_secret(), "T0KEN");
            cache.invalidate(token.generation());
        }
        let requests = server.await.unwrap();
        assert_eq!(requests[0], requests[1]);
        assert!(!requests[1].to_ascii_lowercase().contains("cookie"), "{requests:?}");
    }
}

#[tokio::test]
async fn one_endpoint_can_be_used_from_several_runtimes() {
    let authority = Authority::default();
    let cache = cache(format!("http://{}/token", authority.token_endpoint().await));
    for number in 1..=3 {
        let same = cache.clone();
        let token = tokio::task::spawn_blocking(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap().block_on(same.token()).unwrap()
        });
        let token = token.await.unwrap();
        assert_eq!(token.generation().get(), number);
        cache.invalidate(token.generation());
    }
}
