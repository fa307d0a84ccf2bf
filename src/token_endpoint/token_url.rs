//! A checked URL of a token endpoint.

use std::{fmt, str::FromStr};

use http::Uri;

use crate::{
    error::ConfigError,
    log_text::{url_text_without_secrets, url_without_query},
    url_check::{check_server, is_https_or_loopback},
};

/// The URL of a token endpoint (RFC 6749 §3.2).
///
/// The scheme must be `https`, because the request carries the client's secret. `http` is accepted
/// for this machine only: `localhost`, `127.0.0.0/8` and `[::1]`. A query is sent, but not shown by
/// `Display` and `Debug`.
///
/// [`TokenEndpoint::new`](crate::TokenEndpoint::new) parses a string in the same way.
///
/// ```
/// use tower_oauth::{ConfigError, TokenUrl};
///
/// let url: TokenUrl = "https://auth.example.com/oauth2/token?tenant=blue".parse()?;
/// assert_eq!(url.to_string(), "https://auth.example.com/oauth2/token");
///
/// let insecure = "http://auth.example.com/oauth2/token".parse::<TokenUrl>();
/// assert!(matches!(insecure, Err(ConfigError::InsecureTokenUrl { .. })));
/// # Ok::<_, ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TokenUrl(Uri);

impl TokenUrl {
    /// Creates a token URL that may be an `http` URL of another machine.
    ///
    /// **The client's secret and the token are sent over this connection.** Use it only where
    /// something else encrypts the connection, such as the proxies of a service mesh.
    ///
    /// # Errors
    ///
    /// [`ConfigError::TokenUrl`] if `url` is not a usable URL.
    pub fn danger_plain_http(url: &str) -> Result<Self, ConfigError> {
        parse(url).map(Self)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }
}

const NOT_A_URL: &str = "is not a URL such as https://auth.example.com/oauth2/token";

fn parse(url: &str) -> Result<Uri, ConfigError> {
    let error = |reason| Err(ConfigError::TokenUrl { url: url_text_without_secrets(url), reason });
    if url.contains('#') {
        return error("has a fragment, which a token URL must not have (RFC 6749 section 3.2)");
    }
    let Ok(uri) = url.parse::<Uri>() else { return error(NOT_A_URL) };
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) => match check_server(scheme, authority) {
            Ok(()) => Ok(uri),
            Err(reason) => error(reason),
        },
        _ => error(NOT_A_URL),
    }
}

/// Fails with [`ConfigError::TokenUrl`] if the text is not a usable URL, and with
/// [`ConfigError::InsecureTokenUrl`] if it is an `http` URL of another machine.
impl FromStr for TokenUrl {
    type Err = ConfigError;

    fn from_str(url: &str) -> Result<Self, ConfigError> {
        let url = Self(parse(url)?);
        if !is_https_or_loopback(&url.0) {
            return Err(ConfigError::InsecureTokenUrl { url: url.to_string() });
        }
        Ok(url)
    }
}

/// The same as [`FromStr`].
impl TryFrom<&str> for TokenUrl {
    type Error = ConfigError;

    fn try_from(url: &str) -> Result<Self, ConfigError> {
        url.parse()
    }
}

/// Shows the URL without its query and without unprintable characters, cut at 200 characters.
impl fmt::Display for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&url_without_query(&self.0))
    }
}

impl fmt::Debug for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_accepted_for_this_machine_only() {
        for url in
            ["http://localhost:1/t", "http://127.8.9.1/t", "http://[::1]:8/t", "https://a.test/t"]
        {
            assert!(TokenUrl::try_from(url).is_ok(), "{url}");
        }
        for url in
            ["http://a.test/t", "http://localhost.a.test/t", "http://10.0.0.1/t", "http://[::2]/t"]
        {
            let error = TokenUrl::try_from(url).unwrap_err();
            assert_eq!(error, ConfigError::InsecureTokenUrl { url: url.to_owned() });
            assert!(TokenUrl::danger_plain_http(url).is_ok());
        }
    }

    const PORT: &str = "needs the scheme https or http, and a port from 1 to 65535 if any";

    #[test]
    fn unusable_token_url_is_rejected_with_its_reason() {
        for (url, expected) in [
            ("", NOT_A_URL),
            ("https://a b/", NOT_A_URL),
            ("/token", NOT_A_URL),
            ("a.test/token", NOT_A_URL),
            ("ftp://a.test/", PORT),
            ("https://:443/t", "has no host"),
            ("https://a.test:99999/t", PORT),
            ("https://a.test:/t", PORT),
            ("https://a.test:0/t", PORT),
            ("https://me:hunter?2@a.test/t", PORT),
        ] {
            match url.parse::<TokenUrl>() {
                Err(ConfigError::TokenUrl { reason, .. }) => assert_eq!(reason, expected, "{url}"),
                other => panic!("{url}: {other:?}"),
            }
        }
    }

    #[test]
    fn error_shows_no_user_information_and_no_query() {
        for url in [
            "https://me:hunter2@a.test/t?key=hunter2",
            "https://a.test/t?key=hunter2#x",
            "http://a.test/?hunter2",
        ] {
            let error = TokenUrl::try_from(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            assert!(error.to_string().contains("a.test"), "{error}");
        }
    }
}
