//! Two scripted servers: one that issues tokens, one that asks for them.

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
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::{sync::Semaphore, time::Instant};
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_oauth::{
    AccessToken, OAuthLayer, Origins, TokenCache, TokenCacheBuilder, TokenError, TokenErrorKind, TokenSource,
};
use tracing_subscriber::fmt::MakeWriter;

pub(crate) type Body = Full<Bytes>;
pub(crate) type Client = BoxCloneService<Request<Body>, Response<Body>, BoxError>;

pub(crate) const API: &str = "https://api.test";

/// What the issuer does with one token request.
pub(crate) enum Plan {
    /// A new token that the API takes, with this lifetime.
    Issue(Duration),
    /// A new token that the API does not take.
    #[allow(dead_code)] // for the tests of telemetry
    IssueRevoked,
    /// The token it issued last, whatever became of it.
    SameAgain,
    Fail,
    Hang,
    Panic,
}

/// Issues `token-1`, `token-2`, … and tells the API of them.
#[derive(Clone)]
pub(crate) struct Issuer(Arc<Issuing>);

struct Issuing {
    api: Api,
    asked: AtomicUsize,
    issued: AtomicUsize,
    plans: Mutex<VecDeque<Plan>>,
    closed: AtomicBool,
    door: Semaphore,
    down: AtomicBool,
    takes: Mutex<Duration>,
}

impl Issuer {
    pub(crate) const LIFETIME: Duration = Duration::from_secs(3600);

    pub(crate) fn new(api: &Api) -> Self {
        Self(Arc::new(Issuing {
            api: api.clone(),
            asked: AtomicUsize::new(0),
            issued: AtomicUsize::new(0),
            plans: Mutex::default(),
            closed: AtomicBool::new(false),
            door: Semaphore::new(0),
            down: AtomicBool::new(false),
            takes: Mutex::default(),
        }))
    }

    /// The next requests, in order; after them, every request gets a token for [`Self::LIFETIME`].
    pub(crate) fn plan(&self, plans: impl IntoIterator<Item = Plan>) {
        lock(&self.0.plans).extend(plans);
    }

    /// Lets requests wait at the door from now on, until [`Self::let_in`].
    pub(crate) fn close_the_door(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn let_in(&self, requests: usize) {
        self.0.door.add_permits(requests);
    }

    /// How long a request takes from now on.
    pub(crate) fn takes(&self, time: Duration) {
        *lock(&self.0.takes) = time;
    }

    /// Refuses all requests from now on, or takes them again.
    pub(crate) fn is_down(&self, down: bool) {
        self.0.down.store(down, Ordering::SeqCst);
    }

    /// How many token requests came.
    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    fn token(number: usize) -> Result<AccessToken, TokenError> {
        AccessToken::bearer(format!("token-{number}"))
    }
}

impl TokenSource for Issuer {
    async fn fetch(&self) -> Result<AccessToken, TokenError> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        if self.0.closed.load(Ordering::SeqCst) {
            self.0.door.acquire().await.unwrap().forget();
        }
        if self.0.down.load(Ordering::SeqCst) {
            return Err(TokenError::new(TokenErrorKind::Transport, "the issuer is down"));
        }
        let takes = *lock(&self.0.takes);
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let plan = lock(&self.0.plans).pop_front().unwrap_or(Plan::Issue(Self::LIFETIME));
        match plan {
            Plan::Issue(lifetime) => {
                let number = self.0.issued.fetch_add(1, Ordering::SeqCst) + 1;
                self.0.api.accept(number);
                Ok(Self::token(number)?.expires_in(lifetime))
            }
            Plan::IssueRevoked => {
                let number = self.0.issued.fetch_add(1, Ordering::SeqCst) + 1;
                Ok(Self::token(number)?.expires_in(Self::LIFETIME))
            }
            Plan::SameAgain => {
                Ok(Self::token(self.0.issued.load(Ordering::SeqCst))?.expires_in(Self::LIFETIME))
            }
            Plan::Fail => Err(TokenError::new(TokenErrorKind::Transport, "the issuer is down")),
            Plan::Hang => std::future::pending().await,
            Plan::Panic => panic!("the issuer has a bug"),
        }
    }
}

/// Takes requests with a valid token and answers 401 to all others.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Serving>);

#[derive(Default)]
struct Serving {
    valid: Mutex<BTreeSet<String>>,
    seen: Mutex<Vec<Seen>>,
}

/// A request as the API saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) token: Option<String>,
    pub(crate) body: Bytes,
    pub(crate) status: StatusCode,
}

impl Api {
    pub(crate) fn accept(&self, number: usize) {
        lock(&self.0.valid).insert(format!("token-{number}"));
    }

    pub(crate) fn revoke(&self, number: usize) {
        lock(&self.0.valid).remove(&format!("token-{number}"));
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.0.seen).clone()
    }

    /// The statuses given so far, each with the token it was given to.
    pub(crate) fn transcript(&self) -> Vec<String> {
        let seen = self.seen();
        seen.iter()
            .map(|seen| format!("{} {}", seen.token.as_deref().unwrap_or("-"), seen.status.as_u16()))
            .collect()
    }

    pub(crate) fn answer(&self, token: Option<String>, body: Bytes) -> Response<Body> {
        let known = token.as_ref().is_some_and(|token| lock(&self.0.valid).contains(token));
        let status = if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        lock(&self.0.seen).push(Seen { token, body, status });
        let mut response = Response::new(Full::from("answer"));
        *response.status_mut() = status;
        response
    }

    /// The API as a service. It yields once before it looks at the token, as a network does.
    pub(crate) fn service(
        &self,
    ) -> impl tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
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

pub(crate) fn bearer<B>(request: &Request<B>) -> Option<String> {
    let value = request.headers().get(AUTHORIZATION)?;
    assert!(value.is_sensitive() || !value.as_bytes().starts_with(b"Bearer token-"));
    Some(value.to_str().unwrap().trim_start_matches("Bearer ").to_owned())
}

/// Issuer, API, and a client of both.
pub(crate) struct World {
    pub(crate) issuer: Issuer,
    pub(crate) api: Api,
    pub(crate) cache: TokenCache,
    pub(crate) client: Client,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|cache| cache)
    }

    /// A world whose cache has settings of its own.
    pub(crate) fn with(settings: impl FnOnce(TokenCacheBuilder) -> TokenCacheBuilder) -> Self {
        let api = Api::default();
        let issuer = Issuer::new(&api);
        let cache = settings(TokenCache::builder(issuer.clone())).build();
        let layer = OAuthLayer::new(cache.clone(), Origins::new([API]).unwrap());
        let client = BoxCloneService::new(ServiceBuilder::new().layer(layer).service(api.service()));
        Self { issuer, api, cache, client }
    }

    /// A world whose cache holds `token-1`.
    pub(crate) async fn with_token() -> Self {
        let world = Self::new();
        world.cache.token().await.unwrap();
        world
    }

    pub(crate) async fn get(&self) -> Result<StatusCode, BoxError> {
        Ok(self.client.clone().oneshot(get("/orders")).await?.status())
    }
}

/// How long the machine has slept: so far is the wall clock ahead of the monotonic one.
#[derive(Clone, Default)]
pub(crate) struct Asleep(Arc<Mutex<Duration>>);

impl Asleep {
    pub(crate) fn for_another(&self, time: Duration) {
        *lock(&self.0) += time;
    }

    pub(crate) fn wall_clock(&self, cache: TokenCacheBuilder) -> TokenCacheBuilder {
        let (asleep, start) = (Arc::clone(&self.0), (Instant::now(), SystemTime::now()));
        cache.wall_clock(move || start.1 + start.0.elapsed() + *lock(&asleep))
    }
}

/// A clock that [`tokio::time::advance`] alone moves. Tokio's paused clock leaps to the next timer whenever nothing can run, also where an
/// answer is still on its way through a socket; as long as a blocking task runs, it does not.
pub(crate) struct StoppedClock {
    _held: mpsc::Sender<()>,
}

impl StoppedClock {
    /// What waits for good is let go then, and fails by its time limits.
    const LONGEST: Duration = Duration::from_secs(60);

    pub(crate) fn new() -> Self {
        let (held, until_dropped) = mpsc::channel();
        tokio::task::spawn_blocking(move || until_dropped.recv_timeout(Self::LONGEST).ok());
        Self { _held: held }
    }
}

/// Everything that tracing is told on this thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
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

/// Waits until the next attempt is made.
pub(crate) async fn after_back_off(error: &TokenError) {
    tokio::time::sleep(error.next_attempt_in().expect("a back-off")).await;
}

pub(crate) fn token_error(error: &BoxError) -> &TokenError {
    error.downcast_ref().unwrap_or_else(|| panic!("no TokenError: {error}"))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// A file of this test alone, gone at its end.
pub(crate) struct File(pub(crate) PathBuf);

impl File {
    pub(crate) fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tower-oauth-{name}-{}", std::process::id())))
    }

    pub(crate) fn write(&self, content: &str) {
        fs::write(&self.0, content).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}
