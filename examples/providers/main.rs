//! A token of each provider that `configuration.rs` describes, and a request with it.
//!
//! ```text
//! cargo run --example providers -- pex --base-url https://auth.example.com \
//!     --client-id my-client --client-secret-file secret.txt https://api.example.com/orders
//! cargo run --example providers -- --help
//! ```

mod command_line;
mod configuration;

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Empty;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::crypto::ring;
use tower::{BoxError, ServiceBuilder, ServiceExt, util::Either};
use tower_oauth::{ConfigError, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind};

use command_line::{Given, WrongUse};

const HELP: &str = "\
A token of a provider: its type, lifetime and scope, and the answer to a GET request with it.
Shows neither the token nor the secret.

usage:
  providers pex|pa|expertfile --base-url URL --client-id ID --client-secret-file FILE [GET-URL]
  providers saas --base-url URL --client-id ID --client-secret-file FILE --audience AUDIENCE [GET-URL]
  providers legacy --client-id TOKEN-ID --client-secret-file FILE [GET-URL]

The path of the token endpoint is appended to --base-url.

exit code: 0 success, 1 failure, 2 wrong use
";
const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    let wrong_use = is_wrong_use(&error);
    let help = if wrong_use { "; see --help" } else { "" };
    // One line, whatever a server has said.
    let line = reason(&error).replace(char::is_control, " ");
    let _ = writeln!(io::stderr(), "providers: {line}{help}");
    ExitCode::from(if wrong_use { 2 } else { 1 })
}

async fn run() -> Result<(), BoxError> {
    let args = || env::args_os().skip(1);
    if args().any(|arg| arg == "--help" || arg == "-h") {
        return Ok(io::stdout().write_all(HELP.as_bytes())?);
    }
    let mut given = Given::parse(args())?;
    let tokens = tokens(&mut given)?;
    let get_url = given.get_url()?;
    given.nothing_else()?;

    let token = tokens.token().await?;
    let mut out = io::stdout();
    writeln!(out, "token type: {}", token.token_type())?;
    if let Some(lifetime) = token.lifetime() {
        writeln!(out, "expires in: {} s", lifetime.as_secs())?;
    }
    if let Some(scope) = token.scope() {
        writeln!(out, "scope: {}", scope.replace(char::is_control, " "))?;
    }
    match get_url {
        Some((url, origin)) => get(url, &origin, tokens).await,
        None => Ok(()),
    }
}

fn tokens(given: &mut Given) -> Result<TokenCache, BoxError> {
    let provider = given.provider()?;
    Ok(match provider.as_str() {
        "pex" => configuration::pex(&given.base_url()?, &given.client_id()?, given.secret()?)?,
        "pa" => configuration::pa(&given.base_url()?, &given.client_id()?, given.secret()?)?,
        "expertfile" => configuration::expertfile(&given.base_url()?, &given.client_id()?, given.secret()?)?,
        "saas" => {
            configuration::saas(&given.base_url()?, &given.client_id()?, given.secret()?, &given.audience()?)?
        }
        "legacy" => configuration::legacy(&given.client_id()?, given.secret()?)?,
        other => return Err(WrongUse(format!("there is no provider {other:?}")).into()),
    })
}

async fn get(url: Uri, origin: &str, tokens: TokenCache) -> Result<(), BoxError> {
    let http = Client::builder(TokioExecutor::new());
    let http = if url.scheme_str() == Some("http") {
        Either::Left(http.build_http::<Empty<Bytes>>())
    } else {
        let tls = HttpsConnectorBuilder::new().with_provider_and_platform_verifier(ring::default_provider());
        let tls = tls.map_err(|error| ConfigError::Tls { reason: error.to_string() })?;
        Either::Right(http.build(tls.https_only().enable_http1().build()))
    };
    let oauth = OAuthLayer::new(tokens, Origins::new([origin])?);
    let client = ServiceBuilder::new().timeout(TIMEOUT).layer(oauth).service(http);

    let what = format!("GET {origin}{}", url.path());
    let answer = client.oneshot(Request::get(url).body(Empty::new())?).await.map_err(|error| {
        format!("{what}: {}; check the URL, the network and the TLS trust", reason(&error))
    })?;
    let status = answer.status();
    writeln!(io::stdout(), "answer: {status}")?;
    if status.is_success() {
        return Ok(());
    }
    Err(format!("{what}: answered {status}; check GET-URL and what the token is for").into())
}

fn is_wrong_use(error: &BoxError) -> bool {
    let config = error.downcast_ref::<ConfigError>();
    let token = error.downcast_ref::<TokenError>();
    error.is::<WrongUse>()
        || config.is_some_and(|error| !matches!(error, ConfigError::Tls { .. }))
        || token.is_some_and(|error| error.kind() == TokenErrorKind::Configuration)
}

/// A [`TokenError`] says it all in its message; other errors do so at the end of their chain.
fn reason(error: &BoxError) -> String {
    let mut error: &(dyn std::error::Error + 'static) = &**error;
    while !error.is::<TokenError>()
        && let Some(source) = error.source()
    {
        error = source;
    }
    error.to_string()
}
