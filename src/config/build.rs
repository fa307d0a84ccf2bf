//! Makes layers and caches from a configuration.

#[cfg(feature = "default-transport")]
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    key_names::KeyNames,
    keys::{ClientAuthentication, ClientCredentialsSource, ClientSecret, ResponseMembers, Source},
    provider_config::ProviderConfig,
    values::PositiveDuration,
};
#[cfg(feature = "tonic")]
use crate::replay::TonicBody;
#[cfg(feature = "default-transport")]
use crate::token_endpoint::{Certificate, DefaultTransport, parse_certificates};
use crate::{
    cache::{TokenCache, TokenCacheBuilder},
    error::{BoxError, ConfigError, SettingNames},
    layer::OAuthLayer,
    origins::Origins,
    replay::BufferBody,
    source::{ClientCredentials, StaticToken, TokenFile},
    token_endpoint::{ClientAuth, Issuer, Location, ResponseFormat, TokenEndpoint, TokenUrl},
};

impl ProviderConfig {
    /// Creates a layer that attaches the provider's token to requests to its `origins`.
    ///
    /// Each call creates a new cache, so call it once and clone the layer. The layer clones request
    /// bodies for a retry. For others, and for gRPC, see [the module](super#bodies-and-grpc).
    ///
    /// # Errors
    ///
    /// Those of [`token_cache`](Self::token_cache) and [`origins`](Self::origins).
    #[cfg(feature = "default-transport")]
    pub fn layer(&self) -> Result<OAuthLayer, ConfigError> {
        self.layer_with_cache(self.token_cache()?)
    }

    /// Creates a layer like [`layer`](Self::layer) that attaches the token of `cache`.
    ///
    /// # Errors
    ///
    /// Those of [`origins`](Self::origins).
    pub fn layer_with_cache(&self, cache: TokenCache) -> Result<OAuthLayer, ConfigError> {
        let statuses = self.provider.rejection_statuses.iter().map(|status| status.0);
        Ok(OAuthLayer::new(cache, self.origins()?).rejection_statuses(statuses))
    }

    /// Returns the servers that receive the token.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Key`] if one of the `origins` is not an origin, and [`ConfigError::Provider`]
    /// if there is none and `without_authority` is not set.
    pub fn origins(&self) -> Result<Origins, ConfigError> {
        let (origins, names) = (&self.provider.origins, &self.names);
        if origins.is_empty() {
            if self.provider.without_authority {
                return Ok(Origins::without_authority());
            }
            return Err(names.error_about_keys(
                "has no {origins}: name at least one server that may receive the token, or set \
                 {without_authority} to true for requests without an authority",
            ));
        }
        let origins =
            Origins::new(origins.iter()).map_err(|error| unusable(names, "origins", &error))?;
        Ok(if self.provider.without_authority { origins.and_without_authority() } else { origins })
    }

    /// Returns the setting for bodies that are not cloned, with the cap of the key `replay_cap`:
    /// for [`OAuthLayer::with_replay`].
    #[must_use]
    pub fn buffer_body(&self) -> BufferBody {
        self.provider.replay_cap.map_or_else(BufferBody::default, BufferBody::with_cap)
    }

    /// Returns the setting for calls of a tonic client, with the cap of the key `replay_cap`: for
    /// [`OAuthLayer::with_replay`] after [`OAuthLayer::grpc`].
    #[cfg(feature = "tonic")]
    #[must_use]
    pub fn tonic_body(&self) -> TonicBody {
        self.provider.replay_cap.map_or_else(TonicBody::default, TonicBody::with_cap)
    }

    /// Creates a cache of the provider's token: to use the token without a layer, or for several
    /// layers. Reads the environment variables that the configuration names.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the setting that cannot be used. Its cause may be a file that
    /// cannot be read (`ca_file`), or an environment variable that is not set.
    #[cfg(feature = "default-transport")]
    pub fn token_cache(&self) -> Result<TokenCache, ConfigError> {
        self.build_cache(|config, location, auth| {
            let transport = config.transport(location.is_https(), &self.names)?;
            TokenEndpoint::with_transport(location, auth, transport)
        })
    }

    /// Creates a cache like [`token_cache`](Self::token_cache) that sends its token requests
    /// through `transport`: a tower HTTP service of your own, or a
    /// [`DefaultTransport`](crate::DefaultTransport) that several caches share.
    ///
    /// # Errors
    ///
    /// Those of [`token_cache`](Self::token_cache), and [`ConfigError::Key`] if the source has a
    /// `ca_file`, `bundled_roots`, a `proxy` or `no_proxy`: these are settings of the transport.
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
            if let Some(key) = config.key_of_the_transport() {
                return Err(self.names.error(
                    key,
                    "applies to the ready-made transport only: remove it, and configure your \
                     transport instead",
                ));
            }
            TokenEndpoint::with_transport(location, auth, transport)
        })
    }

    fn build_cache(
        &self,
        make_endpoint: impl FnOnce(
            &ClientCredentialsSource,
            Location,
            ClientAuth,
        ) -> Result<TokenEndpoint, ConfigError>,
    ) -> Result<TokenCache, ConfigError> {
        let names = &self.names;
        let cache = match &self.provider.source {
            Source::ClientCredentials(config) => {
                let auth = config.client_auth.build(names)?;
                let endpoint = make_endpoint(config, config.location(names)?, auth);
                let endpoint = endpoint.map_err(|error| match error {
                    ConfigError::ClientAuth { .. } => {
                        unusable(names, config.client_auth.unusable_key(), &error)
                    }
                    error => error,
                });
                TokenCache::builder(config.grant(endpoint?, names)?)
            }
            Source::StaticBearer { token } => {
                let token = StaticToken::bearer(&*token.read(names, "source.token")?);
                TokenCache::builder(token.map_err(|cause| unusable(names, "source.token", &cause))?)
            }
            Source::StaticBasic { user, password } => {
                let token = StaticToken::basic(user, password.read(names, "source.password")?);
                let key = if is_basic_user_name(user) { "source.password" } else { "source.user" };
                TokenCache::builder(token.map_err(|cause| unusable(names, key, &cause))?)
            }
            Source::TokenFile { path, reread_after } => {
                let file = TokenFile::new(path);
                TokenCache::builder(apply(file, duration(*reread_after), TokenFile::reread_after))
            }
        };
        let cache = cache.setting_names(SettingNames::Keys);
        let cache = apply(cache, self.provider.name.as_deref(), TokenCacheBuilder::name);
        let timeout = duration(self.provider.refresh_timeout);
        let cache = apply(cache, timeout, TokenCacheBuilder::refresh_timeout);
        let cache = apply(cache, self.provider.token_request_limit, |cache, limit| {
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

fn duration(value: Option<PositiveDuration>) -> Option<Duration> {
    value.map(|duration| duration.0)
}

/// Returns the error of a setter as an error about the key `path`.
fn unusable(names: &KeyNames, path: &str, error: &ConfigError) -> ConfigError {
    match error {
        ConfigError::StaticToken { reason } => {
            names.error(path, format!("cannot be used: {reason}"))
        }
        error => names.error(path, format!("cannot be used: {error}")),
    }
}

/// Returns true if a text can be the user name of HTTP Basic (RFC 7617 §2).
fn is_basic_user_name(text: &str) -> bool {
    !text.contains(':') && !text.contains(char::is_control)
}

impl ClientCredentialsSource {
    fn location(&self, names: &KeyNames) -> Result<Location, ConfigError> {
        let error = |text| Err(names.error_about_keys(text));
        if self.discover_at.is_some() && self.issuer.is_none() {
            return error("has {source.discover_at}, which needs {source.issuer}");
        }
        match (&self.token_url, &self.issuer) {
            (Some(_), Some(_)) => {
                error("has both {source.token_url} and {source.issuer}: remove one")
            }
            (None, None) => error("needs either {source.token_url} or {source.issuer}"),
            (Some(url), None) => {
                let location = if self.danger_plain_http {
                    TokenUrl::danger_plain_http(url).map(Location::from)
                } else {
                    Location::try_from(&**url)
                };
                location.map_err(|error| match error {
                    ConfigError::InsecureTokenUrl { url } => names.error(
                        "source.token_url",
                        format!(
                            "is {url:?}, which would send the client secret unencrypted: use \
                             https, or set `{}` to true if the connection is encrypted by other \
                             means",
                            names.name(&["source", "danger_plain_http"])
                        ),
                    ),
                    error => unusable(names, "source.token_url", &error),
                })
            }
            (None, Some(issuer)) => {
                let issuer = issuer.parse::<Issuer>();
                let issuer = issuer.map_err(|error| unusable(names, "source.issuer", &error))?;
                let Some(url) = &self.discover_at else { return Ok(issuer.into()) };
                let issuer = issuer.discover_at(url).map(Location::from);
                issuer.map_err(|error| unusable(names, "source.discover_at", &error))
            }
        }
    }

    /// Creates the ready-made transport. It has TLS for an `https` URL, and for a proxy.
    #[cfg(feature = "default-transport")]
    fn transport(&self, is_https: bool, names: &KeyNames) -> Result<DefaultTransport, ConfigError> {
        if self.bundled_roots && !cfg!(feature = "webpki-roots") {
            return Err(names.error(
                "source.bundled_roots",
                "needs root certificates in the program: enable the feature webpki-roots of \
                 tower-oauth",
            ));
        }
        let certificates = self.certificates(names)?;
        let transport = if !is_https && self.proxy.is_none() {
            DefaultTransport::for_plain_http()
        } else if self.bundled_roots {
            DefaultTransport::with_bundled_roots_and(certificates)?
        } else {
            DefaultTransport::trusting(certificates)?
        };
        match &self.proxy {
            None if self.no_proxy => Ok(transport.no_proxy()),
            None => Ok(transport),
            Some(_) if self.no_proxy => {
                Err(names
                    .error_about_keys("has both {source.proxy} and {source.no_proxy}: remove one"))
            }
            Some(url) => {
                let url = url.read(names, "source.proxy")?;
                let setting = names.name(&["source", "proxy"]);
                transport.proxy_in_setting(&url, setting).map_err(|cause| match cause {
                    ConfigError::Proxy { reason, .. } => names.error("source.proxy", reason),
                    cause => cause,
                })
            }
        }
    }

    /// Reads the `ca_file`.
    #[cfg(feature = "default-transport")]
    fn certificates(&self, names: &KeyNames) -> Result<Vec<Certificate>, ConfigError> {
        let Some(file) = &self.ca_file else { return Ok(Vec::new()) };
        let error = |reason| names.error("source.ca_file", reason);
        let pem = fs::read(file).map_err(|cause| {
            error(format!(
                "names the file {file}, which cannot be read: {cause}; correct its path or its \
                 permissions"
            ))
        })?;
        parse_certificates(&pem).map_err(|cause| error(format!("cannot be used: {cause}")))
    }

    /// Returns the path of a key that only the ready-made transport uses.
    fn key_of_the_transport(&self) -> Option<&'static str> {
        let keys = [
            (self.ca_file.is_some(), "source.ca_file"),
            (self.bundled_roots, "source.bundled_roots"),
            (self.proxy.is_some(), "source.proxy"),
            (self.no_proxy, "source.no_proxy"),
        ];
        keys.into_iter().find_map(|(is_set, key)| is_set.then_some(key))
    }

    fn grant(
        &self,
        endpoint: TokenEndpoint,
        names: &KeyNames,
    ) -> Result<ClientCredentials, ConfigError> {
        let mut grant = ClientCredentials::new(self.configure(endpoint, names)?);
        grant = apply(grant, self.scope.as_deref(), ClientCredentials::scope);
        grant = apply(grant, self.audience.as_deref(), ClientCredentials::audience);
        for resource in &self.resource {
            grant = grant.resource(resource);
        }
        for (name, value) in &self.parameters {
            let value = value.read(names, "source.parameters")?;
            let error = |cause| unusable(names, "source.parameters", &cause);
            grant = grant.parameter(name, &**value).map_err(error)?;
        }
        Ok(grant)
    }

    fn configure(
        &self,
        mut endpoint: TokenEndpoint,
        names: &KeyNames,
    ) -> Result<TokenEndpoint, ConfigError> {
        endpoint = endpoint
            .request_format(self.request_format)
            .response_format(self.response_format.build(names)?);
        for (name, value) in &self.headers {
            let value = value.read(names, "source.headers")?;
            let error = |cause| unusable(names, "source.headers", &cause);
            endpoint = endpoint.header(name, &value).map_err(error)?;
        }
        for secret in &self.secrets {
            endpoint = endpoint.secret(&**secret.read(names, "source.secrets")?);
        }
        endpoint = apply(endpoint, duration(self.timeout), TokenEndpoint::timeout);
        let lifetime = duration(self.default_lifetime);
        endpoint = apply(endpoint, lifetime, TokenEndpoint::default_lifetime);
        endpoint = apply(endpoint, self.max_token_bytes, |endpoint, max| {
            endpoint.max_token_bytes(max.get())
        });
        match (self.refresh_at_age, self.refresh_before_expiry) {
            (None, None) => Ok(endpoint),
            (Some(age), None) => Ok(endpoint.refresh_at_age(age.0)),
            (None, Some(remaining)) => Ok(endpoint.refresh_before_expiry(remaining.0)),
            (Some(_), Some(_)) => Err(names.error_about_keys(
                "has both {source.refresh_at_age} and {source.refresh_before_expiry}: remove one",
            )),
        }
    }
}

impl ClientAuthentication {
    fn build(&self, names: &KeyNames) -> Result<ClientAuth, ConfigError> {
        let secret = |secret: &ClientSecret| {
            secret.client_secret.read(names, "source.client_auth.client_secret")
        };
        Ok(match self {
            Self::ClientSecretBasic(client) => {
                ClientAuth::client_secret_basic(&client.client_id, secret(client)?)
            }
            Self::ClientSecretBasicRaw(client) => {
                ClientAuth::client_secret_basic_raw(&client.client_id, secret(client)?)
            }
            Self::ClientSecretPost(client) => {
                ClientAuth::client_secret_post(&client.client_id, secret(client)?)
            }
            Self::None { client_id } => ClientAuth::none(client_id),
        })
    }

    /// Returns the path of the key that [`ClientAuth`] does not accept.
    fn unusable_key(&self) -> &'static str {
        let (Self::ClientSecretBasic(ClientSecret { client_id, .. })
        | Self::ClientSecretBasicRaw(ClientSecret { client_id, .. })
        | Self::ClientSecretPost(ClientSecret { client_id, .. })
        | Self::None { client_id }) = self;
        if client_id.contains(char::is_control) {
            "source.client_auth.client_id"
        } else {
            "source.client_auth.client_secret"
        }
    }
}

impl ResponseMembers {
    fn build(&self, names: &KeyNames) -> Result<ResponseFormat, ConfigError> {
        type Setter = fn(ResponseFormat, String) -> Result<ResponseFormat, ConfigError>;
        let pointers: [(&str, &Option<String>, Setter); 8] = [
            ("access_token", &self.access_token, ResponseFormat::access_token),
            ("token_type", &self.token_type, ResponseFormat::token_type),
            ("expires_in", &self.expires_in, ResponseFormat::expires_in),
            ("expires_at", &self.expires_at, ResponseFormat::expires_at),
            ("scope", &self.scope, ResponseFormat::scope),
            ("success", &self.success, ResponseFormat::success),
            ("error", &self.error, ResponseFormat::error),
            ("error_description", &self.error_description, ResponseFormat::error_description),
        ];
        let mut format = ResponseFormat::with_encoding(self.encoding);
        for (key, pointer, set) in pointers {
            let Some(pointer) = pointer else { continue };
            let path = format!("source.response_format.{key}");
            let error = |cause| unusable(names, &path, &cause);
            format = set(format, pointer.clone()).map_err(error)?;
        }
        Ok(format)
    }
}
