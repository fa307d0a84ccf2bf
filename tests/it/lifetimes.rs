//! Lifetimes in the responses of a token endpoint: no good token is lost because of its lifetime.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, ServiceExt};
use tower_oauth::{
    ClientAuth, ClientCredentials, OAuthLayer, Origins, RefreshState, TokenCache, TokenEndpoint,
};

use crate::support::{API, Body, get, lock};

/// An authorization server that repeats its token with what is left of the lifetime, in whole
/// seconds, and an API that accepts the token until it expires.
#[derive(Clone)]
struct Servers(Arc<Mutex<State>>);

struct State {
    lifetime: Duration,
    token: u32,
    expires_at: Instant,
    token_requests: Vec<Instant>,
    rejections: usize,
}

impl Servers {
    fn new(lifetime: Duration) -> Self {
        let token_requests = Vec::new();
        let expires_at = Instant::now();
        Self(Arc::new(Mutex::new(State {
            lifetime,
            token: 0,
            expires_at,
            token_requests,
            rejections: 0,
        })))
    }

    fn issue(&self) -> String {
        let mut state = lock(&self.0);
        let now = Instant::now();
        state.token_requests.push(now);
        if state.expires_at <= now {
            state.token += 1;
            state.expires_at = now + state.lifetime;
        }
        let left = (state.expires_at - now).as_secs();
        format!(r#"{{"access_token":"token-{}","expires_in":{left}}}"#, state.token)
    }

    fn answer(&self, request: &Request<Body>) -> StatusCode {
        let mut state = lock(&self.0);
        let valid = format!("Bearer token-{}", state.token);
        let is_valid = request.headers()["authorization"].to_str().unwrap() == valid;
        if is_valid && Instant::now() < state.expires_at {
            return StatusCode::OK;
        }
        state.rejections += 1;
        StatusCode::UNAUTHORIZED
    }

    fn cache(&self) -> TokenCache {
        let server = self.clone();
        let transport = tower::service_fn(move |_: Request<Body>| {
            let response = Response::new(Body::from(server.issue()));
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let auth = ClientAuth::none("id");
        let endpoint = TokenEndpoint::with_transport("https://as.test/", auth, transport).unwrap();
        TokenCache::new(ClientCredentials::new(endpoint))
    }

    /// Sends one request each `interval` for ten minutes. Returns the statuses other than 200 that
    /// callers see.
    async fn failures(&self, interval: Duration) -> Vec<StatusCode> {
        let api = self.clone();
        let api = tower::service_fn(move |request: Request<Body>| {
            let mut response = Response::new(Body::default());
            *response.status_mut() = api.answer(&request);
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let client = OAuthLayer::new(self.cache(), Origins::new([API]).unwrap()).layer(api);
        let end = Instant::now() + Duration::from_secs(600);
        let mut failures = Vec::new();
        while Instant::now() < end {
            let status = client.clone().oneshot(get("/")).await.unwrap().status();
            failures.extend(Some(status).filter(|status| *status != StatusCode::OK));
            sleep(interval).await;
        }
        failures
    }

    fn token_requests(&self) -> Vec<Instant> {
        lock(&self.0).token_requests.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn token_that_is_repeated_down_to_zero_fails_no_request() {
    for lifetime in [Duration::from_secs(60), Duration::from_millis(61_700)] {
        for interval in [7, 137, 1000, 1009, 2500].map(Duration::from_millis) {
            let servers = Servers::new(lifetime);
            let failures = servers.failures(interval).await;
            assert!(failures.is_empty(), "every {interval:?}: {failures:?}");
            // The token is refreshed at half of what is left: after 30, 15, 8, 4, 2 and 1 s.
            let requests = servers.token_requests().len();
            assert!((10..=10 * 11).contains(&requests), "every {interval:?}: {requests}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn expires_in_zero_is_one_use_and_one_token_request_a_second() {
    let servers = Servers::new(Duration::from_millis(999));
    let cache = servers.cache();
    let (one, other) = tokio::join!(cache.token(), cache.token());
    assert_eq!(one.unwrap().expose_secret(), "token-1");
    assert_eq!(other.unwrap().expose_secret(), "token-1", "callers that wait share the token");
    advance(TokenEndpoint::MIN_LIFETIME).await;
    assert!(cache.current().is_none(), "the token is good for one use");
    let next_attempt_in = Duration::from_millis(900);
    assert_eq!(cache.status().refresh, RefreshState::Pausing { next_attempt_in });
    let start = Instant::now();
    assert_eq!(cache.token().await.unwrap().expose_secret(), "token-2");
    assert_eq!(start.elapsed(), next_attempt_in);

    let servers = Servers::new(Duration::from_millis(999));
    let failures = servers.failures(Duration::from_millis(10)).await;
    assert!(failures.is_empty(), "{failures:?}");
    let requests = servers.token_requests();
    assert!((590..=601).contains(&requests.len()), "{}", requests.len());
    assert!(requests.windows(2).all(|two| two[1] - two[0] >= Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn token_that_expires_on_its_way_is_used_once() {
    for (expires_in, latency) in [("1", 5), ("0.001", 0), ("20", 19), ("\"0\"", 1)] {
        let body = format!(r#"{{"access_token":"t","expires_in":{expires_in}}}"#);
        let transport = tower::service_fn(move |_: Request<Body>| {
            let response = Response::new(Body::from(body.clone()));
            async move {
                sleep(Duration::from_secs(latency)).await;
                Ok::<_, Infallible>(response)
            }
        });
        let auth = ClientAuth::none("id");
        let endpoint = TokenEndpoint::with_transport("https://as.test/", auth, transport).unwrap();
        let cache = TokenCache::new(ClientCredentials::new(endpoint));
        assert_eq!(cache.token().await.unwrap().expose_secret(), "t", "{expires_in}");
    }
}
