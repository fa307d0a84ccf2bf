//! The layer in typical stacks of layers and HTTP clients, as users write them.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt, balance::p2c::Balance, util::BoxCloneService,
};
use tower_http::{decompression::DecompressionLayer, follow_redirect::FollowRedirectLayer};
use tower_oauth::replay::BufferBody;

use crate::loopback::{Authority, http1_client, http2_client, serve};

#[tokio::test]
async fn hyper_util() {
    let authority = Authority::default();
    let api = authority.api().await;
    let oauth = authority.layer(api).await;
    let hyper_util_client = http1_client();

    let client = ServiceBuilder::new().layer(oauth).service(hyper_util_client);

    assert_recovers(
        &authority,
        BoxCloneService::new(client),
        &format!("http://{api}/"),
        Full::from("body"),
    )
    .await;
}

#[tokio::test]
async fn hyper_util_with_redirects() {
    let authority = Authority::default();
    let api = authority.api().await;
    let redirecting = serve(move |_| {
        let response = Response::builder().status(307).header("location", format!("http://{api}/"));
        std::future::ready(response.body(Full::<Bytes>::default()).unwrap())
    })
    .await;
    let oauth = authority.layer(api).await;
    let hyper_util_client = http1_client();

    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(oauth)
        .service(hyper_util_client);

    let client = client.map_err(Into::<BoxError>::into);
    // `FollowRedirect` can repeat empty bodies only.
    let uri = format!("http://{redirecting}/");
    assert_recovers(&authority, BoxCloneService::new(client), &uri, Full::default()).await;
}

#[tokio::test]
async fn redirect_below_the_layer() {
    let authority = Authority::default();
    let server_authority = authority.clone();
    let api = serve(move |request| {
        let status = match (server_authority.accepts(request.headers()), request.uri().path()) {
            (false, _) => 401,
            (true, "/") => 307,
            (true, _) => 200,
        };
        let response = Response::builder().status(status).header("location", "/moved");
        std::future::ready(response.body(Full::<Bytes>::default()).unwrap())
    })
    .await;
    let oauth = authority.layer(api).await;
    let http_client = Client::builder(TokioExecutor::new()).build_http();

    let client = ServiceBuilder::new()
        .layer(oauth.with_replay(BufferBody::default()))
        .layer(FollowRedirectLayer::new())
        .service(http_client);

    assert_recovers(
        &authority,
        BoxCloneService::new(client),
        &format!("http://{api}/"),
        Full::<Bytes>::default(),
    )
    .await;
}

#[tokio::test]
async fn decompression_above_and_below_the_layer() {
    const GZIP: &[u8] =
        b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xab\xca\x2c\x28HM\x01\0Wh\xc2\xe2\x06\0\0\0";
    let authority = Authority::default();
    let server_authority = authority.clone();
    let api = serve(move |request| {
        assert_eq!(request.headers()["accept-encoding"], "gzip");
        let status = if server_authority.accepts(request.headers()) { 200 } else { 401 };
        let response = Response::builder().status(status).header("content-encoding", "gzip");
        std::future::ready(response.body(Full::from(GZIP)).unwrap())
    })
    .await;
    let oauth = authority.layer(api).await;

    let above = ServiceBuilder::new()
        .layer(DecompressionLayer::new())
        .layer(oauth.clone())
        .service(http1_client());
    let below =
        ServiceBuilder::new().layer(oauth).layer(DecompressionLayer::new()).service(http1_client());

    assert_gzip_recovers(&authority, above, api).await;
    assert_gzip_recovers(&authority, below, api).await;
}

async fn assert_gzip_recovers<S, B>(authority: &Authority, client: S, api: SocketAddr)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: std::fmt::Debug> + Clone,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    for _ in 0..2 {
        let request = Request::get(format!("http://{api}/")).body(Full::default()).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "zipped");
        authority.revoke_all();
    }
}

#[tokio::test]
async fn balance_buffer_and_timeout() {
    let authority = Authority::default();
    let api = authority.api().await;
    let oauth = authority.layer(api).await;
    let endpoint = |_| tower::load::Constant::new(http1_client(), 1);
    let endpoints = tower::discover::ServiceList::new((0..2).map(endpoint));

    let client = ServiceBuilder::new()
        .timeout(Duration::from_secs(20))
        .layer(oauth)
        .buffer(8)
        .service(Balance::new(endpoints));

    assert_recovers(
        &authority,
        BoxCloneService::new(client),
        &format!("http://{api}/"),
        Full::from("body"),
    )
    .await;
}

#[tokio::test]
async fn axum_reverse_proxy_over_http1() {
    check_reverse_proxy(false).await;
}

#[tokio::test]
async fn axum_reverse_proxy_over_http2() {
    check_reverse_proxy(true).await;
}

/// Checks a reverse proxy that streams each incoming body to the API. A body is sent again after a
/// rejection.
async fn check_reverse_proxy(is_http2: bool) {
    let authority = Authority::default();
    let api = authority.api().await;
    let oauth = authority.layer(api).await;
    let http_client = Client::builder(TokioExecutor::new()).http2_only(is_http2).build_http();

    let upstream =
        ServiceBuilder::new().layer(oauth.with_replay(BufferBody::default())).service(http_client);
    let proxy =
        axum::Router::new().fallback(async move |mut request: Request<axum::body::Body>| {
            *request.uri_mut() = format!("http://{api}{}", request.uri().path()).parse().unwrap();
            *request.version_mut() = http::Version::default();
            // It names the proxy, so the layer would attach no token.
            request.headers_mut().remove(http::header::HOST);
            upstream.oneshot(request).await.unwrap().map(axum::body::Body::new)
        });

    let proxy = serve(move |request: Request<Incoming>| {
        let response = proxy.clone().oneshot(request);
        async { response.await.unwrap() }
    })
    .await;
    let caller = if is_http2 { http2_client() } else { http1_client() };
    let caller = caller.map_err(Into::<BoxError>::into);
    assert_recovers(
        &authority,
        BoxCloneService::new(caller),
        &format!("http://{proxy}/"),
        Full::from("body"),
    )
    .await;
}

/// Sends a request, revokes the token, and sends another request, which must succeed as well.
async fn assert_recovers<B, ResBody>(
    authority: &Authority,
    client: BoxCloneService<Request<B>, Response<ResBody>, BoxError>,
    uri: &str,
    body: B,
) where
    B: Clone,
    ResBody: http_body::Body<Data = Bytes>,
    ResBody::Error: std::fmt::Debug,
{
    for expected in 1..=2 {
        let request = Request::post(uri).body(body.clone()).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
        assert_eq!((authority.token_requests(), authority.refusals()), (expected, expected - 1));
        authority.revoke_all();
    }
}
