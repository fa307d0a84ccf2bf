//! A fake authorization server and an API on this machine, to try a client without an account.
//!
//! Prints the environment variables that the programs to copy read, then `ready`. Each line on the
//! standard input revokes all tokens. Ctrl-C stops both servers.
//!
//! ```text
//! cargo run --example fake_provider [TOKEN-PORT API-PORT]
//! ```

use std::{
    env, future,
    io::{self, Write},
    sync::Arc,
};

use tower_oauth::{BoxError, test_util::FakeProvider};

/// The ports in `examples/axum_service/service.toml`.
const PORTS: [u16; 2] = [8480, 8481];

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<u16> =
        env::args().skip(1).map(|port| port.parse()).collect::<Result<_, _>>()?;
    let [token_port, api_port] = match arguments[..] {
        [] => PORTS,
        [token_port, api_port] => [token_port, api_port],
        _ => return Err("usage: fake_provider [TOKEN-PORT API-PORT]".into()),
    };
    let provider = FakeProvider::builder().token_port(token_port).api_port(api_port).start().await;
    let provider = provider.map_err(|error| format!("ports {token_port}, {api_port}: {error}"))?;
    let provider = Arc::new(provider);
    print_settings(&provider)?;
    // Reading the standard input blocks its thread. The servers continue after its end.
    let input = Arc::clone(&provider);
    tokio::task::spawn_blocking(move || revoke_on_each_line(&input)).await??;
    future::pending().await
}

fn print_settings(provider: &FakeProvider) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "TOKEN_URL={}", provider.token_url())?;
    writeln!(out, "CLIENT_ID={}", FakeProvider::CLIENT_ID)?;
    writeln!(out, "CLIENT_SECRET={}", FakeProvider::CLIENT_SECRET)?;
    writeln!(out, "API_URL={}/orders", provider.api_origin())?;
    writeln!(out, "ACCESS_TOKEN={}", provider.issue(FakeProvider::DEFAULT_LIFETIME))?;
    writeln!(out, "ready")
}

fn revoke_on_each_line(provider: &FakeProvider) -> io::Result<()> {
    for line in io::stdin().lines() {
        line?;
        provider.revoke_all();
        writeln!(io::stdout(), "all tokens are revoked")?;
    }
    Ok(())
}
