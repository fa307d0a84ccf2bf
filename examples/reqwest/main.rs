//! Requests with reqwest's own types: JSON, and an upload that is a stream. The token is revoked
//! after each request, and the next one is sent again with a new token.
//!
//! ```text
//! cargo run --example reqwest --features reqwest
//! ```

#[path = "../support/servers.rs"]
mod servers;

use std::io::{self, Write};

use reqwest::{Body, Client};
use tower_oauth::{
    BoxError, ClientAuth, ClientCredentials, OAuthLayer, Origins, TokenCache, TokenEndpoint,
    reqwest::OAuthClient,
};

use servers::{CLIENT_ID, CLIENT_SECRET, Servers};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let servers = Servers::start().await?;
    let api = &servers.api_origin;

    let auth = ClientAuth::client_secret_basic(CLIENT_ID, CLIENT_SECRET);
    let endpoint = TokenEndpoint::new(servers.token_url.as_str(), auth)?;
    let tokens = TokenCache::new(ClientCredentials::new(endpoint).scope("orders:write"));
    let oauth = OAuthLayer::new(tokens, Origins::new([api])?);
    let client = OAuthClient::new(Client::builder(), oauth)?;

    for number in 1..=2 {
        let order = serde_json::json!({"item": "book", "count": number});
        let request = client.get_ref().post(format!("{api}/orders")).json(&order);
        let response = client.send(request).await?.error_for_status()?;
        writeln!(io::stdout(), "order {number}: {}", response.status())?;
        servers.state.valid_tokens.write().await.clear();

        let chunks = ["a stream", "in two chunks"].map(Ok::<_, io::Error>);
        let body = Body::wrap_stream(tokio_stream::iter(chunks));
        let request = client.get_ref().put(format!("{api}/reports/{number}")).body(body);
        let response = client.send(request).await?.error_for_status()?;
        writeln!(io::stdout(), "upload {number}: {}", response.status())?;
        servers.state.valid_tokens.write().await.clear();
    }

    let counts = servers.state.counts.borrow();
    let (token_requests, rejected) = (counts.token_requests, counts.rejected_paths.len());
    writeln!(io::stdout(), "token requests: {token_requests}, rejected: {rejected}")?;
    Ok(())
}
