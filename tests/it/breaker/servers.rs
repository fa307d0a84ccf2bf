//! An authorization server and an API for one scenario, and the clients that send requests.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use http::{Request, Response, StatusCode};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_oauth::{
    AccessToken, FetchContext, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind,
    TokenSource,
};

use crate::support::{Body, Client, bearer, lock};

/// The name of a client of endpoints that accept every token.
pub(super) const UNCHECKED: &str = "unchecked";

/// The facts that the API bases its decision on.
pub(super) struct Arrival<'a> {
    pub(super) client: &'static str,
    /// The number of earlier arrivals.
    pub(super) arrivals: usize,
    pub(super) is_revoked: bool,
    /// The time since the token was issued.
    pub(super) token_age: Duration,
    pub(super) rng: &'a mut Rng,
}

type Accepts = Box<dyn FnMut(Arrival<'_>) -> bool + Send>;

struct State {
    issued_at: Vec<Instant>,
    /// The number of token requests so far.
    token_requests: usize,
    /// All tokens up to this number are revoked.
    revoked: usize,
    arrivals: usize,
    is_down: bool,
    lifetime: Duration,
    /// In milliseconds.
    api_latency: Range<u64>,
    accepts: Accepts,
    rng: Rng,
}

#[derive(Clone)]
pub(super) struct Servers {
    state: Arc<Mutex<State>>,
    layer: OAuthLayer,
}

/// A request that was answered.
pub(super) struct Answered {
    pub(super) at: Instant,
    pub(super) client: &'static str,
    pub(super) status: StatusCode,
    /// True if the response carries the error of a failed refresh.
    pub(super) has_error: bool,
}

impl Servers {
    /// Creates servers. Their API rejects revoked tokens, and requests for which `accepts` returns
    /// false. It accepts all requests of the client [`UNCHECKED`].
    pub(super) fn new(
        seed: u64,
        origins: usize,
        lifetime: Duration,
        accepts: impl FnMut(Arrival<'_>) -> bool + Send + 'static,
    ) -> Self {
        let state = Arc::new(Mutex::new(State {
            issued_at: Vec::new(),
            token_requests: 0,
            revoked: 0,
            arrivals: 0,
            is_down: false,
            lifetime,
            api_latency: 5..50,
            accepts: Box::new(accepts),
            rng: Rng::with_seed(seed),
        }));
        let cache = TokenCache::new(AuthorizationServer(Arc::clone(&state)));
        let origins = Origins::new((0..origins).map(uri)).unwrap();
        Self { state, layer: OAuthLayer::new(cache, origins) }
    }

    /// Returns the number of token requests after the first one.
    pub(super) fn refreshes(&self) -> usize {
        lock(&self.state).token_requests - 1
    }

    pub(super) fn issued_at(&self, number: usize) -> Instant {
        lock(&self.state).issued_at[number - 1]
    }

    pub(super) fn has_issued(&self, number: usize) -> bool {
        lock(&self.state).issued_at.len() >= number
    }

    /// Revokes all tokens that were issued so far.
    pub(super) fn revoke_all(&self) {
        let mut state = lock(&self.state);
        state.revoked = state.issued_at.len();
    }

    /// Revokes all tokens at a steady interval, `times` times.
    pub(super) fn revoke_every(&self, interval: Duration, times: u32) {
        let servers = self.clone();
        tokio::spawn(async move {
            for _ in 0..times {
                sleep(interval).await;
                servers.revoke_all();
            }
        });
    }

    pub(super) fn set_down(&self, is_down: bool) {
        lock(&self.state).is_down = is_down;
    }

    /// Returns a client with this name. The API can tell clients apart by name.
    pub(super) fn client(&self, name: &'static str) -> Client {
        let state = Arc::clone(&self.state);
        Client::new(self.layer.layer(service_fn(move |request: Request<Body>| {
            answer(Arc::clone(&state), name, request)
        })))
    }

    /// Makes the API answer at once.
    pub(super) fn without_latency(self) -> Self {
        lock(&self.state).api_latency = 0..1;
        self
    }

    /// Sends requests of one client to one origin at a steady rate for `time`, beginning after
    /// `offset`. Returns the answers.
    pub(super) async fn send(&self, requests: Requests) -> Vec<Answered> {
        let Requests { origin, client, per_second, offset, time } = requests;
        let service = self.client(client);
        let start = Instant::now() + offset;
        let count = (time.as_secs_f64() * f64::from(per_second)).round();
        let mut running = JoinSet::new();
        let mut answers = Vec::new();
        let mut sent = 0;
        while f64::from(sent) < count {
            sleep_until(start + Duration::from_secs(1) * sent / per_second).await;
            sent += 1;
            let service = service.clone();
            running.spawn(async move {
                let request = Request::get(uri(origin)).body(Body::default()).unwrap();
                Answered::new(client, service.oneshot(request).await)
            });
            while let Some(answer) = running.try_join_next() {
                answers.push(answer.unwrap());
            }
        }
        answers.extend(running.join_all().await);
        answers
    }
}

impl Answered {
    fn new(client: &'static str, response: Result<Response<Body>, BoxError>) -> Self {
        let at = Instant::now();
        match response {
            Ok(response) => {
                let has_error = response.extensions().get::<TokenError>().is_some();
                Answered { at, client, status: response.status(), has_error }
            }
            // Counts as a rejection, because the caller has no answer of the API.
            Err(error) => {
                assert!(error.is::<TokenError>(), "{error}");
                let status = StatusCode::UNAUTHORIZED;
                Answered { at, client, status, has_error: true }
            }
        }
    }
}

/// The requests of one client.
#[derive(Clone, Copy)]
pub(super) struct Requests {
    pub(super) origin: usize,
    pub(super) client: &'static str,
    pub(super) per_second: u32,
    pub(super) offset: Duration,
    pub(super) time: Duration,
}

impl Requests {
    pub(super) fn new(per_second: u32, time: Duration) -> Self {
        Self { origin: 0, client: "client", per_second, offset: Duration::ZERO, time }
    }
}

pub(super) fn uri(origin: usize) -> String {
    format!("https://api-{origin}.test")
}

/// Answers a request after some time. The API decides in the middle of that time.
async fn answer(
    state: Arc<Mutex<State>>,
    client: &'static str,
    request: Request<Body>,
) -> Result<Response<Body>, BoxError> {
    let number: usize = bearer(&request).unwrap().parse()?;
    let latency = lock(&state).draw_latency();
    if !latency.is_zero() {
        sleep(latency / 2).await;
    }
    let status = lock(&state).decide(client, number);
    if !latency.is_zero() {
        sleep(latency / 2).await;
    }
    Ok(Response::builder().status(status).body(Body::default())?)
}

impl State {
    fn draw_latency(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(self.api_latency.clone()))
    }

    fn decide(&mut self, client: &'static str, number: usize) -> StatusCode {
        let issued_at = self.issued_at[number - 1];
        self.arrivals += 1;
        let arrival = Arrival {
            client,
            arrivals: self.arrivals - 1,
            is_revoked: number <= self.revoked,
            token_age: issued_at.elapsed(),
            rng: &mut self.rng,
        };
        let is_expired = arrival.token_age > self.lifetime;
        let is_checked = arrival.client != UNCHECKED;
        let is_rejected =
            is_checked && (arrival.is_revoked || is_expired || !(self.accepts)(arrival));
        if is_rejected { StatusCode::UNAUTHORIZED } else { StatusCode::OK }
    }
}

/// Issues the tokens `1`, `2`, … A token request takes 10 to 100 ms.
struct AuthorizationServer(Arc<Mutex<State>>);

impl TokenSource for AuthorizationServer {
    async fn fetch(&self, _context: FetchContext) -> Result<AccessToken, TokenError> {
        let latency = {
            let mut state = lock(&self.0);
            state.token_requests += 1;
            Duration::from_millis(state.rng.u64(10..100))
        };
        sleep(latency / 2).await;
        let (number, lifetime) = {
            let mut state = lock(&self.0);
            if state.is_down {
                return Err(TokenError::new(TokenErrorKind::Transport, "the server is down"));
            }
            state.issued_at.push(Instant::now());
            (state.issued_at.len(), state.lifetime)
        };
        sleep(latency / 2).await;
        Ok(AccessToken::bearer(number.to_string())?.expires_in(lifetime))
    }
}
