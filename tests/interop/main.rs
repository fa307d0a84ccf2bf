//! Tests against real servers: a certified authorization server with an API that verifies its
//! tokens, with and without TLS, a proxy, a gRPC server, and the providers of `examples/providers`. Start them with `run`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a panic is how a test fails

mod crypto;
mod grpc;
mod process;
mod providers;
mod proxy;
mod servers;
mod token_program;

use std::{
    error::Error,
    iter,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{task::JoinSet, time::sleep};
use tower::{BoxError, Layer, ServiceExt};
use tower_oauth::{
    ClientAuth, ClientCredentials, OAuth, OAuthLayer, Origins, TokenCache, TokenEndpoint,
    TokenError, TokenErrorKind,
};

use crate::servers::{Counts, Servers};

const BASIC_ID: &str = "basic: 100% + more";
const BASIC_SECRET: &str = r#"s:e%63r+e t&=/?"~"#;
const POST_ID: &str = "post: 100% + more";
const POST_SECRET: &str = r#"p:o%73+s t&=/?"~"#;

const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn thousand_requests_use_the_first_token() {
    let servers = Servers::start();
    let api = Api::new(&servers, token_cache(&servers, basic()));
    assert_eq!(api.get("/opaque").await.unwrap(), StatusCode::OK);

    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let api = api.clone();
        callers.spawn(async move {
            for _ in 0..50 {
                assert_eq!(api.get("/opaque").await.unwrap(), StatusCode::OK);
            }
        });
    }
    callers.join_all().await;

    let expected = Counts { token_requests: 1, api_accepted: 1_001, api_rejected: 0 };
    assert_eq!(servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn jwt_is_accepted_and_a_missing_token_is_rejected() {
    let servers = Servers::start();
    let plain_client = Api::new(&servers, token_cache(&servers, basic())).client.into_inner();
    let request = Request::get(format!("{}/jwt", servers.api_url())).body(Full::default()).unwrap();
    assert_eq!(plain_client.request(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);

    let grant = ClientCredentials::new(endpoint(&servers, basic()));
    let cache = TokenCache::new(grant.resource("https://orders.test").scope("orders:read"));
    assert_eq!(Api::new(&servers, cache.clone()).get("/jwt").await.unwrap(), StatusCode::OK);

    assert_eq!(cache.current().unwrap().scope(), Some("orders:read"));
    let expected = Counts { token_requests: 1, api_accepted: 1, api_rejected: 1 };
    assert_eq!(servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn special_characters_in_id_and_secret_are_encoded() {
    let servers = Servers::start();
    for auth in [basic(), ClientAuth::client_secret_post(POST_ID, POST_SECRET)] {
        let api = Api::new(&servers, token_cache(&servers, auth));
        assert_eq!(api.get("/opaque").await.unwrap(), StatusCode::OK);
    }
    let expected = Counts { token_requests: 2, api_accepted: 2, api_rejected: 0 };
    assert_eq!(servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn expiring_token_is_refreshed_before_a_rejection() {
    let servers = Servers::start();
    let auth = ClientAuth::client_secret_basic("lives-12-seconds", "secret-of-12");
    let counts = use_until_refreshed(&servers, auth, 1).await;
    assert_eq!((counts.token_requests, counts.api_rejected), (2, 0));
}

/// The server counts in whole seconds, so this token may expire after one second. That is before
/// the expiry margin of 0.2 s begins.
#[tokio::test(flavor = "multi_thread")]
async fn rejected_two_second_token_is_replaced_for_all_callers() {
    let servers = Servers::start();
    let auth = ClientAuth::client_secret_basic("lives-2-seconds", "secret-of-2");
    let counts = use_until_refreshed(&servers, auth, 3).await;
    assert_eq!(counts.token_requests, 4);
    assert!(counts.api_rejected <= 3, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_under_load_costs_one_token_request() {
    let servers = Servers::start();
    let api = Api::new(&servers, token_cache(&servers, basic()));
    assert_eq!(api.get("/opaque").await.unwrap(), StatusCode::OK);
    let revoked = Arc::new(AtomicBool::new(false));

    let mut callers = JoinSet::new();
    for caller in 0..250 {
        let (api, revoked) = (api.clone(), Arc::clone(&revoked));
        callers.spawn(async move {
            let body = format!("caller {caller}");
            loop {
                let is_last = revoked.load(Relaxed);
                let answer = api.post("/opaque", &body).await.unwrap();
                assert_eq!(answer, (StatusCode::OK, body.clone()));
                if is_last {
                    break;
                }
            }
        });
    }
    wait_until(async || servers.counts().await.api_accepted >= 250).await;
    servers.revoke_all().await;
    revoked.store(true, Relaxed);
    callers.join_all().await;

    let counts = servers.counts().await;
    assert_eq!(counts.token_requests, 2);
    assert!(counts.api_rejected >= 1, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_secret_is_reported_and_the_right_one_works_later() {
    let servers = Servers::start();
    let wrong = "wr:o%6Eg+ secret";
    let cache = token_cache(&servers, ClientAuth::client_secret_basic(BASIC_ID, wrong));
    let error = token_error(Api::new(&servers, cache).get("/opaque").await);
    assert_eq!(
        (error.kind(), error.error_code()),
        (TokenErrorKind::Rejected, Some("invalid_client"))
    );

    let right = token_cache(&servers, basic());
    assert_eq!(Api::new(&servers, right.clone()).get("/opaque").await.unwrap(), StatusCode::OK);

    let output = display_and_debug_of_chain(&error);
    for secret in [wrong, BASIC_SECRET, right.current().unwrap().expose_secret()] {
        assert!(!output.contains(secret), "{output}");
    }
    let expected = Counts { token_requests: 2, api_accepted: 1, api_rejected: 0 };
    assert_eq!(servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_of_the_servers_costs_one_token_request() {
    let mut servers = Servers::start();
    let with_token = Api::new(&servers, token_cache(&servers, basic()));
    let without_token = Api::new(&servers, token_cache(&servers, basic()));
    assert_eq!(with_token.get("/opaque").await.unwrap(), StatusCode::OK);

    servers.stop();
    let error = token_error(without_token.get("/opaque").await);
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    servers.restart();

    assert_eq!(with_token.get("/opaque").await.unwrap(), StatusCode::OK);
    let expected = Counts { token_requests: 1, api_accepted: 1, api_rejected: 1 };
    assert_eq!(servers.counts().await, expected);

    sleep(error.next_attempt_in().unwrap_or_default()).await;
    assert_eq!(without_token.get("/opaque").await.unwrap(), StatusCode::OK);
    let expected = Counts { token_requests: 2, api_accepted: 2, api_rejected: 1 };
    assert_eq!(servers.counts().await, expected);
}

fn basic() -> ClientAuth {
    ClientAuth::client_secret_basic(BASIC_ID, BASIC_SECRET)
}

fn endpoint(servers: &Servers, auth: ClientAuth) -> TokenEndpoint {
    TokenEndpoint::new(servers.token_url(), auth).unwrap()
}

fn token_cache(servers: &Servers, auth: ClientAuth) -> TokenCache {
    TokenCache::new(ClientCredentials::new(endpoint(servers, auth)))
}

/// A client of the API, built as in a program.
#[derive(Clone)]
struct Api {
    url: String,
    client: OAuth<Client<HttpConnector, Full<Bytes>>>,
}

impl Api {
    fn new(servers: &Servers, cache: TokenCache) -> Self {
        let oauth = OAuthLayer::new(cache, Origins::new([servers.api_url()]).unwrap());
        let client = oauth.layer(Client::builder(TokioExecutor::new()).build_http());
        Self { url: servers.api_url().to_owned(), client }
    }

    async fn get(&self, path: &str) -> Result<StatusCode, BoxError> {
        let request = Request::get(format!("{}{path}", self.url)).body(Full::default())?;
        Ok(self.send(request).await?.0)
    }

    /// Sends a `POST` request. The API echoes the body.
    async fn post(&self, path: &str, body: &str) -> Result<(StatusCode, String), BoxError> {
        let request =
            Request::post(format!("{}{path}", self.url)).header(CONTENT_TYPE, "text/plain");
        self.send(request.body(Full::from(body.to_owned()))?).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, String), BoxError> {
        let (head, body) = self.client.clone().oneshot(request).await?.into_parts();
        Ok((head.status, String::from_utf8(body.collect().await?.to_bytes().into())?))
    }
}

/// Sends requests until the token was refreshed this often.
async fn use_until_refreshed(servers: &Servers, auth: ClientAuth, refreshes: u64) -> Counts {
    let api = Api::new(servers, token_cache(servers, auth));
    wait_until(async || {
        assert_eq!(api.get("/opaque").await.unwrap(), StatusCode::OK);
        servers.counts().await.token_requests > refreshes
    })
    .await;
    servers.counts().await
}

async fn wait_until(mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    while !condition().await {
        assert!(Instant::now() < deadline, "the condition was not met within {WAIT_TIMEOUT:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn token_error(result: Result<StatusCode, BoxError>) -> TokenError {
    result.unwrap_err().downcast_ref::<TokenError>().expect("the error is a TokenError").clone()
}

fn display_and_debug_of_chain(error: &TokenError) -> String {
    let chain = iter::successors(Some(error as &dyn Error), |&error| error.source());
    chain.map(|error| format!("{error} {error:?}\n")).collect::<Vec<_>>().concat()
}
