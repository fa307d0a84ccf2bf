use std::fmt;

use crate::{
    error::{ConfigError, TokenError},
    source::TokenSource,
    token::AccessToken,
    token_endpoint::TokenEndpoint,
    token_request::TokenRequest,
};

/// The names that have a setter, or that would be a second way to authenticate (RFC 6749 §2.3).
const RESERVED: &[(&str, &str)] = &[
    ("grant_type", "is given by the grant"),
    ("scope", "is set with ClientCredentials::scope"),
    ("audience", "is set with ClientCredentials::audience"),
    ("resource", "is set with ClientCredentials::resource"),
    ("client_id", "is set with ClientAuth"),
    ("client_secret", "is set with ClientAuth"),
    ("client_assertion", "is a way to authenticate, which is set with ClientAuth"),
    ("client_assertion_type", "is a way to authenticate, which is set with ClientAuth"),
];

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
    parameters: Vec<(String, String)>,
}

impl ClientCredentials {
    /// Asks `endpoint` for a token, for whatever scope the server gives by default.
    #[must_use]
    pub fn new(endpoint: TokenEndpoint) -> Self {
        Self { endpoint, scope: None, audience: None, resource: Vec::new(), parameters: Vec::new() }
    }

    /// The scope to ask for: one or more values with spaces between (RFC 6749 §3.3).
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// The API that the token is for, as some providers demand it (`audience`; the name is that of RFC 8693 §2.1).
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Adds the absolute URI of an API that the token is for (RFC 8707 §2). Most servers take one for each token.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource.push(resource.into());
        self
    }

    /// Adds any other parameter that the provider asks for. Its value is taken for a secret: no message shows it.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Parameter`] for a name that is there already or that has its own setter, here or in
    /// [`ClientAuth`](crate::ClientAuth).
    pub fn parameter(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let name = name.into();
        if let Some((_, reason)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
            return Err(ConfigError::Parameter { name, reason });
        }
        if self.parameters.iter().any(|(present, _)| *present == name) {
            return Err(ConfigError::Parameter { name, reason: "is there already" });
        }
        self.parameters.push((name, value.into()));
        Ok(self)
    }

    fn request(&self) -> TokenRequest {
        let mut request = TokenRequest::new("client_credentials");
        let own = [("scope", &self.scope), ("audience", &self.audience)];
        for (name, value) in own {
            if let Some(value) = value {
                request.parameter(name, value);
            }
        }
        for resource in &self.resource {
            request.parameter("resource", resource);
        }
        for (name, value) in &self.parameters {
            request.secret_parameter(name, value);
        }
        request
    }
}

impl TokenSource for ClientCredentials {
    async fn fetch(&self) -> Result<AccessToken, TokenError> {
        self.endpoint.fetch(self.request()).await
    }
}

/// The further parameters by name only: a provider may ask for a secret there.
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
