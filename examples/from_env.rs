//! Gets a token from a provider that is configured in environment variables.
//!
//! ```text
//! export ORDERS_TOKEN_URL=https://auth.example.com/oauth2/token
//! export ORDERS_CLIENT_ID=my-client ORDERS_CLIENT_SECRET=… ORDERS_SCOPE=orders:read
//! cargo run --example from_env --features config
//! ```

use std::process::ExitCode;

use tower_oauth::{BoxError, config::ProviderConfig};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let provider = ProviderConfig::from_env("ORDERS")?;
    // A program with an HTTP client uses `provider.layer()`, which needs `ORDERS_ORIGINS`.
    let token = provider.token_cache()?.token().await?;
    match token.lifetime() {
        Some(lifetime) => println!("a token for {lifetime:?}"),
        None => println!("a token without an expiry"),
    }
    Ok(())
}
