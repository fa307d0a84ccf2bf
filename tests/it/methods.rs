//! Requests of methods other than `GET` and `POST`, and of protocol upgrades, over real sockets.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{ServiceBuilder, ServiceExt};

use crate::{
    loopback::{Authority, HyperClient, http1_client, http2_client, serve_counting},
    support::Body,
};

/// Returns a response with a body, or only with its length if it answers a `HEAD` request.
fn response(method: &Method, status: StatusCode) -> Response<Body> {
    let size = if method == Method::HEAD { 0 } else { 13_000 };
    let response = Response::builder().status(status).header(CONTENT_LENGTH, 13_000);
    response.body(Full::from(vec![b'x'; size])).unwrap()
}

/// A response to `HEAD` has a length and no body.
#[tokio::test]
async fn rejection_of_each_method_is_recovered_on_its_connection() {
    let methods = [Method::HEAD, Method::OPTIONS, Method::DELETE, Method::TRACE, Method::PATCH];
    for client in [http1_client as fn() -> HyperClient, http2_client] {
        for method in methods.clone() {
            let authority = Authority::default();
            let connections = Arc::new(AtomicUsize::new(0));
            let handler = {
                let authority = authority.clone();
                move |request: Request<Incoming>| {
                    let accepts = authority.accepts(request.headers());
                    let status = if accepts { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
                    std::future::ready(response(request.method(), status))
                }
            };
            let api = serve_counting(handler, Arc::clone(&connections)).await;
            let client = ServiceBuilder::new().layer(authority.layer(api).await).service(client());
            for revoked in [false, true] {
                if revoked {
                    authority.revoke_all();
                }
                let request = Request::builder().method(&method).uri(format!("http://{api}/"));
                let request = request.body(Full::<Bytes>::default()).unwrap();
                let response = client.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK, "{method}");
                let length = response.headers().get(CONTENT_LENGTH).cloned();
                let body = response.into_body().collect().await.unwrap().to_bytes();
                let expected = if method == Method::HEAD { 0 } else { 13_000 };
                assert_eq!(body.len(), expected, "{method}");
                assert_eq!(length.unwrap(), "13000", "{method}");
            }
            assert_eq!((authority.token_requests(), authority.refusals()), (2, 1), "{method}");
            assert_eq!(connections.load(Ordering::SeqCst), 1, "{method}");
        }
    }
}

/// As of a `WebSocket`: the connection belongs to the caller after a 101.
#[tokio::test]
async fn rejected_upgrade_is_repeated_and_upgraded() {
    let authority = Authority::default();
    let handler = {
        let authority = authority.clone();
        move |request: Request<Incoming>| {
            let accepts = authority.accepts(request.headers());
            async move {
                if !accepts {
                    return response(request.method(), StatusCode::UNAUTHORIZED);
                }
                let (name, value) = (UPGRADE, request.headers()[UPGRADE].clone());
                tokio::spawn(async move {
                    let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                    let mut message = [0; 4];
                    stream.read_exact(&mut message).await.unwrap();
                    message.reverse();
                    stream.write_all(&message).await.unwrap();
                });
                let mut response = Response::new(Body::default());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().extend([(CONNECTION, "upgrade".parse().unwrap())]);
                response.headers_mut().extend([(name, value)]);
                response
            }
        }
    };
    let api = serve_counting(handler, Arc::default()).await;
    let layer = authority.layer(api).await;
    let client = ServiceBuilder::new().layer(layer).service(http1_client());
    for revoked in [false, true] {
        if revoked {
            authority.revoke_all();
        }
        let request = Request::get(format!("http://{api}/"))
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "echo")
            .body(Full::<Bytes>::default())
            .unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream.write_all(b"ping").await.unwrap();
        let mut message = [0; 4];
        stream.read_exact(&mut message).await.unwrap();
        assert_eq!(&message, b"gnip");
    }
    assert_eq!((authority.token_requests(), authority.refusals()), (2, 1));
}
