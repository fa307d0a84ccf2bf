//! One request with a token of your own provider, and the command line for it.

use std::{
    collections::HashMap,
    error::Error,
    ffi::OsString,
    fmt, fs,
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::crypto::ring;
use tower::{BoxError, ServiceBuilder, ServiceExt, util::Either};
use tower_oauth::{
    ClientAuth, ClientCredentials, ClientSecret, ConfigError, OAuthLayer, Origins, TokenCache, TokenEndpoint,
};

pub(crate) const HELP: &str = "\
One access token for every request; when it is revoked under way, the callers do not notice.

usage:
  quickstart
      Shows it with a token endpoint and an API of its own, in this process.

  quickstart --token-url URL --client-id ID --client-secret-file FILE
             [--scope SCOPE] [--audience AUDIENCE] GET-URL
      Sends one GET request to GET-URL with a token of your provider (client credentials,
      client_secret_basic). Shows neither the token nor the secret.

exit code: 0 success, 1 failure, 2 wrong use
";
const OPTIONS: [&str; 6] =
    ["--token-url", "--client-id", "--client-secret-file", "--scope", "--audience", GET_URL];
const GET_URL: &str = "GET-URL";
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) async fn request(mut given: HashMap<&'static str, String>) -> Result<(), BoxError> {
    let mut take = |name| given.remove(name).ok_or_else(|| WrongUse(format!("{name} is missing")));
    let (token_url, client_id) = (take("--token-url")?, take("--client-id")?);
    let (secret_file, get_url) = (take("--client-secret-file")?, take(GET_URL)?);
    let (get_url, origin) = api_url(&get_url)?;
    let origins = Origins::new([&origin])?;

    let auth = ClientAuth::client_secret_basic(client_id, read_secret(&secret_file)?);
    let mut grant = ClientCredentials::new(TokenEndpoint::new(token_url, auth)?);
    if let Some(scope) = given.remove("--scope") {
        grant = grant.scope(scope);
    }
    if let Some(audience) = given.remove("--audience") {
        grant = grant.audience(audience);
    }
    let tokens = TokenCache::new(grant);
    let http = Client::builder(TokioExecutor::new());
    let http = if get_url.scheme_str() == Some("http") {
        Either::Left(http.build_http::<Empty<Bytes>>())
    } else {
        let tls = HttpsConnectorBuilder::new().with_provider_and_platform_verifier(ring::default_provider());
        let tls = tls.map_err(|error| ConfigError::Tls { reason: error.to_string() })?;
        Either::Right(http.build(tls.https_only().enable_http1().build()))
    };
    let oauth = OAuthLayer::new(tokens.clone(), origins);
    let client = ServiceBuilder::new().timeout(TIMEOUT).layer(oauth).service(http);

    // The layer would fetch it by itself: this is to tell what the provider says from what the API says.
    let token = tokens.token().await?;
    let mut out = io::stdout();
    writeln!(out, "token type: {}", token.token_type())?;
    if let Some(lifetime) = token.lifetime() {
        writeln!(out, "expires in: {} s", lifetime.as_secs())?;
    }
    if let Some(scope) = token.scope() {
        writeln!(out, "scope: {}", scope.replace(char::is_control, " "))?;
    }

    let what = format!("GET {origin}{}", get_url.path());
    let answer = client.oneshot(Request::get(get_url).body(Empty::new())?).await.map_err(|error| {
        format!("{what}: {}; check the URL, the network and the TLS trust", crate::reason(&error))
    })?;
    if tokens.current().is_some_and(|now| now.generation() > token.generation()) {
        writeln!(out, "the API refused this token: it was replaced, and the request sent again")?;
    }
    let status = answer.status();
    writeln!(out, "answer: {status}")?;
    let advice = match status {
        status if status.is_success() => return Ok(()),
        status if status.is_redirection() => "redirects are not followed: give the URL that it leads to",
        StatusCode::UNAUTHORIZED => "the API does not take the token: check --audience and --scope",
        StatusCode::FORBIDDEN => "the token does not allow this: check --scope and the client's permissions",
        _ => "check GET-URL and the health of the API",
    };
    Err(format!("{what}: answered {status}; {advice}").into())
}

fn read_secret(file: &str) -> Result<ClientSecret, WrongUse> {
    let mut secret = fs::read_to_string(file)
        .map_err(|error| WrongUse(format!("--client-secret-file {file:?} cannot be read: {error}")))?;
    secret.truncate(secret.trim_end_matches(['\r', '\n']).len());
    if secret.is_empty() {
        return Err(WrongUse(format!("--client-secret-file {file:?} is empty")));
    }
    Ok(secret.into())
}

/// The URL and its origin. A token on plain HTTP can be read on its way, unless it stays on this machine.
fn api_url(url: &str) -> Result<(Uri, String), WrongUse> {
    let uri = url.parse::<Uri>().unwrap_or_default();
    let here = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) if scheme == "https" || (scheme == "http" && here) => {
            let origin = format!("{scheme}://{authority}");
            Ok((uri, origin))
        }
        _ => Err(WrongUse(format!("{GET_URL} must be an https:// URL, or an http:// URL of this machine"))),
    }
}

/// What is given, by name. An unknown name is shown, but not what stands behind it: it may be a secret.
pub(crate) fn options(
    args: impl Iterator<Item = OsString>,
) -> Result<HashMap<&'static str, String>, WrongUse> {
    let mut args = args.map(|arg| arg.into_string().map_err(|_| WrongUse("an argument is not UTF-8".into())));
    let mut given = HashMap::new();
    while let Some(arg) = args.next().transpose()? {
        let (option, value) = match arg.split_once('=') {
            _ if !arg.starts_with('-') => (GET_URL, Some(arg)),
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (arg.as_str(), args.next().transpose()?),
        };
        let Some(name) = OPTIONS.into_iter().find(|name| *name == option) else {
            return Err(WrongUse(format!("there is no option {option:?}")));
        };
        let Some(value) = value.filter(|value| !value.is_empty() && !value.starts_with("--")) else {
            return Err(WrongUse(format!("{name} needs a value")));
        };
        if given.insert(name, value).is_some() {
            return Err(WrongUse(format!("{name} is given twice")));
        }
    }
    Ok(given)
}

/// The command line asks for what cannot be done.
#[derive(Debug)]
pub(crate) struct WrongUse(String);

impl fmt::Display for WrongUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for WrongUse {}
