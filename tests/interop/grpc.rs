//! Calls over tonic to `grpc_server.py`, a grpcio server that introspects the token of each call.

use std::{process::Command, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use tokio_rustls::rustls::crypto::ring;
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
    token_cache, wait_until,
};

/// The credentials of the gRPC server at the introspection endpoint.
const RESOURCE_SERVER_CREDENTIALS: &str = "api:secret-of-the-api";

const KINDS: [Kind; 4] = [Kind::Unary, Kind::ServerStream, Kind::ClientStream, Kind::Both];

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_all_kinds_use_the_first_token() {
    let setup = GrpcSetup::start();
    let api = setup.api(basic());
    for kind in KINDS {
        api.call(kind).await;
    }
    assert_eq!(setup.counts().await, Counts { token_requests: 1, accepted: 4, rejected: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_all_kinds_recover_from_a_revoked_token() {
    check_recovery_from_revocation(&GrpcSetup::start()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_all_kinds_recover_from_a_revoked_token_over_tls() {
    check_recovery_from_revocation(&GrpcSetup::start_with_tls()).await;
}

async fn check_recovery_from_revocation(setup: &GrpcSetup) {
    let mut expected = Counts::default();
    for kind in KINDS {
        let api = setup.api(basic());
        api.call(kind).await;
        setup.servers.revoke_all().await;
        api.call(kind).await;
        expected = expected.plus(Counts { token_requests: 2, accepted: 2, rejected: 1 });
        assert_eq!(setup.counts().await, expected, "{kind:?}");
    }
}

/// The authorization server counts in whole seconds, so a token may expire before its expiry
/// margin begins.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_all_kinds_recover_from_expired_tokens() {
    let setup = GrpcSetup::start();
    let api = setup.api(ClientAuth::client_secret_basic("lives-2-seconds", "secret-of-2"));
    wait_until(async || {
        for kind in KINDS {
            api.call(kind).await;
        }
        setup.counts().await.token_requests > 2
    })
    .await;
    let counts = setup.counts().await;
    assert!(counts.token_requests == 3 && counts.rejected <= 2, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hundred_calls_on_a_revoked_token_cost_one_token_request() {
    let setup = GrpcSetup::start();
    let api = setup.api(basic());
    api.call(Kind::Unary).await;
    setup.servers.revoke_all().await;
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let api = api.clone();
            tokio::spawn(async move { api.call(KINDS[number % KINDS.len()]).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let counts = setup.counts().await;
    assert_eq!((counts.token_requests, counts.accepted), (2, 101), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_stream_rejected_while_sending_is_retried() {
    let setup = GrpcSetup::start();
    let api = setup.api(basic());
    api.call(Kind::Unary).await;
    setup.servers.revoke_all().await;

    let (send, messages) = mpsc::channel(8);
    send.send(Bytes::from("before, ")).await.unwrap();
    let call = tokio::spawn(async move { api.client_stream(ReceiverStream::new(messages)).await });
    wait_until(async || {
        setup.counts().await == Counts { token_requests: 2, accepted: 2, rejected: 1 }
    })
    .await;
    send.send(Bytes::from("after")).await.unwrap();
    drop(send);
    assert_eq!(call.await.unwrap().unwrap(), "before, after");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_with_revoked_token_ends_with_the_server_status() {
    let setup = GrpcSetup::start();
    let api = setup.api(basic());
    let (send, messages) = mpsc::channel(8);
    send.send(Bytes::from("before")).await.unwrap();
    let mut responses = api.both(ReceiverStream::new(messages)).await.unwrap();
    assert_eq!(responses.next().await.unwrap().unwrap(), "before");

    setup.servers.revoke_all().await;
    send.send(Bytes::from("after")).await.unwrap();
    let status = responses.next().await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "the token is no longer active")
    );
    assert!(responses.next().await.is_none());
    assert_eq!(setup.counts().await, Counts { token_requests: 1, accepted: 1, rejected: 0 });

    api.call(Kind::Both).await;
    assert_eq!(
        setup.counts().await,
        Counts { token_requests: 2, accepted: 2, rejected: 0 },
        "no call was rejected at its start"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rejection_after_response_headers_is_not_retried() {
    let setup = GrpcSetup::start();
    let api = setup.api(basic());
    let status = api.unary("/test.Echo/HeadersThenReject").await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "the token is not sufficient")
    );
    assert_eq!(setup.counts().await, Counts { token_requests: 1, accepted: 1, rejected: 0 });
    api.call(Kind::Unary).await;
    assert_eq!(setup.counts().await, Counts { token_requests: 2, accepted: 2, rejected: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline_is_sent_with_both_attempts_and_is_kept() {
    let setup = GrpcSetup::start();
    let api = setup.api(basic());
    api.call(Kind::Unary).await;
    setup.servers.revoke_all().await;

    let left =
        api.send_with_deadline(Duration::from_secs(50), "/test.Deadline/TimeLeft").await.unwrap();
    let left: f64 = std::str::from_utf8(&left).unwrap().parse().unwrap();
    assert!(left > 0.0 && left <= 50.0, "{left}");
    assert_eq!(setup.counts().await, Counts { token_requests: 2, accepted: 2, rejected: 1 });

    setup.servers.revoke_all().await;
    let start = Instant::now();
    let status =
        api.send_with_deadline(Duration::from_secs(1), "/test.Deadline/Never").await.unwrap_err();
    // The status depends on which clock is first: that of tonic or that of the server.
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(setup.counts().await, Counts { token_requests: 3, accepted: 3, rejected: 2 });
}

/// An authorization server, and a gRPC server that introspects tokens there.
struct GrpcSetup {
    servers: Servers,
    channel: Channel,
    _grpc_server: Process,
}

/// The requests and calls that the servers received.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    token_requests: u64,
    /// Calls that started with an active token.
    accepted: u64,
    /// Calls that started without an active token.
    rejected: u64,
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            token_requests: self.token_requests + other.token_requests,
            accepted: self.accepted + other.accepted,
            rejected: self.rejected + other.rejected,
        }
    }
}

impl GrpcSetup {
    fn start() -> Self {
        let servers = Servers::start();
        let (process, port) = start_grpc_server(settings(&servers));
        let channel =
            Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy();
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
        // Rustls has no default provider if both are compiled in.
        ring::default_provider().install_default().ok();
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert.pem()));
        let endpoint = Channel::from_shared(format!("https://localhost:{port}")).unwrap();
        Self {
            servers,
            channel: endpoint.tls_config(tls).unwrap().connect_lazy(),
            _grpc_server: process,
        }
    }

    fn api(&self, auth: ClientAuth) -> Api {
        let cache = token_cache(&self.servers, auth);
        let oauth = OAuthLayer::new(cache, Origins::without_authority()).grpc();
        Api(oauth.layer(self.channel.clone()))
    }

    async fn counts(&self) -> Counts {
        let mut control = Grpc::new(self.channel.clone());
        control.ready().await.unwrap();
        let path = PathAndQuery::from_static("/test.Control/Counts");
        let response = control.unary(Request::new(Bytes::new()), path, Raw).await.unwrap();
        let counts: Value = serde_json::from_slice(response.get_ref()).unwrap();
        Counts {
            token_requests: self.servers.counts().await.token_requests,
            accepted: counts["accepted"].as_u64().unwrap(),
            rejected: counts["rejected"].as_u64().unwrap(),
        }
    }
}

fn settings(servers: &Servers) -> Value {
    json!({
        "introspection_url": servers.introspection_url(),
        "credentials": RESOURCE_SERVER_CREDENTIALS,
    })
}

fn start_grpc_server(settings: Value) -> (Process, u64) {
    let mut command = Command::new(script(".venv/bin/python"));
    let command = command.arg(script("grpc_server.py"));
    let (process, ready) = Process::start(command, &format!("{settings}\n"));
    (process, ready["port"].as_u64().unwrap())
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Unary,
    ServerStream,
    ClientStream,
    Both,
}

/// A client of the gRPC server, built like a generated one.
#[derive(Clone)]
struct Api(OAuth<Channel, TonicBody>);

impl Api {
    /// Makes a call of this kind and checks its response.
    async fn call(&self, kind: Kind) {
        let messages = || tokio_stream::iter(["a", "b", "c"].map(Bytes::from));
        match kind {
            Kind::Unary => assert_eq!(self.unary("/test.Echo/Unary").await.unwrap(), "message"),
            Kind::ServerStream => {
                let path = PathAndQuery::from_static("/test.Echo/ServerStream");
                let request = Request::new(Bytes::from("message"));
                let responses =
                    self.ready().await.server_streaming(request, path, Raw).await.unwrap();
                assert_eq!(collect(responses.into_inner()).await, ["message"; 3]);
            }
            Kind::ClientStream => assert_eq!(self.client_stream(messages()).await.unwrap(), "abc"),
            Kind::Both => {
                let responses = self.both(messages()).await.unwrap();
                assert_eq!(collect(responses).await, ["a", "b", "c"]);
            }
        }
    }

    async fn unary(&self, path: &'static str) -> Result<Bytes, Status> {
        self.send(path, Request::new(Bytes::from("message"))).await
    }

    async fn send_with_deadline(
        &self,
        deadline: Duration,
        path: &'static str,
    ) -> Result<Bytes, Status> {
        let mut request = Request::new(Bytes::new());
        request.set_timeout(deadline);
        self.send(path, request).await
    }

    async fn send(&self, path: &'static str, request: Request<Bytes>) -> Result<Bytes, Status> {
        let response =
            self.ready().await.unary(request, PathAndQuery::from_static(path), Raw).await?;
        Ok(response.into_inner())
    }

    async fn client_stream(
        &self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Bytes, Status> {
        let path = PathAndQuery::from_static("/test.Echo/ClientStream");
        let response =
            self.ready().await.client_streaming(Request::new(messages), path, Raw).await?;
        Ok(response.into_inner())
    }

    async fn both(
        &self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        let path = PathAndQuery::from_static("/test.Echo/Both");
        let responses = self.ready().await.streaming(Request::new(messages), path, Raw).await?;
        Ok(responses.into_inner())
    }

    async fn ready(&self) -> Grpc<OAuth<Channel, TonicBody>> {
        let mut client = Grpc::new(self.0.clone());
        client.ready().await.unwrap();
        client
    }
}

async fn collect(responses: Streaming<Bytes>) -> Vec<Bytes> {
    responses.collect::<Result<_, _>>().await.unwrap()
}

/// A codec for untyped bytes.
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
