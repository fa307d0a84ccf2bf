//! Four providers and a legacy scheme: each is a few lines of configuration, and no parser or encoder.

use std::{num::NonZeroU32, time::Duration};

use tower_oauth::{
    BodyFormat, ClientAuth, ClientCredentials, ClientSecret, ConfigError, ResponseFormat, StaticToken,
    TokenCache, TokenEndpoint,
};

const TOKENS_A_DAY: NonZeroU32 = NonZeroU32::new(100).unwrap();
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A cache to make a layer of, or to use as it is.
type Configured = Result<TokenCache, ConfigError>;

/// Pex, media search: HTTP Basic; tokens of two hours.
pub(crate) fn pex(base_url: &str, id: &str, secret: ClientSecret) -> Configured {
    let auth = ClientAuth::client_secret_basic(id, secret);
    let endpoint = TokenEndpoint::new(format!("{base_url}/oauth2/token"), auth)?;
    Ok(TokenCache::new(ClientCredentials::new(endpoint)))
}

/// PA, product recommendations: id and secret in the form; tokens of 25 hours, to be renewed daily.
pub(crate) fn pa(base_url: &str, id: &str, secret: ClientSecret) -> Configured {
    let auth = ClientAuth::client_secret_post(id, secret);
    let endpoint = TokenEndpoint::new(format!("{base_url}/auth/connect/token"), auth)?;
    let endpoint = endpoint.renew_at_age(Duration::from_secs(24 * 3600));
    Ok(TokenCache::new(ClientCredentials::new(endpoint).scope("api:recs api:search")))
}

/// `ExpertFile`, expert directory: the answer in an envelope, its expiry a date.
pub(crate) fn expertfile(base_url: &str, id: &str, secret: ClientSecret) -> Configured {
    let auth = ClientAuth::client_secret_post(id, secret);
    let envelope = ResponseFormat::default()
        .access_token("/data/accessToken")?
        .expires_at("/data/accessTokenExpiresAt")?
        .success("/success")?
        .error_description("/message")?;
    let endpoint = TokenEndpoint::new(format!("{base_url}/oauth/token"), auth)?.response_format(envelope);
    Ok(TokenCache::new(ClientCredentials::new(endpoint)))
}

/// An API with a daily limit on tokens, here of a hundred: everything in a JSON body, `audience` included.
pub(crate) fn saas(base_url: &str, id: &str, secret: ClientSecret, audience: &str) -> Configured {
    let auth = ClientAuth::client_secret_post(id, secret);
    let endpoint = TokenEndpoint::new(format!("{base_url}/oauth/token"), auth)?.body_format(BodyFormat::Json);
    let cache = TokenCache::builder(ClientCredentials::new(endpoint).audience(audience));
    Ok(cache.token_request_limit(TOKENS_A_DAY, DAY).build())
}

/// The older scheme of that API: id and secret of a token as HTTP Basic, with every request.
pub(crate) fn legacy(token_id: &str, token_secret: ClientSecret) -> Configured {
    Ok(TokenCache::new(StaticToken::basic(token_id, token_secret)?))
}
