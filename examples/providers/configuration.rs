//! The configuration of four providers and of a static credential.

use std::{num::NonZeroU32, time::Duration};

use tower_oauth::{
    ClientAuth, ClientCredentials, ConfigError, RequestFormat, ResponseFormat, Secret, StaticToken,
    TokenCache, TokenEndpoint,
};

const MAX_TOKENS_PER_DAY: NonZeroU32 = NonZeroU32::new(100).unwrap();
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A cache for a layer, or to be used directly.
type Configured = Result<TokenCache, ConfigError>;

/// Pex (media search): HTTP Basic, tokens of two hours.
pub(crate) fn pex(base_url: &str, id: &str, secret: Secret) -> Configured {
    let auth = ClientAuth::client_secret_basic(id, secret);
    let endpoint = TokenEndpoint::new(format!("{base_url}/oauth2/token"), auth)?;
    Ok(TokenCache::new(ClientCredentials::new(endpoint)))
}

/// PA (product recommendations): id and secret in the form, tokens of 25 hours, refreshed daily.
pub(crate) fn pa(base_url: &str, id: &str, secret: Secret) -> Configured {
    let auth = ClientAuth::client_secret_post(id, secret);
    let endpoint = TokenEndpoint::new(format!("{base_url}/auth/connect/token"), auth)?;
    let endpoint = endpoint.refresh_at_age(DAY);
    Ok(TokenCache::new(ClientCredentials::new(endpoint).scope("api:recs api:search")))
}

/// `ExpertFile` (expert directory): the response is an envelope with the expiry as a date.
pub(crate) fn expertfile(base_url: &str, id: &str, secret: Secret) -> Configured {
    let auth = ClientAuth::client_secret_post(id, secret);
    let format = ResponseFormat::default()
        .access_token("/data/accessToken")?
        .expires_at("/data/accessTokenExpiresAt")?
        .success("/success")?
        .error_description("/message")?;
    let endpoint = TokenEndpoint::new(format!("{base_url}/oauth/token"), auth)?;
    Ok(TokenCache::new(ClientCredentials::new(endpoint.response_format(format))))
}

/// An API with a daily limit on tokens, here 100: a JSON request with an `audience`.
pub(crate) fn saas(base_url: &str, id: &str, secret: Secret, audience: &str) -> Configured {
    let auth = ClientAuth::client_secret_post(id, secret);
    let endpoint = TokenEndpoint::new(format!("{base_url}/oauth/token"), auth)?;
    let endpoint = endpoint.request_format(RequestFormat::Json);
    let cache = TokenCache::builder(ClientCredentials::new(endpoint).audience(audience));
    Ok(cache.token_request_limit(MAX_TOKENS_PER_DAY, DAY).build())
}

/// The older scheme of that API: a token's id and secret as HTTP Basic with each request.
pub(crate) fn legacy(token_id: &str, token_secret: Secret) -> Configured {
    Ok(TokenCache::new(StaticToken::basic(token_id, token_secret)?))
}
