//! What the story plays against, on sockets of this machine: a token endpoint that knows one client (RFC 6749 §4.4)
//! and an API that looks every bearer token up (RFC 6750).

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
/// More than the callers that come at once.
const MAX_CONCURRENT_STREAMS: u32 = 4096;

pub(crate) struct Servers {
    pub(crate) token_url: String,
    pub(crate) api_origin: String,
    pub(crate) state: Arc<State>,
}

impl Servers {
    pub(crate) async fn start() -> io::Result<Self> {
        let state = Arc::default();
        let token_url = format!("http://{}/token", listen(&state, token_endpoint).await?);
        let api_origin = format!("http://{}", listen(&state, api).await?);
        Ok(Self { token_url, api_origin, state })
    }
}

/// What both servers know.
#[derive(Default)]
pub(crate) struct State {
    /// Each token that was issued and not revoked, with its expiry.
    pub(crate) valid_tokens: RwLock<HashMap<String, Instant>>,
    pub(crate) ledger: watch::Sender<Ledger>,
}

/// What the servers have seen so far.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) token_requests: u32,
    pub(crate) api_requests: u32,
    /// The paths that were answered 401.
    pub(crate) refused: HashSet<String>,
}

async fn token_endpoint(state: Arc<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    state.ledger.send_modify(|ledger| ledger.token_requests += 1);
    if !is_our_client(request.headers()) {
        return refusal("invalid_client", HeaderValue::from_static(r#"Basic realm="token endpoint""#));
    }
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    let form: HashMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
    if form.get("grant_type").is_none_or(|grant_type| grant_type != "client_credentials") {
        return answer(StatusCode::BAD_REQUEST, &json!({"error": "unsupported_grant_type"}));
    }
    let token = format!("{:016x}", RandomState::new().hash_one("access token"));
    state.valid_tokens.write().await.insert(token.clone(), Instant::now() + LIFETIME);
    let granted = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": LIFETIME.as_secs(),
        "scope": form.get("scope"),
    });
    answer(StatusCode::OK, &granted)
}

/// Id and secret are form-encoded, with a colon between (RFC 6749 §2.3.1): a form, were it an equals sign.
fn is_our_client(headers: &HeaderMap) -> bool {
    let credentials = credentials(headers, "Basic ").and_then(|base64| BASE64_STANDARD.decode(base64).ok());
    let pair = credentials.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let form = pair.replacen(':', "=", 1);
    form_urlencoded::parse(form.as_bytes()).eq([(CLIENT_ID.into(), CLIENT_SECRET.into())])
}

async fn api(state: Arc<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    state.ledger.send_modify(|ledger| ledger.api_requests += 1);
    let expiry = match credentials(request.headers(), "Bearer ") {
        Some(token) => state.valid_tokens.read().await.get(token).copied(),
        None => None,
    };
    if expiry.is_some_and(|expiry| Instant::now() < expiry) {
        return answer(StatusCode::OK, &json!({"order": request.uri().path()}));
    }
    state.ledger.send_modify(|ledger| ledger.refused.extend([request.uri().path().to_owned()]));
    refusal("invalid_token", HeaderValue::from_static(r#"Bearer error="invalid_token""#))
}

fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix(scheme)
}

fn refusal(error: &str, challenge: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::UNAUTHORIZED, &json!({"error": error}));
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Serves HTTP/1 and HTTP/2 on a free port until the process ends.
async fn listen<F>(
    state: &Arc<State>,
    serve: fn(Arc<State>, Request<Incoming>) -> F,
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
                let answer = serve(Arc::clone(&state), request);
                async { Ok::<_, Infallible>(answer.await) }
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
