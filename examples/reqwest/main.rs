//! Requests with reqwest's own types: JSON, and an upload that is a stream. The token is revoked
//! after each request, and the next one is sent again with a new token.
//!
//! ```text
//! cargo run --example reqwest --features reqwest
//! ```

use std::io::{self, Write};

use reqwest::{Body, Client};
use tower_oauth::{
    BoxError, ClientAuth, ClientCredentials, OAuthLayer, Origins, TokenCache, TokenEndpoint,
    reqwest::OAuthClient, test_util::FakeProvider,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let provider = FakeProvider::start().await?;
    let api = provider.api_origin();

    let auth =
        ClientAuth::client_secret_basic(FakeProvider::CLIENT_ID, FakeProvider::CLIENT_SECRET);
    let endpoint = TokenEndpoint::new(provider.token_url(), auth)?;
    let tokens = TokenCache::new(ClientCredentials::new(endpoint).scope("orders:write"));
    let oauth = OAuthLayer::new(tokens, Origins::new([&api])?);
    let client = OAuthClient::new(Client::builder(), oauth)?;

    for number in 1..=2 {
        let order = serde_json::json!({"item": "book", "count": number});
        let request = client.get_ref().post(format!("{api}/orders")).json(&order);
        let response = client.send(request).await?.error_for_status()?;
        writeln!(io::stdout(), "order {number}: {}", response.status())?;
        provider.revoke_all();

        let chunks = ["a stream", "in two chunks"].map(Ok::<_, io::Error>);
        let body = Body::wrap_stream(tokio_stream::iter(chunks));
        let request = client.get_ref().put(format!("{api}/reports/{number}")).body(body);
        let response = client.send(request).await?.error_for_status()?;
        writeln!(io::stdout(), "upload {number}: {}", response.status())?;
        provider.revoke_all();
    }

    let token_requests = provider.token_endpoint().request_count();
    let rejected = provider.rejected_paths().len();
    writeln!(io::stdout(), "token requests: {token_requests}, rejected: {rejected}")?;
    Ok(())
}
