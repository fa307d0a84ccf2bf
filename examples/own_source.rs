//! Sends a GET request with an access token that a command prints. Copy this for tokens from
//! anywhere else: a closure that returns a new token is all that a source needs.
//!
//! ```text
//! export TOKEN_COMMAND='gcloud auth print-access-token'
//! API_URL=https://api.example.com/orders cargo run --example own_source
//! ```

use std::{env, time::Duration};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::process::Command;
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::{AccessToken, BoxError, TokenError, TokenErrorKind, source_fn};
use tower_oauth::{OAuthLayer, Origins, TokenCache};

/// Runs the command and returns what it prints.
async fn run_command(command: String) -> Result<AccessToken, TokenError> {
    let error = |message: &str| TokenError::new(TokenErrorKind::Transport, message);
    let output = Command::new("sh").args(["-c", &command]).kill_on_drop(true).output().await;
    let output = output.map_err(|cause| error("no shell").with_source(cause))?;
    if !output.status.success() {
        return Err(error("the token command failed"));
    }
    let token = AccessToken::bearer(String::from_utf8_lossy(&output.stdout).trim())?;
    // The command does not say how long the token is valid.
    Ok(token.expires_in(Duration::from_secs(600)))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let var = |name| env::var(name).map_err(|error| format!("{name}: {error}"));
    let (command, url) = (var("TOKEN_COMMAND")?, var("API_URL")?);
    let tokens = TokenCache::new(source_fn(move |_| run_command(command.clone())));

    let url: Uri = url.parse().map_err(|error| format!("API_URL: {error}"))?;
    let (scheme, host) = url.scheme().zip(url.authority()).ok_or("API_URL: not a complete URL")?;
    let oauth = OAuthLayer::new(tokens, Origins::new([format!("{scheme}://{host}")])?);
    let provider = rustls::crypto::ring::default_provider();
    let tls = HttpsConnectorBuilder::new().with_provider_and_platform_verifier(provider)?;
    let connector = tls.https_or_http().enable_http1().build();
    let http_client = Client::builder(TokioExecutor::new()).build(connector);
    let client = ServiceBuilder::new().layer(oauth).service(http_client);

    let response = client.oneshot(Request::get(url).body(Full::<Bytes>::default())?).await?;
    println!("{}", response.status());
    Ok(())
}
