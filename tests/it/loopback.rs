//! Real servers on the loopback interface: a token endpoint and an API that accepts its tokens.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, time::Instant};
use tower_oauth::{ClientAuth, ClientCredentials, OAuthLayer, Origins, TokenCache, TokenEndpoint};

use crate::support::{Body, lock};

/// The state that the token endpoint and the API share: the valid tokens and two counters.
#[derive(Clone, Default)]
pub(crate) struct Authority(Arc<AuthorityState>);

#[derive(Default)]
struct AuthorityState {
    /// Each valid token with the instant at which it was issued.
    valid: Mutex<BTreeMap<String, Instant>>,
    token_requests: AtomicUsize,
    rejections: AtomicUsize,
}

impl Authority {
    /// The only registered client: its id and its secret.
    pub(crate) const CLIENT: (&str, &str) = ("my client", "s3cr%t:+ü");

    pub(crate) fn revoke_all(&self) {
        lock(&self.0.valid).clear();
    }

    /// Returns the number of tokens issued so far.
    pub(crate) fn token_requests(&self) -> usize {
        self.0.token_requests.load(Ordering::SeqCst)
    }

    /// Returns the number of requests that the API has rejected so far.
    pub(crate) fn refusals(&self) -> usize {
        self.0.rejections.load(Ordering::SeqCst)
    }

    /// Returns true if the headers have a valid token. Counts a rejection otherwise.
    pub(crate) fn accepts(&self, headers: &http::HeaderMap) -> bool {
        self.accepts_from_age(Duration::ZERO, headers)
    }

    /// Like [`accepts`](Self::accepts), for a replica that learns of a token `lag` after its issue.
    pub(crate) fn accepts_from_age(&self, lag: Duration, headers: &http::HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value.unwrap_or_default().strip_prefix("Bearer ").unwrap_or_default();
        let valid = lock(&self.0.valid);
        let accepts = valid.get(token).is_some_and(|issued| issued.elapsed() >= lag);
        self.0.rejections.fetch_add(usize::from(!accepts), Ordering::SeqCst);
        accepts
    }

    fn issue(&self) -> String {
        let number = self.0.token_requests.fetch_add(1, Ordering::SeqCst) + 1;
        let token = format!("T0KEN-{number}");
        lock(&self.0.valid).insert(token.clone(), Instant::now());
        token
    }

    /// Issues a token and returns it as the body of a token response (RFC 6749 §5.1).
    pub(crate) fn issue_as_json(&self) -> String {
        let token = self.issue();
        format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600}}"#)
    }

    /// Starts a token endpoint.
    pub(crate) async fn token_endpoint(&self) -> SocketAddr {
        let authority = self.clone();
        serve(move |request| {
            let authority = authority.clone();
            async move {
                if !is_registered_client(&request) {
                    return json(401, r#"{"error":"invalid_client"}"#);
                }
                let form = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(form, "grant_type=client_credentials");
                json(200, &authority.issue_as_json())
            }
        })
        .await
    }

    /// Starts an API that returns the body of each request.
    pub(crate) async fn api(&self) -> SocketAddr {
        let authority = self.clone();
        serve(move |request| {
            let authority = authority.clone();
            async move {
                let accepts = authority.accepts(request.headers());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut response = Response::new(Full::new(body));
                if !accepts {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                }
                response
            }
        })
        .await
    }

    /// Returns a cache with a token endpoint of its own.
    pub(crate) async fn cache(&self) -> TokenCache {
        let (id, secret) = Self::CLIENT;
        let url = format!("http://{}/oauth2/token", self.token_endpoint().await);
        let auth = ClientAuth::client_secret_basic(id, secret);
        let endpoint = TokenEndpoint::with_transport(url, auth, http1_client()).unwrap();
        TokenCache::new(ClientCredentials::new(endpoint))
    }

    /// Returns a layer for the API at `address`.
    pub(crate) async fn layer(&self, address: SocketAddr) -> OAuthLayer {
        let origins = Origins::new([format!("http://{address}")]).unwrap();
        OAuthLayer::new(self.cache().await, origins)
    }
}

fn is_registered_client(request: &Request<Incoming>) -> bool {
    use base64::{Engine, prelude::BASE64_STANDARD};

    let value = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap());
    let pair = BASE64_STANDARD.decode(value.unwrap().strip_prefix("Basic ").unwrap()).unwrap();
    let pair = String::from_utf8(pair).unwrap();
    let (id, secret) = pair.split_once(':').unwrap();
    let decode = |text: &str| {
        let form = format!("x={text}");
        form_urlencoded::parse(form.as_bytes()).next().unwrap().1.into_owned()
    };
    (decode(id).as_str(), decode(secret).as_str()) == Authority::CLIENT
}

pub(crate) type HyperClient =
    hyper_util::client::legacy::Client<hyper_util::client::legacy::connect::HttpConnector, Body>;

pub(crate) fn http1_client() -> HyperClient {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) fn http2_client() -> HyperClient {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

pub(crate) fn json(status: u16, body: &str) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::from(body.to_owned())).unwrap()
}

/// Serves HTTP/1 and HTTP/2 until the runtime of the test is dropped.
pub(crate) async fn serve<F, Fut, B>(handler: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    serve_counting(handler, Arc::default()).await
}

/// Like [`serve`], and counts the connections.
pub(crate) async fn serve_counting<F, Fut, B>(
    handler: F,
    connections: Arc<AtomicUsize>,
) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.fetch_add(1, Ordering::SeqCst);
            let handler = handler.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let response = handler(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().max_concurrent_streams(2000);
                let stream = TokioIo::new(stream);
                server.serve_connection_with_upgrades(stream, service).await.ok();
            });
        }
    });
    address
}
