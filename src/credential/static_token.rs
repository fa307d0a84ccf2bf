use std::fmt;

use crate::{
    error::{ConfigError, TokenError},
    source::TokenSource,
    token::{AccessToken, ClientSecret},
};

/// A fixed credential: a bearer token that was handed out by hand, or HTTP Basic for an API that has no better.
///
/// There is nothing to renew. Where it is refused, the caller gets the refusal.
///
/// ```
/// use tower_oauth::{ClientSecret, StaticToken, TokenCache};
///
/// let tokens = TokenCache::new(StaticToken::bearer("2YotnFZFEjr1zCsicMWpAA")?);
/// let legacy = TokenCache::new(StaticToken::basic("token-id", "token-secret")?);
/// let mounted = TokenCache::new(StaticToken::basic("token-id", ClientSecret::from_file("/run/secrets/api"))?);
/// # Ok::<_, tower_oauth::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct StaticToken(Kind);

#[derive(Clone)]
enum Kind {
    Bearer(AccessToken),
    Basic { user: String, password: ClientSecret },
}

impl StaticToken {
    /// A bearer token (RFC 6750 §2.1). For one in a file see [`TokenFile`](crate::TokenFile).
    ///
    /// # Errors
    ///
    /// [`ConfigError::StaticToken`] for what no access token can be (see [`AccessToken::bearer`]).
    pub fn bearer(token: impl AsRef<str>) -> Result<Self, ConfigError> {
        let token = AccessToken::bearer(token);
        token.map(Kind::Bearer).map(Self).map_err(|error| refuse(error.what()))
    }

    /// A user name and a password, or a token's id and secret, as HTTP Basic (RFC 7617). A password in a file is read again
    /// when it was refused.
    ///
    /// # Errors
    ///
    /// [`ConfigError::StaticToken`] for a user name with a colon, which could not be told from the password.
    pub fn basic(user: impl Into<String>, password: impl Into<ClientSecret>) -> Result<Self, ConfigError> {
        let user = user.into();
        AccessToken::basic(&user, "").map_err(|error| refuse(error.what()))?;
        Ok(Self(Kind::Basic { user, password: password.into() }))
    }
}

fn refuse(reason: &str) -> ConfigError {
    ConfigError::StaticToken { reason: reason.to_owned() }
}

impl TokenSource for StaticToken {
    async fn fetch(&self) -> Result<AccessToken, TokenError> {
        match &self.0 {
            Kind::Bearer(token) => Ok(token.clone()),
            Kind::Basic { user, password } => AccessToken::basic(user, &password.read().await?),
        }
    }
}

impl fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Bearer(token) => f.debug_tuple("StaticToken").field(token).finish(),
            Kind::Basic { user, password } => {
                f.debug_struct("StaticToken").field("user", user).field("password", password).finish()
            }
        }
    }
}
