//! Token requests that cannot connect: they are tried again, because nothing was sent.

use std::{
    convert::Infallible,
    io,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::Instant,
};
use tokio_rustls::rustls;
use tower::{BoxError, ServiceBuilder, util::BoxCloneService};
use tower_oauth::{
    ClientAuth, ClientCredentials, DefaultTransport, TokenCache, TokenEndpoint, TokenErrorKind,
};

use crate::{loopback::json, support::lock};

type Body = Full<Bytes>;

/// Returns the error of a hyper-util client with a connector that fails with `cause`.
async fn connect_error(cause: io::Error) -> BoxError {
    let cause = Arc::new(Mutex::new(Some(cause)));
    let connector = tower::service_fn(move |_: Uri| {
        let cause = lock(&cause).take().expect("one attempt to connect");
        std::future::ready(Err::<TokioIo<TcpStream>, _>(cause))
    });
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get("https://as.test/").body(Body::default()).unwrap();
    client.request(request).await.unwrap_err().into()
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

/// A transport that fails the first requests and then issues tokens. Records the time of each
/// request.
#[derive(Clone)]
struct Attempts {
    start: Instant,
    made: Arc<Mutex<Vec<u128>>>,
    failures: usize,
    /// The cause of each failure.
    cause: fn() -> io::Error,
}

impl Attempts {
    fn new(failures: usize) -> Self {
        Self { start: Instant::now(), made: Arc::default(), failures, cause: refused }
    }

    /// Returns an endpoint with `wrap` around each connect error.
    fn endpoint(&self, wrap: fn(BoxError) -> BoxError) -> TokenEndpoint {
        let attempts = self.clone();
        let transport = tower::service_fn(move |_: Request<Body>| {
            let attempts = attempts.clone();
            async move {
                let error = connect_error((attempts.cause)()).await;
                let mut made = lock(&attempts.made);
                made.push(attempts.start.elapsed().as_millis());
                if made.len() <= attempts.failures {
                    return Err(wrap(error));
                }
                Ok(Response::new(Body::from(r#"{"access_token":"T0KEN"}"#)))
            }
        });
        let transport = BoxCloneService::new(transport);
        TokenEndpoint::with_transport("https://as.test/token", auth(), transport).unwrap()
    }

    fn times(&self) -> Vec<u128> {
        lock(&self.made).clone()
    }
}

fn auth() -> ClientAuth {
    ClientAuth::client_secret_basic("id", "S3CRET")
}

fn cache(endpoint: TokenEndpoint) -> TokenCache {
    TokenCache::new(ClientCredentials::new(endpoint))
}

#[tokio::test(start_paused = true)]
async fn request_that_cannot_connect_is_tried_three_times() {
    let attempts = Attempts::new(usize::MAX);
    let error = cache(attempts.endpoint(|error| error)).token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(attempts.times(), [0, 100, 500]);
}

#[tokio::test(start_paused = true)]
async fn third_attempt_to_connect_can_succeed() {
    let attempts = Attempts::new(2);
    cache(attempts.endpoint(|error| error)).token().await.unwrap();
    assert_eq!(attempts.times(), [0, 100, 500]);
}

#[tokio::test(start_paused = true)]
async fn connect_error_is_found_among_the_sources() {
    for wrap in [
        (|error| io::Error::other(error).into()) as fn(BoxError) -> BoxError,
        |error| io::Error::other(io::Error::other(error)).into(),
        |error| {
            let message = "the token store is down";
            let error =
                tower_oauth::TokenError::new(TokenErrorKind::Transport, message).with_source(error);
            error.into()
        },
    ] {
        let attempts = Attempts::new(1);
        cache(attempts.endpoint(wrap)).token().await.unwrap();
        assert_eq!(attempts.times(), [0, 100]);
    }
}

#[tokio::test(start_paused = true)]
async fn other_errors_are_not_retried() {
    for wrap in [
        (|_| "connection refused".into()) as fn(BoxError) -> BoxError,
        |_| refused().into(),
        |_| io::Error::from(io::ErrorKind::ConnectionReset).into(),
    ] {
        let attempts = Attempts::new(1);
        let error = cache(attempts.endpoint(wrap)).token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Transport);
        assert_eq!(attempts.times(), [0]);
    }
}

#[tokio::test(start_paused = true)]
async fn tls_errors_are_not_retried() {
    let cause = || {
        let error = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error))
    };
    let attempts = Attempts { cause, ..Attempts::new(1) };
    let error = cache(attempts.endpoint(|error| error)).token().await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert_eq!(attempts.times(), [0]);
}

#[tokio::test(start_paused = true)]
async fn attempts_to_connect_share_the_time_limit() {
    let attempts = Attempts::new(usize::MAX);
    let limit = Duration::from_millis(300);
    let endpoint = attempts.endpoint(|error| error).timeout(limit);
    let error = cache(endpoint).token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert_eq!(attempts.start.elapsed(), limit);
    assert_eq!(attempts.times(), [0, 100]);
}

#[tokio::test(start_paused = true)]
async fn attempts_to_connect_count_as_one_token_request() {
    let attempts = Attempts::new(2);
    let grant = ClientCredentials::new(attempts.endpoint(|error| error));
    let two = NonZeroU32::new(2).unwrap();
    let cache = TokenCache::builder(grant).token_request_limit(two, Duration::from_secs(3600));
    let cache = cache.build();
    for _ in 0..2 {
        let token = cache.token().await.unwrap();
        cache.invalidate(token.generation());
    }
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::LimitReached);
}

/// A server that begins to listen after the first attempt has been refused.
#[tokio::test]
async fn server_that_starts_late_receives_the_second_attempt() {
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/token", bound.local_addr().unwrap());
    let bound = Arc::new(Mutex::new(Some(bound)));
    let listening = Arc::clone(&bound);
    let transport = ServiceBuilder::new()
        .map_err(move |error: BoxError| {
            let bound = lock(&listening).take().expect("one attempt is refused");
            let listener = bound.listen(1).unwrap();
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper::service::service_fn(|_| {
                    let response = json(200, r#"{"access_token":"T0KEN"}"#);
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let server = hyper::server::conn::http1::Builder::new();
                server.serve_connection(TokioIo::new(stream), service).await.ok();
            });
            error
        })
        .service(DefaultTransport::new().unwrap());
    let endpoint = TokenEndpoint::with_transport(url, auth(), transport).unwrap();
    assert_eq!(cache(endpoint).token().await.unwrap().expose_secret(), "T0KEN");
    assert!(lock(&bound).is_none());
}
