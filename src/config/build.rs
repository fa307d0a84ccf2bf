//! From the file to the things themselves.

#[cfg(feature = "default-transport")]
use std::fs;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, Service};

use super::provider::{self, Auth, Grant, Limit, ProviderConfig, Source};
#[cfg(feature = "default-transport")]
use crate::layer::OAuthLayer;
use crate::{
    cache::TokenCache,
    client_auth::ClientAuth,
    credential::{StaticToken, TokenFile},
    error::ConfigError,
    grant::ClientCredentials,
    presentation::Origins,
    token_endpoint::{Issuer, Location, ResponseFormat, TokenEndpoint, TokenUrl},
};

impl ProviderConfig {
    /// A layer that shows the provider's token to its `origins`. Each call makes a cache of its own: make the layer once.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names what cannot be used; [`ConfigError::NoOrigin`] without `origins`.
    #[cfg(feature = "default-transport")]
    pub fn layer(&self) -> Result<OAuthLayer, ConfigError> {
        Ok(OAuthLayer::new(self.token_cache()?, self.origins()?))
    }

    /// The servers that may see the token.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Origin`] for what is no origin, [`ConfigError::NoOrigin`] where there is none.
    pub fn origins(&self) -> Result<Origins, ConfigError> {
        Origins::new(&self.origins)
    }

    /// A cache of the provider's token, whatever its `origins`: to use it without the layer, or to build the layer by hand.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names what cannot be used.
    #[cfg(feature = "default-transport")]
    pub fn token_cache(&self) -> Result<TokenCache, ConfigError> {
        self.cache_by(|grant, location, auth| match &grant.ca_file {
            None => TokenEndpoint::new(location, auth),
            Some(file) => {
                let pem = fs::read(file).map_err(|error| ConfigError::Certificates {
                    reason: format!("{}: {error}", file.display()),
                })?;
                TokenEndpoint::new_trusting(location, auth, pem)
            }
        })
    }

    /// [`token_cache`](Self::token_cache), with a transport of yours for the token request.
    ///
    /// # Errors
    ///
    /// Those of [`token_cache`](Self::token_cache). `ca_file` is for the ready-made transport, and an error here.
    pub fn token_cache_with_transport<S, ReqBody, ResBody>(
        &self,
        transport: S,
    ) -> Result<TokenCache, ConfigError>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        ReqBody: From<Bytes> + 'static,
        ResBody: Body + Send + 'static,
        ResBody::Error: Into<BoxError>,
    {
        self.cache_by(|grant, location, auth| {
            if grant.ca_file.is_some() {
                return Err(unusable(
                    "has a ca_file, which is for the ready-made transport: set it up in yours",
                ));
            }
            TokenEndpoint::with_transport(location, auth, transport)
        })
    }

    fn cache_by(
        &self,
        endpoint: impl FnOnce(&Grant, Location, ClientAuth) -> Result<TokenEndpoint, ConfigError>,
    ) -> Result<TokenCache, ConfigError> {
        let mut cache = match &self.source {
            Source::ClientCredentials(grant) => TokenCache::builder(grant.source(endpoint)?),
            Source::StaticBearer { token } => TokenCache::builder(StaticToken::bearer(&token.0)?),
            Source::StaticBasic { user, password } => {
                TokenCache::builder(StaticToken::basic(user, password.clone())?)
            }
            Source::TokenFile { path, reread_after } => {
                let file = TokenFile::new(path);
                TokenCache::builder(match reread_after {
                    Some(age) => file.reread_after(age.0),
                    None => file,
                })
            }
        };
        if let Some(name) = &self.name {
            cache = cache.name(name.as_str());
        }
        if let Some(timeout) = self.refresh_timeout {
            cache = cache.refresh_timeout(timeout.0);
        }
        if let Some(Limit { most, period }) = self.token_request_limit {
            cache = cache.token_request_limit(most, period.0);
        }
        Ok(cache.build())
    }
}

fn unusable(reason: &'static str) -> ConfigError {
    ConfigError::Provider { reason }
}

impl Grant {
    fn source(
        &self,
        endpoint: impl FnOnce(&Self, Location, ClientAuth) -> Result<TokenEndpoint, ConfigError>,
    ) -> Result<ClientCredentials, ConfigError> {
        let endpoint = endpoint(self, self.location()?, self.client_auth.build())?;
        let mut grant = ClientCredentials::new(self.set_up(endpoint)?);
        if let Some(scope) = &self.scope {
            grant = grant.scope(scope);
        }
        if let Some(audience) = &self.audience {
            grant = grant.audience(audience);
        }
        for resource in &self.resource {
            grant = grant.resource(resource);
        }
        for (name, value) in &self.parameters {
            grant = grant.parameter(name, &value.0)?;
        }
        Ok(grant)
    }

    fn location(&self) -> Result<Location, ConfigError> {
        match (&self.token_url, &self.issuer) {
            (Some(url), None) if self.danger_plain_http => {
                TokenUrl::danger_plain_http(url).map(Location::from)
            }
            (Some(url), None) => Location::try_from(url),
            (None, Some(issuer)) => Issuer::try_from(issuer.as_str()).map(Location::from),
            _ => Err(unusable("needs either token_url or issuer")),
        }
    }

    fn set_up(&self, endpoint: TokenEndpoint) -> Result<TokenEndpoint, ConfigError> {
        let mut endpoint = endpoint.body_format(self.body).response_format(self.response.build()?);
        for (name, value) in &self.headers {
            endpoint = endpoint.header(name, &value.0)?;
        }
        if let Some(timeout) = self.timeout {
            endpoint = endpoint.timeout(timeout.0);
        }
        if let Some(lifetime) = self.default_lifetime {
            endpoint = endpoint.default_lifetime(lifetime.0);
        }
        match (self.renew_at_age, self.renew_before_expiry) {
            (None, None) => Ok(endpoint),
            (Some(age), None) => Ok(endpoint.renew_at_age(age.0)),
            (None, Some(remaining)) => Ok(endpoint.renew_before_expiry(remaining.0)),
            (Some(_), Some(_)) => Err(unusable("has both renew_at_age and renew_before_expiry")),
        }
    }
}

impl Auth {
    fn build(&self) -> ClientAuth {
        match self.clone() {
            Self::ClientSecretBasic { client_id, client_secret } => {
                ClientAuth::client_secret_basic(client_id, client_secret)
            }
            Self::ClientSecretBasicRaw { client_id, client_secret } => {
                ClientAuth::client_secret_basic_raw(client_id, client_secret)
            }
            Self::ClientSecretPost { client_id, client_secret } => {
                ClientAuth::client_secret_post(client_id, client_secret)
            }
            Self::None { client_id } => ClientAuth::none(client_id),
        }
    }
}

impl provider::Response {
    fn build(&self) -> Result<ResponseFormat, ConfigError> {
        type Setter = fn(ResponseFormat, String) -> Result<ResponseFormat, ConfigError>;
        let pointers: [(&Option<String>, Setter); 8] = [
            (&self.access_token, ResponseFormat::access_token),
            (&self.token_type, ResponseFormat::token_type),
            (&self.expires_in, ResponseFormat::expires_in),
            (&self.expires_at, ResponseFormat::expires_at),
            (&self.scope, ResponseFormat::scope),
            (&self.success, ResponseFormat::success),
            (&self.error, ResponseFormat::error),
            (&self.error_description, ResponseFormat::error_description),
        ];
        let mut format = ResponseFormat::default();
        for (pointer, set) in pointers {
            if let Some(pointer) = pointer {
                format = set(format, pointer.clone())?;
            }
        }
        Ok(format)
    }
}
