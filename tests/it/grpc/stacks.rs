//! Tonic clients over a tonic channel, with real servers.

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
use tokio_rustls::rustls::crypto::ring;
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{
    Code, Status,
    codec::CompressionEncoding,
    service::interceptor::InterceptedService,
    transport::{
        Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
    },
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceBuilder;
use tower_oauth::{
    OAuth, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind, replay::TonicBody,
    source_fn,
};

use crate::{
    loopback::{Authority, serve},
    support::lock,
};

type Service = OAuth<Channel, TonicBody>;

/// A tonic server that checks the token of each call and records the headers of each call.
struct HealthService {
    address: SocketAddr,
    headers: Arc<Mutex<Vec<HeaderMap>>>,
}

impl HealthService {
    async fn start(authority: &Authority) -> Self {
        Self::start_on(Server::builder(), authority).await
    }

    async fn start_on(mut server: Server, authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let headers = Arc::<Mutex<Vec<_>>>::default();
        let (authority, recorded) = (authority.clone(), Arc::clone(&headers));
        let check = move |request: tonic::Request<()>| {
            let headers = request.metadata().clone().into_headers();
            let accepts = authority.accepts(&headers);
            lock(&recorded).push(headers);
            let rejection = Status::unauthenticated("the token is not valid");
            if accepts { Ok(request) } else { Err(rejection) }
        };
        let (_, health) = tonic_health::server::health_reporter();
        let gzip = CompressionEncoding::Gzip;
        let service =
            InterceptedService::new(health.accept_compressed(gzip).send_compressed(gzip), check);
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
        Self { address, headers }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    /// Removes and returns the recorded headers of all calls so far.
    fn take_headers(&self) -> Vec<HeaderMap> {
        mem::take(&mut lock(&self.headers))
    }
}

async fn health_service(authority: &Authority) -> Channel {
    HealthService::start(authority).await.endpoint().connect_lazy()
}

async fn with_tokens(authority: &Authority, channel: Channel) -> Service {
    let oauth = OAuthLayer::new(authority.cache().await, Origins::without_authority());
    ServiceBuilder::new().layer(oauth.grpc()).service(channel)
}

/// Checks the number of token requests and of rejections since the start of the test.
fn assert_requests(authority: &Authority, token_requests: usize, rejections: usize) {
    assert_eq!((authority.token_requests(), authority.refusals()), (token_requests, rejections));
}

#[tokio::test]
async fn unary_call() {
    let authority = Authority::default();
    let channel = health_service(&authority).await;
    let mut client = HealthClient::new(with_tokens(&authority, channel).await);
    for expected in 1..=2 {
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.set_timeout(Duration::from_secs(20));
        client.check(request).await.unwrap();
        assert_requests(&authority, expected, expected - 1);
        authority.revoke_all();
    }
}

#[tokio::test]
async fn retry_has_the_deadline_metadata_and_extensions() {
    #[derive(Clone, Debug, PartialEq)]
    struct Extension(&'static str);

    let authority = Authority::default();
    let server = HealthService::start(&authority).await;
    let extensions = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&extensions);
    let oauth = OAuthLayer::new(authority.cache().await, Origins::without_authority()).grpc();
    let service = ServiceBuilder::new()
        .layer(oauth)
        .map_request(move |request: Request<tonic::body::Body>| {
            lock(&recorded).push(request.extensions().get::<Extension>().cloned());
            request
        })
        .service(server.endpoint().connect_lazy());
    let mut client = HealthClient::new(service);
    client.check(message("")).await.unwrap();
    authority.revoke_all();
    server.take_headers();
    lock(&extensions).clear();

    let mut request = tonic::Request::new(message(""));
    request.set_timeout(Duration::from_secs(20));
    request.metadata_mut().append("x-several", "one".parse().unwrap());
    request.metadata_mut().append("x-several", "two".parse().unwrap());
    request
        .metadata_mut()
        .insert_bin("x-bytes-bin", tonic::metadata::MetadataValue::from_bytes(b"\0\xff"));
    request.extensions_mut().insert(Extension("kept"));
    client.check(request).await.unwrap();

    let mut headers = server.take_headers();
    let tokens: Vec<_> =
        headers.iter_mut().map(|headers| headers.remove(AUTHORIZATION).unwrap()).collect();
    assert_eq!(tokens, ["Bearer T0KEN-1", "Bearer T0KEN-2"]);
    // The size of the body is known on the retry only, because the body has been recorded.
    headers[1].remove(CONTENT_LENGTH);
    assert_eq!(headers[0], headers[1]);
    assert_eq!(headers[1]["grpc-timeout"], "20000000u");
    assert_eq!(headers[1].get_all("x-several").iter().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(headers[1]["x-bytes-bin"], "AP8");
    assert_eq!(*lock(&extensions), [Some(Extension("kept")), Some(Extension("kept"))]);
}

#[tokio::test]
async fn compressed_call_and_response() {
    let authority = Authority::default();
    let server = HealthService::start(&authority).await;
    let gzip = CompressionEncoding::Gzip;
    let mut client =
        HealthClient::new(with_tokens(&authority, server.endpoint().connect_lazy()).await)
            .send_compressed(gzip)
            .accept_compressed(gzip);
    for expected in 1..=2 {
        let response = client.check(message("")).await.unwrap();
        assert_eq!(response.metadata().get("grpc-encoding").unwrap(), "gzip");
        assert_requests(&authority, expected, expected - 1);
        authority.revoke_all();
    }
    assert!(server.take_headers().iter().all(|headers| headers["grpc-encoding"] == "gzip"));
}

#[tokio::test]
async fn balanced_channel() {
    let authority = Authority::default();
    let servers = [HealthService::start(&authority).await, HealthService::start(&authority).await];
    let channel = Channel::balance_list(servers.iter().map(HealthService::endpoint));
    let client = HealthClient::new(with_tokens(&authority, channel).await);
    for expected in 1..=2 {
        let calls = (0..100).map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.check(message("")).await.unwrap() })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        assert_eq!(authority.token_requests(), expected);
        assert!(
            servers.iter().all(|server| !server.take_headers().is_empty()),
            "each server gets calls"
        );
        authority.revoke_all();
    }
}

#[tokio::test]
async fn tls_channel() {
    // Rustls has no default provider if both are compiled in. Another test may have installed one.
    ring::default_provider().install_default().ok();
    let authority = Authority::default();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let identity = Identity::from_pem(cert.pem(), signing_key.serialize_pem());
    let tls = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    let server = HealthService::start_on(tls, &authority).await;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert.pem()));
    let url = format!("https://localhost:{}", server.address.port());
    let channel = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap().connect_lazy();
    let mut client = HealthClient::new(with_tokens(&authority, channel).await);
    for expected in 1..=2 {
        client.check(message("")).await.unwrap();
        assert_requests(&authority, expected, expected - 1);
        authority.revoke_all();
    }
}

/// Half of the calls are unary and half are server streams. They run on several threads.
#[tokio::test(flavor = "multi_thread")]
async fn thousand_calls_with_a_revoked_token_cost_one_refresh() {
    let authority = Authority::default();
    let server = HealthService::start(&authority).await;
    let client = HealthClient::new(with_tokens(&authority, server.endpoint().connect_lazy()).await);
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
    assert_eq!(server.take_headers().len(), 1 + 1000 + authority.refusals());
    assert!((1..=1000).contains(&authority.refusals()));
}

#[tokio::test]
async fn server_stream() {
    let authority = Authority::default();
    let channel = health_service(&authority).await;
    let mut client = HealthClient::new(with_tokens(&authority, channel).await);
    for expected in 1..=2 {
        let mut stream = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert!(stream.next().await.unwrap().is_ok());
        assert_requests(&authority, expected, expected - 1);
        authority.revoke_all();
    }
}

/// Starts a service that echoes each message. A call without a valid token is rejected before any
/// message is read.
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
                .body(
                    tonic::body::Body::empty()
                        .map_err(|never| unreachable!("{never}"))
                        .boxed_unsync(),
                )
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
async fn client_stream_continues_on_the_retry() {
    let authority = Authority::default();
    let channel = echo_service(&authority).await;
    let mut client = tonic::client::Grpc::new(with_tokens(&authority, channel).await);
    for expected in 1..=2 {
        let (send, messages) = tokio::sync::mpsc::channel(8);
        send.send(message("before")).await.unwrap();
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/test.Echo/Both");
        let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
        let call = client.streaming(tonic::Request::new(messages), path, Codec::default());
        let mut responses = call.await.unwrap().into_inner();
        assert_eq!(responses.next().await.unwrap().unwrap(), message("before"));
        send.send(message("after")).await.unwrap();
        assert_eq!(responses.next().await.unwrap().unwrap(), message("after"));
        drop(send);
        assert!(responses.next().await.is_none());
        assert_requests(&authority, expected, expected - 1);
        authority.revoke_all();
    }
}

#[tokio::test]
async fn call_above_the_cap_is_not_retried_but_invalidates_the_token() {
    let authority = Authority::default();
    let channel = health_service(&authority).await;
    let mut client = HealthClient::new(with_tokens(&authority, channel).await);
    client.check(message("")).await.unwrap();
    authority.revoke_all();
    let large = message(&"x".repeat(TonicBody::DEFAULT_CAP + 1));
    assert_eq!(client.check(large).await.unwrap_err().code(), Code::Unauthenticated);
    client.check(message("")).await.unwrap();
    assert_requests(&authority, 2, 1);
}

#[tokio::test]
async fn call_without_a_token_fails_with_the_reason() {
    let authority = Authority::default();
    let channel = health_service(&authority).await;
    let tokens = TokenCache::new(source_fn(|_| async {
        Err(TokenError::new(TokenErrorKind::Transport, "server unreachable"))
    }));
    let oauth = OAuthLayer::new(tokens, Origins::without_authority()).grpc();
    let mut client = HealthClient::new(ServiceBuilder::new().layer(oauth).service(channel));
    let status = client.check(message("")).await.unwrap_err();
    assert!(format!("{status:?}").contains("server unreachable"), "{status:?}");
}
