//! The layer over a `reqwest::Client`: two uploads with streaming bodies. The token is revoked
//! before the second one, and the upload is repeated with a new token.
//!
//! ```text
//! cargo run --example reqwest
//! ```

#![allow(clippy::expect_used)] // a request without a host is an error in this program

#[path = "../support/servers.rs"]
mod servers;

use std::io::{self, Write};

use bytes::Bytes;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_oauth::{
    BoxError, ClientAuth, ClientCredentials, OAuthLayer, Origins, TokenCache, TokenEndpoint,
    replay::{BufferBody, Buffered},
};

use servers::{CLIENT_ID, CLIENT_SECRET, Servers};

/// Wraps a reqwest client. reqwest has request and response types of its own, which are converted
/// from and to those of `http`.
fn client_over_reqwest(
    oauth: OAuthLayer,
) -> reqwest::Result<
    impl Service<
        http::Request<reqwest::Body>,
        Response = http::Response<reqwest::Body>,
        Error = BoxError,
        Future: Send,
    > + Clone,
> {
    // reqwest follows redirects below the layer, where the origin is not checked.
    let reqwest = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    Ok(ServiceBuilder::new()
        .layer(oauth.with_replay(BufferBody::default()))
        .map_request(|request: http::Request<Buffered<reqwest::Body>>| {
            request.map(reqwest::Body::wrap)
        })
        .map_request(|request| reqwest::Request::try_from(request).expect("a complete URL"))
        .map_response(http::Response::<reqwest::Body>::from)
        .service(reqwest))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let servers = Servers::start().await?;
    let auth = ClientAuth::client_secret_basic(CLIENT_ID, CLIENT_SECRET);
    let endpoint = TokenEndpoint::new(servers.token_url.as_str(), auth)?;
    let tokens = TokenCache::new(ClientCredentials::new(endpoint).scope("orders:write"));
    let origins = Origins::new([&servers.api_origin])?;
    let client = client_over_reqwest(OAuthLayer::new(tokens, origins))?;

    for number in 1..=2 {
        let chunks = ["a stream", "in two chunks"].map(Bytes::from).map(Ok::<_, io::Error>);
        let body = reqwest::Body::wrap_stream(tokio_stream::iter(chunks));
        let url = format!("{}/orders/{number}", servers.api_origin);
        let response = client.clone().oneshot(http::Request::put(url).body(body)?).await?;
        writeln!(io::stdout(), "upload {number}: {}", response.status())?;
        servers.state.valid_tokens.write().await.clear();
    }

    let counts = servers.state.counts.borrow();
    let (token_requests, rejected) = (counts.token_requests, counts.rejected_paths.len());
    writeln!(io::stdout(), "token requests: {token_requests}, rejected: {rejected}")?;
    Ok(())
}
