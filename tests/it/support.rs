//! Test fixtures: a scripted token source, a fake API that accepts its tokens, and helpers.

use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_oauth::{
    AccessToken, FetchContext, OAuthLayer, Origins, TokenCache, TokenCacheBuilder, TokenError,
    TokenErrorKind, TokenSource,
};
use tracing_subscriber::fmt::MakeWriter;

pub(crate) type Body = Full<Bytes>;
pub(crate) type Client = BoxCloneService<Request<Body>, Response<Body>, BoxError>;

/// The only origin that receives tokens.
pub(crate) const API: &str = "https://api.test";

/// The reply of a [`ScriptedSource`] to one token request.
pub(crate) enum Reply {
    /// Issues a new token with this lifetime. The API accepts it.
    Issue(Duration),
    /// Issues a new token that the API rejects.
    IssueRevoked,
    /// Returns the token that was issued last, even if it has been revoked since.
    RepeatLast,
    /// Fails with a transport error.
    Fail,
    /// Never completes.
    Hang,
    /// Panics.
    Panic,
}

/// A token source that issues `token-1`, `token-2`, … and registers them with the API.
#[derive(Clone)]
pub(crate) struct ScriptedSource(Arc<SourceState>);

struct SourceState {
    api: FakeApi,
    requests: AtomicUsize,
    issued: AtomicUsize,
    script: Mutex<VecDeque<Reply>>,
    held: AtomicBool,
    permits: Semaphore,
    down: AtomicBool,
    latency: Mutex<Duration>,
}

impl ScriptedSource {
    pub(crate) const LIFETIME: Duration = Duration::from_secs(3600);

    pub(crate) fn new(api: &FakeApi) -> Self {
        Self(Arc::new(SourceState {
            api: api.clone(),
            requests: AtomicUsize::new(0),
            issued: AtomicUsize::new(0),
            script: Mutex::default(),
            held: AtomicBool::new(false),
            permits: Semaphore::new(0),
            down: AtomicBool::new(false),
            latency: Mutex::default(),
        }))
    }

    /// Adds replies to the script. A request after the last reply gets a token for
    /// [`Self::LIFETIME`].
    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.0.script).extend(replies);
    }

    /// Blocks each request from now on, until [`Self::release_requests`] lets it continue.
    pub(crate) fn hold_requests(&self) {
        self.0.held.store(true, Ordering::SeqCst);
    }

    /// Lets this many held requests continue, including requests that arrive later.
    pub(crate) fn release_requests(&self, requests: usize) {
        self.0.permits.add_permits(requests);
    }

    /// Sets the time that a request takes from now on.
    pub(crate) fn set_latency(&self, latency: Duration) {
        *lock(&self.0.latency) = latency;
    }

    /// Fails all requests from now on, or stops failing them.
    pub(crate) fn set_down(&self, down: bool) {
        self.0.down.store(down, Ordering::SeqCst);
    }

    /// Returns the number of token requests so far.
    pub(crate) fn request_count(&self) -> usize {
        self.0.requests.load(Ordering::SeqCst)
    }

    fn token(number: usize) -> Result<AccessToken, TokenError> {
        AccessToken::bearer(format!("token-{number}"))
    }
}

impl TokenSource for ScriptedSource {
    async fn fetch(&self, _context: FetchContext) -> Result<AccessToken, TokenError> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        if self.0.held.load(Ordering::SeqCst) {
            self.0.permits.acquire().await.unwrap().forget();
        }
        if self.0.down.load(Ordering::SeqCst) {
            return Err(TokenError::new(TokenErrorKind::Transport, "the issuer is down"));
        }
        let latency = *lock(&self.0.latency);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let reply = lock(&self.0.script).pop_front().unwrap_or(Reply::Issue(Self::LIFETIME));
        match reply {
            Reply::Issue(lifetime) => {
                let number = self.0.issued.fetch_add(1, Ordering::SeqCst) + 1;
                self.0.api.accept(number);
                Ok(Self::token(number)?.expires_in(lifetime))
            }
            Reply::IssueRevoked => {
                let number = self.0.issued.fetch_add(1, Ordering::SeqCst) + 1;
                Ok(Self::token(number)?.expires_in(Self::LIFETIME))
            }
            Reply::RepeatLast => {
                let number = self.0.issued.load(Ordering::SeqCst);
                Ok(Self::token(number)?.expires_in(Self::LIFETIME))
            }
            Reply::Fail => Err(TokenError::new(TokenErrorKind::Transport, "the issuer is down")),
            Reply::Hang => std::future::pending().await,
            Reply::Panic => panic!("the issuer has a bug"),
        }
    }
}

/// A resource server that accepts requests with a valid token and answers 401 to all others.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<ApiState>);

#[derive(Default)]
struct ApiState {
    valid: Mutex<BTreeSet<String>>,
    requests: Mutex<Vec<RecordedRequest>>,
}

/// A request that the API received, with the status of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordedRequest {
    pub(crate) token: Option<String>,
    pub(crate) body: Bytes,
    pub(crate) status: StatusCode,
}

impl FakeApi {
    /// Accepts `token-<number>` from now on.
    pub(crate) fn accept(&self, number: usize) {
        lock(&self.0.valid).insert(format!("token-{number}"));
    }

    /// Rejects `token-<number>` from now on.
    pub(crate) fn revoke(&self, number: usize) {
        lock(&self.0.valid).remove(&format!("token-{number}"));
    }

    /// Returns the requests received so far.
    pub(crate) fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.0.requests).clone()
    }

    /// Returns one line per request: the token and the status of the response.
    pub(crate) fn transcript(&self) -> Vec<String> {
        let requests = self.requests();
        requests
            .iter()
            .map(|request| {
                let token = request.token.as_deref().unwrap_or("-");
                format!("{token} {}", request.status.as_u16())
            })
            .collect()
    }

    /// Records a request and returns the response to it.
    pub(crate) fn answer(&self, token: Option<String>, body: Bytes) -> Response<Body> {
        let valid = token.as_ref().is_some_and(|token| lock(&self.0.valid).contains(token));
        let status = if valid { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        lock(&self.0.requests).push(RecordedRequest { token, body, status });
        let mut response = Response::new(Full::from("answer"));
        *response.status_mut() = status;
        response
    }

    /// Returns the API as a service. It yields once before it checks the token, as a network does.
    pub(crate) fn service(
        &self,
    ) -> impl tower::Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + use<> {
        let api = self.clone();
        tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                tokio::task::yield_now().await;
                let token = bearer(&request);
                let body = http_body_util::BodyExt::collect(request.into_body()).await?.to_bytes();
                Ok(api.answer(token, body))
            }
        })
    }
}

/// Returns the bearer token of a request. Checks that a token of [`ScriptedSource`] is marked
/// sensitive.
pub(crate) fn bearer<B>(request: &Request<B>) -> Option<String> {
    let value = request.headers().get(AUTHORIZATION)?;
    assert!(value.is_sensitive() || !value.as_bytes().starts_with(b"Bearer token-"));
    Some(value.to_str().unwrap().trim_start_matches("Bearer ").to_owned())
}

/// A token source, an API, a cache, and a client with a layer over that cache.
pub(crate) struct TestSetup {
    pub(crate) source: ScriptedSource,
    pub(crate) api: FakeApi,
    pub(crate) cache: TokenCache,
    pub(crate) client: Client,
}

impl TestSetup {
    pub(crate) fn new() -> Self {
        Self::with_settings(|cache| cache)
    }

    /// Builds a setup and applies `settings` to its cache.
    pub(crate) fn with_settings(
        settings: impl FnOnce(TokenCacheBuilder) -> TokenCacheBuilder,
    ) -> Self {
        let api = FakeApi::default();
        let source = ScriptedSource::new(&api);
        let cache = settings(TokenCache::builder(source.clone())).build();
        let layer = OAuthLayer::new(cache.clone(), Origins::new([API]).unwrap());
        let service = ServiceBuilder::new().layer(layer).service(api.service());
        Self { source, api, cache, client: BoxCloneService::new(service) }
    }

    /// Builds a setup with `token-1` already in its cache.
    pub(crate) async fn with_token() -> Self {
        let setup = Self::new();
        setup.cache.token().await.unwrap();
        setup
    }

    /// Sends one `GET` request through the client and returns the status.
    pub(crate) async fn get(&self) -> Result<StatusCode, BoxError> {
        Ok(self.client.clone().oneshot(get("/orders")).await?.status())
    }
}

/// A guard that stops tokio's clock. Only [`tokio::time::advance`] moves it.
///
/// Tokio's paused clock jumps to the next timer when no task can run, even if a response is still
/// on its way through a socket. It does not jump while a blocking task runs, so this guard keeps
/// one running.
pub(crate) struct StoppedClock {
    _held: mpsc::Sender<()>,
}

impl StoppedClock {
    /// The real time after which the clock is released. A test that waits forever then fails by
    /// its own time limits.
    const LONGEST: Duration = Duration::from_secs(60);

    pub(crate) fn new() -> Self {
        let (held, until_dropped) = mpsc::channel();
        tokio::task::spawn_blocking(move || until_dropped.recv_timeout(Self::LONGEST).ok());
        Self { _held: held }
    }
}

/// A writer that keeps the output of a tracing subscriber.
#[derive(Clone, Default)]
pub(crate) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl io::Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for CapturedLog {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl CapturedLog {
    /// Returns the output so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(lock(&self.0).clone()).unwrap()
    }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(format!("{API}{path}")).body(Body::default()).unwrap()
}

pub(crate) fn post(body: &'static str) -> Request<Body> {
    Request::post(format!("{API}/orders")).body(Full::from(body)).unwrap()
}

/// Sleeps until the cache allows the next attempt.
pub(crate) async fn wait_for_backoff(error: &TokenError) {
    tokio::time::sleep(error.next_attempt_in().expect("the error has a back-off")).await;
}

pub(crate) fn token_error(error: &BoxError) -> &TokenError {
    error.downcast_ref().unwrap_or_else(|| panic!("not a TokenError: {error}"))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// A file in the temporary directory that is removed when the value is dropped.
pub(crate) struct TempFile(pub(crate) PathBuf);

impl TempFile {
    pub(crate) fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tower-oauth-{name}-{}", std::process::id())))
    }

    pub(crate) fn write(&self, content: &str) {
        fs::write(&self.0, content).unwrap();
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}
