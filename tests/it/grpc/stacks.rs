//! A tonic client over its channel, and real servers.

use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use tokio_stream::StreamExt;
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceBuilder;
use tower_oauth::{OAuth, OAuthLayer, Origins, replay::TonicBody};

use crate::loopback::{Authority, serve};

type Service = OAuth<Channel, TonicBody>;

async fn health_service(authority: &Authority) -> Channel {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let authority = authority.clone();
    let check = move |request: tonic::Request<()>| {
        let accepts = authority.accepts(&request.metadata().clone().into_headers());
        if accepts { Ok(request) } else { Err(Status::unauthenticated("the token is not valid")) }
    };
    let service = tonic::service::interceptor::InterceptedService::new(health, check);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
    );
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

async fn guarded(authority: &Authority, channel: Channel) -> Service {
    let oauth = OAuthLayer::new(authority.cache().await, Origins::of_inner_service());
    ServiceBuilder::new().layer(oauth.grpc()).service(channel)
}

#[tokio::test]
async fn unary_calls() {
    let authority = Authority::default();
    let channel = health_service(&authority).await;
    let oauth = OAuthLayer::new(authority.cache().await, Origins::of_inner_service());

    let mut client = HealthClient::new(ServiceBuilder::new().layer(oauth.grpc()).service(channel));

    for expected in 1..=2 {
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.set_timeout(Duration::from_secs(20));
        client.check(request).await.unwrap();
        assert_eq!((authority.token_requests(), authority.refusals()), (expected, expected - 1));
        authority.revoke_all();
    }
}

#[tokio::test]
async fn server_streams() {
    let authority = Authority::default();
    let channel = health_service(&authority).await;
    let mut client = HealthClient::new(guarded(&authority, channel).await);
    for expected in 1..=2 {
        let mut stream = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert!(stream.next().await.unwrap().is_ok());
        assert_eq!((authority.token_requests(), authority.refusals()), (expected, expected - 1));
        authority.revoke_all();
    }
}

/// Refuses before it has read anything, otherwise gives each message back.
async fn echo_service(authority: &Authority) -> Channel {
    let authority = authority.clone();
    let address = serve(move |request| {
        let accepts = authority.accepts(request.headers());
        let response = Response::builder().header("content-type", "application/grpc");
        std::future::ready(if accepts {
            let ok = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            let body = request.into_body().with_trailers(std::future::ready(Some(Ok(ok))));
            response.body(body.boxed_unsync()).unwrap()
        } else {
            response
                .header("grpc-status", "16")
                .body(tonic::body::Body::empty().map_err(|never| unreachable!("{never}")).boxed_unsync())
                .unwrap()
        })
    })
    .await;
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

type Codec = tonic_prost::ProstCodec<HealthCheckRequest, HealthCheckRequest>;

fn message(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn client_streams_and_bidirectional_streams_go_on_where_they_are() {
    let authority = Authority::default();
    let channel = echo_service(&authority).await;
    let mut client = tonic::client::Grpc::new(guarded(&authority, channel).await);
    for expected in 1..=2 {
        let (send, messages) = tokio::sync::mpsc::channel(8);
        send.send(message("before")).await.unwrap();
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/test.Echo/Both");
        let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
        let call = client.streaming(tonic::Request::new(messages), path, Codec::default());
        let mut answers = call.await.unwrap().into_inner();
        assert_eq!(answers.next().await.unwrap().unwrap(), message("before"));
        send.send(message("after")).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), message("after"));
        drop(send);
        assert!(answers.next().await.is_none());
        assert_eq!((authority.token_requests(), authority.refusals()), (expected, expected - 1));
        authority.revoke_all();
    }
}

#[tokio::test]
async fn a_call_larger_than_the_cap_is_not_retried_but_the_next_one_has_a_new_token() {
    let authority = Authority::default();
    let channel = health_service(&authority).await;
    let mut client = HealthClient::new(guarded(&authority, channel).await);
    client.check(message("")).await.unwrap();
    authority.revoke_all();
    let large = message(&"x".repeat(TonicBody::DEFAULT_CAP + 1));
    assert_eq!(client.check(large).await.unwrap_err().code(), Code::Unauthenticated);
    client.check(message("")).await.unwrap();
    assert_eq!((authority.token_requests(), authority.refusals()), (2, 1));
}

#[tokio::test]
async fn without_a_token_the_call_fails_with_the_reason() {
    let authority = Authority::default();
    let channel = health_service(&authority).await;
    let tokens = tower_oauth::TokenCache::new(|| async {
        Err(tower_oauth::TokenError::new(tower_oauth::TokenErrorKind::Transport, "nobody there"))
    });
    let oauth = OAuthLayer::new(tokens, Origins::of_inner_service()).grpc();
    let mut client = HealthClient::new(ServiceBuilder::new().layer(oauth).service(channel));
    let status = client.check(message("")).await.unwrap_err();
    assert!(format!("{status:?}").contains("nobody there"), "{status:?}");
}
