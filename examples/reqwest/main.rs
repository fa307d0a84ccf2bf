//! The layer over a `reqwest::Client`: an upload that is a stream, twice; before the second one, the token is revoked.
//!
//! ```text
//! cargo run --example reqwest
//! ```

#![allow(clippy::expect_used)] // a request without a host is a mistake of this program

#[path = "../quickstart/servers.rs"]
mod servers;

use std::io::{self, Write};

use bytes::Bytes;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_oauth::{
    ClientAuth, ClientCredentials, OAuthLayer, Origins, TokenCache, TokenEndpoint,
    replay::{BufferBody, Buffered},
};

use servers::{CLIENT_ID, CLIENT_SECRET, Servers};

/// reqwest has types of its own for what `http` calls a request and a response: a line for each.
fn over_reqwest(
    oauth: OAuthLayer,
) -> reqwest::Result<
    impl Service<
        http::Request<reqwest::Body>,
        Response = http::Response<reqwest::Body>,
        Error = BoxError,
        Future: Send,
    > + Clone,
> {
    // reqwest would follow redirects inside of the layer, where nobody looks who gets the token.
    let reqwest = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    Ok(ServiceBuilder::new()
        .layer(oauth.replay(BufferBody::default()))
        .map_request(|request: http::Request<Buffered<reqwest::Body>>| request.map(reqwest::Body::wrap))
        .map_request(|request| reqwest::Request::try_from(request).expect("a whole URL"))
        .map_response(http::Response::<reqwest::Body>::from)
        .service(reqwest))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let servers = Servers::start().await?;
    let auth = ClientAuth::client_secret_basic(CLIENT_ID, CLIENT_SECRET);
    let endpoint = TokenEndpoint::new(servers.token_url.as_str(), auth)?;
    let tokens = TokenCache::new(ClientCredentials::new(endpoint).scope("orders:write"));
    let client = over_reqwest(OAuthLayer::new(tokens, Origins::new([&servers.api_origin])?))?;

    for number in 1..=2 {
        let chunks = ["a stream", "in two chunks"].map(|chunk| Ok::<_, io::Error>(Bytes::from(chunk)));
        let body = reqwest::Body::wrap_stream(tokio_stream::iter(chunks));
        let request = http::Request::put(format!("{}/orders/{number}", servers.api_origin)).body(body)?;
        let response = client.clone().oneshot(request).await?;
        writeln!(io::stdout(), "upload {number}: {}", response.status())?;
        servers.state.valid_tokens.write().await.clear();
    }

    let ledger = servers.state.ledger.borrow();
    writeln!(io::stdout(), "token requests: {}, refused: {}", ledger.token_requests, ledger.refused.len())?;
    Ok(())
}
