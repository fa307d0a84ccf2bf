//! The layer over real sockets: HTTP/1 and HTTP/2.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, sync::Notify};
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::{
    AccessToken, FetchContext, FetchReason, OAuthLayer, Origins, TokenCache, source_fn,
};

use crate::loopback::{Authority, HyperClient, http1_client, http2_client, json, serve_counting};

#[tokio::test]
async fn revocation_under_load_over_http_2_costs_one_token_request() {
    storm_over_hyper_util(http2_client(), 1000).await;
}

#[tokio::test]
async fn revocation_under_load_over_http_1_costs_one_token_request() {
    storm_over_hyper_util(http1_client(), 100).await;
}

async fn storm_over_hyper_util(client: HyperClient, requests: usize) {
    storm(requests, |oauth, url| {
        let client = ServiceBuilder::new().layer(oauth).service(client);
        move || {
            let request = Request::post(&url).body(Full::from("the body")).unwrap();
            let response = client.clone().oneshot(request);
            async {
                let (head, body) = response.await.unwrap().into_parts();
                (head.status, body.collect().await.unwrap().to_bytes())
            }
        }
    })
    .await;
}

/// Revokes the token twice while many requests are sent. Checks that no caller gets a 401 and that
/// each revocation costs one token request. `client` returns a function that posts "the body".
pub(crate) async fn storm<C, F>(requests: usize, client: impl FnOnce(OAuthLayer, String) -> C)
where
    C: Fn() -> F,
    F: Future<Output = (StatusCode, Bytes)> + Send + 'static,
{
    let authority = Authority::default();
    let api = authority.api().await;
    let request = client(authority.layer(api).await, format!("http://{api}/"));
    assert_eq!(request().await.0, StatusCode::OK);
    for revocation in 1..=2 {
        authority.revoke_all();
        let callers: Vec<_> = (0..requests).map(|_| tokio::spawn(request())).collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), (StatusCode::OK, Bytes::from("the body")));
        }
        assert_eq!(authority.token_requests(), 1 + revocation);
    }
}

#[tokio::test]
async fn connection_is_reused_after_a_401_over_http_1() {
    let client = http1_client();
    check_connection_reuse(|oauth, url| {
        let client = ServiceBuilder::new().layer(oauth).service(client.clone());
        let response = client.oneshot(Request::get(url).body(Full::default()).unwrap());
        async {
            let response = response.await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            response.into_body().collect().await.unwrap();
        }
    })
    .await;
}

/// Sends requests, each but the first with a revoked token, and checks that fewer connections than
/// requests are opened. `get` sends a request and reads its response to the end.
pub(crate) async fn check_connection_reuse<F: Future>(get: impl Fn(OAuthLayer, String) -> F) {
    let authority = Authority::default();
    let connections = Arc::new(AtomicUsize::new(0));
    let handler = {
        let authority = authority.clone();
        move |request: Request<_>| {
            let accepts = authority.accepts(request.headers());
            std::future::ready(json(if accepts { 200 } else { 401 }, "a short answer"))
        }
    };
    let api = serve_counting(handler, Arc::clone(&connections)).await;
    let cache = authority.cache().await;
    for _ in 0..20 {
        // A new layer has a closed circuit breaker, so each 401 is retried.
        let origins = Origins::new([format!("http://{api}")]).unwrap();
        get(OAuthLayer::new(cache.clone(), origins), format!("http://{api}/")).await;
        authority.revoke_all();
    }
    assert_eq!(authority.refusals(), 19);
    let connections = connections.load(Ordering::SeqCst);
    assert!(connections < 20, "{connections} connections for 39 requests");
}

/// The server ends the connection (GOAWAY) after the response that rejects the token. The new token
/// arrives when the connection has ended.
#[tokio::test]
async fn retry_gets_a_new_connection_after_a_goaway() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    let (rejected, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let tokens = {
        let ended = Arc::clone(&ended);
        source_fn(move |context: FetchContext| {
            let ended = Arc::clone(&ended);
            async move {
                if context.reason() == FetchReason::First {
                    return AccessToken::bearer("0LD");
                }
                ended.notified().await;
                AccessToken::bearer("N3W")
            }
        })
    };
    let server = tokio::spawn(async move {
        let on_rejection = Arc::clone(&rejected);
        let service = service_fn(move |request: Request<Incoming>| {
            let accepts = request.headers()[AUTHORIZATION] == "Bearer N3W";
            if !accepts {
                on_rejection.notify_one();
            }
            let response = json(if accepts { 200 } else { 401 }, "a short answer");
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let builder = http2::Builder::new(TokioExecutor::new());
        let (stream, _) = listener.accept().await.unwrap();
        let mut first = pin!(builder.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::select! {
            _ = &mut first => panic!("the client has ended the connection"),
            () = rejected.notified() => first.as_mut().graceful_shutdown(),
        }
        first.await.unwrap();
        ended.notify_one();
        let (stream, _) = listener.accept().await.unwrap();
        builder.serve_connection(TokioIo::new(stream), service).await.ok();
    });
    let origins = Origins::new([format!("http://{api}")]).unwrap();
    let layer = OAuthLayer::new(TokenCache::new(tokens), origins);
    let client = ServiceBuilder::new().layer(layer).service(http2_client());
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let request = Request::get(format!("http://{api}/")).body(Full::default()).unwrap();
            tokio::spawn(client.clone().oneshot(request))
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    server.abort();
}
