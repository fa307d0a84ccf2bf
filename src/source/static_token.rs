//! A fixed credential.

use std::fmt;

use super::{fetch_context::FetchContext, token_source::TokenSource};
use crate::{
    error::{ConfigError, TokenError},
    token::{AccessToken, Secret},
};

/// A fixed credential: a bearer token that was issued by hand, or HTTP Basic for an API that has no
/// tokens.
///
/// It does not expire. If it is rejected, the caller receives the rejection, and the next request
/// sends the same credential again.
///
/// ```
/// use tower_oauth::{Secret, StaticToken, TokenCache};
///
/// let bearer = TokenCache::new(StaticToken::bearer("2YotnFZFEjr1zCsicMWpAA")?);
/// let basic = TokenCache::new(StaticToken::basic("token-id", "token-secret")?);
///
/// let mounted = Secret::from_file("/run/secrets/api");
/// let basic_from_file = TokenCache::new(StaticToken::basic("token-id", mounted)?);
/// # Ok::<_, tower_oauth::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct StaticToken(Kind);

#[derive(Clone)]
enum Kind {
    Bearer(AccessToken),
    Basic { user: String, password: Secret },
}

impl StaticToken {
    /// Creates a bearer token (RFC 6750 §2.1). For a token in a file, see
    /// [`TokenFile`](crate::TokenFile).
    ///
    /// # Errors
    ///
    /// [`ConfigError::StaticToken`] if `token` cannot be an access token. See
    /// [`AccessToken::bearer`].
    pub fn bearer(token: impl AsRef<str>) -> Result<Self, ConfigError> {
        let token = AccessToken::bearer(token).map_err(|error| config_error(&error))?;
        Ok(Self(Kind::Bearer(token)))
    }

    /// Creates an HTTP Basic credential (RFC 7617) from a user name and a password, or from the id
    /// and the secret of a token. If the password is a file, it is read again after a rejection.
    ///
    /// # Errors
    ///
    /// [`ConfigError::StaticToken`] if `user` contains a colon, which separates it from the
    /// password, or if one of both contains a control character (RFC 7617 §2).
    pub fn basic(
        user: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Result<Self, ConfigError> {
        let (user, password) = (user.into(), password.into());
        // Stands for a password in a file, which is checked when it is read.
        let checked = if password.has_control_character() { "\n" } else { "" };
        AccessToken::basic(&user, checked).map_err(|error| config_error(&error))?;
        Ok(Self(Kind::Basic { user, password }))
    }
}

fn config_error(error: &TokenError) -> ConfigError {
    ConfigError::StaticToken { reason: error.message().to_owned() }
}

impl TokenSource for StaticToken {
    async fn fetch(&self, _: FetchContext) -> Result<AccessToken, TokenError> {
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
            Kind::Basic { user, password } => f
                .debug_struct("StaticToken")
                .field("user", user)
                .field("password", password)
                .finish(),
        }
    }
}
