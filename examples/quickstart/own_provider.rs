//! One request with a token of your own provider.

use tower_oauth::{BoxError, ClientAuth, ClientCredentials, Secret, TokenCache, TokenEndpoint};

use crate::{
    command_line::{parse_arguments, parse_url, take},
    own_api::{print_token, send_get_request},
};

pub(crate) const HELP: &str = "\
Sends requests with one access token, which is replaced without a failed request when it is revoked.

usage:
  quickstart
      Runs a token endpoint, an API and 2001 requests in this process.

  quickstart --token-url URL --client-id ID --client-secret-file FILE
             [--scope SCOPE] [--audience AUDIENCE] GET-URL
      Sends one GET request to GET-URL with a token of your provider (client credentials,
      client_secret_basic). Prints neither the token nor the secret.

exit code: 0 success, 1 failure, 2 wrong arguments
";
const GET_URL: &str = "GET-URL";
const OPTIONS: [&str; 5] =
    ["--token-url", "--client-id", "--client-secret-file", "--scope", "--audience"];

pub(crate) async fn send_one_request() -> Result<(), BoxError> {
    let mut arguments = parse_arguments(&OPTIONS, &[GET_URL])?;
    let (token_url, id) =
        (take(&mut arguments, "--token-url")?, take(&mut arguments, "--client-id")?);
    let secret = Secret::from_file(take(&mut arguments, "--client-secret-file")?);
    let url = parse_url(GET_URL, &take(&mut arguments, GET_URL)?)?;

    let endpoint = TokenEndpoint::new(token_url, ClientAuth::client_secret_basic(id, secret))?;
    let mut grant = ClientCredentials::new(endpoint);
    if let Some(scope) = arguments.remove("--scope") {
        grant = grant.scope(scope);
    }
    if let Some(audience) = arguments.remove("--audience") {
        grant = grant.audience(audience);
    }
    let tokens = TokenCache::new(grant);
    print_token(&tokens).await?;
    send_get_request(url, tokens).await
}
