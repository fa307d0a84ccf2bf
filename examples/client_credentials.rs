//! Sends a GET request with an access token of your provider. Copy this to start your own client.
//!
//! ```text
//! export TOKEN_URL=https://auth.example.com/oauth2/token CLIENT_ID=my-client CLIENT_SECRET=…
//! API_URL=https://api.example.com/orders cargo run --example client_credentials
//! ```

use std::{env, process::ExitCode};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::{BoxError, ClientAuth, ClientCredentials, TokenEndpoint};
use tower_oauth::{OAuthLayer, Origins, TokenCache};

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    // `Display` says what to do about an error. `Debug`, which `main` prints for a `Result`, does
    // not.
    eprintln!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprintln!("caused by: {cause}");
        source = cause.source();
    }
    ExitCode::FAILURE
}

async fn run() -> Result<(), BoxError> {
    let var = |name| env::var(name).map_err(|error| format!("{name}: {error}"));

    // Once per client registration: the source of the tokens, and the cache that all clients share.
    let auth = ClientAuth::client_secret_basic(var("CLIENT_ID")?, var("CLIENT_SECRET")?);
    let endpoint = TokenEndpoint::new(var("TOKEN_URL")?, auth)?;
    // Add `.scope("...")` or `.audience("...")` to the grant if your provider requires it.
    let tokens = TokenCache::new(ClientCredentials::new(endpoint));

    // Once per API: the servers that may receive the token.
    let url: Uri = var("API_URL")?.parse().map_err(|error| format!("API_URL: {error}"))?;
    let scheme = url.scheme_str().ok_or("API_URL: not a complete URL")?;
    let host_and_port = url.authority().ok_or("API_URL: not a complete URL")?;
    let oauth = OAuthLayer::new(tokens, Origins::new([format!("{scheme}://{host_and_port}")])?);

    // Any HTTP client that is a tower service, here that of hyper-util.
    let provider = rustls::crypto::ring::default_provider();
    let tls = HttpsConnectorBuilder::new().with_provider_and_platform_verifier(provider)?;
    let connector = tls.https_or_http().enable_http1().build();
    let http_client = Client::builder(TokioExecutor::new()).build(connector);
    let client = ServiceBuilder::new().layer(oauth).service(http_client);

    let request = Request::get(url).body(Full::<Bytes>::default())?;
    let response = client.oneshot(request).await?;
    println!("{}", response.status());
    Ok(())
}
