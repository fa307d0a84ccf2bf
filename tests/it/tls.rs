//! The default transport over TLS, with certificates that the tests create.

use std::sync::Arc;

use http::{Request, header::AUTHORIZATION};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
        sign::{CertifiedKey, SingleCertAndKey},
    },
};
use tower_oauth::{
    CachedToken, ClientAuth, ClientCredentials, ConfigError, TokenCache, TokenEndpoint, TokenError,
    TokenErrorKind,
};

use crate::loopback::json;

/// A private certificate authority that is not among the roots of the machine.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new([]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(parameters, key) }
    }

    /// Returns the configuration of a server with a certificate for `host`. `change` may change the
    /// certificate before it is signed.
    pub(crate) fn server(
        &self,
        host: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new([host.to_owned()]).unwrap();
        change(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        server_config(certificate.into(), &key)
    }

    fn localhost(&self) -> ServerConfig {
        self.server("localhost", |_| ())
    }
}

/// A self-signed certificate as `openssl req -x509` makes it: its own authority (`CA:TRUE`).
struct SelfSigned {
    pem: String,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl SelfSigned {
    /// Creates a certificate for `host`. `change` may change it before it is signed.
    fn new(host: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new([host.to_owned()]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut parameters);
        let certificate = parameters.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), certificate: certificate.into(), key }
    }

    fn server(&self) -> ServerConfig {
        server_config(self.certificate.clone(), &self.key)
    }
}

fn server_config(certificate: CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()
}

/// An event on the server side of a connection.
#[derive(Debug, PartialEq)]
enum Event {
    Handshake { completed: bool },
    Request { authorization: String },
    End,
}

/// Starts a token endpoint for one connection. Returns its URL and the events of the connection.
async fn serve(config: ServerConfig) -> (String, UnboundedReceiver<Event>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
    let (sender, events) = unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve_connection(config, stream, &sender).await;
        sender.send(Event::End).ok();
    });
    (url, events)
}

async fn serve_connection(
    config: ServerConfig,
    stream: TcpStream,
    events: &UnboundedSender<Event>,
) {
    let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    events.send(Event::Handshake { completed: stream.is_ok() }).ok();
    let Ok(stream) = stream else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let authorization = request.headers()[AUTHORIZATION].to_str().unwrap().to_owned();
        events.send(Event::Request { authorization }).ok();
        async { Ok::<_, std::convert::Infallible>(json(200, r#"{"access_token":"T0KEN"}"#)) }
    });
    let builder = hyper::server::conn::http1::Builder::new();
    builder.serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn all(mut events: UnboundedReceiver<Event>) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some(event) = events.recv().await {
        all.push(event);
    }
    all
}

fn auth() -> ClientAuth {
    ClientAuth::client_secret_basic("id", "S3CRET")
}

async fn fetch(endpoint: Result<TokenEndpoint, ConfigError>) -> Result<CachedToken, TokenError> {
    TokenCache::new(ClientCredentials::new(endpoint.unwrap())).token().await
}

/// Returns the error message of a client that trusts `pem`, or the roots of the machine without
/// `pem`. Checks that the handshake fails and that the server receives no request.
async fn handshake_error(config: ServerConfig, pem: Option<&str>) -> String {
    let (url, events) = serve(config).await;
    let endpoint = match pem {
        Some(pem) => TokenEndpoint::new_trusting(url, auth(), pem),
        None => TokenEndpoint::new(url, auth()),
    };
    let error = fetch(endpoint).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport, "{error}");
    assert_eq!(all(events).await, [Event::Handshake { completed: false }, Event::End]);
    error.to_string()
}

#[tokio::test]
async fn private_authority_is_not_trusted_by_default() {
    let message = handshake_error(Authority::new().localhost(), None).await;
    assert!(message.contains("UnknownIssuer"), "{message}");
    assert!(message.contains("use TokenEndpoint::new_trusting"), "{message}");
}

#[tokio::test]
async fn private_authority_is_not_trusted_when_another_one_is() {
    let other = Authority::new();
    let message = handshake_error(Authority::new().localhost(), Some(&other.pem)).await;
    assert!(message.contains("UnknownIssuer") || message.contains("BadSignature"), "{message}");
}

#[tokio::test]
async fn configured_private_authority_is_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    for pem in [authority.pem.clone(), format!("# comment\n{}\n{}", other.pem, authority.pem)] {
        let (url, events) = serve(authority.localhost()).await;
        let token = fetch(TokenEndpoint::new_trusting(url, auth(), pem)).await.unwrap();
        assert_eq!(token.expose_secret(), "T0KEN");
        let authorization = "Basic aWQ6UzNDUkVU".to_owned();
        assert_eq!(
            all(events).await,
            [Event::Handshake { completed: true }, Event::Request { authorization }, Event::End]
        );
    }
}

/// Without `close_notify`, a response without a length may have been cut off (RFC 8446 §6.1).
#[tokio::test]
async fn response_without_length_needs_the_end_of_the_tls_session() {
    for (head, is_complete) in [("content-length: 24\r\n", true), ("", false)] {
        let authority = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
        let acceptor = TlsAcceptor::from(Arc::new(authority.localhost()));
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"grant_type=client_credentials") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            let response = format!("HTTP/1.1 200 OK\r\n{head}\r\n{{\"access_token\":\"T0KEN\"}}");
            stream.write_all(response.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            stream.into_inner().0.shutdown().await.unwrap();
        });
        let fetched = fetch(TokenEndpoint::new_trusting(url, auth(), &authority.pem)).await;
        match fetched {
            Ok(token) => assert!(is_complete && token.expose_secret() == "T0KEN"),
            Err(error) => {
                assert!(!is_complete && error.to_string().contains("close_notify"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn expired_certificate_is_an_error_that_says_so() {
    let authority = Authority::new();
    let expired = authority.server("localhost", |parameters| {
        parameters.not_before = date_time_ymd(2001, 1, 1);
        parameters.not_after = date_time_ymd(2002, 1, 1);
    });
    let message = handshake_error(expired, Some(&authority.pem)).await;
    assert!(message.contains("expired"), "{message}");
}

#[tokio::test]
async fn certificate_that_is_not_valid_yet_is_an_error_that_says_so() {
    let authority = Authority::new();
    let early = authority.server("localhost", |parameters| {
        parameters.not_before = date_time_ymd(4000, 1, 1);
    });
    let message = handshake_error(early, Some(&authority.pem)).await;
    assert!(message.contains("not valid yet"), "{message}");
}

#[tokio::test]
async fn certificate_of_another_host_is_an_error_with_both_names() {
    let authority = Authority::new();
    let other_host = authority.server("other.test", |_| ());
    let message = handshake_error(other_host, Some(&authority.pem)).await;
    assert!(message.contains("not valid for name") && message.contains("localhost"), "{message}");
    assert!(message.contains("other.test"), "{message}");
}

#[tokio::test]
async fn self_signed_certificate_that_is_trusted_is_accepted() {
    for is_ca in [IsCa::Ca(BasicConstraints::Unconstrained), IsCa::ExplicitNoCa, IsCa::NoCa] {
        let certificate = SelfSigned::new("localhost", |parameters| parameters.is_ca = is_ca);
        let (url, events) = serve(certificate.server()).await;
        let token = fetch(TokenEndpoint::new_trusting(url, auth(), &certificate.pem)).await;
        assert_eq!(token.unwrap().expose_secret(), "T0KEN");
        assert_eq!(all(events).await[0], Event::Handshake { completed: true });
    }
}

#[tokio::test]
async fn another_self_signed_certificate_is_refused() {
    let trusted = SelfSigned::new("localhost", |_| ());
    let other = SelfSigned::new("localhost", |_| ());
    handshake_error(other.server(), Some(&trusted.pem)).await;
    handshake_error(other.server(), None).await;
    // The same key, but not the same certificate.
    let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let same_key = parameters.self_signed(&trusted.key).unwrap();
    let server = server_config(same_key.into(), &trusted.key);
    handshake_error(server, Some(&trusted.pem)).await;
}

#[tokio::test]
async fn trusted_self_signed_certificate_needs_its_key() {
    let trusted = SelfSigned::new("localhost", |_| ());
    let thief = KeyPair::generate().unwrap();
    let provider = ring::default_provider();
    let key = PrivatePkcs8KeyDer::from(thief.serialize_der()).into();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let certified = CertifiedKey::new(vec![trusted.certificate.clone()], key);
    let config = ServerConfig::builder_with_provider(Arc::new(provider));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let server = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    let message = handshake_error(server, Some(&trusted.pem)).await;
    assert!(message.contains("BadSignature"), "{message}");
}

#[tokio::test]
async fn trusted_self_signed_certificate_is_checked_for_its_name() {
    let other_host = SelfSigned::new("other.test", |_| ());
    let message = handshake_error(other_host.server(), Some(&other_host.pem)).await;
    assert!(message.contains("not valid for name") && message.contains("other.test"), "{message}");
}

#[tokio::test]
async fn trusted_self_signed_certificate_is_checked_for_its_time() {
    let expired = SelfSigned::new("localhost", |parameters| {
        parameters.not_before = date_time_ymd(2001, 1, 1);
        parameters.not_after = date_time_ymd(2002, 1, 1);
    });
    let early = SelfSigned::new("localhost", |parameters| {
        parameters.not_before = date_time_ymd(4000, 1, 1);
    });
    for (certificate, said) in [(expired, "expired"), (early, "not valid yet")] {
        let message = handshake_error(certificate.server(), Some(&certificate.pem)).await;
        assert!(message.contains(said), "{message}");
    }
}

#[tokio::test]
async fn self_signed_certificate_is_trusted_as_an_authority_too() {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = parameters.self_signed(&key).unwrap().pem();
    let authority = Authority { pem, issuer: Issuer::new(parameters, key) };
    let (url, events) = serve(authority.localhost()).await;
    fetch(TokenEndpoint::new_trusting(url, auth(), &authority.pem)).await.unwrap();
    assert_eq!(all(events).await[0], Event::Handshake { completed: true });
}

#[test]
fn invalid_pem_is_a_configuration_error_with_its_reason() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    let cut = Authority::new().pem.replace("-----END CERTIFICATE-----", "");
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (pem, said) in [
        ("", "no certificate"),
        ("garbage", "no certificate"),
        (key.as_str(), "no certificate in it, but PRIVATE KEY"),
        (cut.as_str(), "no -----END line"),
        ("-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n", "not Base64"),
        (no_certificate, "certificate"),
    ] {
        let endpoint = TokenEndpoint::new_trusting("https://localhost/token", auth(), pem);
        let error = endpoint.unwrap_err();
        assert!(matches!(error, ConfigError::Certificates { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(said), "{pem}: {message}");
        let secret = key.lines().nth(1).unwrap();
        assert!(!message.contains(secret), "{message}");
    }
}

#[test]
fn invalid_pem_error_does_not_mention_root_certificates() {
    let endpoint = TokenEndpoint::new_trusting("https://localhost/token", auth(), "garbage");
    let error = endpoint.unwrap_err();
    assert!(!error.to_string().contains("ca-certificates"), "{error}");
}

#[tokio::test]
async fn https_to_a_plain_port_is_a_transport_error_without_secret() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = vec![0; 4096];
        let length = stream.read(&mut received).await.unwrap();
        received.truncate(length);
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
        stream.read_to_end(&mut received).await.ok();
        received
    });
    let error = fetch(TokenEndpoint::new(url, auth())).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert!(!error.to_string().contains("certificate"), "{error}");
    let received = String::from_utf8_lossy(&server.await.unwrap()).into_owned();
    assert!(!received.is_empty(), "the server receives the start of a handshake");
    let secret = received.contains("POST") || received.contains("aWQ6UzNDUkVU");
    assert!(!secret, "{received}");
}
