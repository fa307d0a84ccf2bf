//! The stacks that people build, as they write them down.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_oauth::replay::{BufferBody, Buffered};

use crate::loopback::{Authority, http1_client, serve};

#[tokio::test]
async fn hyper_util() {
    let authority = Authority::default();
    let api = authority.api().await;
    let oauth = authority.layer(api).await;
    let hyper_util_client = http1_client();

    let client = ServiceBuilder::new().layer(oauth).service(hyper_util_client);

    recovers(&authority, BoxCloneService::new(client), &format!("http://{api}/"), Full::from("body")).await;
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

    let client =
        ServiceBuilder::new().layer(FollowRedirectLayer::new()).layer(oauth).service(hyper_util_client);

    let client = client.map_err(Into::<BoxError>::into);
    // FollowRedirect repeats the empty body only, so the first hop is a plain GET.
    let uri = format!("http://{redirecting}/");
    recovers(&authority, BoxCloneService::new(client), &uri, Full::default()).await;
}

#[tokio::test]
async fn reqwest() {
    let authority = Authority::default();
    let api = authority.api().await;
    let oauth = authority.layer(api).await;
    let reqwest_client = reqwest::Client::new();

    let client = ServiceBuilder::new()
        .layer(oauth)
        .map_request(|request: Request<Bytes>| reqwest::Request::try_from(request).unwrap())
        .map_response(Response::<reqwest::Body>::from)
        .service(reqwest_client);

    recovers(&authority, BoxCloneService::new(client), &format!("http://{api}/"), Bytes::from("body")).await;
}

#[tokio::test]
async fn reqwest_with_streams() {
    let authority = Authority::default();
    let api = authority.api().await;
    let oauth = authority.layer(api).await;
    let reqwest_client = reqwest::Client::new();

    let client = ServiceBuilder::new()
        .layer(oauth.replay(BufferBody::default()))
        .map_request(|request: Request<Buffered<reqwest::Body>>| request.map(reqwest::Body::wrap))
        .map_request(|request| reqwest::Request::try_from(request).unwrap())
        .map_response(Response::<reqwest::Body>::from)
        .service(reqwest_client);

    for refusals in 0..2 {
        let chunks = ["a ", "stream"].map(|chunk| Ok::<_, BoxError>(Bytes::from(chunk)));
        let body = reqwest::Body::wrap_stream(tokio_stream::iter(chunks));
        let request = Request::put(format!("http://{api}/")).body(body).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!((response.status(), authority.refusals()), (StatusCode::OK, refusals));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "a stream");
        authority.revoke_all();
    }
}

/// One request, a revocation, another request.
async fn recovers<B, ResBody>(
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
