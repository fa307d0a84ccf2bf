//! A token of your provider and a GET request to your API.

use std::{
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::crypto::ring;
use tower::{ServiceBuilder, ServiceExt, util::Either};
use tower_oauth::{BoxError, OAuthLayer, Origins, TokenCache};

use crate::command_line::error_message;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Gets a token and prints its type, lifetime and scope. The layer would get it as well; here it
/// shows whether an error comes from the provider or from the API.
pub(crate) async fn print_token(tokens: &TokenCache) -> Result<(), BoxError> {
    let token = tokens.token().await?;
    let mut out = io::stdout();
    writeln!(out, "token type: {}", token.token_type())?;
    if let Some(lifetime) = token.lifetime() {
        writeln!(out, "expires in: {} s", lifetime.as_secs())?;
    }
    if let Some(scope) = token.scope() {
        writeln!(out, "scope: {}", scope.replace(char::is_control, " "))?;
    }
    Ok(())
}

/// Sends a GET request and prints the status of the response. A status other than 2xx is an error.
pub(crate) async fn send_get_request(url: Uri, tokens: TokenCache) -> Result<(), BoxError> {
    let scheme = url.scheme_str().unwrap_or_default();
    let origin =
        format!("{scheme}://{}", url.authority().map_or("", |authority| authority.as_str()));

    let http_client = Client::builder(TokioExecutor::new());
    let http_client = if scheme == "http" {
        Either::Left(http_client.build_http::<Empty<Bytes>>())
    } else {
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_platform_verifier(ring::default_provider())
            .map_err(|error| format!("TLS cannot be set up: {error}"))?;
        Either::Right(http_client.build(tls.https_only().enable_http1().build()))
    };
    let oauth = OAuthLayer::new(tokens.clone(), Origins::new([&origin])?);
    let client = ServiceBuilder::new().timeout(TIMEOUT).layer(oauth).service(http_client);

    let first_token = tokens.current().map(|token| token.generation());
    let what = format!("GET {origin}{}", url.path());
    let response =
        client.oneshot(Request::get(url).body(Empty::new())?).await.map_err(|error| {
            let error = error_message(&error);
            format!("{what}: {error}; check the URL, the network and the TLS trust")
        })?;
    if tokens.current().map(|token| token.generation()) > first_token {
        writeln!(io::stdout(), "the API rejected this token: it was replaced for a retry")?;
    }
    let status = response.status();
    writeln!(io::stdout(), "answer: {status}")?;
    let advice = match status {
        status if status.is_success() => return Ok(()),
        status if status.is_redirection() => "give the URL that the redirect leads to",
        StatusCode::UNAUTHORIZED => "the API does not accept the token: check audience and scope",
        StatusCode::FORBIDDEN => {
            "the token does not permit this request: check the scope and the client's permissions"
        }
        _ => "check GET-URL and the health of the API",
    };
    Err(format!("{what}: answered {status}; {advice}").into())
}
