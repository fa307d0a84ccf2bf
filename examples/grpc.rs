//! Calls a gRPC server with an access token of your provider. Copy this to start your own client.
//!
//! ```text
//! export TOKEN_URL=https://auth.example.com/oauth2/token CLIENT_ID=my-client CLIENT_SECRET=…
//! API_URL=https://grpc.example.com cargo run --example grpc --features tonic
//! ```

use std::{env, process::ExitCode};

use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceBuilder;
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
    let tokens = TokenCache::new(ClientCredentials::new(endpoint));

    // Once per channel. The channel adds the authority to a request after the layer, so the layer
    // sees none. All requests of this client go to the server of the channel.
    let oauth = OAuthLayer::new(tokens, Origins::without_authority()).grpc();
    // An https URL needs a `tls-…` feature of tonic. Without one, tonic connects without TLS.
    let channel = Endpoint::new(var("API_URL")?)?.connect().await?;
    // Any client that is generated from a `.proto` file, here that of the health service.
    let mut client = HealthClient::new(ServiceBuilder::new().layer(oauth).service(channel));

    let response = client.check(HealthCheckRequest::default()).await?;
    println!("health: {}", response.into_inner().status().as_str_name());
    Ok(())
}
