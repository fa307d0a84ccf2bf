//! The ready-made transport of the token request, over real sockets.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tower_oauth::{ClientAuth, ClientCredentials, TokenCache, TokenEndpoint, TokenErrorKind};

use crate::loopback::{Authority, json, serve};

fn cache(url: String) -> TokenCache {
    let (id, secret) = Authority::CLIENT;
    let endpoint = TokenEndpoint::new(url, ClientAuth::client_secret_basic(id, secret)).unwrap();
    TokenCache::new(ClientCredentials::new(endpoint))
}

#[tokio::test]
async fn it_fetches_a_token() {
    let authority = Authority::default();
    let cache = cache(format!("http://{}/token", authority.token_endpoint().await));
    assert_eq!(cache.token().await.unwrap().expose_secret(), "T0KEN-1");
}

#[tokio::test]
async fn a_closed_port_is_a_transport_error_that_says_so() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = cache(format!("http://{port}/token")).token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_a_transport_error_that_says_so() {
    let plain = serve(|_| std::future::ready(json(200, "{}"))).await;
    let error = cache(format!("https://localhost:{}/token", plain.port())).token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert!(error.to_string().contains("corrupt message"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let authority = Authority::default();
    let target = authority.token_endpoint().await;
    let redirecting = serve(move |_| {
        let response = Response::builder().status(307).header("location", format!("http://{target}/token"));
        std::future::ready(response.body(Full::<Bytes>::default()).unwrap())
    })
    .await;
    let error = cache(format!("http://{redirecting}/token")).token().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::TEMPORARY_REDIRECT));
    assert_eq!(authority.token_requests(), 0);
}

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_a_transport_error() {
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

#[tokio::test]
async fn two_runtimes_one_after_the_other_use_the_same_endpoint() {
    let authority = Authority::default();
    let cache = cache(format!("http://{}/token", authority.token_endpoint().await));
    for number in 1..=3 {
        let same = cache.clone();
        let token = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(same.token()).unwrap()
        });
        let token = token.await.unwrap();
        assert_eq!(token.generation().get(), number);
        cache.invalidate(token.generation());
    }
}
