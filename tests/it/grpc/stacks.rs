//! A tonic client over its channel, and real servers.

use std::{
    mem,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{
    HeaderMap, Request, Response,
    header::{AUTHORIZATION, CONTENT_LENGTH},
};
use http_body_util::BodyExt;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpListener;
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{
    Code, Status,
    codec::CompressionEncoding,
    service::interceptor::InterceptedService,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceBuilder;
use tower_oauth::{OAuth, OAuthLayer, Origins, replay::TonicBody};

use crate::{
    loopback::{Authority, serve},
    support::lock,
};

type Service = OAuth<Channel, TonicBody>;

/// A server of tonic that looks at the token of each call, and writes down how it came.
struct HealthService {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<HeaderMap>>>,
}

impl HealthService {
    async fn start(authority: &Authority) -> Self {
        Self::start_on(Server::builder(), authority).await
    }

    async fn start_on(mut server: Server, authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<_>>>::default();
        let (authority, seen) = (authority.clone(), Arc::clone(&heads));
        let check = move |request: tonic::Request<()>| {
            let head = request.metadata().clone().into_headers();
            let accepts = authority.accepts(&head);
            lock(&seen).push(head);
            if accepts { Ok(request) } else { Err(Status::unauthenticated("the token is not valid")) }
        };
        let (_, health) = tonic_health::server::health_reporter();
        let gzip = CompressionEncoding::Gzip;
        let service = InterceptedService::new(health.accept_compressed(gzip).send_compressed(gzip), check);
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
        Self { address, heads }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    /// Takes all heads of calls that came so far.
    fn heads(&self) -> Vec<HeaderMap> {
        mem::take(&mut lock(&self.heads))
    }
}

async fn health_service(authority: &Authority) -> Channel {
    HealthService::start(authority).await.endpoint().connect_lazy()
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
async fn deadline_metadata_and_extensions_come_with_the_retry_as_they_came_before() {
    #[derive(Clone, Debug, PartialEq)]
    struct Extension(&'static str);

    let authority = Authority::default();
    let server = HealthService::start(&authority).await;
    let extensions = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&extensions);
    let oauth = OAuthLayer::new(authority.cache().await, Origins::of_inner_service()).grpc();
    let service = ServiceBuilder::new()
        .layer(oauth)
        .map_request(move |request: Request<tonic::body::Body>| {
            lock(&seen).push(request.extensions().get::<Extension>().cloned());
            request
        })
        .service(server.endpoint().connect_lazy());
    let mut client = HealthClient::new(service);
    client.check(message("")).await.unwrap();
    authority.revoke_all();
    server.heads();
    lock(&extensions).clear();

    let mut request = tonic::Request::new(message(""));
    request.set_timeout(Duration::from_secs(20));
    request.metadata_mut().append("x-several", "one".parse().unwrap());
    request.metadata_mut().append("x-several", "two".parse().unwrap());
    request.metadata_mut().insert_bin("x-bytes-bin", tonic::metadata::MetadataValue::from_bytes(b"\0\xff"));
    request.extensions_mut().insert(Extension("kept"));
    client.check(request).await.unwrap();

    let mut heads = server.heads();
    let tokens: Vec<_> = heads.iter_mut().map(|head| head.remove(AUTHORIZATION).unwrap()).collect();
    assert_eq!(tokens, ["Bearer T0KEN-1", "Bearer T0KEN-2"]);
    heads[1].remove(CONTENT_LENGTH); // is known of a body that was sent before
    assert_eq!(heads[0], heads[1]);
    assert_eq!(heads[1]["grpc-timeout"], "20000000u");
    assert_eq!(heads[1].get_all("x-several").iter().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(heads[1]["x-bytes-bin"], "AP8");
    assert_eq!(*lock(&extensions), [Some(Extension("kept")), Some(Extension("kept"))]);
}

#[tokio::test]
async fn compressed_calls_and_answers() {
    let authority = Authority::default();
    let server = HealthService::start(&authority).await;
    let gzip = CompressionEncoding::Gzip;
    let mut client = HealthClient::new(guarded(&authority, server.endpoint().connect_lazy()).await)
        .send_compressed(gzip)
        .accept_compressed(gzip);
    for expected in 1..=2 {
        let answer = client.check(message("")).await.unwrap();
        assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
        assert_eq!((authority.token_requests(), authority.refusals()), (expected, expected - 1));
        authority.revoke_all();
    }
    assert!(server.heads().iter().all(|head| head["grpc-encoding"] == "gzip"));
}

#[tokio::test]
async fn a_balanced_channel() {
    let authority = Authority::default();
    let servers = [HealthService::start(&authority).await, HealthService::start(&authority).await];
    let channel = Channel::balance_list(servers.iter().map(HealthService::endpoint));
    let client = HealthClient::new(guarded(&authority, channel).await);
    for expected in 1..=2 {
        let calls = (0..100).map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.check(message("")).await.unwrap() })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        assert_eq!(authority.token_requests(), expected);
        assert!(servers.iter().all(|server| !server.heads().is_empty()), "each has its share");
        authority.revoke_all();
    }
}

#[tokio::test]
async fn over_tls() {
    let authority = Authority::default();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let identity = Identity::from_pem(cert.pem(), signing_key.serialize_pem());
    let tls = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    let server = HealthService::start_on(tls, &authority).await;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert.pem()));
    let url = format!("https://localhost:{}", server.address.port());
    let channel = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap().connect_lazy();
    let mut client = HealthClient::new(guarded(&authority, channel).await);
    for expected in 1..=2 {
        client.check(message("")).await.unwrap();
        assert_eq!((authority.token_requests(), authority.refusals()), (expected, expected - 1));
        authority.revoke_all();
    }
}

/// Unary calls and streams, on all threads of the machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_at_once_on_a_revoked_token_cost_one_token_request_and_none_fails() {
    let authority = Authority::default();
    let server = HealthService::start(&authority).await;
    let client = HealthClient::new(guarded(&authority, server.endpoint().connect_lazy()).await);
    client.clone().check(message("")).await.unwrap();
    authority.revoke_all();

    let calls = (0..1000).map(|number| {
        let mut client = client.clone();
        tokio::spawn(async move {
            if number % 2 == 0 {
                client.check(message("")).await.unwrap();
            } else {
                let mut stream = client.watch(message("")).await.unwrap().into_inner();
                stream.next().await.unwrap().unwrap();
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(authority.token_requests(), 2);
    assert_eq!(server.heads().len(), 1 + 1000 + authority.refusals());
    assert!((1..=1000).contains(&authority.refusals()));
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
            let ok = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
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
