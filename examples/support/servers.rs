//! Two servers on the loopback interface: a token endpoint with one client (RFC 6749 §4.4), and an
//! API that accepts the bearer tokens of that endpoint (RFC 6750).

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{RwLock, watch},
};

pub(crate) const CLIENT_ID: &str = "quickstart";
pub(crate) const CLIENT_SECRET: &str = "correct horse: battery+staple";
const LIFETIME: Duration = Duration::from_secs(3600);
/// More than the concurrent requests of the quickstart.
const MAX_CONCURRENT_STREAMS: u32 = 4096;

pub(crate) struct Servers {
    pub(crate) token_url: String,
    pub(crate) api_origin: String,
    pub(crate) state: Arc<ServerState>,
}

impl Servers {
    pub(crate) async fn start() -> io::Result<Self> {
        let state = Arc::default();
        let token_url = format!("http://{}/token", listen(&state, token_endpoint).await?);
        let api_origin = format!("http://{}", listen(&state, api).await?);
        Ok(Self { token_url, api_origin, state })
    }
}

/// The state that both servers share.
#[derive(Default)]
pub(crate) struct ServerState {
    /// The issued tokens that are not revoked, with their expiry.
    pub(crate) valid_tokens: RwLock<HashMap<String, Instant>>,
    pub(crate) counts: watch::Sender<Counts>,
}

/// The requests that the servers have received.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) token_requests: u32,
    pub(crate) api_requests: u32,
    /// The paths of the requests that were answered with 401.
    pub(crate) rejected_paths: HashSet<String>,
}

async fn token_endpoint(
    state: Arc<ServerState>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    state.counts.send_modify(|counts| counts.token_requests += 1);
    if !is_known_client(request.headers()) {
        let challenge = HeaderValue::from_static(r#"Basic realm="token endpoint""#);
        return unauthorized("invalid_client", challenge);
    }
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    let form: HashMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
    if form.get("grant_type").is_none_or(|grant_type| grant_type != "client_credentials") {
        return json_response(StatusCode::BAD_REQUEST, &json!({"error": "unsupported_grant_type"}));
    }
    let token = format!("{:016x}", RandomState::new().hash_one("access token"));
    state.valid_tokens.write().await.insert(token.clone(), Instant::now() + LIFETIME);
    let body = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": LIFETIME.as_secs(),
        "scope": form.get("scope"),
    });
    json_response(StatusCode::OK, &body)
}

/// Id and secret are form-encoded and joined with a colon (RFC 6749 §2.3.1). With an equals sign
/// instead of the colon, they are a form.
fn is_known_client(headers: &HeaderMap) -> bool {
    let credentials =
        credentials(headers, "Basic ").and_then(|base64| BASE64_STANDARD.decode(base64).ok());
    let pair = credentials.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let form = pair.replacen(':', "=", 1);
    form_urlencoded::parse(form.as_bytes()).eq([(CLIENT_ID.into(), CLIENT_SECRET.into())])
}

async fn api(state: Arc<ServerState>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    state.counts.send_modify(|counts| counts.api_requests += 1);
    let path = request.uri().path();
    let expiry = match credentials(request.headers(), "Bearer ") {
        Some(token) => state.valid_tokens.read().await.get(token).copied(),
        None => None,
    };
    if expiry.is_some_and(|expiry| Instant::now() < expiry) {
        return json_response(StatusCode::OK, &json!({"order": path}));
    }
    state.counts.send_modify(|counts| counts.rejected_paths.extend([path.to_owned()]));
    unauthorized("invalid_token", HeaderValue::from_static(r#"Bearer error="invalid_token""#))
}

fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix(scheme)
}

fn unauthorized(error: &str, challenge: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = json_response(StatusCode::UNAUTHORIZED, &json!({"error": error}));
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Serves HTTP/1 and HTTP/2 on a free port until the process ends.
async fn listen<F>(
    state: &Arc<ServerState>,
    handler: fn(Arc<ServerState>, Request<Incoming>) -> F,
) -> io::Result<SocketAddr>
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let state = Arc::clone(state);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            let service = service_fn(move |request| {
                let response = handler(Arc::clone(&state), request);
                async { Ok::<_, Infallible>(response.await) }
            });
            tokio::spawn(async move {
                let mut http = auto::Builder::new(TokioExecutor::new());
                http.http2().max_concurrent_streams(MAX_CONCURRENT_STREAMS);
                http.serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
    Ok(address)
}
