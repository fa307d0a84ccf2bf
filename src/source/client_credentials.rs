//! The client credentials grant.

use std::fmt;

use zeroize::Zeroizing;

use super::{fetch_context::FetchContext, token_source::TokenSource};
use crate::{
    error::{ConfigError, TokenError},
    token::AccessToken,
    token_endpoint::{TokenEndpoint, TokenRequest, is_client_auth_parameter},
};

/// The client credentials grant (RFC 6749 §4.4): a token for the client itself, machine to machine.
///
/// ```no_run
/// # #[cfg(feature = "default-transport")]
/// # fn main() -> Result<(), tower_oauth::ConfigError> {
/// use tower_oauth::{ClientAuth, ClientCredentials, TokenCache, TokenEndpoint};
///
/// let auth = ClientAuth::client_secret_basic("my-client", "hunter2");
/// let endpoint = TokenEndpoint::new("https://auth.example.com/oauth2/token", auth)?;
/// let grant = ClientCredentials::new(endpoint)
///     .scope("orders:read")
///     .audience("https://api.example.com")
///     .parameter("tenant", "blue")?;
/// let cache = TokenCache::new(grant);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "default-transport"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct ClientCredentials {
    endpoint: TokenEndpoint,
    scope: Option<String>,
    audience: Option<String>,
    resource: Vec<String>,
    parameters: Vec<(String, Zeroizing<String>)>,
}

impl ClientCredentials {
    /// Creates a grant that requests tokens from `endpoint`, without a scope and other parameters.
    #[must_use]
    pub fn new(endpoint: TokenEndpoint) -> Self {
        Self { endpoint, scope: None, audience: None, resource: Vec::new(), parameters: Vec::new() }
    }

    /// Sets the requested scope: one or more values, separated by spaces (RFC 6749 §3.3). Other
    /// white space, such as line breaks, is sent as a space. Default: none, for which the server
    /// uses a default scope of its own.
    ///
    /// A server may grant less. [`AccessToken::scope`] has the granted scope, and an
    /// [event](crate::docs::telemetry) names the values that are missing.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Sets the `audience`: the API that the token is for. Some providers require it; the name is
    /// that of RFC 8693 §2.1. Default: none.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Adds a `resource`: the absolute URI of an API that the token is for (RFC 8707 §2). Most
    /// servers accept one resource for each token.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource.push(resource.into());
        self
    }

    /// Adds another parameter that the provider requires. Its value is treated as a secret: no
    /// error shows it.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Parameter`] if the parameter was added before, or if it has its own setter
    /// here or in [`ClientAuth`](crate::ClientAuth).
    pub fn parameter(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let (name, value) = (name.into(), Zeroizing::new(value.into()));
        let reason = match name.as_str() {
            "grant_type" => "is set by the grant",
            // In code and in a configuration file, the setting has the name of the parameter.
            "scope" | "audience" | "resource" => "has a setting of its own: use that",
            name if is_client_auth_parameter(name) => "is set by the client authentication",
            name if self.parameters.iter().any(|(other, _)| other == name) => {
                "is there already: add it once"
            }
            _ => {
                self.parameters.push((name, value));
                return Ok(self);
            }
        };
        Err(ConfigError::Parameter { name, reason })
    }

    fn request(&self) -> TokenRequest {
        let mut request = TokenRequest::new("client_credentials");
        if let Some(scope) = &self.scope {
            let values: Vec<_> = scope.split_whitespace().collect();
            request = request.parameter("scope", values.join(" "));
        }
        if let Some(audience) = &self.audience {
            request = request.parameter("audience", audience);
        }
        for resource in &self.resource {
            request = request.parameter("resource", resource);
        }
        for (name, value) in &self.parameters {
            request = request.secret_parameter(name, value.as_str());
        }
        request
    }
}

impl TokenSource for ClientCredentials {
    async fn fetch(&self, _: FetchContext) -> Result<AccessToken, TokenError> {
        Ok(self.endpoint.send(self.request()).await?.into_access_token())
    }
}

/// Shows the names of the other parameters without their values: a value may be a secret.
impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        f.debug_struct("ClientCredentials")
            .field("endpoint", &self.endpoint)
            .field("scope", &self.scope)
            .field("audience", &self.audience)
            .field("resource", &self.resource)
            .field("parameters", &names)
            .finish()
    }
}
