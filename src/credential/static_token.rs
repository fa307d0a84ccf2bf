use crate::{error::TokenError, source::TokenSource, token::AccessToken};

/// A fixed credential: a bearer token that was handed out by hand, or HTTP Basic for an API that has no better.
///
/// There is nothing to renew. Where it is refused, the caller gets the refusal.
///
/// ```
/// use tower_oauth::{StaticToken, TokenCache};
///
/// let tokens = TokenCache::new(StaticToken::bearer("2YotnFZFEjr1zCsicMWpAA")?);
/// let legacy = TokenCache::new(StaticToken::basic("token-id", "token-secret")?);
/// # Ok::<_, tower_oauth::TokenError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StaticToken(AccessToken);

impl StaticToken {
    /// A bearer token (RFC 6750 §2.1).
    ///
    /// # Errors
    ///
    /// Those of [`AccessToken::bearer`].
    pub fn bearer(token: impl AsRef<str>) -> Result<Self, TokenError> {
        AccessToken::bearer(token).map(Self)
    }

    /// A user name and a password, or a token's id and secret, as HTTP Basic (RFC 7617).
    ///
    /// # Errors
    ///
    /// Those of [`AccessToken::basic`].
    pub fn basic(user: impl AsRef<str>, password: impl AsRef<str>) -> Result<Self, TokenError> {
        AccessToken::basic(user.as_ref(), password.as_ref()).map(Self)
    }
}

impl TokenSource for StaticToken {
    async fn fetch(&self) -> Result<AccessToken, TokenError> {
        Ok(self.0.clone())
    }
}
