use std::{error::Error, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_oauth::reqwest::OAuthClient;

use super::{client, layer};
use crate::loopback::serve;

/// Starts an API that redirects each request to another server. Returns its address, and the
/// headers of the requests to the other server.
pub(super) async fn redirecting_api() -> (SocketAddr, UnboundedReceiver<HeaderMap>) {
    let (sender, received) = unbounded_channel();
    let other = serve(move |request| {
        sender.send(request.headers().clone()).ok();
        std::future::ready(Response::new(Full::<Bytes>::default()))
    })
    .await;
    let api = serve(move |_| {
        let location = format!("http://{other}/moved");
        let response = Response::builder().status(307).header("location", location);
        std::future::ready(response.body(Full::<Bytes>::default()).unwrap())
    })
    .await;
    (api, received)
}

#[tokio::test]
async fn redirect_is_not_followed_whatever_the_builder_says() {
    let (api, mut received) = redirecting_api().await;
    let policy = reqwest::redirect::Policy::limited(5);
    let builder = reqwest::Client::builder().no_proxy().redirect(policy);
    let client = OAuthClient::new(builder, layer(api)).unwrap();
    let response = client.send(client.get_ref().get(format!("http://{api}/"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(response.url().port(), Some(api.port()));
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn redirect_is_followed_outside_with_each_hop_checked() {
    let (api, mut received) = redirecting_api().await;
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .map_request(|request: Request<_>| reqwest::Request::try_from(request).unwrap())
        .map_response(Response::<reqwest::Body>::from)
        .service(client(layer(api)));
    let request = Request::get(format!("http://{api}/")).body(reqwest::Body::default()).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), StatusCode::OK);
    assert!(!received.try_recv().unwrap().contains_key(AUTHORIZATION));
}

#[tokio::test]
async fn response_to_a_followed_redirect_is_discarded() {
    let (api, mut received) = redirecting_api().await;
    let reqwest = reqwest::Client::builder().no_proxy().build().unwrap();
    let client = OAuthClient::from_client_without_redirects(reqwest, layer(api));
    let error = client.send(client.get_ref().get(format!("http://{api}/"))).await.unwrap_err();
    assert_eq!(error.to_string(), "the response was discarded");
    let message = error.source().unwrap().to_string();
    assert!(message.contains(".redirect(Policy::none())"), "{message}");
    assert!(message.contains(&api.to_string()) && !message.contains("moved"), "{message}");
    // The other server has received the request by then, without the token.
    assert!(!received.try_recv().unwrap().contains_key(AUTHORIZATION));
}
