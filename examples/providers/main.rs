//! Gets a token from one of the providers in `configuration.rs`, and sends a request with it.
//!
//! ```text
//! cargo run --example providers -- pex --base-url https://auth.example.com \
//!     --client-id my-client --client-secret-file secret.txt https://api.example.com/orders
//! cargo run --example providers -- --help
//! ```

#[path = "../support/command_line.rs"]
mod command_line;
mod configuration;
#[path = "../support/own_api.rs"]
mod own_api;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use tower_oauth::{BoxError, Secret, TokenCache};

use command_line::{
    Arguments, UsageError, is_help_requested, parse_arguments, parse_url, report, take,
};
use own_api::{print_token, send_get_request};

const HELP: &str = "\
Gets a token from a provider, prints its type, lifetime and scope, and sends a GET request with it.
Prints neither the token nor the secret.

usage:
  providers pex|pa|expertfile --base-url URL --client-id ID --client-secret-file FILE [GET-URL]
  providers saas --base-url URL --client-id ID --client-secret-file FILE --audience AUDIENCE
                 [GET-URL]
  providers legacy --client-id TOKEN-ID --client-secret-file FILE [GET-URL]

The path of the token endpoint is appended to --base-url.

exit code: 0 success, 1 failure, 2 wrong arguments
";
const PROVIDER: &str = "PROVIDER";
const GET_URL: &str = "GET-URL";
const OPTIONS: [&str; 4] = ["--base-url", "--client-id", "--client-secret-file", "--audience"];

#[tokio::main]
async fn main() -> ExitCode {
    report("providers", run().await)
}

async fn run() -> Result<(), BoxError> {
    if is_help_requested() {
        return Ok(io::stdout().write_all(HELP.as_bytes())?);
    }
    let mut arguments = parse_arguments(&OPTIONS, &[PROVIDER, GET_URL])?;
    let url = arguments.remove(GET_URL).map(|url| parse_url(GET_URL, &url)).transpose()?;
    let tokens = token_cache(&mut arguments)?;
    if let Some(name) = arguments.keys().next() {
        return Err(UsageError(format!("{name} is not for this provider")).into());
    }

    print_token(&tokens).await?;
    match url {
        Some(url) => send_get_request(url, tokens).await,
        None => Ok(()),
    }
}

fn token_cache(arguments: &mut Arguments) -> Result<TokenCache, BoxError> {
    let provider = take(arguments, PROVIDER)?;
    if !["pex", "pa", "expertfile", "saas", "legacy"].contains(&provider.as_str()) {
        return Err(UsageError(format!("there is no provider {provider:?}")).into());
    }
    let id = take(arguments, "--client-id")?;
    let secret = Secret::from_file(take(arguments, "--client-secret-file")?);
    if provider == "legacy" {
        return Ok(configuration::legacy(&id, secret)?);
    }
    let base_url = take(arguments, "--base-url")?;
    let base_url = base_url.trim_end_matches('/');
    Ok(match provider.as_str() {
        "pex" => configuration::pex(base_url, &id, secret)?,
        "pa" => configuration::pa(base_url, &id, secret)?,
        "expertfile" => configuration::expertfile(base_url, &id, secret)?,
        _ => configuration::saas(base_url, &id, secret, &take(arguments, "--audience")?)?,
    })
}
