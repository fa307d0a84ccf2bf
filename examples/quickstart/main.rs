//! One access token for every request; when it is revoked under way, the callers do not notice.
//!
//! ```text
//! cargo run --example quickstart              # token endpoint, API and 2001 callers, all in this process
//! cargo run --example quickstart -- --help    # one request with a token of your own provider
//! ```

mod own_provider;
mod servers;

use std::{
    env,
    error::Error,
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{task::JoinSet, time::timeout};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_oauth::{
    ClientAuth, ClientCredentials, ConfigError, OAuth, OAuthLayer, Origins, TokenCache, TokenEndpoint,
    TokenError,
};

use own_provider::WrongUse;
use servers::{CLIENT_ID, CLIENT_SECRET, Ledger, Servers};

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

/// All that there is to do: who the client is, who gives it tokens, who may see them.
fn with_tokens(http: HttpClient, servers: &Servers) -> Result<OAuth<HttpClient>, ConfigError> {
    let auth = ClientAuth::client_secret_basic(CLIENT_ID, CLIENT_SECRET);
    let endpoint = TokenEndpoint::new(servers.token_url.as_str(), auth)?;
    let tokens = TokenCache::new(ClientCredentials::new(endpoint).scope("orders:read"));
    let oauth = OAuthLayer::new(tokens, Origins::new([&servers.api_origin])?);
    Ok(ServiceBuilder::new().layer(oauth).service(http))
}

const CALLERS: u32 = 1_000;
const STORY_TIMEOUT: Duration = Duration::from_secs(60);

/// The first fetch, a thousand requests on that token, and a thousand more under which it is revoked.
async fn story() -> Result<(), BoxError> {
    let servers = Servers::start().await?;
    let state = &servers.state;
    // All requests share one HTTP/2 connection: a thousand sockets are more than many machines allow.
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let client = with_tokens(http, &servers)?;
    let order = |number: u32| get(client.clone(), format!("{}/orders/{number}", servers.api_origin));

    let start = Instant::now();
    let note = |what: &str| {
        let (ms, ledger) = (start.elapsed().as_secs_f64() * 1e3, state.ledger.borrow());
        let Ledger { token_requests, api_requests, refused } = &*ledger;
        let refused = refused.len();
        writeln!(io::stdout(), "{ms:>5.0} ms {token_requests:>15} {api_requests:>13} {refused:>8}   {what}")
    };
    writeln!(io::stdout(), "    time  token requests  api requests  refused")?;
    note("a token endpoint and an API are up")?;

    let mut answers = vec![Ok(order(0).await?)];
    note("first request: there was no token, so one was fetched")?;

    for number in 1..=CALLERS {
        answers.push(order(number).await);
    }
    note(&format!("{CALLERS} requests, one after another, on that token"))?;

    // The API looks at no token while this lock is held: all of these carry the one that is about to be revoked.
    let mut valid_tokens = state.valid_tokens.write().await;
    let storm: JoinSet<_> = (1..=CALLERS).map(|number| order(CALLERS + number)).collect();
    state.ledger.subscribe().wait_for(|ledger| ledger.api_requests > 2 * CALLERS).await?;
    note(&format!("{CALLERS} requests at once: all have reached the API with that token"))?;
    valid_tokens.clear();
    note("the token is revoked before the API has looked at it")?;
    drop(valid_tokens);

    answers.extend(storm.join_all().await);
    note("every caller has an answer")?;
    summarize(&state.ledger.borrow(), &answers)
}

/// Sends a request as if there were no tokens in the world, and gives its path back.
async fn get(client: OAuth<HttpClient>, url: String) -> Result<String, BoxError> {
    let request = Request::get(url).body(Empty::new())?;
    let path = request.uri().path().to_owned();
    let response = client.oneshot(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    if status.is_success() { Ok(path) } else { Err(format!("{path} was answered {status}").into()) }
}

/// A request was recovered when its caller has a success and the API has refused it before.
fn summarize(ledger: &Ledger, answers: &[Result<String, BoxError>]) -> Result<(), BoxError> {
    let recovered = answers.iter().flatten().filter(|path| ledger.refused.contains(*path)).count();
    let failed: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    let mut out = io::stdout();
    writeln!(out, "\ntoken requests: {}", ledger.token_requests)?;
    writeln!(out, "api requests: {}", ledger.api_requests)?;
    writeln!(out, "recovered after 401: {recovered}")?;
    writeln!(out, "failed: {}", failed.len())?;
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} requests failed, the first: {}", failed.len(), reason(first)).into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    let wrong_use = match error.downcast_ref() {
        Some(ConfigError::Tls { .. }) => false,
        Some(_) => true,
        None => error.is::<WrongUse>(),
    };
    let help = if wrong_use { "; see --help" } else { "" };
    // One line, whatever a server has said.
    let line = reason(&error).replace(char::is_control, " ");
    let _ = writeln!(io::stderr(), "quickstart: {line}{help}");
    ExitCode::from(if wrong_use { 2 } else { 1 })
}

async fn run() -> Result<(), BoxError> {
    let args = || env::args_os().skip(1);
    if args().any(|arg| arg == "--help" || arg == "-h") {
        return Ok(io::stdout().write_all(own_provider::HELP.as_bytes())?);
    }
    if args().len() > 0 {
        return own_provider::request(own_provider::options(args())?).await;
    }
    match timeout(STORY_TIMEOUT, story()).await {
        Ok(done) => done,
        Err(_) => Err(format!("the story did not end within {STORY_TIMEOUT:?}; run it again").into()),
    }
}

/// A [`TokenError`] says it all in its message; other errors do so at the end of their chain.
fn reason(error: &BoxError) -> String {
    let mut error: &(dyn Error + 'static) = &**error;
    while !error.is::<TokenError>()
        && let Some(source) = error.source()
    {
        error = source;
    }
    error.to_string()
}
