//! Streams that begin well and end with a status, in virtual time.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio_stream::StreamExt;
use tonic::{Code, Status, Streaming, body::Body};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};
use tower::{ServiceBuilder, util::BoxCloneService};
use tower_oauth::{
    OAuthLayer, Origins, TokenCache,
    replay::{Never, Replay, TonicBody},
};

use crate::support::{Api, Issuer, bearer, lock};

type Service = BoxCloneService<Request<Body>, Response<Body>, tower::BoxError>;

/// A gRPC server that takes every token, and a client of it.
struct World {
    issuer: Issuer,
    server: Server,
    client: HealthClient<Service>,
}

#[derive(Clone, Default)]
struct Server {
    /// How the next calls end; all others end well.
    endings: Arc<Mutex<VecDeque<Ending>>>,
    tokens: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy)]
enum Ending {
    AtHead(Code),
    AfterAMessage(Code),
}

impl World {
    fn new() -> Self {
        Self::with(OAuthLayer::grpc)
    }

    fn with<R>(settings: impl FnOnce(OAuthLayer) -> OAuthLayer<R>) -> Self
    where
        R: Replay<Body, Body = Body, Kept: Send> + Clone + Send + Sync + 'static,
    {
        let issuer = Issuer::new(&Api::default());
        let layer = OAuthLayer::new(TokenCache::new(issuer.clone()), Origins::of_inner_service());
        let server = Server::default();
        let service = ServiceBuilder::new().layer(settings(layer)).service(server.service());
        Self { issuer, server, client: HealthClient::new(BoxCloneService::new(service)) }
    }

    async fn call(&self) -> Result<Streaming<HealthCheckResponse>, Status> {
        self.client.clone().watch(HealthCheckRequest::default()).await.map(tonic::Response::into_inner)
    }

    /// Calls and reads to the end.
    async fn end_of_call(&self) -> Code {
        match self.call().await {
            Ok(mut stream) => end(&mut stream).await,
            Err(status) => status.code(),
        }
    }
}

/// What is left of a stream, to its end.
async fn end(stream: &mut Streaming<HealthCheckResponse>) -> Code {
    while let Some(message) = stream.next().await {
        if let Err(status) = message {
            assert!(stream.next().await.is_none(), "a status comes once");
            return status.code();
        }
    }
    Code::Ok
}

impl Server {
    fn script(&self, endings: impl IntoIterator<Item = Ending>) {
        lock(&self.endings).extend(endings);
    }

    /// The tokens that came, in order.
    fn tokens(&self) -> Vec<String> {
        lock(&self.tokens).clone()
    }

    fn service(
        &self,
    ) -> impl tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + use<> {
        let server = self.clone();
        tower::service_fn(move |request: Request<Body>| {
            lock(&server.tokens).push(bearer(&request).unwrap());
            let ending = lock(&server.endings).pop_front();
            std::future::ready(Ok(respond(ending.unwrap_or(Ending::AfterAMessage(Code::Ok)))))
        })
    }
}

fn respond(ending: Ending) -> Response<Body> {
    let response = Response::builder().header("content-type", "application/grpc");
    match ending {
        Ending::AtHead(code) => response.header("grpc-status", code as i32).body(Body::empty()).unwrap(),
        Ending::AfterAMessage(code) => {
            let message = Frame::data(Bytes::from_static(b"\0\0\0\0\x02\x08\x01"));
            let status = [("grpc-status".parse().unwrap(), (code as i32).into())];
            let trailers = Frame::trailers(HeaderMap::from_iter(status));
            let frames = tokio_stream::iter([Ok::<_, Status>(message), Ok(trailers)]);
            response.body(Body::new(StreamBody::new(frames))).unwrap()
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_dies_unauthenticated_says_so_once_and_the_next_call_has_a_new_token() {
    let world = World::new();
    world.server.script([Ending::AfterAMessage(Code::Unauthenticated)]);
    let mut stream = world.call().await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    assert_eq!(end(&mut stream).await, Code::Unauthenticated);
    assert_eq!((world.server.tokens().len(), world.issuer.asked()), (1, 1), "neither sent again nor renewed");

    assert_eq!(world.end_of_call().await, Code::Ok);
    assert_eq!(world.server.tokens(), ["token-1", "token-2"]);
}

#[tokio::test(start_paused = true)]
async fn streams_that_die_late_do_not_harm_a_newer_token() {
    let world = World::new();
    world.server.script([Ending::AfterAMessage(Code::Unauthenticated); 10]);
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(world.call().await.unwrap());
    }
    for stream in &mut streams {
        assert_eq!(end(stream).await, Code::Unauthenticated);
        // Long enough for the breaker to permit each of them.
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(world.end_of_call().await, Code::Ok);
    }
    assert_eq!(world.issuer.asked(), 2);
    assert!(world.server.tokens()[10..].iter().all(|token| token == "token-2"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_dies_late_does_not_keep_the_next_refusal_from_being_recovered() {
    let world = World::new();
    world.server.script([Ending::AfterAMessage(Code::Unauthenticated)]);
    let mut old = world.call().await.unwrap();
    for _ in 0..2 {
        world.server.script([Ending::AtHead(Code::Unauthenticated)]);
        assert_eq!(world.end_of_call().await, Code::Ok);
    }
    assert_eq!(end(&mut old).await, Code::Unauthenticated);
    world.server.script([Ending::AtHead(Code::Unauthenticated)]);
    assert_eq!(world.end_of_call().await, Code::Ok);
    assert_eq!(world.issuer.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_with_another_status_leaves_the_token_in_use() {
    let world = World::new();
    for code in (0..=16).map(Code::from_i32).filter(|code| *code != Code::Unauthenticated) {
        world.server.script([Ending::AfterAMessage(code)]);
        assert_eq!(world.end_of_call().await, code);
    }
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_before_its_end_leaves_the_token_in_use() {
    let world = World::new();
    world.server.script([Ending::AfterAMessage(Code::Unauthenticated)]);
    let mut stream = world.call().await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    assert_eq!(world.end_of_call().await, Code::Ok);
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_streams_always_die_does_not_cost_a_token_for_each() {
    let world = World::new();
    for _ in 0..600 {
        world.server.script([Ending::AfterAMessage(Code::Unauthenticated)]);
        assert_eq!(world.end_of_call().await, Code::Unauthenticated);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // As with an API that answers 401 to everything, see the chapter on faults.
    assert_eq!(world.issuer.asked(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_the_head_and_then_the_end_of_the_retry_does_not_cost_two_tokens_a_call() {
    let world = World::new();
    for _ in 0..600 {
        world
            .server
            .script([Ending::AtHead(Code::Unauthenticated), Ending::AfterAMessage(Code::Unauthenticated)]);
        assert_eq!(world.end_of_call().await, Code::Unauthenticated);
        lock(&world.server.endings).clear();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(world.issuer.asked() < 20, "{} token requests", world.issuer.asked());
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_dies_half_way_takes_its_own_token_out_of_use() {
    let world = World::new();
    world
        .server
        .script([Ending::AtHead(Code::Unauthenticated), Ending::AfterAMessage(Code::Unauthenticated)]);
    assert_eq!(world.end_of_call().await, Code::Unauthenticated);
    assert_eq!(world.end_of_call().await, Code::Ok);
    assert_eq!(world.server.tokens(), ["token-1", "token-2", "token-3"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_be_retried_is_watched_as_well() {
    let world = World::with(|layer| layer.grpc().replay(Never));
    world.server.script([Ending::AfterAMessage(Code::Unauthenticated)]);
    assert_eq!(world.end_of_call().await, Code::Unauthenticated);
    assert_eq!(world.end_of_call().await, Code::Ok);
    assert_eq!(world.server.tokens(), ["token-1", "token-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_a_token_of_its_callers_own_says_nothing_of_the_shared_one() {
    let world = World::new();
    assert_eq!(world.end_of_call().await, Code::Ok);
    world.server.script([Ending::AfterAMessage(Code::Unauthenticated)]);
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert(AUTHORIZATION.as_str(), "Bearer own".parse().unwrap());
    let mut stream = world.client.clone().watch(request).await.unwrap().into_inner();
    assert_eq!(end(&mut stream).await, Code::Unauthenticated);
    assert_eq!(world.end_of_call().await, Code::Ok);
    assert_eq!(world.server.tokens(), ["token-1", "own", "token-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_is_not_for_grpc_does_not_look_at_trailers() {
    let world = World::with(|layer| layer.replay(TonicBody::default()));
    world.server.script([Ending::AfterAMessage(Code::Unauthenticated)]);
    assert_eq!(world.end_of_call().await, Code::Unauthenticated);
    assert_eq!(world.end_of_call().await, Code::Ok);
    assert_eq!(world.issuer.asked(), 1);
}
