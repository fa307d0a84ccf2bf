//! The crypto provider and the root certificates of the ready-made transport, with any features. A
//! binary of its own: it installs a provider for the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a panic is how a test fails

use std::{
    env,
    process::{Command, Stdio},
    sync::Arc,
};

use rcgen::{CertificateParams, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::{
    LazyConfigAcceptor,
    rustls::{
        CipherSuite, NamedGroup, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
        server::Acceptor,
    },
};
use tower_oauth::{ClientAuth, ConfigError, DefaultTransport, TokenEndpoint, TokenRequest};

const HAS_PROVIDER: bool = cfg!(any(feature = "ring", feature = "aws-lc-rs"));
const HAS_ROOTS: bool = cfg!(any(feature = "platform-verifier", feature = "webpki-roots"));

/// A TLS server with a self-signed certificate.
struct Server {
    pem: String,
    config: Arc<ServerConfig>,
}

/// The part of a `ClientHello` that tells the providers apart.
#[derive(Debug)]
struct Hello {
    cipher_suites: Vec<CipherSuite>,
    named_groups: Vec<NamedGroup>,
}

impl Server {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let pem = certificate.pem();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(certificate)], key)
            .unwrap();
        Self { pem, config: Arc::new(config) }
    }

    /// Returns the `ClientHello` of a new transport. Checks that the handshake succeeds.
    async fn hello(&self) -> Hello {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
        let endpoint = TokenEndpoint::new_trusting(url, auth(), &self.pem).unwrap();
        let request = tokio::spawn(async move { endpoint.send(TokenRequest::new("x")).await });
        let (stream, _) = listener.accept().await.unwrap();
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.unwrap();
        let hello = start.client_hello();
        let hello = Hello {
            cipher_suites: hello.cipher_suites().to_vec(),
            named_groups: hello.named_groups().unwrap().to_vec(),
        };
        drop(start.into_stream(Arc::clone(&self.config)).await.unwrap());
        request.await.unwrap().unwrap_err();
        hello
    }
}

fn auth() -> ClientAuth {
    ClientAuth::client_secret_basic("id", "S3CRET")
}

/// One test for both, because a provider stays installed.
#[tokio::test]
async fn installed_provider_replaces_that_of_the_features() {
    const SUITE: CipherSuite = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
    let server = Server::new();
    if HAS_PROVIDER {
        let hello = server.hello().await;
        // Only aws-lc-rs has this group. It is used if both features are enabled.
        let is_aws_lc_rs = hello.named_groups.contains(&NamedGroup::X25519MLKEM768);
        assert_eq!(is_aws_lc_rs, cfg!(feature = "aws-lc-rs"), "{hello:?}");
        assert!(hello.cipher_suites.len() > 5, "{hello:?}");
    } else {
        let error = DefaultTransport::new_trusting(&server.pem).unwrap_err();
        assert_eq!(error, ConfigError::NoCryptoProvider);
        assert!(error.to_string().contains("CryptoProvider::install_default"), "{error}");
        let error = TokenEndpoint::new("https://localhost/token", auth()).unwrap_err();
        assert_eq!(error, ConfigError::NoCryptoProvider);
    }
    // No provider is needed for an `http` URL, and none is installed by a transport.
    TokenEndpoint::new("http://localhost/token", auth()).unwrap();
    assert!(CryptoProvider::get_default().is_none());

    let mut installed = ring::default_provider();
    installed.cipher_suites.retain(|suite| suite.suite() == SUITE);
    installed.install_default().unwrap();
    let suites = server.hello().await.cipher_suites;
    assert!(suites.contains(&SUITE), "{suites:?}");
    assert!(!suites.contains(&CipherSuite::TLS13_AES_128_GCM_SHA256), "{suites:?}");
}

/// Runs in a child process, in which the platform has no root certificates.
#[test]
fn bundled_roots_replace_those_of_the_platform() {
    const NAME: &str = "bundled_roots_replace_those_of_the_platform";
    const NO_CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    if env::var_os("SSL_CERT_FILE").is_none_or(|file| file != NO_CERTIFICATE) {
        let mut child = Command::new(env::current_exe().unwrap());
        let child = child.args(["--exact", NAME]).env("SSL_CERT_FILE", NO_CERTIFICATE);
        let output = child.env_remove("SSL_CERT_DIR").stdin(Stdio::null()).output().unwrap();
        let log = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && log.contains("1 passed"), "{log}");
        return;
    }
    if CryptoProvider::get_default().is_none() {
        ring::default_provider().install_default().unwrap();
    }

    DefaultTransport::new_trusting(Server::new().pem).unwrap();
    let default = DefaultTransport::new().map(drop);
    if cfg!(feature = "platform-verifier") {
        // Elsewhere, the variable has no effect.
        if cfg!(target_os = "linux") {
            let message = default.unwrap_err().to_string();
            assert!(message.contains("feature webpki-roots"), "{message}");
        }
    } else if HAS_ROOTS {
        default.unwrap();
    } else {
        assert_eq!(default, Err(ConfigError::NoRootCertificates));
    }
    #[cfg(feature = "webpki-roots")]
    {
        DefaultTransport::with_bundled_roots().unwrap();
        DefaultTransport::with_bundled_roots_trusting(Server::new().pem).unwrap();
    }
}
