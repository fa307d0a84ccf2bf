use std::fmt;

use http::Uri;

use crate::{
    authority::{check_server, is_loopback, shown, without_secrets},
    error::ConfigError,
};

/// The URL of a token endpoint (RFC 6749 §3.2).
///
/// It is `https`, as the request carries the client's secret; `http` is taken for this machine itself (`localhost`,
/// `127.0.0.0/8`, `[::1]`). A query is kept and sent, but never shown. Made with `TryFrom<&str>`, which is what
/// [`TokenEndpoint::new`](crate::TokenEndpoint::new) does for a plain string.
///
/// ```
/// use tower_oauth::{ConfigError, TokenUrl};
///
/// let url = TokenUrl::try_from("https://auth.example.com/oauth2/token?tenant=blue")?;
/// assert_eq!(url.to_string(), "https://auth.example.com/oauth2/token");
///
/// let refused = TokenUrl::try_from("http://auth.example.com/oauth2/token");
/// assert!(matches!(refused, Err(ConfigError::InsecureTokenUrl { .. })));
/// # Ok::<_, ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TokenUrl(Uri);

impl TokenUrl {
    /// Takes an `http` URL of another machine as well.
    ///
    /// **The client's secret and the token go over this connection.** For where something else encrypts it, such as the
    /// proxies of a service mesh.
    ///
    /// # Errors
    ///
    /// [`ConfigError::TokenUrl`] for what is no usable URL.
    pub fn danger_plain_http(url: &str) -> Result<Self, ConfigError> {
        parse(url).map(Self)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    #[cfg(feature = "default-transport")]
    pub(super) fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

const NO_URL: &str = "is not a URL such as https://auth.example.com/oauth2/token";

fn parse(url: &str) -> Result<Uri, ConfigError> {
    let refuse = |reason| Err(ConfigError::TokenUrl { url: without_secrets(url), reason });
    if url.contains('#') {
        return refuse("has a fragment, which a token URL must not have (RFC 6749 section 3.2)");
    }
    let Ok(uri) = url.parse::<Uri>() else { return refuse(NO_URL) };
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) => match check_server(scheme, authority) {
            Ok(()) => Ok(uri),
            Err(reason) => refuse(reason),
        },
        _ => refuse(NO_URL),
    }
}

impl TryFrom<&str> for TokenUrl {
    type Error = ConfigError;

    fn try_from(url: &str) -> Result<Self, ConfigError> {
        let url = Self(parse(url)?);
        if url.0.scheme_str() == Some("http") && !is_loopback(url.0.host().unwrap_or_default()) {
            return Err(ConfigError::InsecureTokenUrl { url: url.to_string() });
        }
        Ok(url)
    }
}

/// Without the query.
impl fmt::Display for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
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
    fn plain_http_is_for_this_machine_only() {
        for url in ["http://localhost:1/t", "http://127.8.9.1/t", "http://[::1]:8/t", "https://a.test/t"] {
            assert!(TokenUrl::try_from(url).is_ok(), "{url}");
        }
        for url in ["http://a.test/t", "http://localhost.a.test/t", "http://10.0.0.1/t", "http://[::2]/t"] {
            let error = TokenUrl::try_from(url).unwrap_err();
            assert_eq!(error, ConfigError::InsecureTokenUrl { url: url.to_owned() });
            assert!(TokenUrl::danger_plain_http(url).is_ok());
        }
    }

    const PORT: &str = "needs the scheme https or http, and a port from 1 to 65535 if any";

    #[test]
    fn what_is_no_token_url_is_refused_with_its_reason() {
        for (url, reason) in [
            ("", NO_URL),
            ("https://a b/", NO_URL),
            ("/token", NO_URL),
            ("a.test/token", NO_URL),
            ("ftp://a.test/", PORT),
            ("https://:443/t", "has no host"),
            ("https://a.test:99999/t", PORT),
            ("https://a.test:/t", PORT),
            ("https://a.test:0/t", PORT),
            ("https://me:hunter?2@a.test/t", PORT),
        ] {
            match TokenUrl::try_from(url) {
                Err(ConfigError::TokenUrl { reason: said, .. }) => assert_eq!(said, reason, "{url}"),
                other => panic!("{url}: {other:?}"),
            }
        }
    }

    #[test]
    fn no_error_shows_what_stands_before_the_at_sign_or_behind_the_question_mark() {
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
