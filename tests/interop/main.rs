//! The crate against a certified authorization server and an API that verifies its tokens, against a gRPC server that does, and
//! against each of the providers that the README names: see `run`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what fails in a helper fails its test

mod grpc;
mod process;
mod providers;
mod servers;

use std::{
    error::Error,
    iter,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
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
    ClientAuth, ClientCredentials, OAuth, OAuthLayer, Origins, TokenCache, TokenEndpoint, TokenError,
    TokenErrorKind,
};

use crate::servers::{Counts, Servers};

const BASIC_ID: &str = "basic: 100% + more";
const BASIC_SECRET: &str = r#"s:e%63r+e t&=/?"~"#;
const POST_ID: &str = "post: 100% + more";
const POST_SECRET: &str = r#"p:o%73+s t&=/?"~"#;

const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_use_the_first_token() {
    let servers = Servers::start();
    let api = Api::new(&servers, tokens(&servers, basic()));
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

    let expected = Counts { token_requests: 1, api_served: 1_001, api_refused: 0 };
    assert_eq!(servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_for_a_resource_is_accepted_where_no_token_is_refused() {
    let servers = Servers::start();
    let without_token = Api::new(&servers, tokens(&servers, basic())).client.into_inner();
    let request = Request::get(format!("{}/jwt", servers.api_url())).body(Full::default()).unwrap();
    assert_eq!(without_token.request(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);

    let grant = ClientCredentials::new(endpoint(&servers, basic()));
    let tokens = TokenCache::new(grant.resource("https://orders.test").scope("orders:read"));
    assert_eq!(Api::new(&servers, tokens.clone()).get("/jwt").await.unwrap(), StatusCode::OK);

    assert_eq!(tokens.current().unwrap().scope(), Some("orders:read"));
    let expected = Counts { token_requests: 1, api_served: 1, api_refused: 1 };
    assert_eq!(servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn special_characters_in_id_and_secret_are_understood_in_header_and_body() {
    let servers = Servers::start();
    for auth in [basic(), ClientAuth::client_secret_post(POST_ID, POST_SECRET)] {
        let api = Api::new(&servers, tokens(&servers, auth));
        assert_eq!(api.get("/opaque").await.unwrap(), StatusCode::OK);
    }
    let expected = Counts { token_requests: 2, api_served: 2, api_refused: 0 };
    assert_eq!(servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiring_token_is_renewed_before_the_api_can_refuse_it() {
    let servers = Servers::start();
    let auth = ClientAuth::client_secret_basic("lives-12-seconds", "secret-of-12");
    let seen = use_until_renewed(&servers, auth, 1).await;
    assert_eq!((seen.token_requests, seen.api_refused), (2, 0));
}

/// The server counts in whole seconds, so that this token can be over after one: before the margin of 0.2 s begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_two_second_token_can_be_refused_and_no_caller_sees_it() {
    let servers = Servers::start();
    let auth = ClientAuth::client_secret_basic("lives-2-seconds", "secret-of-2");
    let seen = use_until_renewed(&servers, auth, 3).await;
    assert_eq!(seen.token_requests, 4);
    assert!(seen.api_refused <= 3, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_under_load_costs_one_token_and_no_caller_sees_it() {
    let servers = Servers::start();
    let api = Api::new(&servers, tokens(&servers, basic()));
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
    wait_until(async || servers.counts().await.api_served >= 250).await;
    servers.revoke_all().await;
    revoked.store(true, Relaxed);
    callers.join_all().await;

    let seen = servers.counts().await;
    assert_eq!(seen.token_requests, 2);
    assert!(seen.api_refused >= 1, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_refused_by_name_and_the_right_one_works_afterwards() {
    let servers = Servers::start();
    let wrong = "wr:o%6Eg+ secret";
    let refused = tokens(&servers, ClientAuth::client_secret_basic(BASIC_ID, wrong));
    let error = token_error(Api::new(&servers, refused).get("/opaque").await);
    assert_eq!((error.kind(), error.error_code()), (TokenErrorKind::Refused, Some("invalid_client")));

    let right = tokens(&servers, basic());
    assert_eq!(Api::new(&servers, right.clone()).get("/opaque").await.unwrap(), StatusCode::OK);

    let said = everything_said_by(&error);
    for secret in [wrong, BASIC_SECRET, right.current().unwrap().expose_secret()] {
        assert!(!said.contains(secret), "{said}");
    }
    let expected = Counts { token_requests: 2, api_served: 1, api_refused: 0 };
    assert_eq!(servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_forget_everything_in_a_restart_cost_one_token() {
    let mut servers = Servers::start();
    let veteran = Api::new(&servers, tokens(&servers, basic()));
    let newcomer = Api::new(&servers, tokens(&servers, basic()));
    assert_eq!(veteran.get("/opaque").await.unwrap(), StatusCode::OK);

    servers.stop();
    let error = token_error(newcomer.get("/opaque").await);
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    servers.start_again();

    assert_eq!(veteran.get("/opaque").await.unwrap(), StatusCode::OK);
    let expected = Counts { token_requests: 1, api_served: 1, api_refused: 1 };
    assert_eq!(servers.counts().await, expected);

    sleep(error.next_attempt_in().unwrap_or_default()).await;
    assert_eq!(newcomer.get("/opaque").await.unwrap(), StatusCode::OK);
    let expected = Counts { token_requests: 2, api_served: 2, api_refused: 1 };
    assert_eq!(servers.counts().await, expected);
}

fn basic() -> ClientAuth {
    ClientAuth::client_secret_basic(BASIC_ID, BASIC_SECRET)
}

fn endpoint(servers: &Servers, auth: ClientAuth) -> TokenEndpoint {
    TokenEndpoint::new(servers.token_url(), auth).unwrap()
}

fn tokens(servers: &Servers, auth: ClientAuth) -> TokenCache {
    TokenCache::new(ClientCredentials::new(endpoint(servers, auth)))
}

/// A client of the API, as its users would build it.
#[derive(Clone)]
struct Api {
    url: String,
    client: OAuth<Client<HttpConnector, Full<Bytes>>>,
}

impl Api {
    fn new(servers: &Servers, tokens: TokenCache) -> Self {
        let oauth = OAuthLayer::new(tokens, Origins::new([servers.api_url()]).unwrap());
        let client = oauth.layer(Client::builder(TokioExecutor::new()).build_http());
        Self { url: servers.api_url().to_owned(), client }
    }

    async fn get(&self, path: &str) -> Result<StatusCode, BoxError> {
        let request = Request::get(format!("{}{path}", self.url)).body(Full::default())?;
        Ok(self.send(request).await?.0)
    }

    /// The API answers with the body that it got.
    async fn post(&self, path: &str, body: &str) -> Result<(StatusCode, String), BoxError> {
        let request = Request::post(format!("{}{path}", self.url)).header(CONTENT_TYPE, "text/plain");
        self.send(request.body(Full::from(body.to_owned()))?).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, String), BoxError> {
        let (head, body) = self.client.clone().oneshot(request).await?.into_parts();
        Ok((head.status, String::from_utf8(body.collect().await?.to_bytes().into())?))
    }
}

async fn use_until_renewed(servers: &Servers, auth: ClientAuth, times: u64) -> Counts {
    let api = Api::new(servers, tokens(servers, auth));
    wait_until(async || {
        assert_eq!(api.get("/opaque").await.unwrap(), StatusCode::OK);
        servers.counts().await.token_requests > times
    })
    .await;
    servers.counts().await
}

async fn wait_until(mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited for {WAIT_TIMEOUT:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn token_error(result: Result<StatusCode, BoxError>) -> TokenError {
    result.unwrap_err().downcast_ref::<TokenError>().expect("an error of the token request").clone()
}

fn everything_said_by(error: &TokenError) -> String {
    let chain = iter::successors(Some(error as &dyn Error), |&error| error.source());
    chain.map(|error| format!("{error} {error:?}\n")).collect::<Vec<_>>().concat()
}
