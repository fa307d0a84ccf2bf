//! The servers that may receive the token.

use http::{
    Uri,
    uri::{Authority, Scheme},
};

use crate::{
    error::ConfigError,
    log_text::url_text_without_secrets,
    url_check::{check_server, effective_port},
};

/// The servers that may receive the token: origins (RFC 6454), named by scheme, host and port.
///
/// A request to any other server passes through the layer without a token, so that neither a
/// redirect nor a URL from a response takes the token there (RFC 6750 §5.3). The same applies to
/// a request with a `Host` header that names another server than its URI.
///
/// A request **without** an authority, such as a tonic client sends to its channel, goes to the
/// server of the inner service. It gets the token only with
/// [`without_authority`](Self::without_authority) or
/// [`and_without_authority`](Self::and_without_authority).
///
/// An `http` origin gets the token only if it is named: plain HTTP can be read in transit.
///
/// ```
/// use tower_oauth::{ConfigError, Origins};
///
/// let origins = Origins::new(["https://api.example.com", "http://localhost:8080"])?;
///
/// let error = Origins::new(["api.example.com/v1"]).unwrap_err();
/// assert!(matches!(error, ConfigError::Origin { .. }));
/// # Ok::<_, ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    named: Vec<Origin>,
    /// True if requests without an authority are allowed.
    without_authority: bool,
}

/// A list of strings. The compiler names this trait instead of [`IntoIterator`], so that its error
/// about a single string says what to do.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of origins",
    label = "expected a list of strings",
    note = "put a single origin into brackets: `Origins::new([\"https://api.example.com\"])`"
)]
pub trait OriginList {
    fn into_origins(self) -> impl Iterator<Item: AsRef<str>>;
}

#[diagnostic::do_not_recommend]
impl<I: IntoIterator<Item: AsRef<str>>> OriginList for I {
    fn into_origins(self) -> impl Iterator<Item: AsRef<str>> {
        self.into_iter()
    }
}

/// The number of an origin. Zero stands for requests without an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OriginId(usize);

impl OriginId {
    pub(crate) fn index(self) -> usize {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn for_test(index: usize) -> Self {
        Self(index)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: Scheme,
    authority: Authority,
    port: u16,
}

impl Origins {
    /// Allows these origins: an array, a vector or any other iterator of strings. Without a port,
    /// the default port of the scheme is meant: 443 or 80.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Origin`] if an item is not a scheme, a host and an optional port (there are
    /// no patterns). [`ConfigError::NoOrigin`] if the list is empty.
    pub fn new(origins: impl OriginList) -> Result<Self, ConfigError> {
        let origins = origins.into_origins();
        let named: Vec<_> =
            origins.map(|origin| Origin::parse(origin.as_ref())).collect::<Result<_, _>>()?;
        if named.is_empty() {
            return Err(ConfigError::NoOrigin);
        }
        Ok(Self { named, without_authority: false })
    }

    /// Allows only requests without an authority, for a layer over a channel that goes to one
    /// server.
    ///
    /// A path that begins with `//` or `/\`, or contains a control character, gets no token: some
    /// clients resolve it to another host. The `Host` header of such a request is not compared with
    /// anything, so do not let others choose it.
    #[must_use]
    pub fn without_authority() -> Self {
        Self { named: Vec::new(), without_authority: true }
    }

    /// Allows requests without an authority as well, as
    /// [`without_authority`](Self::without_authority) does.
    ///
    /// ```
    /// # use tower_oauth::{ConfigError, Origins};
    /// let origins = Origins::new(["https://api.example.com"])?.and_without_authority();
    /// # Ok::<_, ConfigError>(())
    /// ```
    #[must_use]
    pub fn and_without_authority(mut self) -> Self {
        self.without_authority = true;
        self
    }

    /// Returns the origin that allows a request to `uri` to carry the token.
    #[inline]
    pub(crate) fn find(&self, uri: &Uri) -> Option<OriginId> {
        match (self.named.first(), uri.scheme(), uri.authority()) {
            (Some(first), Some(scheme), Some(authority)) if first.is_spelled(scheme, authority) => {
                Some(OriginId(1))
            }
            _ => self.find_among_all(uri),
        }
    }

    fn find_among_all(&self, uri: &Uri) -> Option<OriginId> {
        match (uri.scheme(), uri.authority()) {
            (_, None) => {
                let is_allowed = self.without_authority && is_path_on_same_host(uri.path());
                is_allowed.then_some(OriginId(0))
            }
            (None, Some(_)) => None,
            (Some(scheme), Some(authority)) => {
                let index = self.named.iter().position(|origin| origin.is(scheme, authority));
                index.map(|index| OriginId(index + 1))
            }
        }
    }

    /// Returns the number of values of [`OriginId`].
    pub(crate) fn count(&self) -> usize {
        self.named.len() + 1
    }
}

/// Returns true if a path names no other host. `//host/path` is a reference to another host
/// (RFC 3986 §4.2). The URL Standard of browsers reads a backslash as a slash, and removes tabs and
/// line breaks first.
fn is_path_on_same_host(path: &str) -> bool {
    !path.starts_with("//")
        && !path.starts_with("/\\")
        && !path.bytes().any(|byte| byte.is_ascii_control())
}

impl Origin {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let error =
            |reason| Err(ConfigError::Origin { origin: url_text_without_secrets(text), reason });
        let Ok(uri) = text.parse::<Uri>() else { return error("is not a URL") };
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return error("needs a scheme, https:// or http://");
        };
        if let Err(reason) = check_server(scheme, authority) {
            return error(reason);
        }
        if authority.host().contains('*') {
            return error("must not be a pattern: name each host");
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return error("must not have a path, a query or a fragment");
        }
        let port = effective_port(scheme, authority).unwrap_or_default();
        Ok(Self { scheme: scheme.clone(), authority: authority.clone(), port })
    }

    fn is(&self, scheme: &Scheme, authority: &Authority) -> bool {
        self.is_spelled(scheme, authority)
            || (self.scheme == *scheme && self.is_server(scheme, authority))
    }

    /// Returns true if a request spells the origin exactly as it was configured, as nearly all do.
    #[inline]
    fn is_spelled(&self, scheme: &Scheme, authority: &Authority) -> bool {
        self.authority.as_str() == authority.as_str() && self.scheme == *scheme
    }

    /// Returns true if another spelling names the same server.
    #[cold]
    fn is_server(&self, scheme: &Scheme, authority: &Authority) -> bool {
        self.authority.host().eq_ignore_ascii_case(authority.host())
            && effective_port(scheme, authority) == Some(self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(origin: &str, uri: &str) -> bool {
        Origins::new([origin]).unwrap().find(&uri.parse().unwrap()).is_some()
    }

    #[test]
    fn origin_is_scheme_host_and_port() {
        for uri in [
            "https://api.test",
            "https://api.test/",
            "https://API.Test:443/v1?x#y",
            "HTTPS://api.test/",
        ] {
            assert!(allows("https://api.test", uri), "{uri}");
        }
        for uri in [
            "http://api.test/",
            "https://api.test:444/",
            "https://api.test.evil.test/",
            "https://xapi.test/",
            "https://api.test./",
            "https://api.test@evil.test/",
            "https://evil.test/https://api.test/",
            "https://api.test:/",
            "wss://api.test/",
            "api.test:443",
        ] {
            assert!(!allows("https://api.test", uri), "{uri}");
        }
    }

    #[test]
    fn ports_and_ip_addresses_are_compared() {
        assert!(allows("https://api.test:443", "https://api.test/"));
        assert!(allows("http://api.test:80", "http://api.test/"));
        assert!(!allows("http://api.test:80", "https://api.test:80/"));
        assert!(allows("https://[::1]:8443", "https://[::1]:8443/x"));
        assert!(!allows("https://[::1]:8443", "https://[::1]/x"));
        assert!(allows("http://127.0.0.1:1", "http://127.0.0.1:1/x"));
    }

    #[test]
    fn user_information_does_not_change_the_host() {
        assert!(allows("https://api.test", "https://user:pass@api.test/"));
        assert!(!allows("https://api.test", "https://api.test:443@evil.test/"));
    }

    #[test]
    fn request_without_authority_is_allowed_where_named() {
        let named = Origins::new(["https://api.test"]).unwrap();
        let both = named.clone().and_without_authority();
        let allowed = |origins: &Origins, uri| origins.find(&Uri::from_static(uri)).is_some();
        for (uri, expected) in [
            ("/pkg.Service/Method", [false, true, true]),
            ("/", [false, true, true]),
            ("*", [false, true, true]),
            ("/a//b\\c", [false, true, true]),
            ("/%09/evil.test", [false, true, true]),
            ("https://api.test/", [true, true, false]),
            ("https://api.test//x", [true, true, false]),
            ("https://evil.test/", [false; 3]),
            ("//evil.test/x", [false; 3]),
            ("/\\evil.test/x", [false; 3]),
            ("/\\/evil.test/x", [false; 3]),
        ] {
            let origins = [&named, &both, &Origins::without_authority()];
            assert_eq!(origins.map(|origins| allowed(origins, uri)), expected, "{uri}");
        }
    }

    #[test]
    fn path_that_resolves_to_another_host_gets_no_token() {
        for path in ["//e.test", "/\\e.test", "/\t/e.test", "\t//e.test", "/\n\\e.test", "/x\u{7f}"]
        {
            assert!(!is_path_on_same_host(path), "{path:?}");
        }
    }

    #[test]
    fn empty_list_is_an_error() {
        assert_eq!(Origins::new([""; 0]), Err(ConfigError::NoOrigin));
    }

    #[test]
    fn invalid_origin_is_an_error_with_its_reason() {
        for (text, reason) in [
            ("", "not a URL"),
            ("api.test", "scheme"),
            ("https://", "not a URL"),
            ("ftp://api.test", "scheme https"),
            ("https://api.test/v1", "path"),
            ("https://api.test/?q=hunter2", "path"),
            ("https://api.test#x", "path"),
            ("https://u:hunter2@api.test", "user information"),
            ("https://api.test:0", "port"),
            ("https://api.test:", "port"),
            ("https://api.test:+81", "port"),
            ("https://api.test:-81", "port"),
            ("https://*.api.test", "pattern"),
        ] {
            let error = Origins::new([text]).unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
