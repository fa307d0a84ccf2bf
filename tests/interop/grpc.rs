//! Over tonic to `grpc_server.py`: a server of grpcio that asks the authorization server about each token.

use std::{process::Command, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Certificate, Channel, ClientTlsConfig},
};
use tower::Layer;
use tower_oauth::{ClientAuth, OAuth, OAuthLayer, Origins, replay::TonicBody};

use crate::{
    basic,
    process::{Process, script},
    servers::Servers,
    tokens, wait_until,
};

/// How the gRPC server authenticates at the introspection endpoint.
const RESOURCE_SERVER: &str = "api:secret-of-the-api";

const KINDS: [Kind; 4] = [Kind::Unary, Kind::ServerStream, Kind::ClientStream, Kind::Both];

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_all_kinds_use_the_first_token() {
    let world = World::start();
    let api = world.api(basic());
    for kind in KINDS {
        api.call(kind).await;
    }
    assert_eq!(world.counts().await, Counts { token_requests: 1, served: 4, refused: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_all_kinds_recover_from_a_revoked_token() {
    recovers_from_revocation(&World::start()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_all_kinds_recover_from_a_revoked_token_over_tls() {
    recovers_from_revocation(&World::start_with_tls()).await;
}

async fn recovers_from_revocation(world: &World) {
    let mut expected = Counts::default();
    for kind in KINDS {
        let api = world.api(basic());
        api.call(kind).await;
        world.servers.revoke_all().await;
        api.call(kind).await;
        expected = expected.and(Counts { token_requests: 2, served: 2, refused: 1 });
        assert_eq!(world.counts().await, expected, "{kind:?}");
    }
}

/// The authorization server counts in whole seconds, so that a token can be over before its margin begins.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_all_kinds_get_over_tokens_that_expire() {
    let world = World::start();
    let api = world.api(ClientAuth::client_secret_basic("lives-2-seconds", "secret-of-2"));
    wait_until(async || {
        for kind in KINDS {
            api.call(kind).await;
        }
        world.counts().await.token_requests > 2
    })
    .await;
    let seen = world.counts().await;
    assert!(seen.token_requests == 3 && seen.refused <= 2, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_calls_at_once_on_a_revoked_token_cost_one_token_request() {
    let world = World::start();
    let api = world.api(basic());
    api.call(Kind::Unary).await;
    world.servers.revoke_all().await;
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let api = api.clone();
            tokio::spawn(async move { api.call(KINDS[number % KINDS.len()]).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let seen = world.counts().await;
    assert_eq!((seen.token_requests, seen.served), (2, 101), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_stream_that_is_refused_while_it_is_sent_goes_on_with_the_new_token() {
    let world = World::start();
    let api = world.api(basic());
    api.call(Kind::Unary).await;
    world.servers.revoke_all().await;

    let (send, messages) = mpsc::channel(8);
    send.send(Bytes::from("before, ")).await.unwrap();
    let joining = tokio::spawn(async move { api.client_stream(ReceiverStream::new(messages)).await });
    wait_until(async || world.counts().await == Counts { token_requests: 2, served: 2, refused: 1 }).await;
    send.send(Bytes::from("after")).await.unwrap();
    drop(send);
    assert_eq!(joining.await.unwrap().unwrap(), "before, after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_token_dies_ends_with_the_servers_status_once_and_the_next_call_has_a_new_token() {
    let world = World::start();
    let api = world.api(basic());
    let (send, messages) = mpsc::channel(8);
    send.send(Bytes::from("before")).await.unwrap();
    let mut answers = api.both(ReceiverStream::new(messages)).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "before");

    world.servers.revoke_all().await;
    send.send(Bytes::from("after")).await.unwrap();
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "the token is not active any more")
    );
    assert!(answers.next().await.is_none());
    assert_eq!(world.counts().await, Counts { token_requests: 1, served: 1, refused: 0 });

    api.call(Kind::Both).await;
    assert_eq!(
        world.counts().await,
        Counts { token_requests: 2, served: 2, refused: 0 },
        "nothing was refused"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_headers_of_the_servers_own_is_the_callers_and_the_next_call_has_a_new_token() {
    let world = World::start();
    let api = world.api(basic());
    let status = api.unary("/test.Echo/HeadThenRefuse").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "the token is not good enough"));
    assert_eq!(world.counts().await, Counts { token_requests: 1, served: 1, refused: 0 });
    api.call(Kind::Unary).await;
    assert_eq!(world.counts().await, Counts { token_requests: 2, served: 2, refused: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_goes_to_the_server_with_both_attempts_and_is_kept() {
    let world = World::start();
    let api = world.api(basic());
    api.call(Kind::Unary).await;
    world.servers.revoke_all().await;

    let left = api.within(Duration::from_secs(50), "/test.Deadline/TimeLeft").await.unwrap();
    let left: f64 = std::str::from_utf8(&left).unwrap().parse().unwrap();
    assert!(left > 0.0 && left <= 50.0, "{left}");
    assert_eq!(world.counts().await, Counts { token_requests: 2, served: 2, refused: 1 });

    world.servers.revoke_all().await;
    let start = Instant::now();
    let status = api.within(Duration::from_secs(1), "/test.Deadline/Never").await.unwrap_err();
    // As the clock of tonic or that of the server is the first.
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(world.counts().await, Counts { token_requests: 3, served: 3, refused: 2 });
}

/// The authorization server, and a gRPC server that trusts it.
struct World {
    servers: Servers,
    channel: Channel,
    _grpc_server: Process,
}

/// What they have seen.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    token_requests: u64,
    /// Calls that began with a good token, or did not.
    served: u64,
    refused: u64,
}

impl Counts {
    fn and(self, other: Self) -> Self {
        Self {
            token_requests: self.token_requests + other.token_requests,
            served: self.served + other.served,
            refused: self.refused + other.refused,
        }
    }
}

impl World {
    fn start() -> Self {
        let servers = Servers::start();
        let (process, port) = start_grpc_server(settings(&servers));
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy();
        Self { servers, channel, _grpc_server: process }
    }

    fn start_with_tls() -> Self {
        let servers = Servers::start();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut settings = settings(&servers);
        settings["certificate"] = cert.pem().into();
        settings["key"] = signing_key.serialize_pem().into();
        let (process, port) = start_grpc_server(settings);
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert.pem()));
        let endpoint = Channel::from_shared(format!("https://localhost:{port}")).unwrap();
        Self { servers, channel: endpoint.tls_config(tls).unwrap().connect_lazy(), _grpc_server: process }
    }

    fn api(&self, auth: ClientAuth) -> Api {
        let oauth = OAuthLayer::new(tokens(&self.servers, auth), Origins::of_inner_service()).grpc();
        Api(oauth.layer(self.channel.clone()))
    }

    async fn counts(&self) -> Counts {
        let mut control = Grpc::new(self.channel.clone());
        control.ready().await.unwrap();
        let path = PathAndQuery::from_static("/test.Control/Counts");
        let answer = control.unary(Request::new(Bytes::new()), path, Raw).await.unwrap();
        let counts: Value = serde_json::from_slice(answer.get_ref()).unwrap();
        Counts {
            token_requests: self.servers.counts().await.token_requests,
            served: counts["served"].as_u64().unwrap(),
            refused: counts["refused"].as_u64().unwrap(),
        }
    }
}

fn settings(servers: &Servers) -> Value {
    json!({ "introspection_url": servers.introspection_url(), "credentials": RESOURCE_SERVER })
}

fn start_grpc_server(settings: Value) -> (Process, u64) {
    let mut command = Command::new(script(".venv/bin/python"));
    let (process, ready) = Process::start(command.arg(script("grpc_server.py")), &format!("{settings}\n"));
    (process, ready["port"].as_u64().unwrap())
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Unary,
    ServerStream,
    ClientStream,
    Both,
}

/// A client of the gRPC server, as a generated one would be.
#[derive(Clone)]
struct Api(OAuth<Channel, TonicBody>);

impl Api {
    /// Calls, and checks what comes back.
    async fn call(&self, kind: Kind) {
        let messages = || tokio_stream::iter(["a", "b", "c"].map(Bytes::from));
        match kind {
            Kind::Unary => assert_eq!(self.unary("/test.Echo/Unary").await.unwrap(), "message"),
            Kind::ServerStream => {
                let path = PathAndQuery::from_static("/test.Echo/ServerStream");
                let request = Request::new(Bytes::from("message"));
                let answers = self.ready().await.server_streaming(request, path, Raw).await.unwrap();
                assert_eq!(all(answers.into_inner()).await, ["message"; 3]);
            }
            Kind::ClientStream => assert_eq!(self.client_stream(messages()).await.unwrap(), "abc"),
            Kind::Both => assert_eq!(all(self.both(messages()).await.unwrap()).await, ["a", "b", "c"]),
        }
    }

    async fn unary(&self, path: &'static str) -> Result<Bytes, Status> {
        self.send(path, Request::new(Bytes::from("message"))).await
    }

    async fn within(&self, deadline: Duration, path: &'static str) -> Result<Bytes, Status> {
        let mut request = Request::new(Bytes::new());
        request.set_timeout(deadline);
        self.send(path, request).await
    }

    async fn send(&self, path: &'static str, request: Request<Bytes>) -> Result<Bytes, Status> {
        let answer = self.ready().await.unary(request, PathAndQuery::from_static(path), Raw).await?;
        Ok(answer.into_inner())
    }

    async fn client_stream(
        &self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Bytes, Status> {
        let path = PathAndQuery::from_static("/test.Echo/ClientStream");
        let answer = self.ready().await.client_streaming(Request::new(messages), path, Raw).await?;
        Ok(answer.into_inner())
    }

    async fn both(
        &self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        let path = PathAndQuery::from_static("/test.Echo/Both");
        let answers = self.ready().await.streaming(Request::new(messages), path, Raw).await?;
        Ok(answers.into_inner())
    }

    async fn ready(&self) -> Grpc<OAuth<Channel, TonicBody>> {
        let mut client = Grpc::new(self.0.clone());
        client.ready().await.unwrap();
        client
    }
}

async fn all(answers: Streaming<Bytes>) -> Vec<Bytes> {
    answers.collect::<Result<_, _>>().await.unwrap()
}

/// Bytes as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
