//! Server streams that start successfully and end with a status in their trailers, with a paused
//! clock.

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
use tokio::time::{advance, sleep};
use tokio_stream::StreamExt;
use tonic::{Code, Status, Streaming, body::Body};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};
use tower::{BoxError, ServiceBuilder, util::BoxCloneService};
use tower_oauth::{
    OAuthLayer, Origins, TokenCache,
    replay::{NoReplay, Replay, TonicBody},
};

use crate::support::{FakeApi, Reply, ScriptedSource, bearer, lock};

type Service = BoxCloneService<Request<Body>, Response<Body>, BoxError>;

/// A token source, a gRPC server that accepts all tokens, and a client of the server.
struct GrpcSetup {
    source: ScriptedSource,
    server: Server,
    client: HealthClient<Service>,
}

#[derive(Clone, Default)]
struct Server {
    /// The endings of the next calls. All later calls end with `OK`.
    endings: Arc<Mutex<VecDeque<Ending>>>,
    tokens: Arc<Mutex<Vec<String>>>,
}

/// The end of a server stream.
#[derive(Clone, Copy)]
enum Ending {
    /// The head of the response has the status, and there is no message.
    InHead(Code),
    /// The trailers after one message have the status.
    InTrailers(Code),
}

impl GrpcSetup {
    fn new() -> Self {
        Self::with_settings(OAuthLayer::grpc)
    }

    fn with_settings<R>(settings: impl FnOnce(OAuthLayer) -> OAuthLayer<R>) -> Self
    where
        R: Replay<Body, Body = Body, Kept: Send> + Clone + Send + Sync + 'static,
    {
        let source = ScriptedSource::new(&FakeApi::default());
        let cache = TokenCache::new(source.clone());
        let layer = settings(OAuthLayer::new(cache, Origins::without_authority()));
        let server = Server::default();
        let service = ServiceBuilder::new().layer(layer).service(server.service());
        Self { source, server, client: HealthClient::new(BoxCloneService::new(service)) }
    }

    /// Starts a call and returns its stream of messages.
    async fn call(&self) -> Result<Streaming<HealthCheckResponse>, Status> {
        let request = HealthCheckRequest::default();
        self.client.clone().watch(request).await.map(tonic::Response::into_inner)
    }

    /// Makes a call, reads it to its end, and returns the final status.
    async fn call_to_the_end(&self) -> Code {
        match self.call().await {
            Ok(mut stream) => read_to_the_end(&mut stream).await,
            Err(status) => status.code(),
        }
    }
}

/// Reads the rest of a stream and returns the final status.
async fn read_to_the_end(stream: &mut Streaming<HealthCheckResponse>) -> Code {
    while let Some(message) = stream.next().await {
        if let Err(status) = message {
            assert!(stream.next().await.is_none(), "a stream has at most one status");
            return status.code();
        }
    }
    Code::Ok
}

impl Server {
    fn script(&self, endings: impl IntoIterator<Item = Ending>) {
        lock(&self.endings).extend(endings);
    }

    /// Returns the tokens of all calls so far, in order.
    fn tokens(&self) -> Vec<String> {
        lock(&self.tokens).clone()
    }

    fn service(
        &self,
    ) -> impl tower::Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + use<> {
        let server = self.clone();
        tower::service_fn(move |request: Request<Body>| {
            lock(&server.tokens).push(bearer(&request).unwrap());
            let ending = lock(&server.endings).pop_front();
            std::future::ready(Ok(respond(ending.unwrap_or(Ending::InTrailers(Code::Ok)))))
        })
    }
}

fn respond(ending: Ending) -> Response<Body> {
    let response = Response::builder().header("content-type", "application/grpc");
    match ending {
        Ending::InHead(code) => {
            response.header("grpc-status", code as i32).body(Body::empty()).unwrap()
        }
        Ending::InTrailers(code) => {
            let message = Frame::data(Bytes::from_static(b"\0\0\0\0\x02\x08\x01"));
            let status = [("grpc-status".parse().unwrap(), (code as i32).into())];
            let trailers = Frame::trailers(HeaderMap::from_iter(status));
            let frames = tokio_stream::iter([Ok::<_, Status>(message), Ok(trailers)]);
            response.body(Body::new(StreamBody::new(frames))).unwrap()
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rejection_in_trailers_invalidates_the_token() {
    let setup = GrpcSetup::new();
    setup.server.script([Ending::InTrailers(Code::Unauthenticated)]);
    let mut stream = setup.call().await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    assert_eq!(read_to_the_end(&mut stream).await, Code::Unauthenticated);
    assert_eq!(setup.server.tokens().len(), 1, "the call is not retried");
    assert_eq!(setup.source.request_count(), 1, "the token is not refreshed yet");

    assert_eq!(setup.call_to_the_end().await, Code::Ok);
    assert_eq!(setup.server.tokens(), ["token-1", "token-2"]);
}

#[tokio::test(start_paused = true)]
async fn late_rejections_in_trailers_keep_a_newer_token() {
    let setup = GrpcSetup::new();
    setup.server.script([Ending::InTrailers(Code::Unauthenticated); 10]);
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(setup.call().await.unwrap());
    }
    for stream in &mut streams {
        assert_eq!(read_to_the_end(stream).await, Code::Unauthenticated);
        // After this time the circuit breaker permits each rejection.
        advance(Duration::from_secs(10)).await;
        assert_eq!(setup.call_to_the_end().await, Code::Ok);
    }
    assert_eq!(setup.source.request_count(), 2);
    assert!(setup.server.tokens()[10..].iter().all(|token| token == "token-2"));
}

#[tokio::test(start_paused = true)]
async fn late_rejection_in_trailers_does_not_block_a_recovery() {
    let setup = GrpcSetup::new();
    setup.server.script([Ending::InTrailers(Code::Unauthenticated)]);
    let mut old_stream = setup.call().await.unwrap();
    for _ in 0..2 {
        setup.server.script([Ending::InHead(Code::Unauthenticated)]);
        assert_eq!(setup.call_to_the_end().await, Code::Ok);
    }
    assert_eq!(read_to_the_end(&mut old_stream).await, Code::Unauthenticated);
    setup.server.script([Ending::InHead(Code::Unauthenticated)]);
    assert_eq!(setup.call_to_the_end().await, Code::Ok);
    assert_eq!(setup.source.request_count(), 4);
}

#[tokio::test(start_paused = true)]
async fn other_status_in_trailers_keeps_the_token() {
    let setup = GrpcSetup::new();
    for code in (0..=16).map(Code::from_i32).filter(|code| *code != Code::Unauthenticated) {
        setup.server.script([Ending::InTrailers(code)]);
        assert_eq!(setup.call_to_the_end().await, code);
    }
    assert_eq!(setup.source.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn stream_dropped_before_its_trailers_keeps_the_token() {
    let setup = GrpcSetup::new();
    setup.server.script([Ending::InTrailers(Code::Unauthenticated)]);
    let mut stream = setup.call().await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    assert_eq!(setup.call_to_the_end().await, Code::Ok);
    assert_eq!(setup.source.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn server_that_always_rejects_in_trailers_costs_few_tokens() {
    let setup = GrpcSetup::new();
    for _ in 0..600 {
        setup.server.script([Ending::InTrailers(Code::Unauthenticated)]);
        assert_eq!(setup.call_to_the_end().await, Code::Unauthenticated);
        advance(Duration::from_secs(1)).await;
    }
    // The same number as for an API that answers 401 to everything, see `src/docs/faults.md`.
    assert_eq!(setup.source.request_count(), 12);
}

#[tokio::test(start_paused = true)]
async fn server_that_rejects_call_and_retry_costs_few_tokens() {
    let setup = GrpcSetup::new();
    for _ in 0..600 {
        setup.server.script([
            Ending::InHead(Code::Unauthenticated),
            Ending::InTrailers(Code::Unauthenticated),
        ]);
        assert_eq!(setup.call_to_the_end().await, Code::Unauthenticated);
        lock(&setup.server.endings).clear();
        advance(Duration::from_secs(1)).await;
    }
    let token_requests = setup.source.request_count();
    assert!(token_requests < 20, "{token_requests} token requests");
}

/// The refresh had begun before the rejection, so its token was revoked as well.
#[tokio::test(start_paused = true)]
async fn revocation_during_a_refresh_is_recovered_by_a_second_retry() {
    let setup = GrpcSetup::new();
    setup.source.script([Reply::Issue(Duration::from_secs(100))]);
    assert_eq!(setup.call_to_the_end().await, Code::Ok);
    advance(Duration::from_secs(56)).await;
    setup.source.hold_requests();
    assert_eq!(setup.call_to_the_end().await, Code::Ok);
    sleep(Duration::from_millis(1)).await;
    setup.server.script([Ending::InHead(Code::Unauthenticated); 2]);
    let (code, ()) = tokio::join!(setup.call_to_the_end(), async {
        sleep(Duration::from_millis(1)).await;
        setup.source.release_requests(2);
    });
    assert_eq!(code, Code::Ok);
    assert_eq!(setup.server.tokens()[2..], ["token-1", "token-2", "token-3"]);
}

#[tokio::test(start_paused = true)]
async fn rejection_in_the_trailers_of_a_retry_keeps_its_token() {
    let setup = GrpcSetup::new();
    setup
        .server
        .script([Ending::InHead(Code::Unauthenticated), Ending::InTrailers(Code::Unauthenticated)]);
    assert_eq!(setup.call_to_the_end().await, Code::Unauthenticated);
    assert_eq!(setup.call_to_the_end().await, Code::Ok);
    assert_eq!(setup.server.tokens(), ["token-1", "token-2", "token-2"]);
}

#[tokio::test(start_paused = true)]
async fn trailers_are_inspected_without_replay() {
    let setup = GrpcSetup::with_settings(|layer| layer.grpc().with_replay(NoReplay));
    setup.server.script([Ending::InTrailers(Code::Unauthenticated)]);
    assert_eq!(setup.call_to_the_end().await, Code::Unauthenticated);
    assert_eq!(setup.call_to_the_end().await, Code::Ok);
    assert_eq!(setup.server.tokens(), ["token-1", "token-2"]);
}

#[tokio::test(start_paused = true)]
async fn rejection_of_the_callers_own_token_keeps_the_cached_one() {
    let setup = GrpcSetup::new();
    assert_eq!(setup.call_to_the_end().await, Code::Ok);
    setup.server.script([Ending::InTrailers(Code::Unauthenticated)]);
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert(AUTHORIZATION.as_str(), "Bearer own".parse().unwrap());
    let mut stream = setup.client.clone().watch(request).await.unwrap().into_inner();
    assert_eq!(read_to_the_end(&mut stream).await, Code::Unauthenticated);
    assert_eq!(setup.call_to_the_end().await, Code::Ok);
    assert_eq!(setup.server.tokens(), ["token-1", "own", "token-1"]);
}

#[tokio::test(start_paused = true)]
async fn layer_without_grpc_ignores_trailers() {
    let setup = GrpcSetup::with_settings(|layer| layer.with_replay(TonicBody::default()));
    setup.server.script([Ending::InTrailers(Code::Unauthenticated)]);
    assert_eq!(setup.call_to_the_end().await, Code::Unauthenticated);
    assert_eq!(setup.call_to_the_end().await, Code::Ok);
    assert_eq!(setup.source.request_count(), 1);
}
