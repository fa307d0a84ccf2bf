//! Makes layers and caches from a configuration.

#[cfg(feature = "default-transport")]
use std::fs;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::provider_config::{
    ClientAuthConfig, ClientCredentialsConfig, ProviderConfig, ResponseFormatConfig, SourceConfig,
};
use super::scalar::Text;
#[cfg(feature = "default-transport")]
use crate::layer::OAuthLayer;
use crate::{
    cache::{TokenCache, TokenCacheBuilder},
    error::{BoxError, ConfigError, SettingNames},
    origins::Origins,
    source::{ClientCredentials, StaticToken, TokenFile},
    token_endpoint::{ClientAuth, Issuer, Location, ResponseFormat, TokenEndpoint, TokenUrl},
};

impl ProviderConfig {
    /// Creates a layer that attaches the provider's token to requests to its `origins`.
    ///
    /// Each call creates a new cache, so call it once and clone the layer.
    ///
    /// # Errors
    ///
    /// Those of [`token_cache`](Self::token_cache) and [`origins`](Self::origins).
    #[cfg(feature = "default-transport")]
    pub fn layer(&self) -> Result<OAuthLayer, ConfigError> {
        Ok(OAuthLayer::new(self.token_cache()?, self.origins()?))
    }

    /// Returns the servers that receive the token.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Origin`] if one of the `origins` is not an origin, and
    /// [`ConfigError::NoOrigin`] if there is none.
    pub fn origins(&self) -> Result<Origins, ConfigError> {
        Origins::new(self.0.origins.iter())
    }

    /// Creates a cache of the provider's token: to use the token without a layer, or to build the
    /// layer by hand. Does not use `origins`.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the setting that cannot be used. Its cause may be a file that
    /// cannot be read (`ca_file`).
    #[cfg(feature = "default-transport")]
    pub fn token_cache(&self) -> Result<TokenCache, ConfigError> {
        self.build_cache(|config, location, auth| match &config.ca_file {
            None => TokenEndpoint::new(location, auth),
            Some(file) => {
                let pem = fs::read(&**file).map_err(|error| ConfigError::Certificates {
                    reason: format!(
                        "the ca_file {}: {error}; correct its path or its permissions",
                        &**file
                    ),
                })?;
                TokenEndpoint::new_trusting(location, auth, pem)
            }
        })
    }

    /// Creates a cache like [`token_cache`](Self::token_cache) that sends its token requests
    /// through `transport`: a tower HTTP service of your own, or a
    /// [`DefaultTransport`](crate::DefaultTransport) that several caches share.
    ///
    /// # Errors
    ///
    /// Those of [`token_cache`](Self::token_cache), and [`ConfigError::Provider`] if the source has
    /// a `ca_file`: the transport decides which certificates are trusted.
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
        self.build_cache(|config, location, auth| {
            if config.ca_file.is_some() {
                return Err(provider_error(
                    "has a ca_file, which applies to the ready-made transport only: configure the \
                     certificates of your transport instead",
                ));
            }
            TokenEndpoint::with_transport(location, auth, transport)
        })
    }

    fn build_cache(
        &self,
        make_endpoint: impl FnOnce(
            &ClientCredentialsConfig,
            Location,
            ClientAuth,
        ) -> Result<TokenEndpoint, ConfigError>,
    ) -> Result<TokenCache, ConfigError> {
        let mut cache = match &*self.0.source {
            SourceConfig::ClientCredentials(config) => {
                let endpoint = make_endpoint(config, config.location()?, config.client_auth())?;
                TokenCache::builder(config.grant(config.configure(endpoint)?)?)
            }
            SourceConfig::StaticBearer { token } => {
                TokenCache::builder(StaticToken::bearer(&**token)?)
            }
            SourceConfig::StaticBasic { user, password } => {
                TokenCache::builder(StaticToken::basic(&**user, password.clone())?)
            }
            SourceConfig::TokenFile { path, reread_after } => {
                let age = reread_after.map(|age| age.0);
                TokenCache::builder(apply(TokenFile::new(&**path), age, TokenFile::reread_after))
            }
        };
        cache = cache.setting_names(SettingNames::Keys);
        cache = apply(cache, self.0.name.as_deref(), TokenCacheBuilder::name);
        let timeout = self.0.refresh_timeout.map(|timeout| timeout.0);
        cache = apply(cache, timeout, TokenCacheBuilder::refresh_timeout);
        cache = apply(cache, self.0.token_request_limit, |cache, limit| {
            cache.token_request_limit(limit.max, limit.period.0)
        });
        Ok(cache.build())
    }
}

/// Calls a setter if there is a value for it.
fn apply<B, T>(builder: B, value: Option<T>, set: impl FnOnce(B, T) -> B) -> B {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

fn provider_error(reason: impl Into<String>) -> ConfigError {
    ConfigError::Provider { reason: reason.into() }
}

impl ClientCredentialsConfig {
    fn location(&self) -> Result<Location, ConfigError> {
        if self.discover_at.is_some() && self.issuer.is_none() {
            return Err(provider_error("has discover_at, which needs an issuer"));
        }
        match (&self.token_url, &self.issuer) {
            (Some(_), Some(_)) => Err(provider_error("has both token_url and issuer: remove one")),
            (None, None) => Err(provider_error("needs either token_url or issuer")),
            (Some(url), None) if self.danger_plain_http => {
                TokenUrl::danger_plain_http(url.as_ref()).map(Location::from)
            }
            (Some(url), None) => Location::try_from(url.as_ref()).map_err(|error| match error {
                ConfigError::InsecureTokenUrl { url } => provider_error(format!(
                    "has the token_url {url:?}, which would send the client secret unencrypted: \
                     use https, or add danger_plain_http = true if the connection is encrypted by \
                     other means"
                )),
                other => other,
            }),
            (None, Some(issuer)) => {
                let url = self.discover_at.as_ref().map(AsRef::as_ref);
                let issuer = issuer.as_ref().parse::<Issuer>();
                apply(issuer, url, |issuer, url: &str| issuer?.discover_at(url)).map(Location::from)
            }
        }
    }

    fn client_auth(&self) -> ClientAuth {
        match (*self.client_auth).clone() {
            ClientAuthConfig::ClientSecretBasic { client_id, client_secret } => {
                ClientAuth::client_secret_basic(&*client_id, client_secret)
            }
            ClientAuthConfig::ClientSecretBasicRaw { client_id, client_secret } => {
                ClientAuth::client_secret_basic_raw(&*client_id, client_secret)
            }
            ClientAuthConfig::ClientSecretPost { client_id, client_secret } => {
                ClientAuth::client_secret_post(&*client_id, client_secret)
            }
            ClientAuthConfig::None { client_id } => ClientAuth::none(&*client_id),
        }
    }

    fn configure(&self, endpoint: TokenEndpoint) -> Result<TokenEndpoint, ConfigError> {
        let mut endpoint = endpoint
            .request_format(self.request_format)
            .response_format(self.response_format.build()?);
        for (name, value) in &*self.headers {
            endpoint = endpoint.header(name, value)?;
        }
        let timeout = self.timeout.map(|timeout| timeout.0);
        endpoint = apply(endpoint, timeout, TokenEndpoint::timeout);
        let lifetime = self.default_lifetime.map(|lifetime| lifetime.0);
        endpoint = apply(endpoint, lifetime, TokenEndpoint::default_lifetime);
        endpoint = apply(endpoint, self.max_token_bytes, TokenEndpoint::max_token_bytes);
        match (self.refresh_at_age, self.refresh_before_expiry) {
            (None, None) => Ok(endpoint),
            (Some(age), None) => Ok(endpoint.refresh_at_age(age.0)),
            (None, Some(remaining)) => Ok(endpoint.refresh_before_expiry(remaining.0)),
            (Some(_), Some(_)) => {
                Err(provider_error("has both refresh_at_age and refresh_before_expiry: remove one"))
            }
        }
    }

    fn grant(&self, endpoint: TokenEndpoint) -> Result<ClientCredentials, ConfigError> {
        let mut grant = ClientCredentials::new(endpoint);
        grant = apply(grant, self.scope.as_deref(), ClientCredentials::scope);
        grant = apply(grant, self.audience.as_deref(), ClientCredentials::audience);
        for resource in &*self.resource {
            grant = grant.resource(&**resource);
        }
        for (name, value) in &*self.parameters {
            grant = grant.parameter(name, &**value)?;
        }
        Ok(grant)
    }
}

impl ResponseFormatConfig {
    fn build(&self) -> Result<ResponseFormat, ConfigError> {
        type Setter = fn(ResponseFormat, String) -> Result<ResponseFormat, ConfigError>;
        let pointers: [(&Option<Text>, Setter); 8] = [
            (&self.access_token, ResponseFormat::access_token),
            (&self.token_type, ResponseFormat::token_type),
            (&self.expires_in, ResponseFormat::expires_in),
            (&self.expires_at, ResponseFormat::expires_at),
            (&self.scope, ResponseFormat::scope),
            (&self.success, ResponseFormat::success),
            (&self.error, ResponseFormat::error),
            (&self.error_description, ResponseFormat::error_description),
        ];
        let mut format = ResponseFormat::with_encoding(self.encoding);
        for (pointer, set) in pointers {
            let pointer = pointer.as_deref().map(str::to_owned);
            format = apply(Ok(format), pointer, |format, pointer| set(format?, pointer))?;
        }
        Ok(format)
    }
}
