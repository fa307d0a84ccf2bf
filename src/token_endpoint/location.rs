//! The location of a token endpoint: its URL, or the issuer through which it is found.

use super::{issuer::Issuer, round_trip::RoundTrip, token_url::TokenUrl};
use crate::{
    error::{ConfigError, TokenError},
    redact::Redactor,
};

/// The location of a token endpoint. Strings, [`TokenUrl`]s and [`Issuer`]s are converted to it by
/// [`TokenEndpoint::new`](crate::TokenEndpoint::new).
#[doc(hidden)]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Location {
    TokenUrl(TokenUrl),
    Issuer(Issuer),
}

impl Location {
    /// Returns the token URL. An issuer must support the client authentication `method`.
    pub(super) async fn token_url(
        &self,
        method: &str,
        round_trip: &RoundTrip,
        redactor: &Redactor,
    ) -> Result<TokenUrl, TokenError> {
        match self {
            Self::TokenUrl(url) => Ok(url.clone()),
            Self::Issuer(issuer) => issuer.token_url(method, round_trip, redactor).await,
        }
    }

    /// Forgets the metadata of an issuer, after a failed token request.
    pub(super) fn forget_metadata(&self) {
        if let Self::Issuer(issuer) = self {
            issuer.forget_metadata();
        }
    }

    /// Returns true if the token URL is from the metadata of an issuer.
    pub(super) fn is_issuer(&self) -> bool {
        matches!(self, Self::Issuer(_))
    }

    /// Returns true if requests to this location use TLS. The token endpoint of an issuer has the
    /// scheme of its metadata.
    #[cfg(feature = "default-transport")]
    pub(crate) fn is_https(&self) -> bool {
        let uri = match self {
            Self::TokenUrl(url) => url.uri(),
            Self::Issuer(issuer) => issuer.discovery_url(),
        };
        uri.scheme_str() == Some("https")
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
        url.parse().map(Self::TokenUrl)
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

#[cfg(all(test, feature = "default-transport"))]
mod tests {
    use super::*;

    #[test]
    fn https_is_that_of_the_token_url_or_of_the_metadata() {
        for (url, is_https) in [("https://a.test/x", true), ("http://localhost/x", false)] {
            assert_eq!(Location::try_from(url).unwrap().is_https(), is_https, "{url}");
            let issuer: Issuer = url.parse().unwrap();
            assert_eq!(Location::from(issuer).is_https(), is_https, "{url}");
            let other: Issuer = "https://b.test".parse().unwrap();
            let other = other.discover_at(url).unwrap();
            assert_eq!(Location::from(other).is_https(), is_https, "{url}");
        }
    }
}
