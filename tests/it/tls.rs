//! TLS as it is: certificates are made here, and refused or taken by the ready-made transport.

use std::sync::Arc;

use http::{Request, header::AUTHORIZATION};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    },
};
use tower_oauth::{
    CachedToken, ClientAuth, ClientCredentials, ConfigError, TokenCache, TokenEndpoint, TokenError,
    TokenErrorKind,
};

use crate::loopback::json;

/// A certificate authority that nobody knows.
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

    pub(crate) fn server(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new([host.to_owned()]).unwrap();
        change(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![CertificateDer::clone(certificate.der())];
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        config.with_no_client_auth().with_single_cert(chain, key).unwrap()
    }

    fn localhost(&self) -> ServerConfig {
        self.server("localhost", |_| ())
    }
}

#[derive(Debug, PartialEq)]
enum Seen {
    Handshake { completed: bool },
    Request { authorization: String },
    End,
}

/// A token endpoint for one connection, and what comes to it.
async fn serve(config: ServerConfig) -> (String, UnboundedReceiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
    let (say, seen) = unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve_connection(config, stream, &say).await;
        say.send(Seen::End).ok();
    });
    (url, seen)
}

async fn serve_connection(config: ServerConfig, stream: TcpStream, say: &UnboundedSender<Seen>) {
    let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    say.send(Seen::Handshake { completed: stream.is_ok() }).ok();
    let Ok(stream) = stream else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let authorization = request.headers()[AUTHORIZATION].to_str().unwrap().to_owned();
        say.send(Seen::Request { authorization }).ok();
        async { Ok::<_, std::convert::Infallible>(json(200, r#"{"access_token":"T0KEN"}"#)) }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn all(mut seen: UnboundedReceiver<Seen>) -> Vec<Seen> {
    let mut all = Vec::new();
    while let Some(seen) = seen.recv().await {
        all.push(seen);
    }
    all
}

fn auth() -> ClientAuth {
    ClientAuth::client_secret_basic("id", "S3CRET")
}

async fn fetch(endpoint: Result<TokenEndpoint, ConfigError>) -> Result<CachedToken, TokenError> {
    TokenCache::new(ClientCredentials::new(endpoint.unwrap())).token().await
}

/// The message with which a client that trusts `pem` refuses the server, to which it shows nothing.
async fn refused(config: ServerConfig, pem: Option<&str>) -> String {
    let (url, seen) = serve(config).await;
    let endpoint = match pem {
        Some(pem) => TokenEndpoint::new_trusting(url, auth(), pem),
        None => TokenEndpoint::new(url, auth()),
    };
    let error = fetch(endpoint).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport, "{error}");
    assert_eq!(all(seen).await, [Seen::Handshake { completed: false }, Seen::End]);
    error.to_string()
}

#[tokio::test]
async fn a_server_of_a_private_authority_is_refused_by_default() {
    let message = refused(Authority::new().localhost(), None).await;
    assert!(message.contains("UnknownIssuer"), "{message}");
}

#[tokio::test]
async fn a_server_of_a_private_authority_is_refused_where_another_is_trusted() {
    let message = refused(Authority::new().localhost(), Some(&Authority::new().pem)).await;
    assert!(message.contains("UnknownIssuer") || message.contains("BadSignature"), "{message}");
}

#[tokio::test]
async fn a_server_of_a_private_authority_is_accepted_where_it_is_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    for pem in [authority.pem.clone(), format!("# comment\n{}\n{}", other.pem, authority.pem)] {
        let (url, seen) = serve(authority.localhost()).await;
        let token = fetch(TokenEndpoint::new_trusting(url, auth(), pem)).await.unwrap();
        assert_eq!(token.expose_secret(), "T0KEN");
        let authorization = "Basic aWQ6UzNDUkVU".to_owned();
        assert_eq!(
            all(seen).await,
            [Seen::Handshake { completed: true }, Seen::Request { authorization }, Seen::End]
        );
    }
}

#[tokio::test]
async fn an_expired_certificate_of_a_trusted_authority_is_refused_and_the_message_says_so() {
    let authority = Authority::new();
    let expired = authority.server("localhost", |parameters| {
        parameters.not_before = date_time_ymd(2001, 1, 1);
        parameters.not_after = date_time_ymd(2002, 1, 1);
    });
    let message = refused(expired, Some(&authority.pem)).await;
    assert!(message.contains("expired"), "{message}");
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_refused_and_the_message_says_so() {
    let authority = Authority::new();
    let early = authority.server("localhost", |parameters| {
        parameters.not_before = date_time_ymd(4000, 1, 1);
    });
    let message = refused(early, Some(&authority.pem)).await;
    assert!(message.contains("not valid yet"), "{message}");
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused_and_the_message_says_which() {
    let authority = Authority::new();
    let message = refused(authority.server("other.test", |_| ()), Some(&authority.pem)).await;
    assert!(message.contains("not valid for name") && message.contains("localhost"), "{message}");
    assert!(message.contains("other.test"), "{message}");
}

#[test]
fn what_has_no_certificate_of_an_authority_is_a_configuration_error_that_says_so() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    let cut = Authority::new().pem.replace("-----END CERTIFICATE-----", "");
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (pem, said) in [
        ("", "no certificate"),
        ("garbage", "no certificate"),
        (key.as_str(), "no certificate"),
        (cut.as_str(), "not PEM"),
        ("-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n", "not PEM"),
        (no_certificate, "certificate"),
    ] {
        let error = TokenEndpoint::new_trusting("https://localhost/token", auth(), pem).unwrap_err();
        assert!(matches!(error, ConfigError::Certificates { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(said), "{pem}: {message}");
        let secret = key.lines().nth(1).unwrap();
        assert!(!message.contains(secret), "{message}");
    }
}

#[test]
fn authorities_that_cannot_be_read_are_not_blamed_on_the_roots_of_the_machine() {
    let error = TokenEndpoint::new_trusting("https://localhost/token", auth(), "garbage").unwrap_err();
    assert!(!error.to_string().contains("ca-certificates"), "{error}");
}

#[tokio::test]
async fn a_plain_port_behind_an_https_url_is_a_transport_error_and_sees_no_secret() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = vec![0; 4096];
        let length = stream.read(&mut seen).await.unwrap();
        seen.truncate(length);
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut seen).await.ok();
        seen
    });
    let error = fetch(TokenEndpoint::new(url, auth())).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    let seen = String::from_utf8_lossy(&server.await.unwrap()).into_owned();
    assert!(!seen.is_empty() && !seen.contains("POST") && !seen.contains("aWQ6UzNDUkVU"), "{seen}");
}
