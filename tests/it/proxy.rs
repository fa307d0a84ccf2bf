//! Token requests through a proxy.

use std::{
    convert::Infallible,
    error::Error,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tower_oauth::{
    ClientAuth, ConfigError, DefaultTransport, Issuer, TokenEndpoint, TokenError, TokenErrorKind,
    TokenRequest, TokenUrl,
};

use crate::{loopback::json, support::lock, tls::Authority};

const URL: &str = "https://as.test:8443/token";
const NAMED: &str = "(DefaultTransport::proxy)";

/// The behavior of a proxy after it has read a `CONNECT` request.
#[derive(Clone)]
enum Behavior {
    /// Opens a tunnel to this server, whatever the request says.
    Tunnel(SocketAddr),
    /// Does the same after an interim response, and sends one byte at a time.
    SlowTunnel(SocketAddr),
    /// Sends this answer and closes the connection.
    Answer(String),
    /// Sends nothing and keeps the connection.
    Hang,
}

/// A proxy on the loopback interface that records its requests.
#[derive(Clone)]
struct Proxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start(behavior: Behavior) -> Self {
        Self::start_with(behavior, None).await
    }

    /// Starts a proxy that accepts only TLS, if there is a configuration for it.
    async fn start_with(behavior: Behavior, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let (same, tls) = (proxy.clone(), tls.map(|tls| TlsAcceptor::from(Arc::new(tls))));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (same, tls, behavior) = (same.clone(), tls.clone(), behavior.clone());
                tokio::spawn(async move {
                    match tls {
                        None => same.serve(stream, behavior).await,
                        Some(tls) => same.serve(tls.accept(stream).await.unwrap(), behavior).await,
                    }
                });
            }
        });
        proxy
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, behavior: Behavior) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
        }
        lock(&self.requests).push(String::from_utf8(head).unwrap());
        let opened = "HTTP/1.0 200 Connection established\r\nvia: x\r\n\r\n";
        let server = match behavior {
            Behavior::Tunnel(server) => {
                stream.write_all(opened.as_bytes()).await.unwrap();
                server
            }
            Behavior::SlowTunnel(server) => {
                let interim = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
                for byte in interim.bytes().chain(opened.bytes()) {
                    stream.write_all(&[byte]).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
                server
            }
            Behavior::Answer(answer) => return stream.write_all(answer.as_bytes()).await.unwrap(),
            Behavior::Hang => return std::future::pending().await,
        };
        stream.flush().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        copy_bidirectional(&mut stream, &mut server).await.ok();
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        lock(&self.requests).clone()
    }
}

/// A token endpoint that records the headers of its requests.
struct Server {
    address: SocketAddr,
    headers: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Server {
    /// Starts a server, with TLS if there is a configuration for it.
    async fn start(tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let headers = Arc::<Mutex<Vec<HeaderMap>>>::default();
        let recorded = Arc::clone(&headers);
        let tls = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let recorded = Arc::clone(&recorded);
                let service = service_fn(move |request: Request<Incoming>| {
                    lock(&recorded).push(request.headers().clone());
                    let response = json(200, r#"{"access_token":"T0KEN"}"#);
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let tls = tls.clone();
                tokio::spawn(async move {
                    let server = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => server.serve_connection(TokioIo::new(stream), service).await.ok(),
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            server.serve_connection(TokioIo::new(stream), service).await.ok()
                        }
                    };
                });
            }
        });
        Self { address, headers }
    }

    fn headers(&self) -> Vec<HeaderMap> {
        lock(&self.headers).clone()
    }
}

fn auth() -> ClientAuth {
    ClientAuth::client_secret_basic("id", "S3CRET")
}

fn trusting(authority: &Authority) -> DefaultTransport {
    DefaultTransport::new_trusting(&authority.pem).unwrap()
}

/// Sends a token request and returns the token.
async fn request_token(url: TokenUrl, transport: DefaultTransport) -> Result<String, TokenError> {
    let endpoint = TokenEndpoint::with_transport(url, auth(), transport).unwrap();
    let response = endpoint.send(TokenRequest::new("client_credentials")).await?;
    Ok(response.access_token().expose_secret().to_owned())
}

/// Does the same. Returns an error of kind `Transport` as [`shown`].
async fn fetch(url: TokenUrl, transport: DefaultTransport) -> Result<String, String> {
    request_token(url, transport).await.map_err(|error| {
        assert_eq!(error.kind(), TokenErrorKind::Transport, "{error}");
        shown(&error)
    })
}

/// Returns an error with all its sources, and its `Debug` text.
fn shown(error: &TokenError) -> String {
    let mut shown = format!("{error}\n{error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        write!(shown, "\n{cause}\n{cause:?}").unwrap();
        source = cause.source();
    }
    shown
}

fn url(url: &str) -> TokenUrl {
    url.parse().unwrap()
}

#[tokio::test]
async fn tunnel_carries_the_token_request_to_the_server() {
    let authority = Authority::new();
    let server = Server::start(Some(authority.server("as.test", |_| ()))).await;
    for (user, credentials) in
        [("", ""), ("me:pr0xy%40@", "proxy-authorization: Basic bWU6cHIweHlA\r\n")]
    {
        for behavior in [Behavior::Tunnel(server.address), Behavior::SlowTunnel(server.address)] {
            let proxy = Proxy::start(behavior).await;
            let transport = trusting(&authority);
            let transport = transport.proxy(&format!("http://{user}{}", proxy.address)).unwrap();
            assert_eq!(format!("{transport:?}"), "DefaultTransport { .. }");
            assert_eq!(fetch(url(URL), transport).await.unwrap(), "T0KEN");
            let connect =
                format!("CONNECT as.test:8443 HTTP/1.1\r\nhost: as.test:8443\r\n{credentials}\r\n");
            assert_eq!(proxy.requests(), [connect]);
        }
    }
    let headers = server.headers();
    assert_eq!(headers.len(), 4);
    assert!(headers.iter().all(|headers| headers.get("proxy-authorization").is_none()));
}

#[tokio::test]
async fn proxy_with_an_https_url_is_reached_with_tls() {
    let authority = Authority::new();
    let server = Server::start(Some(authority.server("as.test", |_| ()))).await;
    let tls = authority.server("localhost", |_| ());
    let proxy = Proxy::start_with(Behavior::Tunnel(server.address), Some(tls)).await;
    let transport = trusting(&authority);
    let proxy_url = format!("https://me:pr0xy@localhost:{}", proxy.address.port());
    let transport = transport.proxy(&proxy_url).unwrap();
    assert_eq!(fetch(url(URL), transport).await.unwrap(), "T0KEN");
    assert_eq!(proxy.requests().len(), 1);
}

#[tokio::test]
async fn untrusted_certificate_of_a_proxy_is_named() {
    let tls = Authority::new().server("localhost", |_| ());
    let proxy = Proxy::start_with(Behavior::Hang, Some(tls)).await;
    let transport = trusting(&Authority::new());
    let port = proxy.address.port();
    let transport = transport.proxy(&format!("https://localhost:{port}")).unwrap();
    let error = fetch(url(URL), transport).await.unwrap_err();
    let place = format!("no connection to the proxy localhost:{port} {NAMED}: ");
    assert!(error.contains(&place), "{error}");
    assert!(error.contains("check the certificate of the proxy"), "{error}");
    assert_eq!(proxy.requests(), [""; 0]);
}

/// The certificate of the server is checked as without a proxy.
#[tokio::test]
async fn certificate_behind_a_proxy_must_be_trusted() {
    let authority = Authority::new();
    for (name, signer) in [("other.test", &authority), ("as.test", &Authority::new())] {
        let server = Server::start(Some(signer.server(name, |_| ()))).await;
        let proxy = Proxy::start(Behavior::Tunnel(server.address)).await;
        let transport = trusting(&authority).proxy(&proxy.url()).unwrap();
        let error = fetch(url(URL), transport).await.unwrap_err();
        assert!(error.contains("check the certificate of the server"), "{error}");
        assert_eq!((server.headers().len(), proxy.requests().len()), (0, 1));
    }
}

#[tokio::test]
async fn plain_http_uses_a_named_proxy_except_to_this_machine() {
    let server = Server::start(None).await;
    let proxy = Proxy::start(Behavior::Tunnel(server.address)).await;
    let transport = trusting(&Authority::new()).proxy(&proxy.url()).unwrap();
    let plain = TokenUrl::danger_plain_http("http://as.test/token").unwrap();
    assert_eq!(fetch(plain, transport.clone()).await.unwrap(), "T0KEN");
    let connect = "CONNECT as.test:80 HTTP/1.1\r\nhost: as.test:80\r\n\r\n";
    assert_eq!(proxy.requests(), [connect]);

    let local = url(&format!("http://{}/token", server.address));
    assert_eq!(fetch(local, transport).await.unwrap(), "T0KEN");
    assert_eq!(proxy.requests().len(), 1);
}

#[tokio::test]
async fn last_proxy_setter_counts() {
    let authority = Authority::new();
    let server = Server::start(Some(authority.server("localhost", |_| ()))).await;
    let local = url(&format!("https://localhost:{}/token", server.address.port()));
    let unused = Proxy::start(Behavior::Hang).await;
    let proxy = Proxy::start(Behavior::Tunnel(server.address)).await;
    let transport = trusting(&authority).proxy(&unused.url()).unwrap();

    let direct = transport.clone().no_proxy();
    assert_eq!(fetch(local.clone(), direct.clone()).await.unwrap(), "T0KEN");
    assert_eq!(proxy.requests().len(), 0);
    for transport in [transport, direct] {
        let transport = transport.proxy(&proxy.url()).unwrap();
        assert_eq!(fetch(local.clone(), transport).await.unwrap(), "T0KEN");
    }
    assert_eq!((unused.requests().len(), proxy.requests().len()), (0, 2));
}

/// A refusal is final and not repeated: a proxy may block a user name after a few wrong passwords.
#[tokio::test]
async fn each_failure_of_a_proxy_has_its_own_advice() {
    let answer = |status| format!("HTTP/1.1 {status}\r\nproxy-authenticate: Basic\r\n\r\nbody");
    let (no_user, user) = ("", "me:pr0xy@");
    let check_address = "check whether this is the host and the port of an HTTP proxy";
    let cases = [
        (
            no_user,
            answer("403 Forbidden"),
            "it answered 403 Forbidden",
            "permit CONNECT requests",
            1,
        ),
        (no_user, answer("405 No"), "it answered 405 Method", "permit CONNECT requests", 1),
        (no_user, answer("407 Who"), "it answered 407", "add a user name and a password", 1),
        (user, answer("407 Who"), "it answered 407", "check the user name and the password", 1),
        (user, answer("401 Wrong"), "it answered 401", "check the user name and the password", 1),
        (user, answer("502 Bad"), "it answered 502 Bad Gateway", "resolve the name of this", 3),
        (no_user, answer("504 Late"), "it answered 504 Gateway", "resolve the name of this", 3),
        (user, "SSH-2.0-x\r\n\r\n".to_owned(), "its answer is not HTTP", check_address, 3),
        (user, String::new(), "it closed the connection", check_address, 3),
        (user, "HTTP/1.1 200 OK\r\n".to_owned(), "it closed the connection", check_address, 3),
        (user, answer("200 OK"), "its answer continues after its head", check_address, 3),
        (user, "HTTP/1.1 200 ".repeat(2000), "its answer is too large", check_address, 3),
    ];
    let cases = cases.map(|(user, answer, what, advice, attempts)| async move {
        let proxy = Proxy::start(Behavior::Answer(answer)).await;
        let transport = trusting(&Authority::new());
        let transport = transport.proxy(&format!("http://{user}{}", proxy.address)).unwrap();
        let error = request_token(url(URL), transport).await.unwrap_err();
        assert_eq!(error.is_final(), attempts == 1, "{error}");
        let error = shown(&error);
        let place = format!("the proxy {} {NAMED} opened no tunnel", proxy.address);
        for part in [place.as_str(), what, advice] {
            assert!(error.contains(part), "{part}: {error}");
        }
        for secret in ["pr0xy@", "bWU6", "S3CRET", "body"] {
            assert!(!error.contains(secret), "{secret}: {error}");
        }
        assert_eq!(proxy.requests().len(), attempts, "{error}");
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn metadata_request_uses_the_proxy_too() {
    let proxy = Proxy::start(Behavior::Answer("HTTP/1.1 403 No\r\n\r\n".to_owned())).await;
    let transport = trusting(&Authority::new()).proxy(&proxy.url()).unwrap();
    let issuer: Issuer = "https://issuer.test".parse().unwrap();
    let endpoint = TokenEndpoint::with_transport(issuer, auth(), transport).unwrap();
    let error = endpoint.send(TokenRequest::new("client_credentials")).await.unwrap_err();
    assert!(error.to_string().contains("403 Forbidden; permit CONNECT requests"), "{error}");
    assert!(proxy.requests()[0].starts_with("CONNECT issuer.test:443 "), "{:?}", proxy.requests());
}

#[tokio::test]
async fn closed_port_of_a_proxy_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let transport = trusting(&Authority::new());
    let transport = transport.proxy(&format!("http://me:pr0xy@{address}")).unwrap();
    let error = fetch(url(URL), transport).await.unwrap_err();
    let message = format!("no connection to the proxy {address} {NAMED}: ");
    assert!(error.contains(&message) && error.contains("refused"), "{error}");
    assert!(error.contains("check the host and the port of the proxy"), "{error}");
    assert!(!error.contains("pr0xy@"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn proxy_that_hangs_is_left_after_the_connect_limit() {
    let proxy = Proxy::start(Behavior::Hang).await;
    let transport = trusting(&Authority::new()).proxy(&proxy.url()).unwrap();
    let start = Instant::now();
    let error = fetch(url(URL), transport).await.unwrap_err();
    let message = format!("the proxy {} {NAMED} opened no tunnel within 5s", proxy.address);
    assert!(error.contains(&message), "{error}");
    assert!(error.contains("check the health of the proxy"), "{error}");
    let delays: Duration = TokenEndpoint::CONNECT_RETRY_DELAYS.iter().sum();
    assert_eq!(start.elapsed().as_secs(), (TokenEndpoint::CONNECT_TIMEOUT * 3 + delays).as_secs());
    assert_eq!(proxy.requests().len(), 3);
}

#[test]
fn unusable_proxy_is_an_error_of_the_setter() {
    let transport = trusting(&Authority::new());
    let error = transport.proxy("socks5://me:pr0xy@p.test:1080").unwrap_err();
    assert!(matches!(error, ConfigError::Proxy { .. }), "{error:?}");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("DefaultTransport::proxy") && !shown.contains("pr0xy@"), "{shown}");
}

#[cfg(feature = "config")]
mod configured {
    use tower_oauth::config::ProviderConfig;

    use super::*;
    use crate::support::TempFile;

    fn config(source: &str) -> ProviderConfig {
        config_for(URL, source)
    }

    fn config_for(url: &str, source: &str) -> ProviderConfig {
        let config = format!(
            "[source]\ntoken_url = '{url}'\n{source}\n[source.client_auth]\nclient_id = 'id'\n\
             client_secret = 'S3CRET'"
        );
        toml::from_str(&config).unwrap()
    }

    #[tokio::test]
    async fn key_names_the_proxy() {
        let authority = Authority::new();
        let ca_file = TempFile::new("proxy-ca");
        ca_file.write(&authority.pem);
        let server = Server::start(Some(authority.server("as.test", |_| ()))).await;
        let proxy = Proxy::start(Behavior::Tunnel(server.address)).await;
        for bundled in [false, cfg!(feature = "webpki-roots")] {
            let source = format!(
                "bundled_roots = {bundled}\nca_file = '{}'\nproxy = '{}'",
                ca_file.0.display(),
                proxy.url()
            );
            let cache = config(&source).token_cache().unwrap();
            assert_eq!(cache.token().await.unwrap().expose_secret(), "T0KEN");
        }
        assert_eq!(proxy.requests().len(), 2);

        let refused = Proxy::start(Behavior::Answer("HTTP/1.1 403 no\r\n\r\n".into())).await;
        let cache = config(&format!("proxy = '{}'", refused.url())).token_cache().unwrap();
        let message = cache.token().await.unwrap_err().to_string();
        assert!(message.contains(&format!("{} (source.proxy)", refused.address)), "{message}");
    }

    #[tokio::test]
    async fn key_of_the_proxy_counts_for_a_plain_http_url() {
        let server = Server::start(None).await;
        let proxy = Proxy::start(Behavior::Tunnel(server.address)).await;
        let source = format!("danger_plain_http = true\nproxy = '{}'", proxy.url());
        let cache = config_for("http://as.test/token", &source).token_cache().unwrap();
        assert_eq!(cache.token().await.unwrap().expose_secret(), "T0KEN");
        assert_eq!(proxy.requests().len(), 1);
    }

    #[test]
    fn unusable_proxy_is_an_error_of_its_key() {
        for (source, key, problem) in [
            (
                "proxy = 'socks5://me:pr0xy@p.test'",
                "`source.proxy`",
                "needs the scheme http or https",
            ),
            ("proxy = { env = 'TOWER_OAUTH_UNSET' }", "`source.proxy`", "is not set"),
            ("proxy = 'http://p.test'\nno_proxy = true", "`source.no_proxy`", "remove one"),
        ] {
            let error = config(source).token_cache().unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(problem), "{error}");
            assert!(!error.contains("pr0xy@") && !error.contains("::"), "{error}");
        }
    }
}

/// Runs token requests in child processes, with other variables each. On Linux, 0.0.0.0 is this
/// machine, and it is not a loopback address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn environment_names_the_proxy_and_the_exceptions() {
    use std::{
        env,
        process::{Command, Stdio},
    };

    use crate::support::TempFile;

    const NAME: &str = "proxy::environment_names_the_proxy_and_the_exceptions";
    const CHILD: &str = "TOWER_OAUTH_TEST_CHILD";
    if let Ok(arguments) = env::var(CHILD) {
        let (token_url, ca_file) = arguments.split_once(' ').unwrap();
        let pem = std::fs::read(ca_file).unwrap();
        let endpoint = TokenEndpoint::new_trusting(token_url, auth(), pem).unwrap();
        match endpoint.send(TokenRequest::new("client_credentials")).await {
            Ok(response) => println!("token: {}", response.access_token().expose_secret()),
            Err(error) => println!("error: {error} [{:?}]", error.kind()),
        }
        return;
    }

    let authority = Authority::new();
    let server = Server::start(Some(authority.server("0.0.0.0", |_| ()))).await;
    let proxy = Proxy::start(Behavior::Tunnel(server.address)).await;
    let ca_file = TempFile::new("proxy-ca");
    ca_file.write(&authority.pem);
    let token_url = format!("https://0.0.0.0:{}/token", server.address.port());
    let arguments = format!("{token_url} {}", ca_file.0.display());
    let (url, token) = (proxy.url(), "token: T0KEN");
    for (variables, is_proxied, said) in [
        (&[("HTTPS_PROXY", url.as_str())][..], true, token),
        (&[("https_proxy", &url)], true, token),
        (&[("ALL_PROXY", &url), ("NO_PROXY", "as.test")], true, token),
        (&[("all_proxy", &url), ("NO_PROXY", "0.0.0.0")], false, token),
        (&[("HTTPS_PROXY", &url), ("no_proxy", "*")], false, token),
        (&[("HTTP_PROXY", &url), ("http_proxy", &url)], false, token),
        (&[("HTTPS_PROXY", "socks5://me:pr0xy@p.test"), ("NO_PROXY", "0.0.0.0")], false, token),
        (
            &[("HTTPS_PROXY", "socks5://me:pr0xy@p.test")],
            false,
            "exempt this server from the proxy with NO_PROXY [Configuration]",
        ),
    ] {
        let mut child = Command::new(env::current_exe().unwrap());
        for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
            child.env_remove(name).env_remove(name.to_ascii_lowercase());
        }
        child.args(["--exact", NAME, "--nocapture"]).env(CHILD, &arguments);
        child.envs(variables.iter().copied()).stdin(Stdio::null());
        let before = proxy.requests().len();
        let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
        let output = String::from_utf8_lossy(&output.stdout);
        assert!(output.contains(said) && !output.contains("pr0xy@"), "{variables:?}: {output}");
        assert_eq!(proxy.requests().len() > before, is_proxied, "{variables:?}");
    }
}
