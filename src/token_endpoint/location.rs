use super::{issuer::Issuer, round_trip::RoundTrip, token_url::TokenUrl};
use crate::error::{ConfigError, TokenError};

/// Where a token endpoint is: its URL, or the issuer by which it is found.
///
/// A plain string is a URL. Both are turned into a `Location` by [`TokenEndpoint::new`](crate::TokenEndpoint::new).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Location {
    /// The URL itself.
    TokenUrl(TokenUrl),
    /// An issuer whose metadata has the URL.
    Issuer(Issuer),
}

impl Location {
    pub(super) async fn token_url(
        &self,
        method: &str,
        round_trip: &RoundTrip,
    ) -> Result<TokenUrl, TokenError> {
        match self {
            Self::TokenUrl(url) => Ok(url.clone()),
            Self::Issuer(issuer) => issuer.token_url(method, round_trip).await,
        }
    }

    /// To be called when a token request failed.
    pub(super) fn forget(&self) {
        if let Self::Issuer(issuer) = self {
            issuer.forget();
        }
    }

    #[cfg(feature = "default-transport")]
    pub(super) fn is_https(&self) -> bool {
        match self {
            Self::TokenUrl(url) => url.is_https(),
            Self::Issuer(issuer) => issuer.is_https(),
        }
    }
}

impl From<TokenUrl> for Location {
    fn from(url: TokenUrl) -> Self {
        Self::TokenUrl(url)
    }
}

impl From<Issuer> for Location {
    fn from(issuer: Issuer) -> Self {
        Self::Issuer(issuer)
    }
}

impl TryFrom<&str> for Location {
    type Error = ConfigError;

    fn try_from(url: &str) -> Result<Self, ConfigError> {
        TokenUrl::try_from(url).map(Self::TokenUrl)
    }
}

impl TryFrom<String> for Location {
    type Error = ConfigError;

    fn try_from(url: String) -> Result<Self, ConfigError> {
        Self::try_from(url.as_str())
    }
}

impl TryFrom<&String> for Location {
    type Error = ConfigError;

    fn try_from(url: &String) -> Result<Self, ConfigError> {
        Self::try_from(url.as_str())
    }
}
