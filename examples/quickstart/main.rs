//! 2001 requests with one access token. The token is revoked while 1000 of them are in progress,
//! and all of them succeed with the same new token.
//!
//! ```text
//! cargo run --example quickstart              # token endpoint, API and client in this process
//! cargo run --example quickstart -- --help    # one request with a token of your own provider
//! ```

#[path = "../support/command_line.rs"]
mod command_line;
#[path = "../support/own_api.rs"]
mod own_api;
mod own_provider;

use std::{
    collections::HashSet,
    env,
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
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::{
    BoxError, ClientAuth, ClientCredentials, ConfigError, OAuth, OAuthLayer, Origins, TokenCache,
    TokenEndpoint, test_util::FakeProvider,
};

use command_line::{error_message, is_help_requested, report};

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

/// Adds access tokens to the requests of an HTTP client. A client of your own needs no more than
/// these lines.
fn add_tokens(
    http_client: HttpClient,
    provider: &FakeProvider,
) -> Result<OAuth<HttpClient>, ConfigError> {
    let auth =
        ClientAuth::client_secret_basic(FakeProvider::CLIENT_ID, FakeProvider::CLIENT_SECRET);
    let endpoint = TokenEndpoint::new(provider.token_url(), auth)?;
    let tokens = TokenCache::new(ClientCredentials::new(endpoint).scope("orders:read"));
    let oauth = OAuthLayer::new(tokens, Origins::new([provider.api_origin()])?);
    Ok(ServiceBuilder::new().layer(oauth).service(http_client))
}

const REQUESTS: usize = 1_000;
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Sends one request, then 1000 one after another, then 1000 at once with a token that is revoked.
async fn run_demonstration() -> Result<(), BoxError> {
    let provider = FakeProvider::start().await?;
    // All requests share one HTTP/2 connection: many systems do not allow a thousand sockets.
    let http_client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let client = add_tokens(http_client, &provider)?;
    let get_order =
        |number: usize| get(client.clone(), format!("{}/orders/{number}", provider.api_origin()));

    let start = Instant::now();
    let print_row = |event: &str| {
        let time = start.elapsed().as_millis();
        let token_requests = provider.token_endpoint().request_count();
        let api_requests = provider.api().request_count();
        let rejected = provider.rejected_paths().len();
        let row = format!("{time:>5} ms {token_requests:>15} {api_requests:>13} {rejected:>9}");
        writeln!(io::stdout(), "{row}   {event}")
    };
    writeln!(io::stdout(), "    time  token requests  api requests  rejected")?;
    print_row("token endpoint and API are running")?;

    let mut results = vec![get_order(0).await];
    print_row("first request: it waited for a token")?;

    for number in 1..=REQUESTS {
        results.push(get_order(number).await);
    }
    print_row(&format!("{REQUESTS} requests, one after another, with that token"))?;

    // The API checks the tokens of held requests after their release, so all of these requests
    // carry the token that is about to be revoked.
    let hold = provider.api().hold();
    let requests: JoinSet<_> = (1..=REQUESTS).map(|number| get_order(REQUESTS + number)).collect();
    provider.api().wait_for_requests(2 * REQUESTS + 1).await;
    print_row(&format!("{REQUESTS} requests at once: all have reached the API"))?;
    provider.revoke_all();
    print_row("the token is revoked before the API has checked it")?;
    drop(hold);

    results.extend(requests.join_all().await);
    print_row("all requests are answered")?;
    print_summary(&provider, &results)
}

/// Sends a GET request and returns its path. It contains nothing about tokens.
async fn get(client: OAuth<HttpClient>, url: String) -> Result<String, BoxError> {
    let request = Request::get(url).body(Empty::new())?;
    let path = request.uri().path().to_owned();
    let response = client.oneshot(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    if status.is_success() { Ok(path) } else { Err(format!("{path} was answered {status}").into()) }
}

/// Prints the totals. A request was recovered if its caller got a success although the API rejected
/// it before.
fn print_summary(
    provider: &FakeProvider,
    results: &[Result<String, BoxError>],
) -> Result<(), BoxError> {
    let rejected: HashSet<_> = provider.rejected_paths().into_iter().collect();
    let recovered = results.iter().flatten().filter(|path| rejected.contains(*path)).count();
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let mut out = io::stdout();
    writeln!(out, "\ntoken requests: {}", provider.token_endpoint().request_count())?;
    writeln!(out, "api requests: {}", provider.api().request_count())?;
    writeln!(out, "recovered after 401: {recovered}")?;
    writeln!(out, "failed: {}", failed.len())?;
    match failed.first() {
        None => Ok(()),
        Some(first) => {
            let (failed, first) = (failed.len(), error_message(first));
            Err(format!("{failed} requests failed, the first: {first}").into())
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    report("quickstart", run().await)
}

async fn run() -> Result<(), BoxError> {
    if is_help_requested() {
        return Ok(io::stdout().write_all(own_provider::HELP.as_bytes())?);
    }
    if env::args_os().len() > 1 {
        return own_provider::send_one_request().await;
    }
    match timeout(TIME_LIMIT, run_demonstration()).await {
        Ok(result) => result,
        Err(_) => Err(format!("not finished within {TIME_LIMIT:?}; run it again").into()),
    }
}
